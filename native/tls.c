/* The TLS of tls.h. Its only static state is the table of OpenSSL's functions, which is filled once. */
#include "tls.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "openssl.h"

/* A test builds with names that there are not. */
#ifndef OPENSSL_PREFIX
#define OPENSSL_PREFIX ""
#endif

enum {
    MAJOR_VERSION = 3,
    SSL_PACKED_LIB = ERR_LIB_SSL << 23,
    PEM_END = ERR_LIB_PEM << 23 | PEM_R_NO_START_LINE, /* behind the last certificate */
    REASON_MASK = 0x7fffff
};

/* ---- the library --------------------------------------------------------------------------------------------------- */

#define DECLARE(returns, name, arguments) returns(*name) arguments;
static struct {
    OPENSSL_FUNCTIONS(DECLARE)
} lib;

static BIO_METHOD *bio_method;
static char unavailable[TLS_TEXT_MAX];
static pthread_once_t loaded = PTHREAD_ONCE_INIT;

static int read_ciphertext(BIO *bio, char *to, int size);
static int write_ciphertext(BIO *bio, const char *from, int length);
static long control_bio(BIO *bio, int command, long number, void *pointer);

/* dlsym gives an object pointer, which ISO C does not turn into a function's. */
static bool find(const char *name, void *function)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    memcpy(function, &found, sizeof found);
    if (found == NULL) (void)snprintf(unavailable, sizeof unavailable, "the process has no %s", name);
    return found != NULL;
}

#define FIND(returns, name, arguments) &&find(OPENSSL_PREFIX #name, &lib.name)

static void load(void)
{
    if (!(true OPENSSL_FUNCTIONS(FIND))) return;
    unsigned int version = lib.OPENSSL_version_major();
    if (version != MAJOR_VERSION) {
        (void)snprintf(unavailable, sizeof unavailable, "the process has OpenSSL %u, not %d", version, MAJOR_VERSION);
        return;
    }
    bio_method = lib.BIO_meth_new(lib.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ringloop");
    if (bio_method != NULL && lib.BIO_meth_set_read(bio_method, read_ciphertext) == 1 &&
        lib.BIO_meth_set_write(bio_method, write_ciphertext) == 1 &&
        lib.BIO_meth_set_ctrl(bio_method, control_bio) == 1) {
        return;
    }
    (void)snprintf(unavailable, sizeof unavailable, "OpenSSL has no room for a BIO");
}

const char *tls_unavailable(void)
{
    (void)pthread_once(&loaded, load);
    return unavailable[0] == '\0' ? NULL : unavailable;
}

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

typedef struct {
    char *name;
    tls_context *context;
} named_context;

struct tls_context {
    SSL_CTX *ctx;
    int uses;
    bool server, has_cert;
    char *passphrase;
    uint8_t *alpn;
    unsigned int alpn_length;
    named_context *names;
    size_t name_count;
};

/* Why the last call failed, in OpenSSL's words. Its queue is the thread's, which is Node's too: it is left empty. */
static bool fail_with(char error[TLS_TEXT_MAX], const char *fallback)
{
    unsigned long code = lib.ERR_peek_error();
    if (code == 0) (void)snprintf(error, TLS_TEXT_MAX, "%s", fallback);
    else lib.ERR_error_string_n(code, error, TLS_TEXT_MAX);
    lib.ERR_clear_error();
    return false;
}

/* What others have left in the queue would be taken for ours. It is nearly always empty, which is cheaper to see than to make. */
static void clear_errors(void)
{
    if (lib.ERR_peek_error() != 0) lib.ERR_clear_error();
}

static bool check(long result, char error[TLS_TEXT_MAX])
{
    return result == 1 || fail_with(error, "it cannot be used");
}

/* A copy with a NUL behind it. */
static char *copy_text(const uint8_t *bytes, size_t length)
{
    char *text = malloc(length + 1);
    if (text == NULL) return NULL;
    memcpy(text, bytes, length);
    text[length] = '\0';
    return text;
}

static void wipe_passphrase(tls_context *c)
{
    if (c->passphrase == NULL) return;
    lib.OPENSSL_cleanse(c->passphrase, strlen(c->passphrase));
    free(c->passphrase);
    c->passphrase = NULL;
}

/* Without one of ours OpenSSL would ask at the terminal. */
static int give_passphrase(char *text, int size, int writing, void *context)
{
    const tls_context *c = context;
    (void)writing;
    if (c->passphrase == NULL) return 0;
    size_t length = strlen(c->passphrase);
    if (length > (size_t)size) return 0;
    memcpy(text, c->passphrase, length);
    return (int)length;
}

static bool set_key(tls_context *c, BIO *pem, char error[TLS_TEXT_MAX])
{
    EVP_PKEY *key = lib.PEM_read_bio_PrivateKey(pem, NULL, give_passphrase, c);
    if (key == NULL) return fail_with(error, "there is no private key in it");
    bool set = check(lib.SSL_CTX_use_PrivateKey(c->ctx, key), error);
    lib.EVP_PKEY_free(key);
    return set;
}

/* The first certificate is its own, the others are those that it hangs from. */
static bool use_certificate(tls_context *c, X509 *certificate, int index, char error[TLS_TEXT_MAX])
{
    c->has_cert = true;
    return check(index == 0 ? lib.SSL_CTX_use_certificate(c->ctx, certificate)
                            : lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_CHAIN_CERT, 1, certificate),
                 error);
}

