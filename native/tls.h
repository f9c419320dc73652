/*
 * TLS over memory, with the OpenSSL that is in the process: contexts made from PEM, and sessions that turn ciphertext into
 * plain bytes and back. Knows nothing of Node and nothing of sockets: the poller brings the ciphertext and takes it away.
 *
 * A context, a session and a tls_io belong to one thread. The library is looked up once, by any thread. A context lives
 * until its last user drops it; a session holds its own. Bytes that are given are only read during the call.
 */
#ifndef RINGLOOP_TLS_H
#define RINGLOOP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TLS_CIPHERTEXT_MAX = 68 * 1024, /* of one tls_receive */
    TLS_PARTIAL_MAX = 20 * 1024,    /* plain bytes of the record that was there in part before it */
    TLS_WRITE_MAX = 68 * 1024,      /* encrypted ahead of the kernel: a message of 64 KiB and what is around it */
    TLS_WAITING_MAX = 64 * 1024,    /* ciphertext that a peer may make us owe it by what it sends */
    TLS_MESSAGES_MAX = 64,          /* messages of handshakes, such as key updates, and their answers, for one tls_receive */
    TLS_TEXT_MAX = 256,
    TLS_TICKET_KEYS = 80
};

/* NULL when there is an OpenSSL to use, else why not. Any thread. */
const char *tls_unavailable(void);

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

/* What a context can be given as text or bytes. These numbers are compared with native-addon.ts. */
enum {
    TLS_PASSPHRASE = 0,     /* of the keys that follow; wiped when the context is sealed */
    TLS_CERT = 1,           /* PEM: a certificate and those that it hangs from */
    TLS_KEY = 2,            /* PEM, of a certificate before it */
    TLS_CA = 3,             /* PEM: who is trusted */
    TLS_CIPHERS = 4,        /* of TLS 1.2 and below, in OpenSSL's notation */
    TLS_CIPHER_SUITES = 5,  /* of TLS 1.3 */
    TLS_GROUPS = 6,         /* "X25519:P-256" */
    TLS_SIGALGS = 7,
    TLS_ALPN = 8,           /* names, each behind a byte with its length */
    TLS_TICKETS = 9,        /* TLS_TICKET_KEYS bytes */
    TLS_SESSION_CONTEXT = 10 /* up to 32 bytes: sessions of another context are not resumed */
};

/* And as a number. */
enum {
    TLS_MIN_VERSION = 0, /* 0x0303 is TLS 1.2 */
    TLS_MAX_VERSION = 1,
    TLS_TIMEOUT = 2,     /* of a session, in seconds */
    TLS_VERIFY = 3,      /* one of the three below */
    TLS_CIPHER_ORDER = 4 /* not 0: the server's */
};

/* Of the peer's certificate. */
enum { TLS_VERIFY_NONE = 0, TLS_VERIFY_OPTIONAL = 1, TLS_VERIFY_REQUIRED = 2 };

typedef struct tls_context tls_context;

/* NULL when there is no memory, or no OpenSSL. */
tls_context *tls_context_new(bool server);
/* False when it cannot be: `error` has OpenSSL's words. */
bool tls_context_set(tls_context *c, int what, const uint8_t *bytes, size_t length, char error[TLS_TEXT_MAX]);
bool tls_context_set_number(tls_context *c, int what, int32_t number, char error[TLS_TEXT_MAX]);
/* Who asks for `name`, which may begin with "*.", is served with `other`, which is held. */
bool tls_context_add_name(tls_context *c, const char *name, tls_context *other);
/* To be called when all is set: whether key and certificate belong together. */
bool tls_context_seal(tls_context *c, char error[TLS_TEXT_MAX]);
void tls_context_hold(tls_context *c);
void tls_context_drop(tls_context *c);

/* ---- sessions ------------------------------------------------------------------------------------------------------ */

