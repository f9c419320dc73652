/* The Node-API face of TLS: contexts by their index, and what is known of the session of a slot. See addon.c and tls.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "addon.h"

/* ---- contexts ------------------------------------------------------------------------------------------------ */

static tls_context *get_context(napi_env env, int32_t index)
{
    contexts_t *contexts = get_contexts(env);
    return contexts == NULL || index < 0 || index >= contexts->count ? NULL : contexts->list[index];
}

void drop_contexts(contexts_t *contexts)
{
    for (int32_t i = 0; i < contexts->count; i++) tls_context_drop(contexts->list[i]);
    free(contexts->list);
    *contexts = (contexts_t){0};
}

/* The place of one that was dropped is used again. */
static int32_t remember(contexts_t *contexts, tls_context *context)
{
    for (int32_t i = 0; i < contexts->count; i++) {
        if (contexts->list[i] != NULL) continue;
        contexts->list[i] = context;
        return i;
    }
    tls_context **list = realloc(contexts->list, ((size_t)contexts->count + 1) * sizeof(tls_context *));
    if (list == NULL) return -ENOMEM;
    contexts->list = list;
    list[contexts->count] = context;
    return contexts->count++;
}

static napi_value text_value(napi_env env, const char *text)
{
    napi_value value = NULL;
    napi_status status = text == NULL ? napi_get_undefined(env, &value)
                                      : napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
    return status == napi_ok ? value : NULL;
}

/* createContext(server) -> its index or -errno; a string says why there is no TLS here */
static napi_value addon_create_context(napi_env env, napi_callback_info info)
{
    napi_value arg;
    bool server;
    if (!get_args(env, info, &arg, 1) || !get_bool(env, arg, &server)) return NULL;
    if (tls_unavailable() != NULL) return text_value(env, tls_unavailable());
    contexts_t *contexts = get_contexts(env);
    tls_context *context = contexts == NULL ? NULL : tls_context_new(server);
    if (context == NULL) return int_value(env, -ENOMEM);
    int32_t index = remember(contexts, context);
    if (index < 0) tls_context_drop(context);
    return int_value(env, index);
}

/* dropContext(context): who uses it goes on with it. */
static napi_value addon_drop_context(napi_env env, napi_callback_info info)
{
    napi_value arg;
    int32_t index;
    if (!get_args(env, info, &arg, 1) || !get_int(env, arg, &index)) return NULL;
    tls_context *context = get_context(env, index);
    if (context == NULL) return NULL;
    get_contexts(env)->list[index] = NULL;
    tls_context_drop(context);
    return NULL;
}

static napi_value no_context(napi_env env)
{
    return text_value(env, "there is no such context");
}

/* setContext(context, what, bytes) -> undefined, or why it cannot be */
static napi_value addon_set_context(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    int32_t index, what;
    void *bytes = NULL;
    size_t length = 0;
    char error[TLS_TEXT_MAX];
    if (!get_args(env, info, args, 3) || !get_int(env, args[0], &index) || !get_int(env, args[1], &what)) return NULL;
    if (napi_get_typedarray_info(env, args[2], NULL, &length, &bytes, NULL, NULL) != napi_ok) {
        throw_type(env, "expected bytes");
        return NULL;
    }
    tls_context *context = get_context(env, index);
    if (context == NULL) return no_context(env);
    bool set = tls_context_set(context, what, length == 0 ? (const uint8_t *)"" : bytes, length, error);
    return text_value(env, set ? NULL : error);
}

/* setContextNumber(context, what, number) -> undefined, or why it cannot be */
static napi_value addon_set_context_number(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    int32_t index, what, number;
    char error[TLS_TEXT_MAX];
    if (!get_args(env, info, args, 3) || !get_int(env, args[0], &index) || !get_int(env, args[1], &what) ||
        !get_int(env, args[2], &number)) {
        return NULL;
    }
    tls_context *context = get_context(env, index);
    if (context == NULL) return no_context(env);
    return text_value(env, tls_context_set_number(context, what, number, error) ? NULL : error);
}

/* addContextName(context, name, other) -> 0 or -errno */
static napi_value addon_add_context_name(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    int32_t index, other_index;
    char name[TEXT_MAX];
    if (!get_args(env, info, args, 3) || !get_int(env, args[0], &index) || !get_text(env, args[1], name) ||
        !get_int(env, args[2], &other_index)) {
        return NULL;
    }
    tls_context *context = get_context(env, index), *other = get_context(env, other_index);
    if (context == NULL || other == NULL || context == other) return int_value(env, -EINVAL);
    return int_value(env, tls_context_add_name(context, name, other) ? 0 : -ENOMEM);
}

/* sealContext(context) -> undefined, or what does not fit */
static napi_value addon_seal_context(napi_env env, napi_callback_info info)
{
    napi_value arg;
    int32_t index;
    char error[TLS_TEXT_MAX];
    if (!get_args(env, info, &arg, 1) || !get_int(env, arg, &index)) return NULL;
    tls_context *context = get_context(env, index);
    if (context == NULL) return no_context(env);
    return text_value(env, tls_context_seal(context, error) ? NULL : error);
}

/* ---- pollers -------------------------------------------------------------------------------------------------- */