static bool trust_certificate(tls_context *c, X509 *certificate, int index, char error[TLS_TEXT_MAX])
{
    (void)index;
    return check(lib.X509_STORE_add_cert(lib.SSL_CTX_get_cert_store(c->ctx), certificate), error) &&
           (!c->server || check(lib.SSL_CTX_add_client_CA(c->ctx, certificate), error));
}

typedef bool (*certificate_use)(tls_context *c, X509 *certificate, int index, char error[TLS_TEXT_MAX]);

static bool read_certificates(tls_context *c, BIO *pem, certificate_use use, char error[TLS_TEXT_MAX])
{
    for (int index = 0;; index++) {
        X509 *certificate = lib.PEM_read_bio_X509(pem, NULL, give_passphrase, c);
        if (certificate == NULL && index == 0) return fail_with(error, "there is no certificate in it");
        if (certificate == NULL) break;
        bool used = use(c, certificate, index, error);
        lib.X509_free(certificate);
        if (!used) return false;
    }
    if (lib.ERR_peek_error() != PEM_END) return fail_with(error, "it is broken");
    lib.ERR_clear_error();
    return true;
}

static bool set_pem(tls_context *c, int what, const uint8_t *bytes, size_t length, char error[TLS_TEXT_MAX])
{
    BIO *pem = length > INT32_MAX ? NULL : lib.BIO_new_mem_buf(bytes, (int)length);
    if (pem == NULL) return fail_with(error, "out of memory");
    bool set = what == TLS_KEY ? set_key(c, pem, error)
                               : read_certificates(c, pem, what == TLS_CA ? trust_certificate : use_certificate, error);
    (void)lib.BIO_free(pem);
    return set;
}

/* The first of our names that the peer has too. */
static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned int in_length, void *context)
{
    const tls_context *c = context;
    (void)ssl;
    for (unsigned int ours = 0; ours < c->alpn_length; ours += 1u + c->alpn[ours]) {
        for (unsigned int its = 0; its < in_length; its += 1u + in[its]) {
            if (in[its] != c->alpn[ours] || memcmp(in + its, c->alpn + ours, 1u + in[its]) != 0) continue;
            *out = in + its + 1;
            *out_length = in[its];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool is_protocol_list(const uint8_t *bytes, size_t length)
{
    size_t at = 0;
    while (at < length && bytes[at] > 0) at += 1u + bytes[at];
    return length > 0 && length <= UINT16_MAX && at == length;
}

static bool set_alpn(tls_context *c, const uint8_t *bytes, size_t length, char error[TLS_TEXT_MAX])
{
    if (!is_protocol_list(bytes, length)) return fail_with(error, "it is no list of protocols");
    if (!c->server) return check(lib.SSL_CTX_set_alpn_protos(c->ctx, bytes, (unsigned int)length) == 0, error);
    free(c->alpn);
    c->alpn = (uint8_t *)copy_text(bytes, length);
    c->alpn_length = c->alpn == NULL ? 0 : (unsigned int)length;
    lib.SSL_CTX_set_alpn_select_cb(c->ctx, select_protocol, c);
    return c->alpn != NULL || fail_with(error, "out of memory");
}

static bool set_text(tls_context *c, int what, char *text, char error[TLS_TEXT_MAX])
{
    switch (what) {
    case TLS_CIPHERS: return check(lib.SSL_CTX_set_cipher_list(c->ctx, text), error);
    case TLS_CIPHER_SUITES: return check(lib.SSL_CTX_set_ciphersuites(c->ctx, text), error);
    case TLS_GROUPS: return check(lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_GROUPS_LIST, 0, text), error);
    case TLS_SIGALGS: return check(lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_SIGALGS_LIST, 0, text), error);
    default: return fail_with(error, "there is no such setting");
    }
}

static bool set_tickets(tls_context *c, const uint8_t *bytes, size_t length, char error[TLS_TEXT_MAX])
{
    if (length != TLS_TICKET_KEYS) return fail_with(error, "they have another length");
    return check(lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_TLSEXT_TICKET_KEYS, TLS_TICKET_KEYS, (void *)(uintptr_t)bytes),
                 error);
}

