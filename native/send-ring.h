/*
 * Many sends in one system call, through an io_uring that is used for nothing else. What it is asked for is done when the
 * call returns. One thread; the sockets and the bytes stay the caller's.
 */
#ifndef RINGLOOP_SEND_RING_H
#define RINGLOOP_SEND_RING_H

#include <stddef.h>
#include <stdint.h>

enum { SEND_RING_MAX = 256 }; /* of one call */

typedef struct {
    int fd;
    int taken; /* afterwards: how many bytes the kernel has taken, or -errno */
    const uint8_t *bytes;
    size_t length; /* less than 2^31 */
} ring_send;

typedef struct send_ring send_ring;

/* NULL where the system has none or forbids it: kernels before 6.0, many containers. */
send_ring *send_ring_new(void);
void send_ring_free(send_ring *ring);
/* Sends all, at most SEND_RING_MAX, in order and without waiting for room. How many of the first were done: fewer where the
   system has refused the rest, and will again. */
size_t send_ring_run(send_ring *ring, ring_send *sends, size_t count);

#endif
