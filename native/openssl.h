/*
 * What tls.c uses of OpenSSL 3, declared by hand: the library is the one inside the node binary, found when the process
 * runs, and there need be no headers of it where the addon is built. The lists are checked against real headers by
 * test/openssl-headers.test.ts. No state, any thread.
 */
#ifndef RINGLOOP_OPENSSL_H
#define RINGLOOP_OPENSSL_H

#include <stddef.h>
#include <stdint.h>

/* F(name, value): macros of OpenSSL, which a library does not export. The value is part of the ABI of version 3. */
#define OPENSSL_CONSTANTS(F)                                                                                           \
    F(BIO_CTRL_FLUSH, 11)                                                                                              \
    F(BIO_FLAGS_READ, 0x01)                                                                                            \
    F(BIO_FLAGS_SHOULD_RETRY, 0x08)                                                                                    \
    F(BIO_TYPE_SOURCE_SINK, 0x0400)                                                                                    \
    F(ERR_LIB_PEM, 9)                                                                                                  \
    F(ERR_LIB_SSL, 20)                                                                                                 \
    F(PEM_R_NO_START_LINE, 108)                                                                                        \
    F(SSL_AD_REASON_OFFSET, 1000)                                                                                      \
    F(SSL_AD_NO_RENEGOTIATION, 100)                                                                                    \
    F(SSL_CB_LOOP, 0x01)                                                                                               \
    F(SSL_CB_WRITE_ALERT, 0x4008)                                                                                      \
    F(SSL_CTRL_MODE, 33)                                                                                               \
    F(SSL_CTRL_SET_SESS_CACHE_MODE, 44)                                                                                \
    F(SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, 53)                                                                           \
    F(SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG, 54)                                                                          \
    F(SSL_CTRL_SET_TLSEXT_HOSTNAME, 55)                                                                                \
    F(SSL_CTRL_SET_TLSEXT_TICKET_KEYS, 59)                                                                             \
    F(SSL_CTRL_CHAIN_CERT, 89)                                                                                         \
    F(SSL_CTRL_SET_GROUPS_LIST, 92)                                                                                    \
    F(SSL_CTRL_SET_SIGALGS_LIST, 98)                                                                                   \
    F(SSL_CTRL_SET_MIN_PROTO_VERSION, 123)                                                                             \
    F(SSL_CTRL_SET_MAX_PROTO_VERSION, 124)                                                                             \
    F(SSL_ERROR_WANT_READ, 2)                                                                                          \
    F(SSL_ERROR_ZERO_RETURN, 6)                                                                                        \
    F(SSL_MODE_RELEASE_BUFFERS, 0x10)                                                                                  \
    F(SSL_OP_CIPHER_SERVER_PREFERENCE, 1 << 22)                                                                        \
    F(SSL_OP_NO_RENEGOTIATION, 1 << 30)                                                                                \
    F(SSL_R_CERTIFICATE_VERIFY_FAILED, 134)                                                                            \
    F(SSL_R_HTTPS_PROXY_REQUEST, 155)                                                                                  \
    F(SSL_R_HTTP_REQUEST, 156)                                                                                         \
    F(SSL_R_NO_APPLICATION_PROTOCOL, 235)                                                                              \
    F(SSL_R_NO_SHARED_CIPHER, 193)                                                                                     \
    F(SSL_R_PACKET_LENGTH_TOO_LONG, 198)                                                                               \
    F(SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, 199)                                                                    \
    F(SSL_R_UNKNOWN_PROTOCOL, 252)                                                                                     \
    F(SSL_R_UNSUPPORTED_PROTOCOL, 258)                                                                                 \
    F(SSL_R_VERSION_TOO_LOW, 396)                                                                                      \
    F(SSL_R_WRONG_VERSION_NUMBER, 267)                                                                                 \
    F(SSL_SESS_CACHE_OFF, 0)                                                                                           \
    F(SSL_TLSEXT_ERR_ALERT_FATAL, 2)                                                                                   \
    F(SSL_TLSEXT_ERR_NOACK, 3)                                                                                         \
    F(SSL_TLSEXT_ERR_OK, 0)                                                                                            \
    F(SSL_VERIFY_FAIL_IF_NO_PEER_CERT, 0x02)                                                                           \
    F(SSL_VERIFY_NONE, 0x00)                                                                                           \
    F(SSL_VERIFY_PEER, 0x01)                                                                                           \
    F(TLSEXT_NAMETYPE_host_name, 0)                                                                                    \
    F(X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, 2)                                                                         \
    F(X509_V_OK, 0)

