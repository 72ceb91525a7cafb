// picture_feed: pictures of rows, read, decoded and prepared by threads that work ahead of whoever
// uses them.
//
//   want, want, ...     rows in the order of use; costs nothing
//   take, take, ...     their pixels, in that same order; waits where a thread is not done yet
//
// At most `ahead` pictures are held that have not been taken, so memory is bounded however many are
// wanted. What is handed out, and which error is told first, depend on the order alone: the same
// for every number of threads.
#ifndef JOMED_HOST_PICTURE_FEED_H
#define JOMED_HOST_PICTURE_FEED_H

#include "dataset.h"
#include "processor.h"

typedef struct PictureFeed PictureFeed;
// threads: those that work ahead; 0: none, take does the work itself. ahead >= 1. The data sets and
// *processor must outlive it; between _new and _free only one thread may call what is here.
PictureFeed *picture_feed_new(const ProcessorConfig *processor, int threads, int ahead);
// Ends the threads; what was wanted and not taken is dropped without a word.
void picture_feed_free(PictureFeed *feed); // NULL too
void picture_feed_want(PictureFeed *feed, Dataset *ds, int row);

// Pixels (3,height,width) f32 as processor_run gives them; the caller frees data.
typedef struct {
    int width, height;
    float *data;
} PicturePixels;
// The picture wanted first of those not taken, which must be that of row. Dies with EXIT_BAD_DATA
// where it is bad, unless the policy of its data set makes it a grey square, or drops its row: then
// data is NULL.
PicturePixels picture_feed_take_new(PictureFeed *feed, Dataset *ds, int row);
bool picture_feed_is_next(const PictureFeed *feed, const Dataset *ds, int row);
double picture_feed_waited(const PictureFeed *feed); // seconds take has waited or worked, so far

#endif
