/* The poller of poller.h: slots, one turn over what epoll reports, lingering. No static state: one thread each. */
#include "poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "mailbox.h"
#include "send-ring.h"
#include "unmask.h"

enum { SLOT_FREE, SLOT_OPEN, SLOT_CONNECTING, SLOT_PARKED, SLOT_LINGERING, SLOT_CLOSED, SLOT_HANDSHAKING };
enum { TAG_SLOT, TAG_LISTENER, TAG_MAILBOX };
enum { NO_SLOT = -1 }; /* the end of a list of slots */
enum { WRITE_MAX = 1 << 30, WRITE_STEP_MAX = 1 << 20 }; /* of one write; of one write through TLS */
enum { HANDSHAKE_RECORDS = 4, READ_RECORDS = 2 }; /* that one step of TLS adds at most */
enum { MANY = 16 }; /* from so many sends on the ring is faster than the calls */

typedef struct {
    int fd;
    uint8_t state;
    bool detached : 1;   /* taken out of the epoll set after a hangup while reading was off */
    bool want_write : 1; /* a write was short: report when there is room */
    bool want_read : 1;
    bool told_left : 1;  /* RECORD_LEFT or RECORD_END was reported since reading was last turned on */
    bool secure : 1;     /* it speaks TLS; the session may still have to be made */
    bool owes : 1;       /* ciphertext waits until there is room */
    bool ends : 1;       /* when that is gone our side ends */
    bool accepted : 1;   /* of a handshake: it is in their queue */
    int next, prev;    /* of the free list, or of the queues of lingering slots and of handshakes */
    union {
        int64_t deadline;  /* of a lingering slot, in ms */
        int64_t began;     /* of a handshake, in us */
        unmask_state mask; /* of an open one */
    };
    socket_addr peer;
} slot_t;

typedef struct {
    int fd; /* -1: closed */
    bool park, accepting;
} listener_t;

struct poller {
    int epoll_fd, event_fd, mailbox;
    poller_memory memory;
    struct epoll_event *events;
    slot_t *slots;
    int slot_count, slot_capacity;
    int first_free;
    int first_closed;               /* closed during this turn: events may still name them, so not free yet */
    int first_lingering, last_lingering; /* in the order of their deadlines */
    uint32_t lingering, max_lingering;
    tls_context *tls; /* of accepted sockets; NULL: they are plain */
    tls_io *io;       /* NULL until there is TLS */
    tls_session **sessions; /* by slot */
    int session_capacity;
    int first_handshake, last_handshake; /* of accepted sockets, in the order of their begin */
    uint32_t handshakes, max_handshakes;
    int steps; /* of handshakes in this turn */
    listener_t *listeners;
    int listener_count;
    bool park_mailbox, in_turn, stopped;
    uint32_t used, records; /* of the slab and the table, in this dispatch */
    send_ring *ring;        /* made when first needed */
    bool may_ring;          /* it was not tried yet */
    poller_dispatch dispatch;
    void *context;
};

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t tag_of(uint32_t kind, int index)
{
    return (uint64_t)kind << 32 | (uint32_t)index;
}

static int epoll_set(const poller *p, int op, int fd, uint32_t interest, uint64_t tag)
{
    struct epoll_event event = {.events = interest, .data.u64 = tag};
    return epoll_ctl(p->epoll_fd, op, fd, &event) == 0 ? 0 : -errno;
}

/* ---- slots -------------------------------------------------------------------------------------------------- */

static slot_t *slot_in(const poller *p, int slot, uint8_t state)
{
    if (slot < 0 || slot >= p->slot_count) return NULL;
    return p->slots[slot].state == state ? &p->slots[slot] : NULL;
}

static int grow_slots(poller *p)
{
    int capacity = p->slot_capacity == 0 ? 64 : p->slot_capacity * 2;
    if (capacity > 1 << 28) return -ENFILE;
    slot_t *slots = realloc(p->slots, (size_t)capacity * sizeof *slots);
    if (slots == NULL) return -ENOMEM;
    p->slots = slots;
    p->slot_capacity = capacity;
    return 0;
}

static int take_slot(poller *p, int fd, uint8_t state)
{
    int slot = p->first_free;
    if (slot != NO_SLOT) {
        p->first_free = p->slots[slot].next;
    } else {
        if (p->slot_count == p->slot_capacity) {
            int rc = grow_slots(p);
            if (rc < 0) return rc;
        }
        slot = p->slot_count++;
    }
    p->slots[slot] = (slot_t){.fd = fd, .state = state, .next = NO_SLOT, .prev = NO_SLOT};
    return slot;
}

static void free_slot(poller *p, int slot)
{
    int *list = p->in_turn ? &p->first_closed : &p->first_free;
    p->slots[slot].fd = -1;
    p->slots[slot].state = p->in_turn ? SLOT_CLOSED : SLOT_FREE;
    p->slots[slot].next = *list;
    *list = slot;
}

static void recycle_slots(poller *p)
{
    while (p->first_closed != NO_SLOT) {
        int slot = p->first_closed;
        p->first_closed = p->slots[slot].next;
        p->slots[slot].state = SLOT_FREE;
        p->slots[slot].next = p->first_free;
        p->first_free = slot;
    }
}

static uint32_t interest_of(const slot_t *s)
{
    bool watch_end = s->state == SLOT_OPEN && !s->want_read && !s->told_left;
    return (s->want_read ? (uint32_t)EPOLLIN : 0) | (s->want_write || s->owes ? (uint32_t)EPOLLOUT : 0) |
           (watch_end ? (uint32_t)EPOLLRDHUP : 0);
}

