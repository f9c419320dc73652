/*
 * The Node-API face of the poller: arguments in, numbers out, and one call into JavaScript for each batch.
 *
 * JavaScript knows a poller by an index into a table that belongs to its environment (main thread or worker), so a
 * stale or made-up one is refused and never followed. The poller's epoll descriptor is watched by the environment's own
 * libuv loop. Slabs and record tables are memory of ours that JavaScript sees as ArrayBuffers. System errors are
 * returned as -errno; only wrong argument types throw.
 */
#include <node_api.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "addon.h"
#include "post.h"

/* Raised whenever a call's arguments or answers change. native-addon.ts refuses an addon with another number. */
enum { INTERFACE = 6 };

enum { BUFFERS = 4, CACHE_LINE = 64 };

/* Memory that the poller and JavaScript share. It is freed when both have let go: JavaScript can detach an ArrayBuffer
   (by transferring it) while the poller still reads into it. It begins a cache line behind the block. */
typedef struct {
    _Alignas(CACHE_LINE) int uses;
} block_t;

typedef struct {
    uv_poll_t watcher;
    poller *poller;
    napi_env env;
    napi_async_context async;
    napi_async_cleanup_hook_handle hook;
    napi_ref on_batch;
    napi_ref buffers[BUFFERS];
    block_t *blocks[BUFFERS];
    bool closing;
} handle_t;

typedef struct {
    handle_t **handles; /* NULL where destroyed */
    int32_t count;
    contexts_t contexts;
} env_data;

void throw_type(napi_env env, const char *message)
{
    bool pending = false;
    if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return;
    (void)napi_throw_type_error(env, NULL, message);
}

napi_value int_value(napi_env env, int32_t n)
{
    napi_value value = NULL;
    return napi_create_int32(env, n, &value) == napi_ok ? value : NULL;
}

/* ---- arguments ---------------------------------------------------------------------------------------------- */

bool get_args(napi_env env, napi_callback_info info, napi_value *args, size_t count)
{
    size_t given = count;
    if (napi_get_cb_info(env, info, &given, args, NULL, NULL) == napi_ok && given == count) return true;
    throw_type(env, "wrong number of arguments");
    return false;
}

bool get_int(napi_env env, napi_value value, int32_t *out)
{
    double number;
    if (napi_get_value_double(env, value, &number) == napi_ok && number >= INT32_MIN && number <= INT32_MAX &&
        number == (double)(int32_t)number) {
        *out = (int32_t)number;
        return true;
    }
    throw_type(env, "expected an integer of 32 bits");
    return false;
}

bool get_bool(napi_env env, napi_value value, bool *out)
{
    if (napi_get_value_bool(env, value, out) == napi_ok) return true;
    throw_type(env, "expected a boolean");
    return false;
}

bool get_text(napi_env env, napi_value value, char text[TEXT_MAX])
{
    size_t length = 0;
    if (napi_get_value_string_utf8(env, value, text, TEXT_MAX, &length) == napi_ok && length < TEXT_MAX - 1 &&
        strlen(text) == length) {
        return true;
    }
    throw_type(env, "expected a short string without a NUL");
    return false;
}

poller *get_poller(napi_env env, int32_t index)
{
    env_data *data = NULL;
    if (napi_get_instance_data(env, (void **)&data) != napi_ok || data == NULL) return NULL;
    if (index < 0 || index >= data->count || data->handles[index] == NULL) return NULL;
    return data->handles[index]->poller;
}

contexts_t *get_contexts(napi_env env)
{
    env_data *data = NULL;
    return napi_get_instance_data(env, (void **)&data) == napi_ok && data != NULL ? &data->contexts : NULL;
}

poller *get_call(napi_env env, napi_callback_info info, int32_t *number, bool *flag)
{
    napi_value args[3];
    size_t count = 1 + (size_t)(number != NULL) + (size_t)(flag != NULL);
    int32_t index = -1;
    if (!get_args(env, info, args, count) || !get_int(env, args[0], &index)) return NULL;
    if (number != NULL && !get_int(env, args[1], number)) return NULL;
    if (flag != NULL && !get_bool(env, args[count - 1], flag)) return NULL;
    return get_poller(env, index);
}

