/*
 * What the files of the addon's Node-API face share: arguments in, numbers out, and what belongs to one environment (the
 * main thread or a worker). The thread of the environment only. Whatever refuses an argument has thrown a TypeError.
 */
#ifndef RINGLOOP_ADDON_H
#define RINGLOOP_ADDON_H

#include <node_api.h>
#include <stdbool.h>

#include "poller.h"

enum { TEXT_MAX = 256 };

#define METHOD(name, function) {name, NULL, function, NULL, NULL, NULL, napi_enumerable, NULL}

/* TLS contexts that JavaScript knows by their index; NULL where dropped. */
typedef struct {
    tls_context **list;
    int32_t count;
} contexts_t;

void throw_type(napi_env env, const char *message);
napi_value int_value(napi_env env, int32_t n);

/* Reads exactly `count` arguments. */
bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t count);
/* Refuses what is no int32 exactly: NaN and 2^32 would otherwise become 0, which is somebody's number. */
bool get_int(napi_env env, napi_value value, int32_t *out);
bool get_bool(napi_env env, napi_value value, bool *out);
/* Refuses what has a NUL in it or is longer than TEXT_MAX. */
bool get_text(napi_env env, napi_value value, char text[TEXT_MAX]);
/* Bytes of a typed array, and the range that the two numbers after it say. */
bool get_range(napi_env env, const napi_value args[3], const uint8_t **bytes, size_t *length);
/* The live poller behind an index, or NULL: a destroyed one makes every call a no-op. */
poller *get_poller(napi_env env, int32_t index);
/* Most calls take a poller, then a number, a boolean or both; NULL for what a call has not. */
poller *get_call(napi_env env, napi_callback_info info, int32_t *number, bool *flag);
/* The environment's; NULL when it is ending. */
contexts_t *get_contexts(napi_env env);

/* addon-tls.c: */
bool define_tls(napi_env env, napi_value exports);
void drop_contexts(contexts_t *contexts);

#endif