static int update_interest(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    if (s->detached) return 0;
    return epoll_set(p, EPOLL_CTL_MOD, s->fd, interest_of(s), tag_of(TAG_SLOT, slot));
}

static int watch_slot(poller *p, int slot, bool want_read, bool want_write)
{
    slot_t *s = &p->slots[slot];
    s->want_read = want_read;
    s->want_write = want_write;
    return epoll_set(p, EPOLL_CTL_ADD, s->fd, interest_of(s), tag_of(TAG_SLOT, slot));
}

/* ---- a turn ------------------------------------------------------------------------------------------------- */

static void dispatch_records(poller *p)
{
    uint32_t count = p->records;
    p->records = 0;
    p->used = 0;
    if (count > 0) p->dispatch(p->context, count);
}

/* There must be room: see dispatch_if_full. */
static void put_record(poller *p, int slot, int32_t offset, int32_t length, int32_t kind)
{
    p->memory.in_records[p->records++] = (in_record){slot, offset, length, kind};
}

static void dispatch_if_full(poller *p)
{
    if (p->records == RECORDS_MAX || p->used >= READ_BUDGET) dispatch_records(p);
}

static void add_record(poller *p, int slot, int32_t offset, int32_t length, int32_t kind)
{
    put_record(p, slot, offset, length, kind);
    dispatch_if_full(p);
}

/* Out of the set: its error would be reported again and again. */
static void fail_slot(poller *p, int slot, int error)
{
    slot_t *s = &p->slots[slot];
    s->want_read = s->want_write = false;
    s->detached = true;
    (void)epoll_set(p, EPOLL_CTL_DEL, s->fd, 0, 0);
    add_record(p, slot, 0, error, RECORD_ERROR);
}

/* The peer has ended its side. */
static void end_slot(poller *p, int slot)
{
    p->slots[slot].want_read = false;
    p->slots[slot].told_left = true;
    (void)update_interest(p, slot);
    add_record(p, slot, 0, 0, RECORD_END);
}

static ssize_t receive(int fd, uint8_t *to, size_t room)
{
    ssize_t n;
    do n = recv(fd, to, room, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n;
}

/* `length` plain bytes lie at the end of what is used. */
static void put_read(poller *p, int slot, size_t length)
{
    uint32_t at = p->used;
    unmask(&p->slots[slot].mask, p->memory.in_slab + at, length);
    p->used = at + (uint32_t)length;
    put_record(p, slot, (int32_t)at, (int32_t)length, RECORD_READ);
}

static void read_slot(poller *p, int slot)
{
    ssize_t n = receive(p->slots[slot].fd, p->memory.in_slab + p->used, READ_MAX);
    if (n > 0) {
        put_read(p, slot, (size_t)n);
        dispatch_if_full(p);
        return;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n < 0) {
        fail_slot(p, slot, -errno);
        return;
    }
    end_slot(p, slot);
}

/* A broken socket is reported for as long as it is in the set, whatever the interest: out with it until it is wanted. */
static void hang_up(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    s->detached = true;
    (void)epoll_set(p, EPOLL_CTL_DEL, s->fd, 0, 0);
    add_record(p, slot, 0, 0, RECORD_HANGUP);
}

static void tell_left(poller *p, int slot)
{
    p->slots[slot].told_left = true;
    (void)update_interest(p, slot);
    add_record(p, slot, 0, 0, RECORD_LEFT);
}

static void start_client_handshake(poller *p, int slot);

static void finish_connect(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    int error = socket_error(s->fd);
    s->state = SLOT_OPEN;
    if (error < 0) {
        fail_slot(p, slot, error);
        return;
    }
    s->want_write = false;
    s->want_read = true;
    (void)update_interest(p, slot);
    if (s->secure) start_client_handshake(p, slot);
    else add_record(p, slot, 0, 0, RECORD_CONNECT);
}

static void end_lingering(poller *p, int slot);
static void shake_hands(poller *p, int slot);
static void read_secure(poller *p, int slot);
static bool pay_debt(poller *p, int slot);

/* Throws away what comes; true when there is nothing left to wait for. */
static bool discard(int fd)
{
    char scratch[16 * 1024];
    for (int i = 0; i < 16; i++) {
        ssize_t n = recv(fd, scratch, sizeof scratch, MSG_DONTWAIT);
        if (n == 0) return true;
        if (n < 0 && errno != EINTR) return errno != EAGAIN && errno != EWOULDBLOCK;
    }
    return false;
}

static void handle_slot(poller *p, int slot, uint32_t events)
{
    uint8_t state = p->slots[slot].state;
    if (state == SLOT_CONNECTING) {
        finish_connect(p, slot);
    } else if (state == SLOT_LINGERING) {
        bool sent = !(events & EPOLLOUT) || !p->slots[slot].owes || pay_debt(p, slot);
        if (!sent || discard(p->slots[slot].fd)) end_lingering(p, slot);
    } else if (state == SLOT_OPEN) {
        if ((events & EPOLLOUT) && p->slots[slot].owes) (void)pay_debt(p, slot);
        if ((events & EPOLLOUT) && p->slots[slot].want_write && !p->slots[slot].owes) {
            p->slots[slot].want_write = false;
            (void)update_interest(p, slot);
            add_record(p, slot, 0, 0, RECORD_WRITABLE);
        }
        /* The dispatch of a full table may have closed it or turned reading off. */
        if (slot_in(p, slot, SLOT_OPEN) == NULL) return;
        if (p->slots[slot].want_read) {
            if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) return;
            if (p->slots[slot].secure) read_secure(p, slot);
            else read_slot(p, slot);
        } else if ((events & (EPOLLERR | EPOLLHUP)) && !p->slots[slot].detached) {
            hang_up(p, slot);
        } else if ((events & EPOLLRDHUP) && !p->slots[slot].told_left) {
            tell_left(p, slot);
        }
    } else if (state == SLOT_HANDSHAKING) {
        shake_hands(p, slot);
    }
}

