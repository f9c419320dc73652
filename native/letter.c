/* The letters of letter.h: one block each, of the count, the places in the mailboxes and the bytes. Any thread. */
#include "letter.h"

#include <stdlib.h>
#include <string.h>

letter *letter_new(size_t copies, const uint8_t *bytes, size_t length)
{
    size_t head = sizeof(letter) + copies * sizeof(letter_copy);
    letter *l = malloc(head + length);
    if (l == NULL) return NULL;
    uint8_t *own = (uint8_t *)l + head;
    if (length > 0) memcpy(own, bytes, length);
    atomic_init(&l->holders, 1);
    l->length = length;
    l->bytes = own;
    for (size_t i = 0; i < copies; i++) l->copies[i] = (letter_copy){.letter = l};
    return l;
}

void letter_hold(letter *l)
{
    (void)atomic_fetch_add_explicit(&l->holders, 1, memory_order_relaxed);
}

void letter_let_go(letter *l)
{
    if (atomic_fetch_sub_explicit(&l->holders, 1, memory_order_acq_rel) == 1) free(l);
}