/* name(poller, number) -> what `call` says */
static napi_value call_number(napi_env env, napi_callback_info info, int (*call)(poller *, int))
{
    int32_t number = -1;
    poller *p = get_call(env, info, &number, NULL);
    return int_value(env, p == NULL ? -ESHUTDOWN : call(p, number));
}

/* name(poller, number, flag) -> what `call` says */
static napi_value call_flag(napi_env env, napi_callback_info info, int (*call)(poller *, int, bool))
{
    int32_t number = -1;
    bool flag = false;
    poller *p = get_call(env, info, &number, &flag);
    return int_value(env, p == NULL ? -ESHUTDOWN : call(p, number, flag));
}

/* ---- life --------------------------------------------------------------------------------------------------- */

static void drop_block(block_t *block)
{
    if (block != NULL && --block->uses == 0) free(block);
}

static void on_buffer_gone(napi_env env, void *memory, void *block)
{
    (void)env;
    (void)memory;
    drop_block(block);
}

/* After this nothing of ours points into the shared memory. */
static void free_poller(handle_t *h)
{
    if (h->poller != NULL) poller_free(h->poller);
    for (int i = 0; i < BUFFERS; i++) drop_block(h->blocks[i]);
}

static void on_closed(uv_handle_t *watcher)
{
    handle_t *h = watcher->data;
    free_poller(h);
    if (h->hook != NULL) (void)napi_remove_async_cleanup_hook(h->hook);
    free(h);
}

static void drop_references(handle_t *h)
{
    if (h->on_batch != NULL) (void)napi_delete_reference(h->env, h->on_batch);
    for (int i = 0; i < BUFFERS; i++) {
        if (h->buffers[i] != NULL) (void)napi_delete_reference(h->env, h->buffers[i]);
    }
    if (h->async != NULL) (void)napi_async_destroy(h->env, h->async);
}

static void close_handle(handle_t *h)
{
    if (h->closing) return;
    h->closing = true;
    (void)uv_poll_stop(&h->watcher);
    uv_close((uv_handle_t *)&h->watcher, on_closed);
    poller_stop(h->poller);
    drop_references(h);
}

/* Without this hook a worker that exits with a live poller would abort the process: its loop has open handles. */
static void on_env_exit(napi_async_cleanup_hook_handle hook, void *arg)
{
    (void)hook;
    close_handle(arg);
}

static void call_back(handle_t *h, uint32_t count)
{
    napi_value global = NULL, function = NULL, argument = NULL, error = NULL;
    bool pending = false;
    if (napi_get_global(h->env, &global) != napi_ok) return;
    if (napi_get_reference_value(h->env, h->on_batch, &function) != napi_ok || function == NULL) return;
    if (napi_create_uint32(h->env, count, &argument) != napi_ok) return;
    if (napi_make_callback(h->env, h->async, global, function, 1, &argument, NULL) == napi_ok) return;
    /* Thrown: as Node does with its own callbacks, it becomes the process's uncaught exception. A thread that is being
       ended has no exception to take, and nothing more to do. */
    if (napi_is_exception_pending(h->env, &pending) != napi_ok || !pending) return;
    if (napi_get_and_clear_last_exception(h->env, &error) == napi_ok) (void)napi_fatal_exception(h->env, error);
}

static void on_batch(void *context, uint32_t count)
{
    handle_t *h = context;
    napi_handle_scope scope;
    if (napi_open_handle_scope(h->env, &scope) != napi_ok) return;
    call_back(h, count);
    (void)napi_close_handle_scope(h->env, scope);
}

static void on_readable(uv_poll_t *watcher, int status, int events)
{
    (void)events;
    handle_t *h = watcher->data;
    if (status >= 0 && !h->closing) poller_turn(h->poller, on_batch, h);
}

