/*
 * What the files of the Node-API face share: arguments in, numbers out. The thread of the environment only. Whatever
 * refuses an argument has thrown.
 */
#ifndef RINGLOOP_ADDON_H
#define RINGLOOP_ADDON_H

#include <node_api.h>

#include "poller.h"

void throw_type(napi_env env, const char *message);
napi_value int_value(napi_env env, int32_t n);

/* Reads exactly `count` arguments; false with an exception thrown otherwise. */
bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t count);
/* Refuses what is no int32 exactly: NaN and 2^32 would otherwise become 0, which is somebody's number. */
bool get_int(napi_env env, napi_value value, int32_t *out);
/* Bytes of a typed array, and the range that the two numbers after it say. */
bool get_range(napi_env env, const napi_value args[3], const uint8_t **bytes, size_t *length);
/* The live poller behind an index, or NULL: a destroyed one makes every call a no-op. */
poller *get_poller(napi_env env, int32_t index);
/* Most calls take a poller, then a number, a boolean or both; NULL for what a call has not. */
poller *get_call(napi_env env, napi_callback_info info, int32_t *number, bool *flag);

#endif