/* Why a session failed. These numbers are compared with native-addon.ts. */
enum {
    TLS_NO_FAILURE = 0,
    TLS_NOT_TLS = 1,      /* the peer speaks something else */
    TLS_OLD_VERSION = 2,  /* no version that both have */
    TLS_NO_CIPHER = 3,    /* no cipher that both have */
    TLS_CERTIFICATE = 4,  /* the peer's is missing or not trusted */
    TLS_NO_PROTOCOL = 5,  /* no protocol of ALPN that both have */
    TLS_ALERT = 6,        /* the peer refused */
    TLS_BROKEN = 7,       /* what came is not as it should be */
    TLS_RENEGOTIATION = 8,
    TLS_FLOOD = 9,        /* the peer asks for more than it takes, or for new keys all the time */
    /* Those that the poller finds. */
    TLS_LEFT = 10,        /* the peer left in the handshake */
    TLS_LATE = 11,        /* the handshake took too long */
    TLS_TOO_MANY = 12     /* handshakes at once */
};

typedef enum { TLS_MORE, TLS_DONE, TLS_END, TLS_FAILED } tls_result;

/* The buffers that all sessions of a poller share. */
typedef struct {
    uint8_t *in; /* TLS_CIPHERTEXT_MAX bytes; what is received goes here */
    const void *reader; /* the session whose ciphertext it is */
    size_t in_at, in_end;
    unsigned int messages; /* of handshakes, that came in it or were answers to it */
    uint8_t *out; /* what a session makes, until tls_taken */
    size_t out_end, out_capacity;
} tls_io;

tls_io *tls_io_new(void);
void tls_io_free(tls_io *io);

typedef struct {
    void *ssl;
    tls_io *io;
    tls_context *context;
    uint8_t *waiting; /* ciphertext that the kernel has not taken: [waiting_at, waiting_end) */
    uint32_t waiting_at, waiting_end, waiting_capacity;
    uint32_t owed;    /* the poller's: plain bytes that are in `waiting`, and not yet said to be taken */
    uint32_t landed;  /* the poller's: plain bytes that have left since, and count as taken when they are offered again */
    uint16_t reason;  /* OpenSSL's number of the failure */
    uint8_t failure;  /* one of the above */
    bool ended;       /* our close_notify is made */
} tls_session;

/* `name`: of a client, whom it wants to talk to, by SNI and by certificate; "" for nobody. NULL when there is no memory. */
tls_session *tls_session_new(tls_context *context, tls_io *io, const char *name);
/* NULL is no session. */
void tls_session_free(tls_session *s);

/* `length` bytes are in io->in, for the calls that follow. */
void tls_receive(tls_session *s, size_t length);
/* TLS_MORE, TLS_DONE or TLS_FAILED. */
tls_result tls_handshake(tls_session *s);
/* Decrypts all that was received into plain[0, room): TLS_MORE, TLS_END (the peer's close_notify) or TLS_FAILED. */
tls_result tls_read(tls_session *s, uint8_t *plain, size_t room, size_t *length);
/* False when it cannot be encrypted. */
bool tls_write(tls_session *s, const uint8_t *plain, size_t length);
/* The last that it says: close_notify, once; nothing when it has failed. */
void tls_end(tls_session *s);
/* What it has made for its peer, in order; `length` may be 0. */
const uint8_t *tls_made(const tls_session *s, size_t *length);
/* The first `length` bytes of that are sent; the others are kept. 0 or -ENOMEM. */
int tls_taken(tls_session *s, size_t length);
/* The poller has found out why it failed. */
void tls_fail(tls_session *s, int failure);

/* ---- what is known of a session ------------------------------------------------------------------------------------ */

/* The texts are OpenSSL's, and live as long as the session. */
typedef struct {
    const char *protocol, *cipher;
    const char *servername; /* NULL: none was asked for */
    const uint8_t *alpn;
    unsigned int alpn_length;
    int32_t verify_error; /* 0: the peer's certificate is trusted, or none was asked for */
    bool resumed;
} tls_info;

void tls_session_info(const tls_session *s, tls_info *info);
/* The peer's certificate as DER, to be freed with tls_free_certificate, or NULL. */
uint8_t *tls_peer_certificate(const tls_session *s, size_t *length);
void tls_free_certificate(uint8_t *certificate);
/* What OpenSSL says of a tls_session.reason; NULL where it says nothing. */
const char *tls_reason_text(uint16_t reason);
const char *tls_verify_text(int32_t verify_error);

#endif
