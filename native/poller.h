/*
 * The poller: one epoll set, its sockets in numbered slots, one slab that a batch is read into and one that answers are
 * written from. Knows nothing of Node. One thread; only poller_mailbox's number may be used from others.
 *
 * A descriptor belongs to its slot from accept or connect to poller_close, poller_reset, poller_hand_off or
 * poller_take_descriptor.
 * Every call checks its slot: a wrong one gives -EBADF and touches nothing.
 */
#ifndef RINGLOOP_POLLER_H
#define RINGLOOP_POLLER_H

#include <stdbool.h>
#include <stdint.h>

#include "socket.h"
#include "tls.h"

enum {
    READ_MAX = 68 * 1024,             /* one read of one socket: a message of 64 KiB and what is around it */
    READ_BUDGET = 128 * 1024,         /* dispatch when so much of the slab is used: a larger one falls out of the cache */
    /* So that a read always finds room, also one of TLS, which may bring a record to its end. */
    IN_SLAB = READ_BUDGET + READ_MAX + TLS_PARTIAL_MAX,
    OUT_SLAB = 256 * 1024,
    EVENTS_MAX = 512,   /* of one epoll_wait */
    RECORDS_MAX = 1024, /* of one dispatch */
    ACCEPT_MAX = 64,    /* of one turn, for each listener and for the mailbox */
    OUT_RECORDS_MAX = 4096,
    LINGER_MS = 2000,
    HANDSHAKES_MAX = 8 /* steps of TLS handshakes in one turn: each may take half a millisecond */
};

/* Instead of a listener: the socket was counted before it came, by the acceptor that sent it to the mailbox. */
enum { COUNTED = -1 };

/* What a record says happened. These numbers and those above are compared with native-addon.ts when the addon is loaded. */
enum {
    RECORD_READ = 0,     /* offset, length in the slab */
    RECORD_WRITABLE = 1, /* room again after a short write */
    RECORD_END = 2,      /* the peer ended its side */
    RECORD_ERROR = 3,    /* length: -errno; the socket is of no more use */
    RECORD_ACCEPT = 4,   /* offset: the listener, or COUNTED for the mailbox */
    RECORD_CONNECT = 5,  /* a connect went through */
    RECORD_HANGUP = 6,   /* the socket broke while reading was off; no more events until reading is on */
    RECORD_ACCEPT_ERROR = 7, /* slot: the listener, now off; length: -errno */
    RECORD_LOST = 8,     /* offset: as for RECORD_ACCEPT; an accepted socket could not be given a slot */
    RECORD_LEFT = 9,     /* the peer ended its side, behind bytes that are not read */
    RECORD_POST = 10,    /* the mailbox has letters, or its group has changed */
    RECORD_HANDSHAKE = 11, /* offset: as for RECORD_ACCEPT; a TLS handshake begins, and RECORD_ACCEPT or RECORD_REFUSED follows, COUNTED */
    RECORD_REFUSED = 12,   /* offset: as for RECORD_ACCEPT; length: why the handshake failed, and << 8 OpenSSL's reason */
    RECORD_SECURED = 13    /* before RECORD_ACCEPT; offset: what the handshake took in us; length: 1 for a resumed session */
};

/* Of RECORD_ERROR, instead of an errno. */
enum {
    ERROR_TLS = -10001,       /* TLS failed: poller_session says why */
    ERROR_TRUNCATED = -10002  /* the peer's side ended without the close_notify that says so */
};

/* These two lie in memory shared with JavaScript: nothing in them is trusted. */
typedef struct {
    int32_t slot, offset, length, kind;
} in_record;

typedef struct {
    int32_t slot, offset, length;
} out_record;

typedef struct poller poller;

/* Hands over `count` records. May call anything below, poller_free excepted (see poller_stop). */
typedef void (*poller_dispatch)(void *context, uint32_t count);

