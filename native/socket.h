/*
 * Plain socket calls: listen, connect, addresses. Everything returns a descriptor or 0, or -errno.
 * No state, any thread.
 */
#ifndef RINGLOOP_SOCKET_H
#define RINGLOOP_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An address as a slot keeps it: 24 bytes instead of the 128 of sockaddr_storage. */
typedef struct {
    uint16_t family; /* AF_INET, AF_INET6, AF_UNIX or 0 */
    uint16_t port;   /* host order */
    uint32_t scope;
    uint8_t ip[16];
} socket_addr;

typedef struct {
    bool no_delay;
    bool reuse_port;
    int keep_alive_s; /* 0: off */
    int backlog;
    int receive_buffer; /* bytes; 0: the system's, which grows */
} socket_options;

/* Longest text of socket_addr_host, with the NUL: an IPv6 address, '%' and the name of an interface. */
enum { SOCKET_ADDR_HOST = 64 };

int socket_listen_tcp(const char *ip, uint16_t port, const socket_options *options);
int socket_listen_unix(const char *path, const socket_options *options);
/* Start a connect: the socket becomes writable when it has ended. *peer is set to where it goes. */
int socket_connect_tcp(const char *ip, uint16_t port, const socket_options *options, socket_addr *peer);
int socket_connect_unix(const char *path);
/* 0, or the error of a connect that has ended. */
int socket_error(int fd);
/* The close of fd sends a reset, and what is unsent is lost. A unix socket has no reset: it ends. */
void socket_reset_on_close(int fd);

void socket_addr_set(socket_addr *out, const struct sockaddr_storage *from);
/* "1.2.3.4", "::1", "fe80::1%eth0", or "" for a unix socket; an IPv4 address mapped into IPv6 is written as IPv4. */
void socket_addr_host(const socket_addr *addr, char host[SOCKET_ADDR_HOST]);
int socket_local_addr(int fd, socket_addr *out);

#endif