static void admit_handshake(poller *p, int fd, const socket_addr *peer, int listener);

/* A socket of a listener or of the mailbox gets its slot; one for which there is none is closed and reported lost. */
static void admit(poller *p, int fd, const socket_addr *peer, bool park, int listener)
{
    if (p->tls != NULL && !park) {
        admit_handshake(p, fd, peer, listener);
        return;
    }
    int slot = take_slot(p, fd, park ? SLOT_PARKED : SLOT_OPEN);
    if (slot >= 0) p->slots[slot].peer = *peer;
    if (slot >= 0 && (park || watch_slot(p, slot, true, false) == 0)) {
        add_record(p, slot, listener, 0, RECORD_ACCEPT);
        return;
    }
    (void)close(fd);
    if (slot >= 0) free_slot(p, slot);
    add_record(p, NO_SLOT, listener, 0, RECORD_LOST);
}

static void handle_listener(poller *p, int listener)
{
    for (int i = 0; i < ACCEPT_MAX; i++) {
        struct sockaddr_storage from;
        socklen_t length = sizeof from;
        if (p->stopped || p->listeners[listener].fd < 0 || !p->listeners[listener].accepting) return;
        from.ss_family = AF_UNSPEC;
        int fd = accept4(p->listeners[listener].fd, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            socket_addr peer;
            socket_addr_set(&peer, &from);
            admit(p, fd, &peer, p->listeners[listener].park, listener);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            int error = -errno;
            (void)poller_set_accepting(p, listener, false);
            add_record(p, listener, 0, error, RECORD_ACCEPT_ERROR);
            return;
        } /* else the one connection failed (ECONNABORTED, EINTR, the network's): on to the next */
    }
}

static void handle_mailbox(poller *p)
{
    mailbox_item items[ACCEPT_MAX];
    bool has_post;
    size_t count = mailbox_take(p->mailbox, items, ACCEPT_MAX, &has_post);
    for (size_t i = 0; i < count; i++) {
        if (p->stopped) (void)close(items[i].fd);
        else admit(p, items[i].fd, &items[i].peer, p->park_mailbox, COUNTED);
    }
    if (has_post && !p->stopped) add_record(p, NO_SLOT, 0, 0, RECORD_POST);
}

void poller_turn(poller *p, poller_dispatch dispatch, void *context)
{
    if (p->stopped || p->in_turn) return;
    int count = epoll_wait(p->epoll_fd, p->events, EVENTS_MAX, 0);
    p->in_turn = true;
    p->steps = 0;
    p->dispatch = dispatch;
    p->context = context;
    for (int i = 0; i < count && !p->stopped; i++) {
        int index = (int)(uint32_t)p->events[i].data.u64;
        switch (p->events[i].data.u64 >> 32) {
        case TAG_SLOT: handle_slot(p, index, p->events[i].events); break;
        case TAG_LISTENER: handle_listener(p, index); break;
        default: handle_mailbox(p);
        }
    }
    if (!p->stopped) dispatch_records(p);
    p->in_turn = false;
    if (!p->stopped) recycle_slots(p);
}

/* ---- life --------------------------------------------------------------------------------------------------- */

static int open_poller(poller *p)
{
    p->events = calloc(EVENTS_MAX, sizeof *p->events);
    if (p->events == NULL) return -ENOMEM;
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll_fd < 0) return -errno;
    p->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->event_fd < 0) return -errno;
    int rc = epoll_set(p, EPOLL_CTL_ADD, p->event_fd, EPOLLIN, tag_of(TAG_MAILBOX, 0));
    if (rc < 0) return rc;
    p->mailbox = mailbox_open(p->event_fd);
    return p->mailbox < 0 ? p->mailbox : 0;
}