bool tls_context_set(tls_context *c, int what, const uint8_t *bytes, size_t length, char error[TLS_TEXT_MAX])
{
    lib.ERR_clear_error();
    switch (what) {
    case TLS_CERT:
    case TLS_KEY:
    case TLS_CA: return set_pem(c, what, bytes, length, error);
    case TLS_ALPN: return set_alpn(c, bytes, length, error);
    case TLS_TICKETS: return set_tickets(c, bytes, length, error);
    case TLS_SESSION_CONTEXT:
        return check(lib.SSL_CTX_set_session_id_context(c->ctx, bytes, (unsigned int)length), error);
    default: break;
    }
    char *text = copy_text(bytes, length);
    if (text == NULL) return fail_with(error, "out of memory");
    if (what == TLS_PASSPHRASE) {
        wipe_passphrase(c);
        c->passphrase = text;
        return true;
    }
    bool set = set_text(c, what, text, error);
    free(text);
    return set;
}

static int accept_any(int verified, X509_STORE_CTX *certificates)
{
    (void)verified;
    (void)certificates;
    return 1; /* what is wrong with it is remembered all the same */
}

/* Goes on behind the first that is wrong, as Node does: of several faults it is the last that is told. */
static int accept_trusted(X509_STORE_CTX *certificates, void *context)
{
    (void)context;
    return lib.X509_verify_cert(certificates) == 1 && lib.X509_STORE_CTX_get_error(certificates) == X509_V_OK;
}

static bool set_verify(tls_context *c, int32_t how)
{
    int mode = how == TLS_VERIFY_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    if (how == TLS_VERIFY_REQUIRED) {
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
        lib.SSL_CTX_set_cert_verify_callback(c->ctx, accept_trusted, NULL);
    }
    lib.SSL_CTX_set_verify(c->ctx, mode, accept_any);
    return true;
}

bool tls_context_set_number(tls_context *c, int what, int32_t number, char error[TLS_TEXT_MAX])
{
    lib.ERR_clear_error();
    switch (what) {
    case TLS_MIN_VERSION: return check(lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, number, NULL), error);
    case TLS_MAX_VERSION: return check(lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_MAX_PROTO_VERSION, number, NULL), error);
    case TLS_TIMEOUT: (void)lib.SSL_CTX_set_timeout(c->ctx, number); return true;
    case TLS_VERIFY: return set_verify(c, number);
    case TLS_CIPHER_ORDER:
        if (number != 0) (void)lib.SSL_CTX_set_options(c->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
        return true;
    default: return fail_with(error, "there is no such setting");
    }
}

/* "*.example.org" is for one label before the rest. */
static bool is_name(const char *pattern, const char *name)
{
    if (strncmp(pattern, "*.", 2) != 0) return strcasecmp(pattern, name) == 0;
    const char *rest = strchr(name, '.');
    return rest != NULL && rest != name && strcasecmp(pattern + 1, rest) == 0;
}

static int choose_context(SSL *ssl, int *alert, void *context)
{
    const tls_context *c = context;
    const char *name = lib.SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    for (size_t i = 0; name != NULL && i < c->name_count; i++) {
        if (!is_name(c->names[i].name, name)) continue;
        (void)lib.SSL_set_SSL_CTX(ssl, c->names[i].context->ctx);
        break;
    }
    return SSL_TLSEXT_ERR_OK;
}

