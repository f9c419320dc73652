/*
 * The load generator: one thread, one epoll, closed loop. Every connection sends `pipeline` messages at once,
 * waits until all their answers are back, checks them and begins again. Prints one line of JSON.
 *
 *   load --port P --connections N --seconds S and one of
 *     --bytes B                                        echo: a message of B bytes comes back as it is
 *     --request FILE --reply-bytes N | --expect FILE   these bytes out; N bytes, or exactly those, back
 *   --counts-as M                                      one request holds M messages
 *   --hello FILE --hello-until HEX | --hello-bytes N   said once per connection, before the first message
 *   --join FILE --join-until HEX                       said once after that
 *   --joins J                                          FILE is J equal parts, which the connections take in turn
 *   --fan-out                                          the first connection sends, all of them get the answer
 *   --groups G                                         with it: the answer is G equal parts, taken in the same way
 *   --idle                                             one message each, print {"ready":N}, hold till stdin ends
 * Compiled WITH_TLS it speaks TLS, and takes every certificate.
 *   --host H --warmup S --pipeline K --pid SERVER      the server's processor time is read from /proc
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

enum { EVENTS = 512, BUFFER = 256 * 1024, PATIENCE_S = 10 };
enum { SHIFTS = 4096, FULL_CHECK = 4096, CHECK_EDGE = 512 };
/* The server's own files and, when memory is measured, the connections it holds already. */
enum { SPARE_DESCRIPTORS = 1100 };
/* Not a fault: the case cannot run on this machine. */
enum { EXIT_UNAVAILABLE = 3 };

struct bytes {
  char *data;
  size_t length;
};

struct peer {
  int fd;
#ifdef WITH_TLS
  SSL *ssl;
#endif
  bool writing;
  uint32_t rounds;
  size_t shift; /* where in the pattern this round begins: differs by connection and by round */
  size_t sent, got;
  uint64_t began;
};

static struct {
  const char *host, *port;
  int connections, pipeline, pid, joins, groups;
  double seconds, warmup;
  size_t message, reply, counts_as;
  struct bytes request, expect, hello, until, join, joined;
  size_t hello_bytes;
  bool idle, echo, fan_out;
} options = {.host = "127.0.0.1", .connections = 1, .pipeline = 1, .joins = 1, .groups = 1, .seconds = 3, .warmup = 1, .counts_as = 1};

static struct peer *peers;
static int epoll, alive;
static int waiting; /* with fan_out: how many have not got all of this round */
static char buffer[BUFFER];
/* What one round sends and gets; expected.data is NULL when answers are only counted. */
static struct bytes outgoing, expected;
static size_t round_out, round_in;
static uint64_t messages, errors;
static bool stopping;
static char first_error[256];

static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "load: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
  exit(1);
}

static uint64_t nanoseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* ---- latency: a histogram with 64 buckets per power of two, so within 1.6 % of the truth ---- */

enum { SUB_BITS = 6, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };
static uint64_t histogram[BUCKETS], recorded;

static void record(uint64_t value) {
  int shift = value < SUB ? 0 : 63 - __builtin_clzll(value) - SUB_BITS;
  uint64_t bucket = value < SUB ? value : (uint64_t)(shift + 1) * SUB + (value >> shift) - SUB;
  histogram[bucket]++;
  recorded++;
}

static double percentile_us(double share) {
  uint64_t wanted = (uint64_t)((double)recorded * share), seen = 0;
  for (uint64_t i = 0; i < BUCKETS; i++) {
    seen += histogram[i];
    if (seen <= wanted) continue;
    if (i < SUB) return (double)i / 1000;
    uint64_t shift = i / SUB - 1;
    return (double)((((i % SUB) + SUB) << shift) + ((1ull << shift) >> 1)) / 1000;
  }
  return 0;
}

/* ---- processor time from /proc, read here so that it fits the window exactly ---- */

static int64_t ticks_to_us(unsigned long ticks) {
  return (int64_t)(ticks * (1000000ul / (unsigned long)sysconf(_SC_CLK_TCK)));
}

static bool read_proc(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t length = read(fd, text, size - 1);
  close(fd);
  if (length <= 0) return false;
  text[length] = 0;
  return true;
}

/* All threads of the server, user and system. */
static int64_t server_cpu_us(void) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", options.pid);
  if (options.pid == 0 || !read_proc(path, text, sizeof text)) return 0;
  char *after_name = strrchr(text, ')');
  unsigned long user, system;
  const char *format = ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu";
  if (after_name == NULL || sscanf(after_name, format, &user, &system) != 2) return 0;
  return ticks_to_us(user + system);
}

