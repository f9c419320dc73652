/*
 * The yardstick: a plain single-threaded epoll echo server, as a careful C programmer writes it. One recv and
 * one send per readable socket, level-triggered. What the kernel does not take is kept, and reading of that
 * socket pauses until it is gone.
 *
 *   echo-epoll [PORT]     port 0, the default, lets the kernel choose; ends on SIGTERM
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, BUFFER = 64 * 1024, BACKLOG = 4096 };

/* The unsent rest of one connection, found by its descriptor. */
struct rest {
  char *data;
  size_t length, offset;
};

static char buffer[BUFFER];
static struct rest *rests;
static int epoll;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void on_terminate(int signal) {
  (void)signal;
  _exit(0);
}

static size_t raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
  return (size_t)limit.rlim_cur;
}

static int listen_on(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  if (listen(fd, BACKLOG) != 0) die("listen");
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) die("getsockname");
  printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static void watch(int operation, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(epoll, operation, fd, &event) != 0) die("epoll_ctl");
}

static void accept_all(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN) return;
      if (errno == EINTR || errno == ECONNABORTED) continue;
      die("accept4");
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
  }
}

static void drop(int fd) {
  free(rests[fd].data);
  rests[fd] = (struct rest){0};
  close(fd);
}

static void keep_rest(int fd, const char *data, size_t length) {
  char *copy = malloc(length);
  if (copy == NULL) die("malloc");
  memcpy(copy, data, length);
  rests[fd] = (struct rest){.data = copy, .length = length};
  watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void echo(int fd) {
  ssize_t got = recv(fd, buffer, sizeof buffer, 0);
  if (got <= 0) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) drop(fd);
    return;
  }
  ssize_t sent = send(fd, buffer, (size_t)got, MSG_NOSIGNAL);
  if (sent == got) return;
  if (sent < 0) {
    if (errno != EAGAIN && errno != EINTR) {
      drop(fd);
      return;
    }
    sent = 0;
  }
  keep_rest(fd, buffer + sent, (size_t)(got - sent));
}

static void flush_rest(int fd) {
  struct rest *rest = &rests[fd];
  ssize_t sent = send(fd, rest->data + rest->offset, rest->length - rest->offset, MSG_NOSIGNAL);
  if (sent < 0) {
    if (errno != EAGAIN && errno != EINTR) drop(fd);
    return;
  }
  rest->offset += (size_t)sent;
  if (rest->offset < rest->length) return;
  free(rest->data);
  *rest = (struct rest){0};
  watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

int main(int argc, char **argv) {
  /* Whoever started the benchmark may be killed: this process must not stay behind. */
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  signal(SIGTERM, on_terminate);
  rests = calloc(raise_descriptor_limit(), sizeof *rests);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (rests == NULL || epoll < 0) die("start");
  int listener = listen_on(argc > 1 ? (uint16_t)atoi(argv[1]) : 0);
  watch(EPOLL_CTL_ADD, listener, EPOLLIN);

  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) accept_all(listener);
      else if (rests[fd].data != NULL) flush_rest(fd);
      else echo(fd);
    }
  }
}
