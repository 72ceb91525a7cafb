// picture_feed: see picture_feed.h.
//
// Wanted rows are numbered from 0. The threads claim numbers in order; picture i lives in slot
// i mod ahead, and is not begun before picture i - ahead has been taken. One mutex guards
// everything but the slots that a thread has claimed.
#define _POSIX_C_SOURCE 200809L
#include "picture_feed.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Dataset *ds;
    int row;
} Wanted;
typedef struct {
    bool is_done;
    Error reading, sizing; // why there are no pixels
    PicturePixels pixels;
} Slot;

struct PictureFeed {
    const ProcessorConfig *processor;
    Wanted *wanted; // (wanted_count - first) from picture number `first`
    int64_t first, wanted_count, claimed, taken;
    size_t room;
    Slot *slots;    // (ahead)
    int ahead, threads;
    pthread_t *thread;
    pthread_mutex_t mutex;
    pthread_cond_t may_begin, is_ready; // a thread may claim the next; a slot is done
    bool is_ending;
    Device *dev;    // of the user's own thread
    double waited;
};

// ---- one picture ----
static void fill(Slot *slot, const ProcessorConfig *processor, Device *dev, const Image *image) {
    PicturePixels *out = &slot->pixels;
    slot->sizing =
        processor_size(processor, image->width, image->height, &out->width, &out->height);
    if (slot->sizing.code == EXIT_OK) {
        out->data = xmalloc((size_t)3 * out->width * out->height, sizeof *out->data);
        processor_run(processor, dev, image, out->data);
    }
}

static void prepare(Slot *slot, const ProcessorConfig *processor, Device *dev, Wanted wanted) {
    Image image;
    *slot = (Slot){.reading = dataset_read_image(wanted.ds, wanted.row, &image)};
    if (slot->reading.code == EXIT_OK) {
        fill(slot, processor, dev, &image);
        image_free(&image);
    }
}

// ---- threads ----
static void *work(void *argument) {
    PictureFeed *feed = argument;
    Device *dev = device_new(DEVICE_CPU, 0, 1);
    pthread_mutex_lock(&feed->mutex);
    for (;;) {
        while (!feed->is_ending && (feed->claimed == feed->wanted_count ||
                                    feed->claimed >= feed->taken + feed->ahead)) {
            pthread_cond_wait(&feed->may_begin, &feed->mutex);
        }
        if (feed->is_ending) {
            break;
        }
        const int64_t i = feed->claimed++;
        const Wanted wanted = feed->wanted[i - feed->first];
        Slot *slot = &feed->slots[i % feed->ahead];
        pthread_mutex_unlock(&feed->mutex);
        prepare(slot, feed->processor, dev, wanted);
        pthread_mutex_lock(&feed->mutex);
        slot->is_done = true;
        pthread_cond_signal(&feed->is_ready);
    }
    pthread_mutex_unlock(&feed->mutex);
    device_free(dev);
    return NULL;
}