/* All processes on the machine: what exceeds server and client disturbed the measurement. */
static int64_t machine_cpu_us(void) {
  char text[256];
  unsigned long user, nice, system, irq, softirq, steal;
  if (!read_proc("/proc/stat", text, sizeof text)) return 0;
  const char *format = "cpu %lu %lu %lu %*u %*u %lu %lu %lu";
  if (sscanf(text, format, &user, &nice, &system, &irq, &softirq, &steal) != 6) return 0;
  return ticks_to_us(user + nice + system + irq + softirq + steal);
}

/* ---- what is sent and what must come back ---- */

static char *reserve(size_t length) {
  char *data = malloc(length == 0 ? 1 : length);
  if (data == NULL) die("no memory for %zu bytes", length);
  return data;
}

static struct bytes repeat(struct bytes once, int times) {
  struct bytes all = {reserve(once.length * (size_t)times), once.length * (size_t)times};
  for (int i = 0; i < times; i++) memcpy(all.data + (size_t)i * once.length, once.data, once.length);
  return all;
}

/* Longer than a round by SHIFTS: each round is a window into it, so a mixed up or stale answer shows. */
static struct bytes pattern(size_t length) {
  struct bytes all = {reserve(length + SHIFTS), length + SHIFTS};
  uint32_t state = 2463534242u;
  for (size_t i = 0; i < all.length; i++) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    all.data[i] = (char)(state >> 8);
  }
  return all;
}

static void prepare_round(void) {
  if (options.echo) {
    round_out = round_in = options.message * (size_t)options.pipeline;
    outgoing = expected = pattern(round_out);
    return;
  }
  outgoing = repeat(options.request, options.pipeline);
  round_out = outgoing.length;
  if (options.expect.data != NULL) {
    expected = repeat(options.expect, options.pipeline);
    options.reply = options.expect.length / (size_t)options.groups;
  }
  round_in = options.reply * (size_t)options.pipeline;
}

/* Every byte of small reads; of large ones both edges, and everything in one of 16 rounds, to save time. */
static bool right(const struct peer *peer, const char *data, size_t length) {
  if (expected.data == NULL) return true;
  const char *wanted = expected.data + peer->shift + peer->got;
  if (length <= FULL_CHECK || peer->rounds % 16 == 0) return memcmp(data, wanted, length) == 0;
  size_t end = length - CHECK_EDGE;
  return memcmp(data, wanted, CHECK_EDGE) == 0 && memcmp(data + end, wanted + end, CHECK_EDGE) == 0;
}

/* ---- bytes of one connection: a negative number and errno, as send and recv have it ---- */

#ifdef WITH_TLS
static SSL_CTX *tls;

static ssize_t outcome(SSL *ssl, int n) {
  if (n > 0) return n;
  int error = SSL_get_error(ssl, n);
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
  return -1;
}

static ssize_t put(struct peer *peer, const char *data, size_t length) {
  return outcome(peer->ssl, SSL_write(peer->ssl, data, (int)length));
}

static ssize_t get(struct peer *peer, char *data, size_t length) {
  return outcome(peer->ssl, SSL_read(peer->ssl, data, (int)length));
}

/* Bytes wait that epoll knows nothing of: decrypted ones, or the next record, or a part of it. */
static bool has_more(const struct peer *peer) {
  return SSL_has_pending(peer->ssl) == 1;
}

static void shake_hands(struct peer *peer) {
  if (tls == NULL) {
    tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(tls, 1);
  }
  peer->ssl = SSL_new(tls);
  SSL_set_fd(peer->ssl, peer->fd);
  if (SSL_connect(peer->ssl) != 1) die("a TLS handshake failed");
}
#else
static ssize_t put(struct peer *peer, const char *data, size_t length) {
  return send(peer->fd, data, length, MSG_NOSIGNAL);
}

static ssize_t get(struct peer *peer, char *data, size_t length) {
  return recv(peer->fd, data, length, 0);
}

static bool has_more(const struct peer *peer) {
  (void)peer;
  return false;
}

static void shake_hands(struct peer *peer) {
  (void)peer;
}
#endif

/* ---- one connection ---- */

static void fail(struct peer *peer, const char *why) {
  errors++;
  if (first_error[0] == 0) snprintf(first_error, sizeof first_error, "%s", why);
  close(peer->fd);
  peer->fd = -1;
  alive--;
}

static void watch(struct peer *peer, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = peer};
  if (epoll_ctl(epoll, operation, peer->fd, &event) != 0) die("epoll_ctl: %s", strerror(errno));
}

