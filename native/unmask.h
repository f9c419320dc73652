/*
 * Takes the mask off WebSocket frames (RFC 6455, section 5.3) while they lie where they were read: payloads become plain
 * and keys zero, so that what is left is the same stream of frames, valid as before. Knows nothing of sockets. What it
 * does not understand, and a header of which a part is missing, it leaves as it came, and stops until it is started again.
 */
#ifndef RINGLOOP_UNMASK_H
#define RINGLOOP_UNMASK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t left : 31; /* bytes of the payload that have not come yet */
    uint32_t on : 1;
    uint8_t key[4]; /* its first byte belongs to the next byte of the payload */
} unmask_state;

/* The next byte is the first of a frame. */
void unmask_start(unmask_state *state);
/* The next `length` bytes of the stream. */
void unmask(unmask_state *state, uint8_t *bytes, size_t length);

#endif