poller *poller_new(const poller_memory *memory, uint32_t max_lingering, bool may_ring, int *error)
{
    poller *p = calloc(1, sizeof *p);
    if (p == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    p->memory = *memory;
    p->max_lingering = max_lingering;
    p->may_ring = may_ring;
    p->epoll_fd = p->event_fd = -1;
    p->first_free = p->first_closed = p->first_lingering = p->last_lingering = NO_SLOT;
    p->first_handshake = p->last_handshake = NO_SLOT;
    *error = open_poller(p);
    if (*error == 0) return p;
    poller_stop(p);
    poller_free(p);
    return NULL;
}

void poller_stop(poller *p)
{
    if (p->stopped) return;
    p->stopped = true;
    if (p->mailbox > 0) mailbox_close(p->mailbox);
    for (int i = 0; i < p->slot_count; i++) {
        if (p->slots[i].fd >= 0) (void)close(p->slots[i].fd);
    }
    for (int i = 0; i < p->listener_count; i++) {
        if (p->listeners[i].fd >= 0) (void)close(p->listeners[i].fd);
    }
    if (p->event_fd >= 0) (void)close(p->event_fd);
    if (p->epoll_fd >= 0) (void)close(p->epoll_fd);
    send_ring_free(p->ring);
    p->ring = NULL;
    for (int i = 0; i < p->session_capacity; i++) tls_session_free(p->sessions[i]);
    p->session_capacity = 0;
    tls_context_drop(p->tls);
    p->tls = NULL;
    p->slot_count = p->listener_count = 0;
    p->lingering = p->handshakes = 0;
    p->first_handshake = p->last_handshake = NO_SLOT;
    p->first_lingering = p->last_lingering = NO_SLOT;
    p->first_free = p->first_closed = NO_SLOT;
    p->epoll_fd = p->event_fd = -1;
}

void poller_free(poller *p)
{
    tls_io_free(p->io);
    free(p->sessions);
    free(p->events);
    free(p->slots);
    free(p->listeners);
    free(p);
}

int poller_fd(const poller *p)
{
    return p->epoll_fd;
}

int poller_mailbox(const poller *p)
{
    return p->mailbox;
}

void poller_park_mailbox(poller *p, bool park)
{
    p->park_mailbox = park;
}

/* ---- listeners ---------------------------------------------------------------------------------------------- */

static int add_listener(poller *p, int fd, bool park)
{
    if (fd < 0) return fd;
    listener_t *listeners = realloc(p->listeners, (size_t)(p->listener_count + 1) * sizeof *listeners);
    int rc = listeners == NULL ? -ENOMEM : 0;
    if (listeners != NULL) p->listeners = listeners;
    if (rc == 0) rc = epoll_set(p, EPOLL_CTL_ADD, fd, EPOLLIN, tag_of(TAG_LISTENER, p->listener_count));
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    p->listeners[p->listener_count] = (listener_t){.fd = fd, .park = park, .accepting = true};
    return p->listener_count++;
}

static bool is_listener(const poller *p, int listener)
{
    return listener >= 0 && listener < p->listener_count && p->listeners[listener].fd >= 0;
}

int poller_listen_tcp(poller *p, const char *ip, uint16_t port, const socket_options *options, bool park)
{
    if (p->stopped) return -ESHUTDOWN;
    return add_listener(p, socket_listen_tcp(ip, port, options), park);
}

int poller_listen_unix(poller *p, const char *path, const socket_options *options, bool park)
{
    if (p->stopped) return -ESHUTDOWN;
    return add_listener(p, socket_listen_unix(path, options), park);
}

int poller_listener_port(const poller *p, int listener)
{
    socket_addr addr;
    if (!is_listener(p, listener)) return -EBADF;
    int rc = socket_local_addr(p->listeners[listener].fd, &addr);
    return rc < 0 ? rc : addr.port;
}

int poller_set_accepting(poller *p, int listener, bool on)
{
    if (!is_listener(p, listener)) return -EBADF;
    p->listeners[listener].accepting = on;
    return epoll_set(p, EPOLL_CTL_MOD, p->listeners[listener].fd, on ? EPOLLIN : 0, tag_of(TAG_LISTENER, listener));
}

int poller_close_listener(poller *p, int listener)
{
    if (!is_listener(p, listener)) return -EBADF;
    (void)epoll_set(p, EPOLL_CTL_DEL, p->listeners[listener].fd, 0, 0);
    (void)close(p->listeners[listener].fd);
    p->listeners[listener].fd = -1;
    return 0;
}

/* ---- sockets ------------------------------------------------------------------------------------------------ */

static int add_connecting(poller *p, int fd, const socket_addr *peer)
{
    if (fd < 0) return fd;
    int slot = take_slot(p, fd, SLOT_CONNECTING);
    int rc = slot;
    if (slot >= 0) {
        p->slots[slot].peer = *peer;
        rc = watch_slot(p, slot, false, true);
        if (rc < 0) free_slot(p, slot);
    }
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    return slot;
}

/* A connect that is through at once is reported like any other: the socket is writable in the next turn. */
int poller_connect_tcp(poller *p, const char *ip, uint16_t port, const socket_options *options)
{
    socket_addr peer = {0};
    if (p->stopped) return -ESHUTDOWN;
    int fd = socket_connect_tcp(ip, port, options, &peer);
    return add_connecting(p, fd, &peer);
}

int poller_connect_unix(poller *p, const char *path)
{
    socket_addr peer = {.family = AF_UNIX};
    if (p->stopped) return -ESHUTDOWN;
    return add_connecting(p, socket_connect_unix(path), &peer);
}

int poller_adopt(poller *p, int slot)
{
    slot_t *s = slot_in(p, slot, SLOT_PARKED);
    if (s == NULL) return -EBADF;
    int rc = watch_slot(p, slot, true, false);
    if (rc == 0) s->state = SLOT_OPEN;
    return rc;
}

int poller_hand_off(poller *p, int slot, int mailbox)
{
    slot_t *s = slot_in(p, slot, SLOT_PARKED);
    if (s == NULL) return -EBADF;
    mailbox_item item = {.fd = s->fd, .peer = s->peer};
    int rc = mailbox_send(mailbox, &item);
    if (rc == 0) free_slot(p, slot);
    return rc;
}

int poller_take_descriptor(poller *p, int slot)
{
    slot_t *s = slot_in(p, slot, SLOT_PARKED);
    if (s == NULL) return -EBADF;
    int fd = s->fd;
    free_slot(p, slot);
    return fd;
}

/* What a send gave: bytes taken, 0 when the kernel has no room, or -errno. */
static int taken(ssize_t n)
{
    if (n >= 0) return (int)n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}

static int send_bytes(int fd, const uint8_t *bytes, size_t length)
{
    ssize_t n;
    do n = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return taken(n);
}

static int send_pieces(int fd, struct iovec pieces[2])
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    ssize_t n;
    do n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return taken(n);
}

