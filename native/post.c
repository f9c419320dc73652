/* The calls of post.h. */
#include "post.h"

#include <errno.h>

#include "addon.h"

/* The memory of an Int32Array, and how many numbers it holds. */
static bool get_ints(napi_env env, napi_value value, int32_t **ints, size_t *count)
{
    napi_typedarray_type type;
    void *memory = NULL;
    if (napi_get_typedarray_info(env, value, &type, count, &memory, NULL, NULL) != napi_ok ||
        type != napi_int32_array) {
        throw_type(env, "expected an Int32Array");
        return false;
    }
    *ints = memory;
    return true;
}

napi_value addon_open_group(napi_env env, napi_callback_info info)
{
    if (!get_args(env, info, NULL, 0)) return NULL;
    return int_value(env, mailbox_open_group());
}

napi_value addon_join_group(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    int32_t index, group, loop;
    if (!get_args(env, info, args, 3) || !get_int(env, args[0], &index) || !get_int(env, args[1], &group) ||
        !get_int(env, args[2], &loop)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    if (p == NULL || group <= 0) return int_value(env, p == NULL ? -ESHUTDOWN : -EINVAL);
    return int_value(env, mailbox_join(poller_mailbox(p), group, loop));
}

napi_value addon_rest(napi_env env, napi_callback_info info)
{
    poller *p = get_call(env, info, NULL, NULL);
    if (p != NULL) mailbox_rest(poller_mailbox(p));
    return NULL;
}

napi_value addon_members(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    int32_t index, *ints;
    size_t count;
    if (!get_args(env, info, args, 2) || !get_int(env, args[0], &index) || !get_ints(env, args[1], &ints, &count)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    size_t max = count * sizeof *ints / sizeof(mailbox_member);
    return int_value(env, p == NULL ? -ESHUTDOWN
                                    : mailbox_members(poller_mailbox(p), (mailbox_member *)(void *)ints, max));
}

static int post(const int32_t *to, size_t count, const uint8_t *bytes, size_t length)
{
    letter *l = letter_new(count, bytes, length);
    if (l == NULL) return -ENOMEM;
    mailbox_post(l, to, count);
    letter_let_go(l);
    return 0;
}

napi_value addon_post(napi_env env, napi_callback_info info)
{
    napi_value args[6];
    int32_t index, count, *to;
    const uint8_t *bytes;
    size_t known, length;
    if (!get_args(env, info, args, 6) || !get_int(env, args[0], &index) || !get_ints(env, args[1], &to, &known) ||
        !get_int(env, args[2], &count) || !get_range(env, args + 3, &bytes, &length)) {
        return NULL;
    }
    if (get_poller(env, index) == NULL) return int_value(env, -ESHUTDOWN);
    if (count < 0 || (size_t)count > known) return int_value(env, -EINVAL);
    return int_value(env, post(to, (size_t)count, bytes, length));
}

napi_value addon_take_letter(napi_env env, napi_callback_info info)
{
    napi_value buffer = NULL;
    poller *p = get_call(env, info, NULL, NULL);
    letter *l = p == NULL ? NULL : mailbox_take_letter(poller_mailbox(p));
    if (l == NULL) return NULL;
    (void)napi_create_buffer_copy(env, l->length, l->bytes, NULL, &buffer);
    letter_let_go(l);
    return buffer;
}
