/* The mailboxes of mailbox.h: a list under one lock, each a queue and an eventfd. Any thread. */
#include "mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More than a listen backlog: past this a loop has stalled, and the acceptor turns its connections away. */
enum { MAILBOX_MAX = 65536 };

typedef struct mailbox {
    struct mailbox *next;
    int number;
    int event_fd;
    mailbox_item *items;
    size_t first, length, capacity; /* items[first … first + length) wait */
} mailbox;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mailbox *mailboxes;
static int last_number;

static mailbox *find(int number)
{
    mailbox *box = mailboxes;
    while (box != NULL && box->number != number) box = box->next;
    return box;
}

int mailbox_open(int event_fd)
{
    mailbox *box = calloc(1, sizeof *box);
    if (box == NULL) return -ENOMEM;
    box->event_fd = event_fd;
    (void)pthread_mutex_lock(&lock);
    box->number = ++last_number;
    box->next = mailboxes;
    mailboxes = box;
    (void)pthread_mutex_unlock(&lock);
    return box->number;
}

static int append(mailbox *box, const mailbox_item *item)
{
    if (box->length == MAILBOX_MAX) return -EAGAIN;
    if (box->first + box->length == box->capacity && box->first > 0) {
        memmove(box->items, box->items + box->first, box->length * sizeof *box->items);
        box->first = 0;
    }
    if (box->length == box->capacity) {
        size_t capacity = box->capacity == 0 ? 64 : box->capacity * 2;
        mailbox_item *items = realloc(box->items, capacity * sizeof *items);
        if (items == NULL) return -ENOMEM;
        box->items = items;
        box->capacity = capacity;
    }
    box->items[box->first + box->length++] = *item;
    return 0;
}

int mailbox_send(int number, const mailbox_item *item)
{
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    int rc = box == NULL ? -ESRCH : append(box, item);
    if (rc == 0 && box->length == 1) {
        uint64_t one = 1;
        if (write(box->event_fd, &one, sizeof one) < 0 && errno != EAGAIN) {
            rc = -errno;
            box->length--;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

size_t mailbox_take(int number, mailbox_item *items, size_t max)
{
    size_t count = 0;
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    if (box != NULL && box->length > 0) {
        count = box->length < max ? box->length : max;
        memcpy(items, box->items + box->first, count * sizeof *items);
        box->length -= count;
        box->first = box->length == 0 ? 0 : box->first + count;
        if (box->length == 0) {
            uint64_t ignored;
            ssize_t n = read(box->event_fd, &ignored, sizeof ignored);
            (void)n; /* empty is as good as emptied */
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return count;
}

void mailbox_close(int number)
{
    (void)pthread_mutex_lock(&lock);
    mailbox **link = &mailboxes;
    while (*link != NULL && (*link)->number != number) link = &(*link)->next;
    mailbox *box = *link;
    if (box != NULL) *link = box->next;
    (void)pthread_mutex_unlock(&lock);
    if (box == NULL) return;
    for (size_t i = 0; i < box->length; i++) (void)close(box->items[box->first + i].fd);
    free(box->items);
    free(box);
}
