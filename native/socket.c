/* The socket calls of socket.h. No state, any thread; a descriptor that is returned is the caller's. */
#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* What the kernel takes at most. */
enum { KEEP_IDLE_MAX_S = 32767 };

static int close_with(int fd, int error)
{
    (void)close(fd);
    return error;
}

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

/* On Linux a socket inherits these from the listener that accepted it: the buffer must be set before it listens. */
static int set_tcp_options(int fd, const socket_options *options)
{
    int rc = 0;
    if (options->no_delay) rc = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (rc == 0 && options->keep_alive_s > 0) {
        rc = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        int idle = options->keep_alive_s < KEEP_IDLE_MAX_S ? options->keep_alive_s : KEEP_IDLE_MAX_S;
        if (rc == 0) rc = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
    }
    if (rc == 0 && options->receive_buffer > 0) rc = set_int(fd, SOL_SOCKET, SO_RCVBUF, options->receive_buffer);
    return rc;
}

/* A numeric address, of IPv6 with or without a zone ("fe80::1%eth0"). */
static int parse_ip(const char *ip, uint16_t port, struct sockaddr_storage *out, socklen_t *length)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(ip, NULL, &hints, &found) != 0) return -EINVAL;
    memset(out, 0, sizeof *out);
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    if (out->ss_family == AF_INET) ((struct sockaddr_in *)out)->sin_port = htons(port);
    else ((struct sockaddr_in6 *)out)->sin6_port = htons(port);
    return 0;
}

static int parse_path(const char *path, struct sockaddr_un *out)
{
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof out->sun_path) return -ENAMETOOLONG;
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    memcpy(out->sun_path, path, length + 1);
    return 0;
}

static int open_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd >= 0 ? fd : -errno;
}

int socket_listen_tcp(const char *ip, uint16_t port, const socket_options *options)
{
    struct sockaddr_storage addr;
    socklen_t length = 0;
    int rc = parse_ip(ip, port, &addr, &length);
    if (rc < 0) return rc;
    int fd = open_socket(addr.ss_family);
    if (fd < 0) return fd;
    rc = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc == 0 && options->reuse_port) rc = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (rc == 0 && addr.ss_family == AF_INET6) rc = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (rc == 0) rc = set_tcp_options(fd, options);
    if (rc == 0 && bind(fd, (struct sockaddr *)&addr, length) < 0) rc = -errno;
    if (rc == 0 && listen(fd, options->backlog) < 0) rc = -errno;
    return rc == 0 ? fd : close_with(fd, rc);
}

int socket_listen_unix(const char *path, const socket_options *options)
{
    struct sockaddr_un addr;
    int rc = parse_path(path, &addr);
    if (rc < 0) return rc;
    int fd = open_socket(AF_UNIX);
    if (fd < 0) return fd;
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0) return close_with(fd, -errno);
    if (listen(fd, options->backlog) < 0) return close_with(fd, -errno);
    return fd;
}

static int start_connect(int fd, const struct sockaddr *addr, socklen_t length)
{
    int rc;
    do rc = connect(fd, addr, length);
    while (rc < 0 && errno == EINTR);
    return rc == 0 || errno == EINPROGRESS ? fd : close_with(fd, -errno);
}

int socket_connect_tcp(const char *ip, uint16_t port, const socket_options *options, socket_addr *peer)
{
    struct sockaddr_storage addr;
    socklen_t length = 0;
    int rc = parse_ip(ip, port, &addr, &length);
    if (rc < 0) return rc;
    int fd = open_socket(addr.ss_family);
    if (fd < 0) return fd;
    rc = set_tcp_options(fd, options);
    if (rc < 0) return close_with(fd, rc);
    socket_addr_set(peer, &addr);
    return start_connect(fd, (struct sockaddr *)&addr, length);
}

int socket_connect_unix(const char *path)
{
    struct sockaddr_un addr;
    int rc = parse_path(path, &addr);
    if (rc < 0) return rc;
    int fd = open_socket(AF_UNIX);
    if (fd < 0) return fd;
    return start_connect(fd, (struct sockaddr *)&addr, sizeof addr);
}

int socket_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return -errno;
    return -error;
}

void socket_reset_on_close(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void socket_addr_set(socket_addr *out, const struct sockaddr_storage *from)
{
    memset(out, 0, sizeof *out);
    out->family = from->ss_family;
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        out->port = ntohs(v4->sin_port);
        memcpy(out->ip, &v4->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        out->port = ntohs(v6->sin6_port);
        out->scope = v6->sin6_scope_id;
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
            out->family = AF_INET;
            memcpy(out->ip, v6->sin6_addr.s6_addr + 12, 4);
        } else {
            memcpy(out->ip, &v6->sin6_addr, 16);
        }
    }
}

void socket_addr_host(const socket_addr *addr, char host[SOCKET_ADDR_HOST])
{
    host[0] = '\0';
    if (addr->family != AF_INET && addr->family != AF_INET6) return;
    if (inet_ntop(addr->family, addr->ip, host, SOCKET_ADDR_HOST) == NULL) {
        host[0] = '\0';
        return;
    }
    if (addr->family == AF_INET || addr->scope == 0) return;
    size_t length = strlen(host);
    char zone[IF_NAMESIZE];
    if (if_indextoname(addr->scope, zone) != NULL) {
        (void)snprintf(host + length, SOCKET_ADDR_HOST - length, "%%%s", zone);
    }
}

int socket_local_addr(int fd, socket_addr *out)
{
    struct sockaddr_storage addr;
    socklen_t length = sizeof addr;
    memset(&addr, 0, sizeof addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &length) < 0) return -errno;
    socket_addr_set(out, &addr);
    return 0;
}