static void push(struct peer *peer) {
  size_t left = round_out - peer->sent;
  ssize_t sent = put(peer, outgoing.data + peer->shift + peer->sent, left);
  if (sent < 0) {
    if (errno != EAGAIN && errno != EINTR) {
      fail(peer, strerror(errno));
      return;
    }
    sent = 0;
  }
  peer->sent += (size_t)sent;
  bool writing = peer->sent < round_out;
  if (writing == peer->writing) return;
  peer->writing = writing;
  watch(peer, EPOLL_CTL_MOD, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Which of so many parts is this connection's. */
static size_t part_of(const struct peer *peer, int parts) { return (size_t)(peer - peers) % (size_t)parts; }

static void next_shift(struct peer *peer) {
  peer->rounds++;
  peer->sent = peer->got = 0;
  if (options.groups > 1) peer->shift = part_of(peer, options.groups) * options.reply;
  if (options.echo) peer->shift = ((size_t)(peer - peers) * 131 + (size_t)peer->rounds * 17) % SHIFTS;
}

static void begin_round(struct peer *peer, uint64_t now) {
  next_shift(peer);
  peer->began = now;
  push(peer);
}

/* One sends, all wait for it. */
static void begin_fan_out(uint64_t now) {
  waiting = options.connections;
  for (int i = 0; i < options.connections; i++) {
    next_shift(&peers[i]);
    peers[i].began = now;
    if (i > 0) peers[i].sent = round_out;
  }
  if (peers[0].fd >= 0) push(&peers[0]);
}

static void end_round(struct peer *peer) {
  uint64_t now = nanoseconds(CLOCK_MONOTONIC);
  record(now - peer->began);
  messages += options.counts_as * (uint64_t)options.pipeline;
  peer->began = 0;
  if (options.fan_out && --waiting > 0) return;
  if (stopping) return;
  if (options.fan_out) begin_fan_out(now);
  else begin_round(peer, now);
}

/* False when there was nothing, or nothing more can come. */
static bool pull(struct peer *peer) {
  ssize_t got = get(peer, buffer, sizeof buffer);
  if (got < 0) {
    if (errno != EAGAIN && errno != EINTR) fail(peer, strerror(errno));
    return false;
  }
  if (got == 0) {
    fail(peer, "the server closed the connection");
    return false;
  }
  if (peer->got + (size_t)got > round_in) {
    fail(peer, "more bytes came back than were expected");
    return false;
  }
  if (!right(peer, buffer, (size_t)got)) {
    fail(peer, "the bytes that came back are wrong");
    return false;
  }
  peer->got += (size_t)got;
  if (peer->got == round_in && peer->sent == round_out) end_round(peer);
  return peer->fd >= 0;
}

/* ---- opening, which blocks: one connection after another ---- */

static void send_all(struct peer *peer, const char *data, size_t length) {
  while (length > 0) {
    ssize_t sent = put(peer, data, length);
    if (sent < 0) die("sending while opening: %s", strerror(errno));
    data += sent;
    length -= (size_t)sent;
  }
}

static void receive(struct peer *peer, char *data, size_t length) {
  while (length > 0) {
    ssize_t got = get(peer, data, length);
    if (got == 0) die("the server closed a connection while it was opened");
    if (got < 0) die("waiting for an answer while opening: %s", strerror(errno));
    data += got;
    length -= (size_t)got;
  }
}

/* Reads byte by byte, so that nothing after the end of the greeting is taken. */
static void receive_until(struct peer *peer, struct bytes end) {
  size_t length = 0;
  do {
    if (length == sizeof buffer) die("no end of the greeting in %zu bytes", length);
    receive(peer, buffer + length++, 1);
  } while (length < end.length || memcmp(buffer + length - end.length, end.data, end.length) != 0);
}

static void greet(struct peer *peer) {
  send_all(peer, options.hello.data, options.hello.length);
  if (options.until.length > 0) receive_until(peer, options.until);
  else if (options.hello_bytes > sizeof buffer) die("--hello-bytes is too large");
  else receive(peer, buffer, options.hello_bytes);
  if (options.join.data == NULL) return;
  size_t length = options.join.length / (size_t)options.joins;
  send_all(peer, options.join.data + part_of(peer, options.joins) * length, length);
  receive_until(peer, options.joined);
}

static void open_peer(struct peer *peer, const struct addrinfo *address) {
  int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket: %s", strerror(errno));
  struct timeval patience = {.tv_sec = PATIENCE_S};
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) die("connect: %s", strerror(errno));
  peer->fd = fd;
  shake_hands(peer);
  if (options.hello.data != NULL) greet(peer);
}

static void open_all(void) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *address;
  int failure = getaddrinfo(options.host, options.port, &hints, &address);
  if (failure != 0) die("%s:%s: %s", options.host, options.port, gai_strerror(failure));
  for (int i = 0; i < options.connections; i++) {
    open_peer(&peers[i], address);
    if (options.idle) {
      struct peer *peer = &peers[i];
      if (round_in > sizeof buffer) die("the message is too large for --idle");
      next_shift(peer);
      send_all(peer, outgoing.data + peer->shift, round_out);
      receive(peer, buffer, round_in);
      if (!right(peer, buffer, round_in)) die("the bytes that came back are wrong");
    }
  }
  freeaddrinfo(address);
}

