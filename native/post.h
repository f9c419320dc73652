/* The Node-API face of groups and letters (mailbox.h). The thread of the environment only. */
#ifndef RINGLOOP_POST_H
#define RINGLOOP_POST_H

#include <node_api.h>

#include "mailbox.h"

/* openGroup() -> its number */
napi_value addon_open_group(napi_env env, napi_callback_info info);
/* joinGroup(poller, group, loop) -> 0 or -errno */
napi_value addon_join_group(napi_env env, napi_callback_info info);
/* rest(poller) */
napi_value addon_rest(napi_env env, napi_callback_info info);
/* members(poller, Int32Array) -> how many it has filled in, or -EAGAIN where nothing has changed, or -errno */
napi_value addon_members(napi_env env, napi_callback_info info);
/* post(poller, mailboxes as an Int32Array, count, bytes, start, end) -> 0 or -errno */
napi_value addon_post(napi_env env, napi_callback_info info);
/* takeLetter(poller) -> its bytes in memory of their own, or undefined */
napi_value addon_take_letter(napi_env env, napi_callback_info info);

#endif
