/*
 * Mailboxes: how an accepted socket gets from the acceptor's thread to a loop's. A mailbox is known by a number that is
 * never used twice; a descriptor in it belongs to it. Any thread may send, only the owner takes and closes.
 * One lock guards them all: it is held for a few stores, once per accepted connection.
 */
#ifndef RINGLOOP_MAILBOX_H
#define RINGLOOP_MAILBOX_H

#include <stddef.h>
#include <stdint.h>

#include "socket.h"

typedef struct {
    int fd;
    socket_addr peer;
} mailbox_item;

/* Opens a mailbox whose arrivals make event_fd readable. Its number (> 0), or -errno. */
int mailbox_open(int event_fd);
/* 0: the descriptor is the mailbox's now. -ESRCH: no such mailbox (any more); -EAGAIN: full; -ENOMEM. */
int mailbox_send(int number, const mailbox_item *item);
/* Takes at most max items; they are the caller's. Returns how many. */
size_t mailbox_take(int number, mailbox_item *items, size_t max);
/* Closes the mailbox and every descriptor left in it. */
void mailbox_close(int number);

#endif
