/* The unmasking of unmask.h. No static state. */
#include "unmask.h"

#include <string.h>

enum { MASKED = 0x80, LENGTH_BITS = 0x7f, LENGTH_16 = 126, LENGTH_64 = 127, KEY = 4, LENGTH_MAX = INT32_MAX };

/* Sixteen bytes at a time, in one register where the processor has such. */
typedef uint32_t block __attribute__((vector_size(16)));

void unmask_start(unmask_state *state)
{
    *state = (unmask_state){.on = 1};
}

static void xor_payload(unmask_state *state, uint8_t *bytes, size_t length)
{
    uint32_t key;
    memcpy(&key, state->key, KEY);
    const block keys = {key, key, key, key};
    size_t i = 0;
    for (; length - i >= sizeof keys; i += sizeof keys) {
        block b;
        memcpy(&b, bytes + i, sizeof b);
        b ^= keys;
        memcpy(bytes + i, &b, sizeof b);
    }
    for (; i < length; i++) bytes[i] ^= state->key[i % KEY];
    state->left = (uint32_t)(state->left - length) & LENGTH_MAX;
    if (state->left == 0) return;
    for (size_t k = 0; k < KEY; k++) state->key[k] = ((const uint8_t *)&key)[(length + k) % KEY];
}

static uint64_t big_endian(const uint8_t *bytes, size_t length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++) value = value << 8 | bytes[i];
    return value;
}

/* Takes the key out of the header at `bytes`; its length, or 0 where it is not all there or not to be understood. */
static size_t begin_frame(unmask_state *state, uint8_t *bytes, size_t available)
{
    if (available < 2 || (bytes[1] & MASKED) == 0) return 0;
    uint64_t length = bytes[1] & LENGTH_BITS;
    size_t extended = length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0;
    size_t header = 2 + extended + KEY;
    if (available < header) return 0;
    if (extended > 0) length = big_endian(bytes + 2, extended);
    if (length > LENGTH_MAX) return 0;
    memcpy(state->key, bytes + header - KEY, KEY);
    memset(bytes + header - KEY, 0, KEY);
    state->left = (uint32_t)length & LENGTH_MAX;
    return header;
}

void unmask(unmask_state *state, uint8_t *bytes, size_t length)
{
    size_t at = 0;
    while (at < length && state->on) {
        size_t count = length - at;
        if (state->left == 0) {
            count = begin_frame(state, bytes + at, count);
            state->on = count > 0;
        } else {
            if (count > state->left) count = state->left;
            xor_payload(state, bytes + at, count);
        }
        at += count;
    }
}