PictureFeed *picture_feed_new(const ProcessorConfig *processor, int threads, int ahead) {
    CHECK(threads >= 0 && ahead >= 1, "threads=%d ahead=%d", threads, ahead);
    PictureFeed *feed = xcalloc(1, sizeof *feed);
    feed->processor = processor;
    feed->ahead = ahead;
    feed->threads = threads;
    feed->slots = xcalloc((size_t)ahead, sizeof *feed->slots);
    feed->thread = xcalloc((size_t)threads + 1, sizeof *feed->thread);
    feed->dev = device_new(DEVICE_CPU, 0, 1);
    pthread_mutex_init(&feed->mutex, NULL);
    pthread_cond_init(&feed->may_begin, NULL);
    pthread_cond_init(&feed->is_ready, NULL);
    sigset_t all, before; // signals are for the thread that trains
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int t = 0; t < threads; t++) {
        const int rc = pthread_create(&feed->thread[t], NULL, work, feed);
        if (rc != 0) {
            die(EXIT_RESOURCE, "cannot start thread %d of %d for pictures: %s; lower threads", t,
                threads, strerror(rc));
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return feed;
}

void picture_feed_free(PictureFeed *feed) {
    if (!feed) {
        return;
    }
    pthread_mutex_lock(&feed->mutex);
    feed->is_ending = true;
    pthread_cond_broadcast(&feed->may_begin);
    pthread_mutex_unlock(&feed->mutex);
    for (int t = 0; t < feed->threads; t++) {
        pthread_join(feed->thread[t], NULL);
    }
    for (int i = 0; i < feed->ahead; i++) {
        free(feed->slots[i].pixels.data);
    }
    pthread_cond_destroy(&feed->may_begin);
    pthread_cond_destroy(&feed->is_ready);
    pthread_mutex_destroy(&feed->mutex);
    device_free(feed->dev);
    free(feed->wanted);
    free(feed->slots);
    free(feed->thread);
    free(feed);
}

// ---- use ----
void picture_feed_want(PictureFeed *feed, Dataset *ds, int row) {
    pthread_mutex_lock(&feed->mutex);
    size_t n = (size_t)(feed->wanted_count - feed->first);
    if (n == feed->room) { // forget what was taken before growing
        const size_t gone = (size_t)(feed->taken - feed->first);
        n -= gone;
        if (n > 0) {
            memmove(feed->wanted, feed->wanted + gone, n * sizeof *feed->wanted);
        }
        feed->first = feed->taken;
        if (n >= feed->room / 2) {
            feed->room = 2 * feed->room + 64;
            feed->wanted = xrealloc(feed->wanted, feed->room, sizeof *feed->wanted);
        }
    }
    feed->wanted[n] = (Wanted){ds, row};
    feed->wanted_count++;
    pthread_cond_signal(&feed->may_begin);
    pthread_mutex_unlock(&feed->mutex);
}

// Waits until the next slot is done, and empties it.
static Slot next_slot(PictureFeed *feed, Dataset *ds, int row) {
    pthread_mutex_lock(&feed->mutex);
    CHECK(feed->taken < feed->wanted_count, "row %d was not wanted", row);
    const Wanted wanted = feed->wanted[feed->taken - feed->first];
    CHECK(wanted.ds == ds && wanted.row == row, "row %d is next, not row %d", wanted.row, row);
    Slot *slot = &feed->slots[feed->taken % feed->ahead];
    if (feed->threads == 0) {
        feed->claimed++;
        prepare(slot, feed->processor, feed->dev, wanted);
        slot->is_done = true;
    }
    while (!slot->is_done) {
        pthread_cond_wait(&feed->is_ready, &feed->mutex);
    }
    const Slot out = *slot;
    *slot = (Slot){.is_done = false};
    feed->taken++;
    pthread_cond_signal(&feed->may_begin);
    pthread_mutex_unlock(&feed->mutex);
    return out;
}

PicturePixels picture_feed_take_new(PictureFeed *feed, Dataset *ds, int row) {
    const double start = seconds_now();
    const Record *record = &ds->records[row];
    Slot slot = next_slot(feed, ds, row);
    if (slot.reading.code != EXIT_OK) { // here and not in a thread: in the order of the rows
        Image image;
        if (!dataset_accept_image(ds, row, slot.reading, &image)) {
            if (ds->policy.drops_bad) {
                return slot.pixels;
            }
            die(EXIT_BAD_DATA, "%s: the image of row %d ('%s') is bad and cannot be left out here; "
                "set data.on_bad_image=blank", record->path, row, record->id);
        }
        fill(&slot, feed->processor, feed->dev, &image);
        image_free(&image);
    }
    error_die(record->path, slot.sizing);
    feed->waited += seconds_now() - start;
    return slot.pixels;
}

bool picture_feed_is_next(const PictureFeed *feed, const Dataset *ds, int row) {
    const Wanted *next = &feed->wanted[feed->taken - feed->first]; // only this thread changes it
    return feed->taken < feed->wanted_count && next->ds == ds && next->row == row;
}

double picture_feed_waited(const PictureFeed *feed) { return feed->waited; }