/* `n` of `length` bytes were taken, or there was an error. */
static int note_written(poller *p, int slot, int n, size_t length)
{
    slot_t *s = &p->slots[slot];
    if (n < 0 || (size_t)n == length || s->want_write) return n;
    s->want_write = true;
    int rc = update_interest(p, slot);
    return rc < 0 ? rc : n;
}

static int write_secure(poller *p, int slot, const struct iovec *pieces, int count);

static int write_slot(poller *p, int slot, const uint8_t *bytes, size_t length)
{
    slot_t *s = slot_in(p, slot, SLOT_OPEN);
    if (s == NULL) return -EBADF;
    if (s->secure) return write_secure(p, slot, &(struct iovec){(void *)(uintptr_t)bytes, length}, 1);
    return note_written(p, slot, send_bytes(s->fd, bytes, length), length);
}

static bool in_out_slab(int32_t offset, int32_t length)
{
    return offset >= 0 && length >= 0 && offset <= OUT_SLAB && length <= OUT_SLAB - offset;
}

/* `n` bytes of a record were taken, or there was an error; 1 where that is not all. */
static int note_flushed(out_record *r, int n, size_t length)
{
    r->length = n;
    return n < 0 || (size_t)n != length;
}

/* Each with a call of its own. How many were not taken whole. */
static int flush_singly(poller *p, out_record *records, uint32_t count)
{
    int incomplete = 0;
    for (uint32_t i = 0; i < count; i++) {
        out_record r = records[i];
        int n = in_out_slab(r.offset, r.length)
                    ? write_slot(p, r.slot, p->memory.out_slab + r.offset, (size_t)r.length)
                    : -EFAULT;
        incomplete += note_flushed(&records[i], n, (size_t)r.length);
    }
    return incomplete;
}

/* The first of them that can be sent as they lie, with one call for all. How many those were. */
static uint32_t flush_together(poller *p, out_record *records, uint32_t count, int *incomplete)
{
    ring_send sends[SEND_RING_MAX];
    int slots[SEND_RING_MAX];
    size_t wanted = 0;
    for (; wanted < count && wanted < SEND_RING_MAX; wanted++) {
        out_record r = records[wanted];
        slot_t *s = slot_in(p, r.slot, SLOT_OPEN);
        if (s == NULL || s->secure || !in_out_slab(r.offset, r.length)) break;
        slots[wanted] = r.slot;
        sends[wanted].fd = s->fd;
        sends[wanted].bytes = p->memory.out_slab + r.offset;
        sends[wanted].length = (size_t)r.length;
    }
    size_t done = send_ring_run(p->ring, sends, wanted);
    for (size_t i = 0; i < done; i++) {
        int n = sends[i].taken == -EAGAIN ? 0 : sends[i].taken;
        *incomplete += note_flushed(&records[i], note_written(p, slots[i], n, sends[i].length), sends[i].length);
    }
    if (done < wanted) {
        send_ring_free(p->ring);
        p->ring = NULL;
    }
    return (uint32_t)done;
}

static bool has_ring(poller *p)
{
    if (p->may_ring) p->ring = send_ring_new();
    p->may_ring = false;
    return p->ring != NULL;
}

int poller_flush(poller *p, uint32_t count)
{
    int incomplete = 0;
    if (p->stopped || count > OUT_RECORDS_MAX) return -EINVAL;
    out_record *records = p->memory.out_records, *end = records + count;
    while (end - records >= MANY && has_ring(p)) {
        uint32_t done = flush_together(p, records, (uint32_t)(end - records), &incomplete);
        records += done;
        /* What cannot go with the others is wrong, or is to be encrypted: a call of its own does or says that. */
        if (done == 0) incomplete += flush_singly(p, records++, 1);
    }
    return incomplete + flush_singly(p, records, (uint32_t)(end - records));
}

int poller_write(poller *p, int slot, const uint8_t *bytes, size_t length)
{
    if (length > WRITE_MAX) length = WRITE_MAX;
    return write_slot(p, slot, bytes, length);
}

int poller_write_behind(poller *p, int slot, int32_t offset, int32_t head, const uint8_t *bytes, size_t length)
{
    slot_t *s = slot_in(p, slot, SLOT_OPEN);
    if (s == NULL) return -EBADF;
    if (!in_out_slab(offset, head)) return -EFAULT;
    if (length > WRITE_MAX) length = WRITE_MAX;
    struct iovec pieces[2] = {{.iov_base = p->memory.out_slab + offset, .iov_len = (size_t)head},
                              {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length}};
    if (s->secure) return write_secure(p, slot, pieces, 2);
    return note_written(p, slot, send_pieces(s->fd, pieces), (size_t)head + length);
}

int poller_set_reading(poller *p, int slot, bool on)
{
    slot_t *s = slot_in(p, slot, SLOT_OPEN);
    if (s == NULL) return -EBADF;
    if (s->want_read == on) return 0;
    s->want_read = on;
    if (on) s->told_left = false;
    if (!s->detached) return update_interest(p, slot);
    if (!on) return 0;
    int rc = watch_slot(p, slot, true, s->want_write);
    s->detached = rc < 0;
    s->want_read = rc == 0;
    return rc;
}