/* F(returns, name, arguments): the functions, as the library exports them. */
#define OPENSSL_FUNCTIONS(F)                                                                                           \
    F(unsigned int, OPENSSL_version_major, (void))                                                                     \
    F(void, OPENSSL_cleanse, (void *, size_t))                                                                         \
    F(void, CRYPTO_free, (void *, const char *, int))                                                                  \
    F(void, ERR_clear_error, (void))                                                                                   \
    F(unsigned long, ERR_peek_error, (void))                                                                           \
    F(void, ERR_error_string_n, (unsigned long, char *, size_t))                                                       \
    F(const char *, ERR_reason_error_string, (unsigned long))                                                          \
    F(int, BIO_get_new_index, (void))                                                                                  \
    F(BIO_METHOD *, BIO_meth_new, (int, const char *))                                                                 \
    F(int, BIO_meth_set_read, (BIO_METHOD *, int (*)(BIO *, char *, int)))                                             \
    F(int, BIO_meth_set_write, (BIO_METHOD *, int (*)(BIO *, const char *, int)))                                      \
    F(int, BIO_meth_set_ctrl, (BIO_METHOD *, long (*)(BIO *, int, long, void *)))                                      \
    F(BIO *, BIO_new, (const BIO_METHOD *))                                                                            \
    F(BIO *, BIO_new_mem_buf, (const void *, int))                                                                     \
    F(int, BIO_free, (BIO *))                                                                                          \
    F(void, BIO_set_data, (BIO *, void *))                                                                             \
    F(void *, BIO_get_data, (BIO *))                                                                                   \
    F(void, BIO_set_init, (BIO *, int))                                                                                \
    F(void, BIO_set_flags, (BIO *, int))                                                                               \
    F(void, BIO_clear_flags, (BIO *, int))                                                                             \
    F(X509 *, PEM_read_bio_X509, (BIO *, X509 **, pem_password_cb *, void *))                                          \
    F(EVP_PKEY *, PEM_read_bio_PrivateKey, (BIO *, EVP_PKEY **, pem_password_cb *, void *))                            \
    F(void, EVP_PKEY_free, (EVP_PKEY *))                                                                               \
    F(void, X509_free, (X509 *))                                                                                       \
    F(int, i2d_X509, (const X509 *, unsigned char **))                                                                 \
    F(int, X509_STORE_add_cert, (X509_STORE *, X509 *))                                                                \
    F(const SSL_METHOD *, TLS_server_method, (void))                                                                   \
    F(const SSL_METHOD *, TLS_client_method, (void))                                                                   \
    F(SSL_CTX *, SSL_CTX_new, (const SSL_METHOD *))                                                                    \
    F(void, SSL_CTX_free, (SSL_CTX *))                                                                                 \
    F(long, SSL_CTX_ctrl, (SSL_CTX *, int, long, void *))                                                              \
    F(long, SSL_CTX_callback_ctrl, (SSL_CTX *, int, void (*)(void)))                                                   \
    F(uint64_t, SSL_CTX_set_options, (SSL_CTX *, uint64_t))                                                            \
    F(int, SSL_CTX_use_certificate, (SSL_CTX *, X509 *))                                                               \
    F(int, SSL_CTX_use_PrivateKey, (SSL_CTX *, EVP_PKEY *))                                                            \
    F(int, SSL_CTX_check_private_key, (const SSL_CTX *))                                                               \
    F(int, SSL_CTX_set_cipher_list, (SSL_CTX *, const char *))                                                         \
    F(int, SSL_CTX_set_ciphersuites, (SSL_CTX *, const char *))                                                        \
    F(X509_STORE *, SSL_CTX_get_cert_store, (const SSL_CTX *))                                                         \
    F(int, SSL_CTX_add_client_CA, (SSL_CTX *, X509 *))                                                                 \
    F(void, SSL_CTX_set_verify, (SSL_CTX *, int, SSL_verify_cb))                                                       \
    F(void, SSL_CTX_set_cert_verify_callback, (SSL_CTX *, int (*)(X509_STORE_CTX *, void *), void *))                  \
    F(int, X509_verify_cert, (X509_STORE_CTX *))                                                                       \
    F(int, X509_STORE_CTX_get_error, (const X509_STORE_CTX *))                                                         \
    F(void, SSL_CTX_set_alpn_select_cb, (SSL_CTX *, SSL_CTX_alpn_select_cb_func, void *))                              \
    F(int, SSL_CTX_set_alpn_protos, (SSL_CTX *, const unsigned char *, unsigned int))                                  \
    F(int, SSL_CTX_set_session_id_context, (SSL_CTX *, const unsigned char *, unsigned int))                           \
    F(long, SSL_CTX_set_timeout, (SSL_CTX *, long))                                                                    \
    F(void, SSL_CTX_set_info_callback, (SSL_CTX *, void (*)(const SSL *, int, int)))                                   \
    F(SSL *, SSL_new, (SSL_CTX *))                                                                                     \
    F(void, SSL_free, (SSL *))                                                                                         \
    F(void, SSL_set_bio, (SSL *, BIO *, BIO *))                                                                        \
    F(BIO *, SSL_get_rbio, (const SSL *))                                                                              \
    F(void, SSL_set_accept_state, (SSL *))                                                                             \
    F(void, SSL_set_connect_state, (SSL *))                                                                            \
    F(int, SSL_do_handshake, (SSL *))                                                                                  \
    F(int, SSL_read, (SSL *, void *, int))                                                                             \
    F(int, SSL_write, (SSL *, const void *, int))                                                                      \
    F(int, SSL_shutdown, (SSL *))                                                                                      \
    F(int, SSL_get_error, (const SSL *, int))                                                                          \
    F(long, SSL_ctrl, (SSL *, int, long, void *))                                                                      \
    F(int, SSL_set1_host, (SSL *, const char *))                                                                       \
    F(SSL_CTX *, SSL_set_SSL_CTX, (SSL *, SSL_CTX *))                                                                  \
    F(const char *, SSL_get_servername, (const SSL *, const int))                                                      \
    F(void, SSL_get0_alpn_selected, (const SSL *, const unsigned char **, unsigned int *))                             \
    F(int, SSL_get_verify_mode, (const SSL *))                                                                         \
    F(long, SSL_get_verify_result, (const SSL *))                                                                      \
    F(const char *, SSL_get_version, (const SSL *))                                                                    \
    F(const SSL_CIPHER *, SSL_get_current_cipher, (const SSL *))                                                       \
    F(const char *, SSL_CIPHER_get_name, (const SSL_CIPHER *))                                                         \
    F(X509 *, SSL_get1_peer_certificate, (const SSL *))                                                                \
    F(int, SSL_session_reused, (const SSL *))                                                                          \
    F(const char *, X509_verify_cert_error_string, (long))

#ifndef OPENSSL_LISTS_ONLY

typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct ssl_st SSL;
typedef struct ssl_cipher_st SSL_CIPHER;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_method_st SSL_METHOD;
typedef struct x509_st X509;
typedef struct x509_store_ctx_st X509_STORE_CTX;
typedef struct x509_store_st X509_STORE;

typedef int pem_password_cb(char *text, int size, int writing, void *context);
typedef int (*SSL_verify_cb)(int verified, X509_STORE_CTX *certificates);
typedef int (*SSL_CTX_alpn_select_cb_func)(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                                           const unsigned char *in, unsigned int in_length, void *context);

#define OPENSSL_ENUMERATE(name, value) name = (value),
enum { OPENSSL_CONSTANTS(OPENSSL_ENUMERATE) };
#undef OPENSSL_ENUMERATE

#endif
#endif