static block_t *make_block(size_t size)
{
    /* aligned_alloc wants a multiple of the alignment. */
    size_t whole = sizeof(block_t) + (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    block_t *block = aligned_alloc(CACHE_LINE, whole);
    if (block != NULL) memset(block, 0, whole);
    return block;
}

static bool make_buffer(handle_t *h, int i, size_t size, uint8_t **memory, napi_value result, const char *name)
{
    napi_value buffer = NULL;
    block_t *block = make_block(size);
    if (block == NULL) return false;
    h->blocks[i] = block;
    block->uses = 2;
    uint8_t *bytes = (uint8_t *)(block + 1);
    if (napi_create_external_arraybuffer(h->env, bytes, size, on_buffer_gone, block, &buffer) != napi_ok) {
        block->uses = 1;
        return false;
    }
    *memory = bytes;
    if (napi_create_reference(h->env, buffer, 1, &h->buffers[i]) != napi_ok) return false;
    return napi_set_named_property(h->env, result, name, buffer) == napi_ok;
}

static bool make_memory(handle_t *h, poller_memory *memory, napi_value result)
{
    uint8_t *in_records = NULL, *out_records = NULL;
    bool made = make_buffer(h, 0, IN_SLAB, &memory->in_slab, result, "inSlab") &&
                make_buffer(h, 1, RECORDS_MAX * sizeof(in_record), &in_records, result, "inRecords") &&
                make_buffer(h, 2, OUT_SLAB, &memory->out_slab, result, "outSlab") &&
                make_buffer(h, 3, OUT_RECORDS_MAX * sizeof(out_record), &out_records, result, "outRecords");
    memory->in_records = (in_record *)(void *)in_records;
    memory->out_records = (out_record *)(void *)out_records;
    return made;
}

static bool keep_callback(handle_t *h, napi_value function)
{
    napi_value name = NULL;
    return napi_create_reference(h->env, function, 1, &h->on_batch) == napi_ok &&
           napi_create_string_utf8(h->env, "ringloop", NAPI_AUTO_LENGTH, &name) == napi_ok &&
           napi_async_init(h->env, NULL, name, &h->async) == napi_ok;
}

static int watch(handle_t *h)
{
    uv_loop_t *loop = NULL;
    if (napi_get_uv_event_loop(h->env, &loop) != napi_ok) return -EINVAL;
    int rc = uv_poll_init(loop, &h->watcher, poller_fd(h->poller));
    if (rc < 0) return rc;
    h->watcher.data = h;
    if (napi_add_async_cleanup_hook(h->env, on_env_exit, h, &h->hook) != napi_ok) {
        /* The watcher is initialised: it has to be closed, not freed. */
        close_handle(h);
        return -EINVAL;
    }
    rc = uv_poll_start(&h->watcher, UV_READABLE, on_readable);
    if (rc < 0) close_handle(h);
    return rc;
}

static int32_t remember(napi_env env, handle_t *h)
{
    env_data *data = NULL;
    if (napi_get_instance_data(env, (void **)&data) != napi_ok || data == NULL) return -EINVAL;
    handle_t **handles = realloc(data->handles, ((size_t)data->count + 1) * sizeof *handles);
    if (handles == NULL) return -ENOMEM;
    data->handles = handles;
    data->handles[data->count] = h;
    return data->count++;
}

/* Makes the poller and starts watching it. On failure everything is undone. */
static int32_t open_handle(napi_env env, napi_value function, uint32_t max_lingering, bool may_ring, napi_value result)
{
    poller_memory memory = {0};
    int error = -ENOMEM;
    handle_t *h = calloc(1, sizeof *h);
    if (h == NULL) return -ENOMEM;
    h->env = env;
    if (make_memory(h, &memory, result) && keep_callback(h, function)) {
        h->poller = poller_new(&memory, max_lingering, may_ring, &error);
    }
    if (h->poller == NULL) {
        drop_references(h);
        free_poller(h);
        free(h);
        return error;
    }
    int32_t index = remember(env, h);
    error = index < 0 ? index : watch(h);
    if (error == 0) return index;
    if (index >= 0) {
        env_data *data = NULL;
        if (napi_get_instance_data(env, (void **)&data) == napi_ok && data != NULL) data->handles[index] = NULL;
    }
    if (!h->closing) {
        poller_stop(h->poller);
        drop_references(h);
        free_poller(h);
        free(h);
    }
    return error;
}

/* create(onBatch(count), maxLingering, mayRing) -> { poller: -errno, … } or { poller, mailbox, inSlab, inRecords, outSlab, outRecords } */
static napi_value addon_create(napi_env env, napi_callback_info info)
{
    napi_value args[3], result, value;
    napi_valuetype type = napi_undefined;
    int32_t max_lingering = 0;
    bool may_ring = false;
    if (!get_args(env, info, args, 3) || !get_int(env, args[1], &max_lingering) || !get_bool(env, args[2], &may_ring)) {
        return NULL;
    }
    if (napi_typeof(env, args[0], &type) != napi_ok || type != napi_function) {
        throw_type(env, "expected a function");
        return NULL;
    }
    if (napi_create_object(env, &result) != napi_ok) return NULL;
    uint32_t lingering = max_lingering < 0 ? 0 : (uint32_t)max_lingering;
    int32_t index = open_handle(env, args[0], lingering, may_ring, result);
    value = int_value(env, index);
    if (value == NULL || napi_set_named_property(env, result, "poller", value) != napi_ok) return NULL;
    poller *p = get_poller(env, index);
    value = int_value(env, p == NULL ? -1 : poller_mailbox(p));
    if (value == NULL || napi_set_named_property(env, result, "mailbox", value) != napi_ok) return NULL;
    return result;
}

static napi_value addon_destroy(napi_env env, napi_callback_info info)
{
    napi_value arg;
    int32_t index = -1;
    env_data *data = NULL;
    if (!get_args(env, info, &arg, 1) || !get_int(env, arg, &index)) return NULL;
    if (get_poller(env, index) == NULL || napi_get_instance_data(env, (void **)&data) != napi_ok) return NULL;
    close_handle(data->handles[index]);
    data->handles[index] = NULL;
    return NULL;
}

static napi_value addon_set_ref(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    int32_t index = -1;
    bool on = false;
    env_data *data = NULL;
    if (!get_args(env, info, args, 2) || !get_int(env, args[0], &index) || !get_bool(env, args[1], &on)) return NULL;
    if (get_poller(env, index) == NULL || napi_get_instance_data(env, (void **)&data) != napi_ok) return NULL;
    uv_handle_t *watcher = (uv_handle_t *)&data->handles[index]->watcher;
    if (on) uv_ref(watcher);
    else uv_unref(watcher);
    return NULL;
}

/* ---- listeners and connects ----------------------------------------------------------------------------------- */

/* listenTcp(poller, ip, port, backlog, noDelay, keepAliveSeconds, reusePort, receiveBuffer, park)
   -> listener or -errno */
static napi_value addon_listen_tcp(napi_env env, napi_callback_info info)
{
    napi_value args[9];
    char ip[TEXT_MAX];
    int32_t index, port, backlog, keep_alive, receive_buffer;
    bool no_delay, reuse_port, park;
    if (!get_args(env, info, args, 9) || !get_int(env, args[0], &index) || !get_text(env, args[1], ip) ||
        !get_int(env, args[2], &port) || !get_int(env, args[3], &backlog) || !get_bool(env, args[4], &no_delay) ||
        !get_int(env, args[5], &keep_alive) || !get_bool(env, args[6], &reuse_port) ||
        !get_int(env, args[7], &receive_buffer) || !get_bool(env, args[8], &park)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    if (p == NULL || port < 0 || port > 65535) return int_value(env, p == NULL ? -ESHUTDOWN : -EINVAL);
    socket_options options = {.no_delay = no_delay,
                              .reuse_port = reuse_port,
                              .keep_alive_s = keep_alive,
                              .backlog = backlog,
                              .receive_buffer = receive_buffer};
    return int_value(env, poller_listen_tcp(p, ip, (uint16_t)port, &options, park));
}

/* listenUnix(poller, path, backlog, park) -> listener or -errno */
static napi_value addon_listen_unix(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    char path[TEXT_MAX];
    int32_t index, backlog;
    bool park;
    if (!get_args(env, info, args, 4) || !get_int(env, args[0], &index) || !get_text(env, args[1], path) ||
        !get_int(env, args[2], &backlog) || !get_bool(env, args[3], &park)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    socket_options options = {.backlog = backlog};
    return int_value(env, p == NULL ? -ESHUTDOWN : poller_listen_unix(p, path, &options, park));
}

/* connectTcp(poller, ip, port, noDelay, keepAliveSeconds) -> slot or -errno */
static napi_value addon_connect_tcp(napi_env env, napi_callback_info info)
{
    napi_value args[5];
    char ip[TEXT_MAX];
    int32_t index, port, keep_alive;
    bool no_delay;
    if (!get_args(env, info, args, 5) || !get_int(env, args[0], &index) || !get_text(env, args[1], ip) ||
        !get_int(env, args[2], &port) || !get_bool(env, args[3], &no_delay) || !get_int(env, args[4], &keep_alive)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    if (p == NULL || port < 0 || port > 65535) return int_value(env, p == NULL ? -ESHUTDOWN : -EINVAL);
    socket_options options = {.no_delay = no_delay, .keep_alive_s = keep_alive};
    return int_value(env, poller_connect_tcp(p, ip, (uint16_t)port, &options));
}

/* connectUnix(poller, path) -> slot or -errno */
static napi_value addon_connect_unix(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    char path[TEXT_MAX];
    int32_t index;
    if (!get_args(env, info, args, 2) || !get_int(env, args[0], &index) || !get_text(env, args[1], path)) return NULL;
    poller *p = get_poller(env, index);
    return int_value(env, p == NULL ? -ESHUTDOWN : poller_connect_unix(p, path));
}

static napi_value addon_listener_port(napi_env env, napi_callback_info info)
{
    int32_t listener = -1;
    poller *p = get_call(env, info, &listener, NULL);
    return int_value(env, p == NULL ? -ESHUTDOWN : poller_listener_port(p, listener));
}

static napi_value addon_set_accepting(napi_env env, napi_callback_info info)
{
    return call_flag(env, info, poller_set_accepting);
}

static napi_value addon_close_listener(napi_env env, napi_callback_info info)
{
    return call_number(env, info, poller_close_listener);
}

/* parkMailbox(poller, park): sockets that come through the mailbox wait for adopt or takeDescriptor. */
static napi_value addon_park_mailbox(napi_env env, napi_callback_info info)
{
    bool park = false;
    poller *p = get_call(env, info, NULL, &park);
    if (p != NULL) poller_park_mailbox(p, park);
    return NULL;
}

/* ---- slots ---------------------------------------------------------------------------------------------------- */

static napi_value addon_adopt(napi_env env, napi_callback_info info)
{
    return call_number(env, info, poller_adopt);
}

/* handOff(poller, slot, mailbox) -> 0 or -errno */
static napi_value addon_hand_off(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    int32_t index, slot, mailbox;
    if (!get_args(env, info, args, 3) || !get_int(env, args[0], &index) || !get_int(env, args[1], &slot) ||
        !get_int(env, args[2], &mailbox)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    return int_value(env, p == NULL ? -ESHUTDOWN : poller_hand_off(p, slot, mailbox));
}

/* takeDescriptor(poller, slot) -> the descriptor, the caller's from now on, or -errno */
static napi_value addon_take_descriptor(napi_env env, napi_callback_info info)
{
    return call_number(env, info, poller_take_descriptor);
}

static napi_value addon_flush(napi_env env, napi_callback_info info)
{
    int32_t count = 0;
    poller *p = get_call(env, info, &count, NULL);
    return int_value(env, p == NULL || count < 0 ? 0 : poller_flush(p, (uint32_t)count));
}

bool get_range(napi_env env, const napi_value args[3], const uint8_t **bytes, size_t *length)
{
    int64_t start, end;
    void *memory = NULL;
    size_t size = 0;
    if (napi_get_typedarray_info(env, args[0], NULL, &size, &memory, NULL, NULL) != napi_ok ||
        napi_get_value_int64(env, args[1], &start) != napi_ok || napi_get_value_int64(env, args[2], &end) != napi_ok ||
        start < 0 || end < start || (uint64_t)end > size) {
        throw_type(env, "expected bytes and a range in them");
        return false;
    }
    *bytes = (const uint8_t *)memory + start;
    *length = (size_t)(end - start);
    return true;
}

/* write(poller, slot, bytes, start, end) -> bytes taken or -errno */
static napi_value addon_write(napi_env env, napi_callback_info info)
{
    napi_value args[5];
    int32_t index, slot;
    const uint8_t *bytes;
    size_t length;
    if (!get_args(env, info, args, 5) || !get_int(env, args[0], &index) || !get_int(env, args[1], &slot) ||
        !get_range(env, args + 2, &bytes, &length)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    return int_value(env, p == NULL ? -ESHUTDOWN : poller_write(p, slot, bytes, length));
}

/* writeBehind(poller, slot, offset, head, bytes, start, end) -> bytes taken of both or -errno */
static napi_value addon_write_behind(napi_env env, napi_callback_info info)
{
    napi_value args[7];
    int32_t index, slot, offset, head;
    const uint8_t *bytes;
    size_t length;
    if (!get_args(env, info, args, 7) || !get_int(env, args[0], &index) || !get_int(env, args[1], &slot) ||
        !get_int(env, args[2], &offset) || !get_int(env, args[3], &head) ||
        !get_range(env, args + 4, &bytes, &length)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    return int_value(env, p == NULL ? -ESHUTDOWN : poller_write_behind(p, slot, offset, head, bytes, length));
}

static napi_value addon_set_reading(napi_env env, napi_callback_info info)
{
    return call_flag(env, info, poller_set_reading);
}

static napi_value addon_unmask(napi_env env, napi_callback_info info)
{
    return call_number(env, info, poller_unmask);
}

static napi_value addon_shutdown_write(napi_env env, napi_callback_info info)
{
    return call_number(env, info, poller_shutdown_write);
}

static napi_value addon_close(napi_env env, napi_callback_info info)
{
    return call_flag(env, info, poller_close);
}

static napi_value addon_reset(napi_env env, napi_callback_info info)
{
    return call_number(env, info, poller_reset);
}

static napi_value addon_expire_lingering(napi_env env, napi_callback_info info)
{
    poller *p = get_call(env, info, NULL, NULL);
    return int_value(env, p == NULL ? 0 : (int32_t)poller_expire_lingering(p));
}

/* { host, port }, or undefined where there is none: a unix socket, a slot that is not open. */
static napi_value addr_value(napi_env env, int rc, const socket_addr *addr)
{
    char text[SOCKET_ADDR_HOST] = "";
    napi_value value = NULL, host = NULL, port = NULL;
    if (rc == 0) socket_addr_host(addr, text);
    if (text[0] == '\0') return napi_get_undefined(env, &value) == napi_ok ? value : NULL;
    if (napi_create_object(env, &value) != napi_ok ||
        napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &host) != napi_ok ||
        napi_set_named_property(env, value, "host", host) != napi_ok ||
        napi_create_int32(env, addr->port, &port) != napi_ok ||
        napi_set_named_property(env, value, "port", port) != napi_ok) {
        return NULL;
    }
    return value;
}

static napi_value addon_peer_addr(napi_env env, napi_callback_info info)
{
    int32_t slot = -1;
    socket_addr addr;
    poller *p = get_call(env, info, &slot, NULL);
    return addr_value(env, p == NULL ? -ESHUTDOWN : poller_peer_addr(p, slot, &addr), &addr);
}

static napi_value addon_local_addr(napi_env env, napi_callback_info info)
{
    int32_t slot = -1;
    socket_addr addr;
    poller *p = get_call(env, info, &slot, NULL);
    return addr_value(env, p == NULL ? -ESHUTDOWN : poller_slot_local_addr(p, slot, &addr), &addr);
}

/* ---- the module ------------------------------------------------------------------------------------------------- */

static void free_env_data(napi_env env, void *memory, void *hint)
{
    (void)env;
    (void)hint;
    env_data *data = memory;
    drop_contexts(&data->contexts);
    free(data->handles);
    free(data);
}

typedef struct {
    const char *name;
    int32_t value;
} constant_t;

#define CONSTANT(name) {#name, name}

/* constants: what JavaScript has to know as well, by the names that it has here. */
static bool add_constants(napi_env env, napi_value exports)
{
    const constant_t constants[] = {
        CONSTANT(INTERFACE),
        CONSTANT(IN_SLAB),
        CONSTANT(OUT_SLAB),
        CONSTANT(RECORDS_MAX),
        CONSTANT(OUT_RECORDS_MAX),
        {"RECORD_INTS", sizeof(in_record) / sizeof(int32_t)},
        {"OUT_RECORD_INTS", sizeof(out_record) / sizeof(int32_t)},
        CONSTANT(LINGER_MS),
        CONSTANT(COUNTED),
        CONSTANT(RECORD_READ),
        CONSTANT(RECORD_WRITABLE),
        CONSTANT(RECORD_END),
        CONSTANT(RECORD_ERROR),
        CONSTANT(RECORD_ACCEPT),
        CONSTANT(RECORD_CONNECT),
        CONSTANT(RECORD_HANGUP),
        CONSTANT(RECORD_ACCEPT_ERROR),
        CONSTANT(RECORD_LOST),
        CONSTANT(RECORD_LEFT),
        CONSTANT(RECORD_POST),
        {"MEMBER_INTS", sizeof(mailbox_member) / sizeof(int32_t)},
        CONSTANT(RECORD_HANDSHAKE),
        CONSTANT(RECORD_REFUSED),
        CONSTANT(RECORD_SECURED),
        CONSTANT(ERROR_TLS),
        CONSTANT(ERROR_TRUNCATED),
        CONSTANT(TLS_PASSPHRASE),
        CONSTANT(TLS_CERT),
        CONSTANT(TLS_KEY),
        CONSTANT(TLS_CA),
        CONSTANT(TLS_CIPHERS),
        CONSTANT(TLS_CIPHER_SUITES),
        CONSTANT(TLS_GROUPS),
        CONSTANT(TLS_SIGALGS),
        CONSTANT(TLS_ALPN),
        CONSTANT(TLS_TICKETS),
        CONSTANT(TLS_SESSION_CONTEXT),
        CONSTANT(TLS_MIN_VERSION),
        CONSTANT(TLS_MAX_VERSION),
        CONSTANT(TLS_TIMEOUT),
        CONSTANT(TLS_VERIFY),
        CONSTANT(TLS_CIPHER_ORDER),
        CONSTANT(TLS_VERIFY_NONE),
        CONSTANT(TLS_VERIFY_OPTIONAL),
        CONSTANT(TLS_VERIFY_REQUIRED),
        CONSTANT(TLS_TICKET_KEYS),
        CONSTANT(TLS_NOT_TLS),
        CONSTANT(TLS_OLD_VERSION),
        CONSTANT(TLS_NO_CIPHER),
        CONSTANT(TLS_CERTIFICATE),
        CONSTANT(TLS_NO_PROTOCOL),
        CONSTANT(TLS_ALERT),
        CONSTANT(TLS_BROKEN),
        CONSTANT(TLS_RENEGOTIATION),
        CONSTANT(TLS_FLOOD),
        CONSTANT(TLS_LEFT),
        CONSTANT(TLS_LATE),
        CONSTANT(TLS_TOO_MANY),
    };
    napi_value object = NULL;
    if (napi_create_object(env, &object) != napi_ok) return false;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        napi_value value = int_value(env, constants[i].value);
        if (value == NULL || napi_set_named_property(env, object, constants[i].name, value) != napi_ok) return false;
    }
    return napi_set_named_property(env, exports, "constants", object) == napi_ok;
}

NAPI_MODULE_INIT()
{
    const napi_property_descriptor methods[] = {
        METHOD("create", addon_create),
        METHOD("destroy", addon_destroy),
        METHOD("setRef", addon_set_ref),
        METHOD("listenTcp", addon_listen_tcp),
        METHOD("listenUnix", addon_listen_unix),
        METHOD("listenerPort", addon_listener_port),
        METHOD("setAccepting", addon_set_accepting),
        METHOD("closeListener", addon_close_listener),
        METHOD("parkMailbox", addon_park_mailbox),
        METHOD("connectTcp", addon_connect_tcp),
        METHOD("connectUnix", addon_connect_unix),
        METHOD("adopt", addon_adopt),
        METHOD("handOff", addon_hand_off),
        METHOD("takeDescriptor", addon_take_descriptor),
        METHOD("flush", addon_flush),
        METHOD("write", addon_write),
        METHOD("writeBehind", addon_write_behind),
        METHOD("setReading", addon_set_reading),
        METHOD("unmask", addon_unmask),
        METHOD("shutdownWrite", addon_shutdown_write),
        METHOD("close", addon_close),
        METHOD("reset", addon_reset),
        METHOD("expireLingering", addon_expire_lingering),
        METHOD("peerAddr", addon_peer_addr),
        METHOD("localAddr", addon_local_addr),
        METHOD("openGroup", addon_open_group),
        METHOD("joinGroup", addon_join_group),
        METHOD("rest", addon_rest),
        METHOD("members", addon_members),
        METHOD("post", addon_post),
        METHOD("takeLetter", addon_take_letter),
    };
    env_data *data = calloc(1, sizeof *data);
    if (data == NULL || napi_set_instance_data(env, data, free_env_data, NULL) != napi_ok) {
        free(data);
        (void)napi_throw_error(env, NULL, "out of memory");
        return NULL;
    }
    if (napi_define_properties(env, exports, sizeof methods / sizeof *methods, methods) != napi_ok) return NULL;
    if (!add_constants(env, exports) || !define_tls(env, exports)) return NULL;
    return exports;
}