int poller_unmask(poller *p, int slot)
{
    slot_t *s = slot_in(p, slot, SLOT_OPEN);
    if (s == NULL) return -EBADF;
    unmask_start(&s->mask);
    return 0;
}

static void say_end(poller *p, int slot);

/* Our side ends, with TLS behind what waits. */
static int end_writing(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    if (s->secure) say_end(p, slot);
    if (s->owes) {
        s->ends = true;
        return 0;
    }
    return shutdown(s->fd, SHUT_WR) == 0 ? 0 : -errno;
}

int poller_shutdown_write(poller *p, int slot)
{
    slot_t *s = slot_in(p, slot, SLOT_OPEN);
    return s == NULL ? -EBADF : end_writing(p, slot);
}

/* ---- the end of a socket ------------------------------------------------------------------------------------ */

static void leave_handshakes(poller *p, int slot);
static void drop_session(poller *p, int slot);

/* Out of the set first: a child process that holds a duplicate between fork and exec would keep the events coming. */
static void close_slot(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    if (s->state != SLOT_PARKED && !s->detached) (void)epoll_set(p, EPOLL_CTL_DEL, s->fd, 0, 0);
    (void)close(s->fd);
    if (s->secure) drop_session(p, slot);
    free_slot(p, slot);
}

/* Both queues are in the order in which their slots came. */
static void enqueue(poller *p, int slot, int *first, int *last)
{
    slot_t *s = &p->slots[slot];
    s->next = NO_SLOT;
    s->prev = *last;
    if (s->prev == NO_SLOT) *first = slot;
    else p->slots[s->prev].next = slot;
    *last = slot;
}

static void dequeue(poller *p, int slot, int *first, int *last)
{
    slot_t *s = &p->slots[slot];
    if (s->prev == NO_SLOT) *first = s->next;
    else p->slots[s->prev].next = s->next;
    if (s->next == NO_SLOT) *last = s->prev;
    else p->slots[s->next].prev = s->prev;
}

static void end_lingering(poller *p, int slot)
{
    dequeue(p, slot, &p->first_lingering, &p->last_lingering);
    p->lingering--;
    close_slot(p, slot);
}

static void start_lingering(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    if (p->lingering >= p->max_lingering) end_lingering(p, p->first_lingering);
    s->state = SLOT_LINGERING;
    s->deadline = now_ms() + LINGER_MS;
    enqueue(p, slot, &p->first_lingering, &p->last_lingering);
    p->lingering++;
    if (s->secure && !s->owes) drop_session(p, slot);
    if (s->detached) {
        s->detached = false;
        (void)watch_slot(p, slot, true, false);
    } else if (!s->want_read || s->want_write || s->owes) {
        s->want_read = true;
        s->want_write = false;
        (void)update_interest(p, slot);
    }
}

static bool may_linger(poller *p, int slot)
{
    const slot_t *s = &p->slots[slot];
    return p->max_lingering > 0 && s->state == SLOT_OPEN && end_writing(p, slot) == 0 && !discard(s->fd);
}

static bool may_close(const poller *p, int slot)
{
    if (slot < 0 || slot >= p->slot_count) return false;
    uint8_t state = p->slots[slot].state;
    return state == SLOT_OPEN || state == SLOT_CONNECTING || state == SLOT_PARKED || state == SLOT_HANDSHAKING;
}

int poller_close(poller *p, int slot, bool linger)
{
    if (!may_close(p, slot)) return -EBADF;
    leave_handshakes(p, slot);
    if (linger && may_linger(p, slot)) {
        start_lingering(p, slot);
        return 0;
    }
    if (p->slots[slot].secure) say_end(p, slot);
    close_slot(p, slot);
    return 0;
}

int poller_reset(poller *p, int slot)
{
    if (!may_close(p, slot)) return -EBADF;
    leave_handshakes(p, slot);
    socket_reset_on_close(p->slots[slot].fd);
    close_slot(p, slot);
    return 0;
}

uint32_t poller_expire_lingering(poller *p)
{
    int64_t now = now_ms();
    while (p->first_lingering != NO_SLOT && p->slots[p->first_lingering].deadline <= now) {
        end_lingering(p, p->first_lingering);
    }
    return p->lingering;
}

/* Of one that was closed in this turn too: its record may be about to be read. */
int poller_peer_addr(const poller *p, int slot, socket_addr *out)
{
    if (slot < 0 || slot >= p->slot_count || p->slots[slot].state == SLOT_FREE) return -EBADF;
    *out = p->slots[slot].peer;
    return 0;
}

int poller_slot_local_addr(const poller *p, int slot, socket_addr *out)
{
    if (slot < 0 || slot >= p->slot_count || p->slots[slot].fd < 0) return -EBADF;
    return socket_local_addr(p->slots[slot].fd, out);
}

/* ---- TLS ------------------------------------------------------------------------------------------------------ */

static tls_session *session_of(const poller *p, int slot)
{
    return slot < p->session_capacity ? p->sessions[slot] : NULL;
}

static int make_io(poller *p)
{
    if (p->io == NULL) p->io = tls_io_new();
    return p->io == NULL ? -ENOMEM : 0;
}

static int grow_sessions(poller *p)
{
    tls_session **sessions = realloc(p->sessions, (size_t)p->slot_capacity * sizeof(tls_session *));
    if (sessions == NULL) return -ENOMEM;
    for (int i = p->session_capacity; i < p->slot_capacity; i++) sessions[i] = NULL;
    p->sessions = sessions;
    p->session_capacity = p->slot_capacity;
    return 0;
}