/* useTls(poller, context, maxHandshakes) -> 0 or -errno */
static napi_value addon_use_tls(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    int32_t index, context_index, max_handshakes;
    if (!get_args(env, info, args, 3) || !get_int(env, args[0], &index) || !get_int(env, args[1], &context_index) ||
        !get_int(env, args[2], &max_handshakes)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    tls_context *context = get_context(env, context_index);
    if (p == NULL || context == NULL) return int_value(env, p == NULL ? -ESHUTDOWN : -EINVAL);
    return int_value(env, poller_use_tls(p, context, max_handshakes < 0 ? 0 : (uint32_t)max_handshakes));
}

/* secure(poller, slot, context, name) -> 0 or -errno */
static napi_value addon_secure(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    int32_t index, slot, context_index;
    char name[TEXT_MAX];
    if (!get_args(env, info, args, 4) || !get_int(env, args[0], &index) || !get_int(env, args[1], &slot) ||
        !get_int(env, args[2], &context_index) || !get_text(env, args[3], name)) {
        return NULL;
    }
    poller *p = get_poller(env, index);
    tls_context *context = get_context(env, context_index);
    if (p == NULL || context == NULL) return int_value(env, p == NULL ? -ESHUTDOWN : -EINVAL);
    return int_value(env, poller_secure(p, slot, context, name));
}

/* lateHandshake(poller, ageMs) -> a slot or -1 */
static napi_value addon_late_handshake(napi_env env, napi_callback_info info)
{
    int32_t age = 0;
    poller *p = get_call(env, info, &age, NULL);
    return int_value(env, p == NULL ? -1 : poller_late_handshake(p, age));
}

static bool set_property(napi_env env, napi_value object, const char *name, napi_value value)
{
    return value != NULL && napi_set_named_property(env, object, name, value) == napi_ok;
}

static napi_value protocol_value(napi_env env, const tls_info *known)
{
    napi_value value = NULL;
    if (known->alpn_length == 0) return text_value(env, NULL);
    return napi_create_string_latin1(env, (const char *)known->alpn, known->alpn_length, &value) == napi_ok ? value : NULL;
}

/* A copy of the DER, or undefined where the peer has shown none. */
static napi_value certificate_value(napi_env env, const tls_session *session)
{
    size_t length = 0;
    void *copy = NULL;
    napi_value value = NULL;
    uint8_t *der = tls_peer_certificate(session, &length);
    if (der == NULL) return text_value(env, NULL);
    if (napi_create_buffer_copy(env, length, der, &copy, &value) != napi_ok) value = NULL;
    tls_free_certificate(der);
    return value;
}

static const char *failure_text(const tls_session *session, const tls_info *known)
{
    if (session->failure == TLS_CERTIFICATE && known->verify_error != 0) return tls_verify_text(known->verify_error);
    return tls_reason_text(session->reason);
}

/* sessionOf(poller, slot) -> undefined, or what is known: see native-addon.ts */
static napi_value addon_session_of(napi_env env, napi_callback_info info)
{
    int32_t slot = -1;
    tls_info known;
    napi_value value = NULL;
    poller *p = get_call(env, info, &slot, NULL);
    const tls_session *session = p == NULL ? NULL : poller_session(p, slot);
    if (session == NULL || napi_create_object(env, &value) != napi_ok) return NULL;
    tls_session_info(session, &known);
    bool made = set_property(env, value, "protocol", text_value(env, known.protocol)) &&
                set_property(env, value, "cipher", text_value(env, known.cipher)) &&
                set_property(env, value, "alpnProtocol", protocol_value(env, &known)) &&
                set_property(env, value, "servername", text_value(env, known.servername)) &&
                set_property(env, value, "certificate", certificate_value(env, session)) &&
                set_property(env, value, "verifyError", int_value(env, known.verify_error)) &&
                set_property(env, value, "verifyText", text_value(env, tls_verify_text(known.verify_error))) &&
                set_property(env, value, "resumed", int_value(env, known.resumed ? 1 : 0)) &&
                set_property(env, value, "failure", int_value(env, session->failure)) &&
                set_property(env, value, "failureText", text_value(env, failure_text(session, &known)));
    return made ? value : NULL;
}

/* reasonText(reason) -> OpenSSL's words for it, or undefined */
static napi_value addon_reason_text(napi_env env, napi_callback_info info)
{
    napi_value arg;
    int32_t reason;
    if (!get_args(env, info, &arg, 1) || !get_int(env, arg, &reason)) return NULL;
    bool known = tls_unavailable() == NULL && reason >= 0 && reason <= UINT16_MAX;
    return text_value(env, known ? tls_reason_text((uint16_t)reason) : NULL);
}

bool define_tls(napi_env env, napi_value exports)
{
    const napi_property_descriptor methods[] = {
        METHOD("createContext", addon_create_context),
        METHOD("dropContext", addon_drop_context),
        METHOD("setContext", addon_set_context),
        METHOD("setContextNumber", addon_set_context_number),
        METHOD("addContextName", addon_add_context_name),
        METHOD("sealContext", addon_seal_context),
        METHOD("useTls", addon_use_tls),
        METHOD("secure", addon_secure),
        METHOD("lateHandshake", addon_late_handshake),
        METHOD("sessionOf", addon_session_of),
        METHOD("reasonText", addon_reason_text),
    };
    return napi_define_properties(env, exports, sizeof methods / sizeof *methods, methods) == napi_ok;
}
