/* The io_uring of send-ring.h, without a library: one ring mapping and the table of entries. One thread. */
#include "send-ring.h"

#include <stdlib.h>

#if defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif
#endif

/* With it come the kernels where a send that would block is refused at once, whatever it is. */
#ifdef IORING_SETUP_SINGLE_ISSUER

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct send_ring {
    int fd;
    uint8_t *rings; /* the queue of what is asked for and that of what is done, in one mapping */
    size_t rings_size;
    struct io_uring_sqe *entries;
    size_t entries_size;
    struct io_uring_params layout;
};

static unsigned *at(const send_ring *ring, unsigned offset)
{
    return (unsigned *)(void *)(ring->rings + offset);
}

static unsigned load(const unsigned *shared)
{
    return __atomic_load_n(shared, __ATOMIC_ACQUIRE);
}

static void store(unsigned *shared, unsigned value)
{
    __atomic_store_n(shared, value, __ATOMIC_RELEASE);
}

static void *map(int fd, size_t size, off_t what)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
    return memory == MAP_FAILED ? NULL : memory;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static int map_rings(send_ring *ring)
{
    const struct io_uring_params *p = &ring->layout;
    if (!(p->features & IORING_FEAT_SINGLE_MMAP)) return -ENOSYS;
    ring->rings_size = larger(p->sq_off.array + p->sq_entries * sizeof(unsigned),
                              p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe));
    ring->entries_size = p->sq_entries * sizeof *ring->entries;
    ring->rings = map(ring->fd, ring->rings_size, IORING_OFF_SQ_RING);
    ring->entries = map(ring->fd, ring->entries_size, IORING_OFF_SQES);
    if (ring->rings == NULL || ring->entries == NULL) return -ENOMEM;
    for (unsigned i = 0; i < p->sq_entries; i++) at(ring, p->sq_off.array)[i] = i;
    return 0;
}

send_ring *send_ring_new(void)
{
    send_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) return NULL;
    ring->layout.flags = IORING_SETUP_SINGLE_ISSUER;
    ring->fd = (int)syscall(SYS_io_uring_setup, SEND_RING_MAX, &ring->layout);
    if (ring->fd >= 0 && map_rings(ring) == 0) return ring;
    send_ring_free(ring);
    return NULL;
}

void send_ring_free(send_ring *ring)
{
    if (ring == NULL) return;
    if (ring->rings != NULL) (void)munmap(ring->rings, ring->rings_size);
    if (ring->entries != NULL) (void)munmap(ring->entries, ring->entries_size);
    if (ring->fd >= 0) (void)close(ring->fd);
    free(ring);
}

static void ask(const send_ring *ring, const ring_send *sends, size_t count)
{
    unsigned *tail = at(ring, ring->layout.sq_off.tail);
    unsigned first = load(tail);
    for (size_t i = 0; i < count; i++) {
        struct io_uring_sqe *entry = &ring->entries[(first + i) & (ring->layout.sq_entries - 1)];
        (void)memset(entry, 0, sizeof *entry);
        entry->opcode = IORING_OP_SEND;
        entry->fd = sends[i].fd;
        entry->addr = (uint64_t)(uintptr_t)sends[i].bytes;
        entry->len = (uint32_t)sends[i].length;
        entry->msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT;
        entry->user_data = i;
    }
    store(tail, first + (unsigned)count);
}

/* Takes what is done; how many that were. */
static size_t settle(const send_ring *ring, ring_send *sends)
{
    const struct io_uring_cqe *done = (const void *)(ring->rings + ring->layout.cq_off.cqes);
    unsigned *head = at(ring, ring->layout.cq_off.head);
    unsigned first = load(head), end = load(at(ring, ring->layout.cq_off.tail));
    for (unsigned i = first; i != end; i++) {
        const struct io_uring_cqe *one = &done[i & (ring->layout.cq_entries - 1)];
        sends[one->user_data].taken = one->res;
    }
    store(head, end);
    return end - first;
}

size_t send_ring_run(send_ring *ring, ring_send *sends, size_t count)
{
    size_t asked = 0, settled = 0;
    ask(ring, sends, count);
    while (settled < count) {
        long rc = syscall(SYS_io_uring_enter, ring->fd, count - asked, count - settled, IORING_ENTER_GETEVENTS, NULL, 0);
        if (rc > 0) asked += (size_t)rc;
        settled += settle(ring, sends);
        if (rc < 0 && errno != EINTR && settled == asked) break;
    }
    return settled;
}

#else

send_ring *send_ring_new(void)
{
    return NULL;
}

void send_ring_free(send_ring *ring)
{
    (void)ring;
}

size_t send_ring_run(send_ring *ring, ring_send *sends, size_t count)
{
    (void)ring;
    (void)sends;
    (void)count;
    return 0;
}

#endif