static int make_session(poller *p, int slot, tls_context *context, const char *name)
{
    if (slot >= p->session_capacity && grow_sessions(p) < 0) return -ENOMEM;
    p->sessions[slot] = tls_session_new(context, p->io, name);
    return p->sessions[slot] == NULL ? -ENOMEM : 0;
}

static void drop_session(poller *p, int slot)
{
    if (session_of(p, slot) == NULL) return;
    tls_session_free(p->sessions[slot]);
    p->sessions[slot] = NULL;
}

int poller_use_tls(poller *p, tls_context *context, uint32_t max_handshakes)
{
    if (p->stopped) return -ESHUTDOWN;
    if (make_io(p) < 0) return -ENOMEM;
    tls_context_hold(context);
    tls_context_drop(p->tls);
    p->tls = context;
    p->max_handshakes = max_handshakes;
    return 0;
}

int poller_secure(poller *p, int slot, tls_context *context, const char *name)
{
    slot_t *s = slot_in(p, slot, SLOT_CONNECTING);
    if (s == NULL || s->secure) return -EBADF;
    if (make_io(p) < 0) return -ENOMEM;
    int rc = make_session(p, slot, context, name);
    s->secure = rc == 0;
    return rc;
}

const tls_session *poller_session(const poller *p, int slot)
{
    return slot_in(p, slot, SLOT_OPEN) == NULL ? NULL : session_of(p, slot);
}

/* Sends what the session has made. What the kernel has no room for waits, and the slot owes it. 0 or -errno. */
static int send_made(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    tls_session *session = p->sessions[slot];
    size_t length;
    const uint8_t *made = tls_made(session, &length);
    if (length == 0) return 0;
    int n = send_bytes(s->fd, made, length);
    int rc = tls_taken(session, n < 0 ? length : (size_t)n);
    if (n < 0 || rc < 0) return n < 0 ? n : rc;
    bool owes = (size_t)n < length;
    if (owes == s->owes) return 0;
    s->owes = owes;
    return update_interest(p, slot);
}

/* There may be room for what waits. False when it can never be sent: an open slot hears that when it writes or reads. */
static bool pay_debt(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    tls_session *session = p->sessions[slot];
    if (send_made(p, slot) < 0) {
        s->owes = false;
        (void)update_interest(p, slot);
        return false;
    }
    if (s->owes) return true;
    session->landed += session->owed;
    session->owed = 0;
    return !s->ends || shutdown(s->fd, SHUT_WR) == 0;
}

static void say_end(poller *p, int slot)
{
    if (p->slots[slot].state != SLOT_OPEN || session_of(p, slot) == NULL) return;
    tls_end(p->sessions[slot]);
    (void)send_made(p, slot);
}

/* What was encrypted before that has failed would go to whoever writes next. */
static int drop_made(tls_session *session)
{
    size_t length;
    (void)tls_made(session, &length);
    (void)tls_taken(session, length);
    return -EPROTO;
}

/* Encrypts pieces[from, from + length) of all their bytes. */
static bool encrypt(tls_session *session, const struct iovec *pieces, size_t from, size_t length)
{
    for (; length > 0; pieces++) {
        if (from >= pieces->iov_len) {
            from -= pieces->iov_len;
            continue;
        }
        size_t part = pieces->iov_len - from < length ? pieces->iov_len - from : length;
        if (!tls_write(session, (const uint8_t *)pieces->iov_base + from, part)) return false;
        length -= part;
        from = 0;
    }
    return true;
}

/*
 * Plain bytes count as taken when their ciphertext is in the kernel. What is encrypted and waits is owed: it counts when
 * the caller offers the same bytes again, after RECORD_WRITABLE.
 */
static int write_secure(poller *p, int slot, const struct iovec *pieces, int count)
{
    tls_session *session = p->sessions[slot];
    size_t total = 0;
    for (int i = 0; i < count; i++) total += pieces[i].iov_len;
    if (session->ended) return -EPIPE;
    if (session->failure != TLS_NO_FAILURE) return -EPROTO;
    size_t taken = session->landed < total ? session->landed : total;
    session->landed -= (uint32_t)taken;
    /* A quick reader would keep the loop for as long as there is something: the rest is for the next turn. */
    while (taken < total && taken < WRITE_STEP_MAX && !p->slots[slot].owes) {
        size_t length = total - taken < TLS_WRITE_MAX ? total - taken : TLS_WRITE_MAX;
        int rc = encrypt(session, pieces, taken, length) ? send_made(p, slot) : drop_made(session);
        if (rc < 0) return rc;
        if (p->slots[slot].owes) session->owed = (uint32_t)length;
        else taken += length;
    }
    return note_written(p, slot, (int)taken, total);
}

/* Room for the records of one step; false when what was dispatched for it has changed the slot. */
static bool make_room(poller *p, int slot, uint8_t state, uint32_t records)
{
    if (p->records + records > RECORDS_MAX) dispatch_records(p);
    return !p->stopped && slot_in(p, slot, state) != NULL;
}

/* Decrypts what was received. The records lie in one batch, so that what comes first cannot end what comes after it. */
static void take_received(poller *p, int slot)
{
    tls_session *session = p->sessions[slot];
    size_t length;
    tls_result result = tls_read(session, p->memory.in_slab + p->used, IN_SLAB - p->used, &length);
    if (send_made(p, slot) == 0 && p->slots[slot].owes &&
        session->waiting_end - session->waiting_at > TLS_WAITING_MAX + session->owed + session->owed / 8) {
        tls_fail(session, TLS_FLOOD);
        result = TLS_FAILED;
    }
    if (length > 0) put_read(p, slot, length);
    if (result == TLS_FAILED) fail_slot(p, slot, ERROR_TLS);
    else if (result == TLS_END) end_slot(p, slot);
    else dispatch_if_full(p);
}