bool tls_context_add_name(tls_context *c, const char *name, tls_context *other)
{
    named_context *names = realloc(c->names, (c->name_count + 1) * sizeof *names);
    if (names == NULL) return false;
    c->names = names;
    char *copy = copy_text((const uint8_t *)name, strlen(name));
    if (copy == NULL) return false;
    tls_context_hold(other);
    c->names[c->name_count++] = (named_context){.name = copy, .context = other};
    if (c->name_count > 1) return true;
    (void)lib.SSL_CTX_callback_ctrl(c->ctx, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, (void (*)(void))choose_context);
    (void)lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, c);
    return true;
}

bool tls_context_seal(tls_context *c, char error[TLS_TEXT_MAX])
{
    wipe_passphrase(c);
    lib.ERR_clear_error();
    return !c->has_cert || check(lib.SSL_CTX_check_private_key(c->ctx), error);
}

/*
 * A renegotiation is refused with this warning, after which OpenSSL would go on. It would take any number of new keys, too,
 * each of which costs as much as a record of 16 KiB.
 */
static void note_state(const SSL *ssl, int where, int value)
{
    tls_session *s = lib.BIO_get_data(lib.SSL_get_rbio(ssl));
    if (where == SSL_CB_WRITE_ALERT && (value & 0xff) == SSL_AD_NO_RENEGOTIATION) tls_fail(s, TLS_RENEGOTIATION);
    if ((where & SSL_CB_LOOP) && s->io->reader == s && ++s->io->messages > TLS_MESSAGES_MAX) tls_fail(s, TLS_FLOOD);
}

tls_context *tls_context_new(bool server)
{
    if (tls_unavailable() != NULL) return NULL;
    tls_context *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->ctx = lib.SSL_CTX_new(server ? lib.TLS_server_method() : lib.TLS_client_method());
    if (c->ctx == NULL) {
        lib.ERR_clear_error();
        free(c);
        return NULL;
    }
    c->uses = 1;
    c->server = server;
    (void)lib.SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION);
    (void)lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL);
    /* Tickets are with the clients: nothing of a session is kept here. */
    (void)lib.SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL);
    lib.SSL_CTX_set_info_callback(c->ctx, note_state);
    return c;
}

void tls_context_hold(tls_context *c)
{
    c->uses++;
}

void tls_context_drop(tls_context *c)
{
    if (c == NULL || --c->uses > 0) return;
    wipe_passphrase(c);
    for (size_t i = 0; i < c->name_count; i++) {
        free(c->names[i].name);
        tls_context_drop(c->names[i].context);
    }
    free(c->names);
    lib.SSL_CTX_free(c->ctx);
    free(c->alpn);
    free(c);
}

/* ---- ciphertext ---------------------------------------------------------------------------------------------------- */

tls_io *tls_io_new(void)
{
    tls_io *io = calloc(1, sizeof *io);
    if (io == NULL) return NULL;
    io->out_capacity = TLS_WRITE_MAX + TLS_WRITE_MAX / 8;
    io->in = malloc(TLS_CIPHERTEXT_MAX);
    io->out = malloc(io->out_capacity);
    if (io->in != NULL && io->out != NULL) return io;
    tls_io_free(io);
    return NULL;
}

void tls_io_free(tls_io *io)
{
    if (io == NULL) return;
    free(io->in);
    free(io->out);
    free(io);
}