/* ---- the run ---- */

static void turn(int timeout) {
  static struct epoll_event events[EVENTS];
  int ready = epoll_wait(epoll, events, EVENTS, timeout);
  if (ready < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
  for (int i = 0; i < ready; i++) {
    struct peer *peer = events[i].data.ptr;
    if (peer->fd >= 0 && (events[i].events & EPOLLOUT)) push(peer);
    if (peer->fd < 0 || (events[i].events & ~(uint32_t)EPOLLOUT) == 0) continue;
    while (pull(peer) && has_more(peer)) continue;
  }
}

static uint64_t run_until(uint64_t deadline) {
  uint64_t now = nanoseconds(CLOCK_MONOTONIC);
  while (now < deadline && alive > 0) {
    turn((int)((deadline - now) / 1000000) + 1);
    now = nanoseconds(CLOCK_MONOTONIC);
  }
  return now;
}

static bool all_answered(void) {
  for (int i = 0; i < options.connections; i++)
    if (peers[i].fd >= 0 && peers[i].began != 0) return false;
  return true;
}

/* Answers under way are awaited, so that no server sees a reset and none keeps an answer unnoticed. */
static void drain(void) {
  stopping = true;
  uint64_t deadline = nanoseconds(CLOCK_MONOTONIC) + PATIENCE_S * 1000000000ull;
  while (!all_answered()) {
    if (nanoseconds(CLOCK_MONOTONIC) > deadline) {
      for (int i = 0; i < options.connections; i++)
        if (peers[i].fd >= 0 && peers[i].began != 0) fail(&peers[i], "an answer never came");
      return;
    }
    turn(100);
  }
}

static void start_all(void) {
  for (int i = 0; i < options.connections; i++) {
    struct peer *peer = &peers[i];
    fcntl(peer->fd, F_SETFL, fcntl(peer->fd, F_GETFL) | O_NONBLOCK);
    watch(peer, EPOLL_CTL_ADD, EPOLLIN);
  }
  if (options.fan_out) {
    begin_fan_out(nanoseconds(CLOCK_MONOTONIC));
    return;
  }
  for (int i = 0; i < options.connections; i++) begin_round(&peers[i], nanoseconds(CLOCK_MONOTONIC));
}

static void measure(void) {
  start_all();
  run_until(nanoseconds(CLOCK_MONOTONIC) + (uint64_t)(options.warmup * 1e9));
  memset(histogram, 0, sizeof histogram);
  recorded = messages = 0;
  int64_t machine_before = machine_cpu_us(), server_before = server_cpu_us();
  uint64_t own_before = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), began = nanoseconds(CLOCK_MONOTONIC);
  uint64_t ended = run_until(began + (uint64_t)(options.seconds * 1e9));
  uint64_t own = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own_before;
  int64_t server = server_cpu_us() - server_before, machine = machine_cpu_us() - machine_before;
  uint64_t counted = messages;
  double p50 = percentile_us(0.5), p99 = percentile_us(0.99), p999 = percentile_us(0.999);
  drain();
  double seconds = (double)(ended - began) / 1e9;
  printf("{\"messages\":%llu,\"seconds\":%.6f,\"msgPerSec\":%.1f,", (unsigned long long)counted, seconds,
         seconds > 0 ? (double)counted / seconds : 0);
  printf("\"p50us\":%.1f,\"p99us\":%.1f,\"p999us\":%.1f,", p50, p99, p999);
  printf("\"clientCpuUs\":%llu,\"serverCpuUs\":%lld,\"machineCpuUs\":%lld,", (unsigned long long)(own / 1000),
         (long long)server, (long long)machine);
  printf("\"errors\":%llu,\"firstError\":\"%s\"}\n", (unsigned long long)errors, first_error);
}

static void hold(void) {
  printf("{\"ready\":%d}\n", options.connections);
  fflush(stdout);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) continue;
}