static void read_secure(poller *p, int slot)
{
    if (!make_room(p, slot, SLOT_OPEN, READ_RECORDS) || !p->slots[slot].want_read) return;
    ssize_t n = receive(p->slots[slot].fd, p->io->in, TLS_CIPHERTEXT_MAX);
    if (n > 0) {
        tls_receive(p->sessions[slot], (size_t)n);
        take_received(p, slot);
    } else if (n == 0) {
        fail_slot(p, slot, ERROR_TRUNCATED);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
        fail_slot(p, slot, -errno);
    }
}

/* ---- TLS handshakes ------------------------------------------------------------------------------------------- */

static int64_t now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void leave_handshakes(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    if (s->state != SLOT_HANDSHAKING || !s->accepted) return;
    dequeue(p, slot, &p->first_handshake, &p->last_handshake);
    p->handshakes--;
}

/* The session is made with the first bytes: who only connects costs no more than without TLS. */
static void admit_handshake(poller *p, int fd, const socket_addr *peer, int listener)
{
    bool full = p->handshakes >= p->max_handshakes;
    int slot = full ? NO_SLOT : take_slot(p, fd, SLOT_HANDSHAKING);
    if (slot < 0 || watch_slot(p, slot, true, false) < 0) {
        (void)close(fd);
        if (slot >= 0) free_slot(p, slot);
        add_record(p, NO_SLOT, listener, full ? TLS_TOO_MANY : 0, full ? RECORD_REFUSED : RECORD_LOST);
        return;
    }
    slot_t *s = &p->slots[slot];
    s->peer = *peer;
    s->secure = s->accepted = true;
    s->began = now_us();
    enqueue(p, slot, &p->first_handshake, &p->last_handshake);
    p->handshakes++;
    add_record(p, slot, listener, 0, RECORD_HANDSHAKE);
}

/* Ours hears it as an error of its slot; an accepted socket is closed, after the alert that OpenSSL may have made. */
static void fail_handshake(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    const tls_session *session = session_of(p, slot);
    int failure = session == NULL ? TLS_LEFT : session->failure | session->reason << 8;
    leave_handshakes(p, slot);
    s->state = SLOT_OPEN;
    if (!s->accepted) {
        fail_slot(p, slot, ERROR_TLS);
        return;
    }
    put_record(p, slot, COUNTED, failure, RECORD_REFUSED);
    (void)poller_close(p, slot, (failure & 0xff) != TLS_LEFT);
    dispatch_if_full(p);
}

static void finish_handshake(poller *p, int slot)
{
    slot_t *s = &p->slots[slot];
    leave_handshakes(p, slot);
    s->state = SLOT_OPEN;
    if (s->accepted) {
        int64_t took = now_us() - s->began;
        tls_info info;
        tls_session_info(p->sessions[slot], &info);
        put_record(p, slot, took < INT32_MAX ? (int32_t)took : INT32_MAX, info.resumed ? 1 : 0, RECORD_SECURED);
    }
    s->mask = (unmask_state){0};
    put_record(p, slot, COUNTED, 0, s->accepted ? RECORD_ACCEPT : RECORD_CONNECT);
    take_received(p, slot);
}

static void step_handshake(poller *p, int slot)
{
    tls_session *session = p->sessions[slot];
    tls_result result = tls_handshake(session);
    if (send_made(p, slot) < 0) {
        tls_fail(session, TLS_LEFT);
        result = TLS_FAILED;
    }
    if (result == TLS_FAILED) fail_handshake(p, slot);
    else if (result == TLS_DONE) finish_handshake(p, slot);
}

static void start_client_handshake(poller *p, int slot)
{
    if (!make_room(p, slot, SLOT_OPEN, HANDSHAKE_RECORDS)) return;
    p->slots[slot].state = SLOT_HANDSHAKING;
    tls_receive(p->sessions[slot], 0);
    step_handshake(p, slot);
}

/* Who has to wait for a later turn is reported again: the set is level-triggered. */
static void shake_hands(poller *p, int slot)
{
    if (p->steps == HANDSHAKES_MAX || !make_room(p, slot, SLOT_HANDSHAKING, HANDSHAKE_RECORDS)) return;
    slot_t *s = &p->slots[slot];
    if (s->owes && !pay_debt(p, slot)) {
        fail_handshake(p, slot);
        return;
    }
    ssize_t n = receive(s->fd, p->io->in, TLS_CIPHERTEXT_MAX);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n > 0 && session_of(p, slot) == NULL && make_session(p, slot, p->tls, "") < 0) n = -1;
    if (n <= 0) {
        if (session_of(p, slot) != NULL) tls_fail(p->sessions[slot], TLS_LEFT);
        fail_handshake(p, slot);
        return;
    }
    p->steps++;
    tls_receive(p->sessions[slot], (size_t)n);
    step_handshake(p, slot);
}

int poller_late_handshake(const poller *p, int64_t age_ms)
{
    int slot = p->first_handshake;
    return slot == NO_SLOT || now_us() - p->slots[slot].began < age_ms * 1000 ? NO_SLOT : slot;
}