static int read_ciphertext(BIO *bio, char *to, int size)
{
    const tls_session *s = lib.BIO_get_data(bio);
    tls_io *io = s->io;
    lib.BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
    if (io->reader != s || io->in_at == io->in_end || s->failure != TLS_NO_FAILURE) {
        lib.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    size_t left = io->in_end - io->in_at;
    size_t n = (size_t)size < left ? (size_t)size : left;
    memcpy(to, io->in + io->in_at, n);
    io->in_at += n;
    return (int)n;
}

static bool keep_waiting(tls_session *s, const uint8_t *bytes, size_t length)
{
    size_t kept = s->waiting_end - s->waiting_at;
    if (kept > 0 && s->waiting_at > 0) memmove(s->waiting, s->waiting + s->waiting_at, kept);
    s->waiting_at = 0;
    s->waiting_end = (uint32_t)kept;
    if (kept + length > s->waiting_capacity) {
        uint8_t *waiting = kept + length > UINT32_MAX ? NULL : realloc(s->waiting, kept + length);
        if (waiting == NULL) return false;
        s->waiting = waiting;
        s->waiting_capacity = (uint32_t)(kept + length);
    }
    memcpy(s->waiting + kept, bytes, length);
    s->waiting_end = (uint32_t)(kept + length);
    return true;
}

static bool gather(tls_io *io, const char *bytes, size_t length)
{
    if (io->out_end + length > io->out_capacity) {
        uint8_t *out = realloc(io->out, io->out_end + length);
        if (out == NULL) return false;
        io->out = out;
        io->out_capacity = io->out_end + length;
    }
    memcpy(io->out + io->out_end, bytes, length);
    io->out_end += length;
    return true;
}

/* Behind what waits already, else into the buffer of all sessions, from which it is sent before another one writes. */
static int write_ciphertext(BIO *bio, const char *from, int length)
{
    tls_session *s = lib.BIO_get_data(bio);
    bool kept = s->waiting_end > s->waiting_at ? keep_waiting(s, (const uint8_t *)from, (size_t)length)
                                               : gather(s->io, from, (size_t)length);
    return kept ? length : -1;
}

static long control_bio(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

const uint8_t *tls_made(const tls_session *s, size_t *length)
{
    bool waits = s->waiting_end > s->waiting_at;
    *length = waits ? s->waiting_end - s->waiting_at : s->io->out_end;
    return waits ? s->waiting + s->waiting_at : s->io->out;
}

int tls_taken(tls_session *s, size_t length)
{
    if (s->waiting_end > s->waiting_at) {
        s->waiting_at += (uint32_t)length;
    } else {
        size_t left = s->io->out_end - length;
        s->io->out_end = 0;
        if (left > 0 && !keep_waiting(s, s->io->out + length, left)) return -ENOMEM;
    }
    if (s->waiting_at < s->waiting_end || s->waiting == NULL) return 0;
    free(s->waiting);
    s->waiting = NULL;
    s->waiting_at = s->waiting_end = s->waiting_capacity = 0;
    return 0;
}

/* ---- sessions ------------------------------------------------------------------------------------------------------ */

static bool set_name(SSL *ssl, const char *name)
{
    if (name[0] == '\0') return true;
    /* An address is verified, but not asked for (RFC 6066, section 3). */
    bool is_address = strchr(name, ':') != NULL || name[strspn(name, "0123456789.")] == '\0';
    if (!is_address && lib.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                                    (void *)(uintptr_t)name) != 1) {
        return false;
    }
    return lib.SSL_set1_host(ssl, name) == 1;
}

static bool open_session(tls_session *s, const char *name)
{
    SSL *ssl = s->ssl = lib.SSL_new(s->context->ctx);
    BIO *bio = ssl == NULL ? NULL : lib.BIO_new(bio_method);
    if (bio == NULL) return false;
    lib.BIO_set_data(bio, s);
    lib.BIO_set_init(bio, 1);
    lib.SSL_set_bio(ssl, bio, bio);
    if (s->context->server) {
        lib.SSL_set_accept_state(ssl);
        return true;
    }
    lib.SSL_set_connect_state(ssl);
    return set_name(ssl, name);
}

tls_session *tls_session_new(tls_context *context, tls_io *io, const char *name)
{
    tls_session *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    tls_context_hold(context);
    s->context = context;
    s->io = io;
    if (open_session(s, name)) return s;
    lib.ERR_clear_error();
    tls_session_free(s);
    return NULL;
}

void tls_session_free(tls_session *s)
{
    if (s == NULL) return;
    lib.SSL_free(s->ssl);
    if (s->io->reader == s) s->io->reader = NULL;
    tls_context_drop(s->context);
    free(s->waiting);
    free(s);
}

void tls_receive(tls_session *s, size_t length)
{
    s->io->reader = s;
    s->io->messages = 0;
    s->io->in_at = 0;
    s->io->in_end = length;
}

static int failure_of(int reason)
{
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_WRONG_VERSION_NUMBER: return TLS_NOT_TLS;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW: return TLS_OLD_VERSION;
    case SSL_R_NO_SHARED_CIPHER: return TLS_NO_CIPHER;
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return TLS_CERTIFICATE;
    case SSL_R_NO_APPLICATION_PROTOCOL: return TLS_NO_PROTOCOL;
    default: return reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256 ? TLS_ALERT : TLS_BROKEN;
    }
}

