/*
 * Letters: bytes that are written once and read by several loops' threads. The memory belongs to all who hold the letter:
 * whoever has posted it, until that is done, and each mailbox that it waits in. The last to let go frees it. Any thread.
 */
#ifndef RINGLOOP_LETTER_H
#define RINGLOOP_LETTER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct letter letter;

/* A letter's place in the list of one mailbox. It lies in the letter, so that posting needs no memory of its own. */
typedef struct letter_copy {
    struct letter_copy *next;
    letter *letter;
} letter_copy;

struct letter {
    atomic_int holders;
    size_t length;
    const uint8_t *bytes;
    letter_copy copies[];
};

/* A copy of `bytes` for at most `copies` mailboxes, held by the caller; NULL where there is no memory. */
letter *letter_new(size_t copies, const uint8_t *bytes, size_t length);
void letter_hold(letter *l);
void letter_let_go(letter *l);

#endif
