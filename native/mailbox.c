/* The mailboxes of mailbox.h: a list under one lock, each two queues and an eventfd. Any thread. */
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
    letter_copy *first_letter, *last_letter;
    int group, loop; /* group 0: none */
    bool takes, group_changed;
} mailbox;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mailbox *mailboxes;
static int last_number, last_group;

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

static int wake(const mailbox *box)
{
    uint64_t one = 1;
    return write(box->event_fd, &one, sizeof one) < 0 && errno != EAGAIN ? -errno : 0;
}

/* The others of the group of `box` are told. */
static void tell_group(const mailbox *box)
{
    if (box->group == 0) return;
    for (mailbox *other = mailboxes; other != NULL; other = other->next) {
        if (other == box || other->group != box->group || other->group_changed) continue;
        other->group_changed = true;
        (void)wake(other);
    }
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
        rc = wake(box);
        if (rc < 0) box->length--;
    }
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

static size_t take_items(mailbox *box, mailbox_item *items, size_t max)
{
    size_t count = box->length < max ? box->length : max;
    if (count > 0) memcpy(items, box->items + box->first, count * sizeof *items);
    box->length -= count;
    box->first = box->length == 0 ? 0 : box->first + count;
    return count;
}

size_t mailbox_take(int number, mailbox_item *items, size_t max, bool *has_post)
{
    size_t count = 0;
    *has_post = false;
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    if (box != NULL) {
        count = take_items(box, items, max);
        *has_post = box->first_letter != NULL || box->group_changed;
        if (box->length == 0) {
            uint64_t ignored;
            ssize_t n = read(box->event_fd, &ignored, sizeof ignored);
            (void)n; /* empty is as good as emptied */
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return count;
}

/* The first letter of the list, or NULL. */
static letter *take_letter(mailbox *box)
{
    letter_copy *copy = box->first_letter;
    if (copy == NULL) return NULL;
    box->first_letter = copy->next;
    return copy->letter;
}

void mailbox_close(int number)
{
    (void)pthread_mutex_lock(&lock);
    mailbox **link = &mailboxes;
    while (*link != NULL && (*link)->number != number) link = &(*link)->next;
    mailbox *box = *link;
    if (box != NULL) {
        *link = box->next;
        tell_group(box);
    }
    (void)pthread_mutex_unlock(&lock);
    if (box == NULL) return;
    for (size_t i = 0; i < box->length; i++) (void)close(box->items[box->first + i].fd);
    for (letter *l = take_letter(box); l != NULL; l = take_letter(box)) letter_let_go(l);
    free(box->items);
    free(box);
}

/* ---- groups and letters --------------------------------------------------------------------------------------- */

int mailbox_open_group(void)
{
    (void)pthread_mutex_lock(&lock);
    int group = ++last_group;
    (void)pthread_mutex_unlock(&lock);
    return group;
}

int mailbox_join(int number, int group, int loop)
{
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    if (box != NULL) {
        box->group = group;
        box->loop = loop;
        box->takes = true;
        box->group_changed = true; /* its owner looks at the group now, without being woken */
        tell_group(box);
    }
    (void)pthread_mutex_unlock(&lock);
    return box == NULL ? -ESRCH : 0;
}

void mailbox_rest(int number)
{
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    if (box != NULL && box->takes) {
        box->takes = false;
        tell_group(box);
    }
    (void)pthread_mutex_unlock(&lock);
}

static size_t list_members(const mailbox *box, mailbox_member *members, size_t max)
{
    size_t count = 0;
    for (const mailbox *other = mailboxes; other != NULL && count < max; other = other->next) {
        if (other == box || other->group != box->group) continue;
        members[count++] = (mailbox_member){other->number, other->loop, other->takes};
    }
    return count;
}

int mailbox_members(int number, mailbox_member *members, size_t max)
{
    int rc = -ESRCH;
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    if (box != NULL) rc = box->group_changed ? (int)list_members(box, members, max) : -EAGAIN;
    if (rc >= 0) box->group_changed = false;
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

static void append_letter(mailbox *box, letter_copy *copy)
{
    letter_hold(copy->letter);
    if (box->first_letter == NULL) {
        box->first_letter = copy;
        (void)wake(box);
    } else {
        box->last_letter->next = copy;
    }
    box->last_letter = copy;
}

void mailbox_post(letter *l, const int32_t *numbers, size_t count)
{
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
        mailbox *box = find(numbers[i]);
        if (box != NULL) append_letter(box, &l->copies[i]);
    }
    (void)pthread_mutex_unlock(&lock);
}

letter *mailbox_take_letter(int number)
{
    (void)pthread_mutex_lock(&lock);
    mailbox *box = find(number);
    letter *l = box == NULL ? NULL : take_letter(box);
    (void)pthread_mutex_unlock(&lock);
    return l;
}