void tls_fail(tls_session *s, int failure)
{
    if (s->failure == TLS_NO_FAILURE) s->failure = (uint8_t)failure;
}

/* A call has ended badly: the queue has why, and is left empty. */
static tls_result fail_session(tls_session *s)
{
    int reason = (int)(lib.ERR_peek_error() & REASON_MASK);
    if (s->failure == TLS_NO_FAILURE) {
        s->reason = (uint16_t)reason;
        s->failure = (uint8_t)failure_of(reason);
    }
    lib.ERR_clear_error();
    return TLS_FAILED;
}

tls_result tls_handshake(tls_session *s)
{
    clear_errors();
    int rc = lib.SSL_do_handshake(s->ssl);
    if (s->failure != TLS_NO_FAILURE) return fail_session(s);
    if (rc == 1) return TLS_DONE;
    return lib.SSL_get_error(s->ssl, rc) == SSL_ERROR_WANT_READ ? TLS_MORE : fail_session(s);
}

tls_result tls_read(tls_session *s, uint8_t *plain, size_t room, size_t *length)
{
    *length = 0;
    clear_errors();
    for (;;) {
        int n = lib.SSL_read(s->ssl, plain + *length, (int)(room - *length));
        if (s->failure != TLS_NO_FAILURE) return fail_session(s);
        if (n > 0) {
            *length += (size_t)n;
            /* OpenSSL takes a record from us as a whole: none is left in part, and asking it costs as much as a short one. */
            if (s->io->in_at == s->io->in_end && *length < room) return TLS_MORE;
            continue;
        }
        int error = lib.SSL_get_error(s->ssl, n);
        if (error == SSL_ERROR_WANT_READ) return TLS_MORE;
        return error == SSL_ERROR_ZERO_RETURN ? TLS_END : fail_session(s);
    }
}

bool tls_write(tls_session *s, const uint8_t *plain, size_t length)
{
    if (length == 0) return true;
    clear_errors();
    int n = lib.SSL_write(s->ssl, plain, (int)length);
    if (n > 0 && (size_t)n == length) return true;
    (void)fail_session(s);
    return false;
}

void tls_end(tls_session *s)
{
    if (s->ended || s->failure != TLS_NO_FAILURE) return;
    s->ended = true;
    lib.ERR_clear_error();
    (void)lib.SSL_shutdown(s->ssl);
    lib.ERR_clear_error();
}

/* ---- what is known of a session ------------------------------------------------------------------------------------ */

/* Nothing is wrong with a certificate that there is not: that is told as Node tells it. */
static long verify_error(SSL *ssl)
{
    long error = lib.SSL_get_verify_result(ssl);
    if (error != X509_V_OK || !(lib.SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER)) return error;
    X509 *certificate = lib.SSL_get1_peer_certificate(ssl);
    lib.X509_free(certificate);
    return certificate == NULL ? X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT : X509_V_OK;
}

void tls_session_info(const tls_session *s, tls_info *info)
{
    *info = (tls_info){.protocol = lib.SSL_get_version(s->ssl),
                       .cipher = lib.SSL_CIPHER_get_name(lib.SSL_get_current_cipher(s->ssl)),
                       .servername = lib.SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name),
                       .verify_error = (int32_t)verify_error(s->ssl),
                       .resumed = lib.SSL_session_reused(s->ssl) == 1};
    lib.SSL_get0_alpn_selected(s->ssl, &info->alpn, &info->alpn_length);
}

uint8_t *tls_peer_certificate(const tls_session *s, size_t *length)
{
    unsigned char *der = NULL;
    X509 *certificate = lib.SSL_get1_peer_certificate(s->ssl);
    if (certificate == NULL) return NULL;
    int n = lib.i2d_X509(certificate, &der);
    lib.X509_free(certificate);
    lib.ERR_clear_error();
    *length = n > 0 ? (size_t)n : 0;
    return n > 0 ? der : NULL;
}

void tls_free_certificate(uint8_t *certificate)
{
    lib.CRYPTO_free(certificate, __FILE__, __LINE__);
}

const char *tls_reason_text(uint16_t reason)
{
    return reason == 0 ? NULL : lib.ERR_reason_error_string((unsigned long)SSL_PACKED_LIB | reason);
}

const char *tls_verify_text(int32_t verify_error)
{
    return lib.X509_verify_cert_error_string(verify_error);
}