/* ---- the command line ---- */

static struct bytes read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) die("%s: %s", path, strerror(errno));
  fseek(file, 0, SEEK_END);
  long length = ftell(file);
  rewind(file);
  struct bytes all = {reserve((size_t)length), (size_t)length};
  if (length < 0 || fread(all.data, 1, all.length, file) != all.length) die("%s: cannot read", path);
  fclose(file);
  return all;
}

static struct bytes from_hex(const char *hex) {
  struct bytes all = {reserve(strlen(hex) / 2), strlen(hex) / 2};
  for (size_t i = 0; i < all.length; i++) {
    unsigned byte;
    if (sscanf(hex + 2 * i, "%2x", &byte) != 1) die("not hexadecimal: %s", hex);
    all.data[i] = (char)byte;
  }
  return all;
}

static void parse(int argc, char **argv) {
  static const struct option names[] = {
      {"host", 1, 0, 'h'},        {"port", 1, 0, 'p'},        {"connections", 1, 0, 'c'},
      {"pipeline", 1, 0, 'k'},    {"seconds", 1, 0, 's'},     {"warmup", 1, 0, 'w'},
      {"pid", 1, 0, 'P'},         {"bytes", 1, 0, 'b'},       {"request", 1, 0, 'r'},
      {"reply-bytes", 1, 0, 'n'}, {"expect", 1, 0, 'e'},      {"counts-as", 1, 0, 'm'},
      {"hello", 1, 0, 'H'},       {"hello-until", 1, 0, 'u'}, {"hello-bytes", 1, 0, 'y'},
      {"idle", 0, 0, 'i'},        {"join", 1, 0, 'j'},        {"join-until", 1, 0, 'J'},
      {"fan-out", 0, 0, 'f'},     {"groups", 1, 0, 'g'},      {"joins", 1, 0, 'q'},
      {0}};
  for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    switch (option) {
      case 'h': options.host = optarg; break;
      case 'p': options.port = optarg; break;
      case 'c': options.connections = atoi(optarg); break;
      case 'k': options.pipeline = atoi(optarg); break;
      case 's': options.seconds = atof(optarg); break;
      case 'w': options.warmup = atof(optarg); break;
      case 'P': options.pid = atoi(optarg); break;
      case 'b': options.message = strtoul(optarg, NULL, 10), options.echo = true; break;
      case 'r': options.request = read_file(optarg); break;
      case 'n': options.reply = strtoul(optarg, NULL, 10); break;
      case 'e': options.expect = read_file(optarg); break;
      case 'H': options.hello = read_file(optarg); break;
      case 'u': options.until = from_hex(optarg); break;
      case 'y': options.hello_bytes = strtoul(optarg, NULL, 10); break;
      case 'm': options.counts_as = strtoul(optarg, NULL, 10); break;
      case 'i': options.idle = true; break;
      case 'j': options.join = read_file(optarg); break;
      case 'J': options.joined = from_hex(optarg); break;
      case 'f': options.fan_out = true; break;
      case 'g': options.groups = atoi(optarg); break;
      case 'q': options.joins = atoi(optarg); break;
      default: exit(2);
    }
  }
  if (options.port == NULL) die("--port is missing");
  if (options.connections < 1 || options.pipeline < 1) die("--connections and --pipeline start at 1");
  if (options.echo == (options.request.data != NULL)) die("give either --bytes or --request");
  if (options.echo && options.fan_out) die("--fan-out needs --request");
  if (options.groups < 1 || options.joins < 1) die("--groups and --joins start at 1");
  if (options.groups > 1 && (!options.fan_out || options.pipeline > 1)) die("--groups needs --fan-out, without --pipeline");
}

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if ((rlim_t)options.connections + SPARE_DESCRIPTORS <= limit.rlim_cur) return;
  fprintf(stderr, "%d connections need more descriptors than %lu, the limit that ulimit -Hn shows\n",
          options.connections, (unsigned long)limit.rlim_cur);
  exit(EXIT_UNAVAILABLE);
}

int main(int argc, char **argv) {
  prctl(PR_SET_PDEATHSIG, SIGTERM); /* whoever started the benchmark may be killed: do not stay behind */
  parse(argc, argv);
  raise_descriptor_limit();
  prepare_round();
  if (round_out == 0 || round_in == 0) die("a message and its answer have at least one byte");
  peers = calloc((size_t)options.connections, sizeof *peers);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (peers == NULL || epoll < 0) die("cannot start");
  alive = options.connections;
  open_all();
  if (options.idle) hold();
  else measure();
  return 0;
}