typedef struct {
    uint8_t *in_slab;       /* IN_SLAB bytes */
    in_record *in_records;  /* RECORDS_MAX */
    uint8_t *out_slab;      /* OUT_SLAB bytes */
    out_record *out_records; /* OUT_RECORDS_MAX */
} poller_memory;

/* Of closed sockets at most max_lingering linger: one more ends the oldest. With may_ring many sends of a flush go together
   through an io_uring, where the system has one. */
poller *poller_new(const poller_memory *memory, uint32_t max_lingering, bool may_ring, int *error);
/* Closes every descriptor. Every later call is harmless. */
void poller_stop(poller *p);
/* After poller_stop, and not from within a dispatch. */
void poller_free(poller *p);

int poller_fd(const poller *p);
int poller_mailbox(const poller *p);
/* One turn: everything that is ready now, in batches. */
void poller_turn(poller *p, poller_dispatch dispatch, void *context);

/* A listener's number or -errno. With park its sockets wait for one of the three calls below. */
int poller_listen_tcp(poller *p, const char *ip, uint16_t port, const socket_options *options, bool park);
int poller_listen_unix(poller *p, const char *path, const socket_options *options, bool park);
int poller_listener_port(const poller *p, int listener);
int poller_set_accepting(poller *p, int listener, bool on);
int poller_close_listener(poller *p, int listener);
/* Whether sockets that come through the mailbox are parked. */
void poller_park_mailbox(poller *p, bool park);

/* A slot or -errno. */
int poller_connect_tcp(poller *p, const char *ip, uint16_t port, const socket_options *options);
int poller_connect_unix(poller *p, const char *path);

/* ---- TLS: see tls.h. A plain poller has no memory for it, a plain slot only a bit. ---- */

/* Sockets that are accepted from now on, or come through the mailbox, speak TLS, unless they are parked. The context is
   held; the one before stays with the sockets that have it. At most max_handshakes may be under way. 0 or -errno. */
int poller_use_tls(poller *p, tls_context *context, uint32_t max_handshakes);
/* A slot that is connecting will speak TLS; the context is held. `name` as for tls_session_new. 0 or -errno. */
int poller_secure(poller *p, int slot, tls_context *context, const char *name);
/* The slot whose handshake has been under way for longest, for at least so long, or -1. Accepted sockets only. */
int poller_late_handshake(const poller *p, int64_t age_ms);
/* The session of a slot that is open; NULL where it speaks no TLS. The poller's, until the slot is closed. */
const tls_session *poller_session(const poller *p, int slot);

/* A parked slot: start reading it here, send it to a mailbox, or give its descriptor away. */
int poller_adopt(poller *p, int slot);
int poller_hand_off(poller *p, int slot, int mailbox);
int poller_take_descriptor(poller *p, int slot);

/* Writes records, putting bytes taken or -errno over each length. Returns how many were not taken whole. */
int poller_flush(poller *p, uint32_t count);
/* Bytes taken or -errno; when fewer than length, RECORD_WRITABLE follows. */
int poller_write(poller *p, int slot, const uint8_t *bytes, size_t length);
/* The same of out_slab[offset, offset + head) and `bytes` behind it, in one write. */
int poller_write_behind(poller *p, int slot, int32_t offset, int32_t head, const uint8_t *bytes, size_t length);
int poller_set_reading(poller *p, int slot, bool on);
/* What is read from now on begins with a WebSocket frame, whose mask is taken off: see unmask.h. */
int poller_unmask(poller *p, int slot);
int poller_shutdown_write(poller *p, int slot);
int poller_close(poller *p, int slot, bool linger);
/* Closes at once, and the peer sees a reset. */
int poller_reset(poller *p, int slot);
/* Ends lingering sockets whose time is over; how many are left. */
uint32_t poller_expire_lingering(poller *p);

int poller_peer_addr(const poller *p, int slot, socket_addr *out);
int poller_slot_local_addr(const poller *p, int slot, socket_addr *out);

#endif
