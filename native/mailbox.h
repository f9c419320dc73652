/*
 * Mailboxes: how an accepted socket gets from the acceptor's thread to a loop's, and letters from one loop to others. A
 * mailbox is known by a number that is never used twice; a descriptor in it belongs to it, and it holds its letters. Any
 * thread may send and post, only the owner does the rest. One lock guards them all: it is held for a few stores, once per
 * accepted connection and once per letter.
 *
 * The loops of one server are a group: each sees which mailboxes are in it, and is told by its event_fd when that changes.
 */
#ifndef RINGLOOP_MAILBOX_H
#define RINGLOOP_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "letter.h"
#include "socket.h"

typedef struct {
    int fd;
    socket_addr peer;
} mailbox_item;

/* Opens a mailbox whose arrivals make event_fd readable. Its number (> 0), or -errno. */
int mailbox_open(int event_fd);
/* 0: the descriptor is the mailbox's now. -ESRCH: no such mailbox (any more); -EAGAIN: full; -ENOMEM. */
int mailbox_send(int number, const mailbox_item *item);
/* Takes at most max items; they are the caller's. Returns how many. has_post: there are letters, or the group has changed. */
size_t mailbox_take(int number, mailbox_item *items, size_t max, bool *has_post);
/* Closes the mailbox and every descriptor left in it; its letters are let go, and it leaves its group. */
void mailbox_close(int number);

/* One mailbox of a group, as JavaScript reads it. */
typedef struct {
    int32_t number, loop;
    int32_t takes; /* 0: it is told of letters no more, but still sends some */
} mailbox_member;

/* The number (> 0) of a group that nobody is in yet. */
int mailbox_open_group(void);
/* 0, or -ESRCH. Once per mailbox. `loop`: what the others know it by. */
int mailbox_join(int number, int group, int loop);
/* Others are to post nothing more to it. */
void mailbox_rest(int number);
/* The others of its group, max at most, when that has changed since the last call; else -EAGAIN. -ESRCH. */
int mailbox_members(int number, mailbox_member *members, size_t max);
/* Puts the letter, made for so many copies, behind the others in these mailboxes, and passes over those that are closed. */
void mailbox_post(letter *l, const int32_t *numbers, size_t count);
/* The next letter, which the caller holds now, or NULL. */
letter *mailbox_take_letter(int number);

#endif
