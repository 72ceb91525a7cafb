// jpeg: JPEG files to pictures; see jpeg.h.
//
// libjpeg reports a fatal error by a callback that must not return, so it leaves by longjmp.
// Everything that changes lives in a Reader that the caller owns, so no local variable is lost on
// the way.
#include "jpeg.h"

#include <setjmp.h>
#include <stdio.h> // jpeglib.h uses FILE without including it
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

typedef struct {
    struct jpeg_decompress_struct cinfo; // libjpeg's half of the state
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    size_t size;
    const ImageLimits *limits;
    Image image;
    bool is_whole; // all rows are out: the file may end
    Error error;
} Reader;

static Reader *reader_of(j_common_ptr cinfo) { return cinfo->client_data; }

static size_t position(const Reader *r) { return r->size - r->source.bytes_in_buffer; }

static _Noreturn void leave(Reader *r, Error error) {
    r->error = error;
    longjmp(r->jump, 1);
}

// ---- callbacks ----
static void on_error(j_common_ptr cinfo) {
    Reader *r = reader_of(cinfo);
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    leave(r, error_at(EXIT_BAD_DATA, position(r), "bad jpeg: %s; replace the file", text));
}

static void on_message(j_common_ptr cinfo, int level) {
    if (level < 0) {
        cinfo->err->num_warnings++;
    }
}

static void on_output(j_common_ptr cinfo) { (void)cinfo; }

// One pass of a progressive file costs as much as a whole picture, and nothing bounds their number.
static void on_progress(j_common_ptr cinfo) {
    Reader *r = reader_of(cinfo);
    if (r->cinfo.input_scan_number > r->limits->max_scans) {
        leave(r, error_at(EXIT_BAD_DATA, position(r), "jpeg of more than %d scans; save it anew",
                          r->limits->max_scans));
    }
}

static void on_start(j_decompress_ptr cinfo) { (void)cinfo; }

static boolean on_empty(j_decompress_ptr cinfo) {
    static const JOCTET end_of_image[2] = {0xFF, JPEG_EOI};
    Reader *r = cinfo->client_data;
    if (!r->is_whole) {
        leave(r, error_at(EXIT_BAD_DATA, r->size, "jpeg ends after %zu bytes, inside its picture; "
                          "replace the file", r->size));
    }
    r->errors.num_warnings++; // only the end marker is missing
    r->source.next_input_byte = end_of_image;
    r->source.bytes_in_buffer = sizeof end_of_image;
    return TRUE;
}

static void on_skip(j_decompress_ptr cinfo, long n) {
    Reader *r = cinfo->client_data;
    if (n > 0 && (size_t)n > r->source.bytes_in_buffer) {
        leave(r, error_at(EXIT_BAD_DATA, r->size,
                          "jpeg ends after %zu bytes, inside a marker; replace the file",
                          r->size));
    }
    if (n > 0) {
        r->source.next_input_byte += n;
        r->source.bytes_in_buffer -= (size_t)n;
    }
}

// ---- reading ----
static void check_header(Reader *r) {
    struct jpeg_decompress_struct *c = &r->cinfo;
    const size_t w = c->image_width, h = c->image_height, side = (size_t)r->limits->max_side;
    if (w > side || h > side || w * h > r->limits->max_pixels) {
        leave(r, error_at(EXIT_BAD_DATA, position(r),
                          "jpeg of %zu x %zu is beyond the limit of %d a "
                          "side, %zu in all; scale it down",
                          w, h, r->limits->max_side, r->limits->max_pixels));
    }
    if (c->num_components != 1 && c->num_components != 3 && c->num_components != 4) {
        leave(r, error_at(EXIT_BAD_DATA, position(r),
                          "jpeg of %d components is neither grey, colour nor CMYK; convert it",
                          c->num_components));
    }
    c->out_color_space = c->num_components == 1   ? JCS_GRAYSCALE
                         : c->num_components == 3 ? JCS_RGB
                                                  : JCS_CMYK;
}

static void read_picture(Reader *r) {
    struct jpeg_decompress_struct *c = &r->cinfo;
    jpeg_read_header(c, TRUE);
    check_header(r);
    jpeg_start_decompress(c);
    r->image = image_new((int)c->output_width, (int)c->output_height, c->output_components);
    r->image.mode = c->out_color_space == JCS_CMYK ? IMAGE_INKS : IMAGE_PLAIN;
    const size_t row = (size_t)r->image.width * (size_t)r->image.channels;
    while (c->output_scanline < c->output_height) {
        JSAMPROW to = r->image.data + (size_t)c->output_scanline * row;
        jpeg_read_scanlines(c, &to, 1);
        for (size_t x = 0; x < row && r->image.mode == IMAGE_INKS; x++) {
            to[x] = (JSAMPLE)(255 - to[x]);
        }
    }
    r->is_whole = true;
    jpeg_finish_decompress(c);
}

static void start(Reader *r, const void *bytes, size_t size) {
    r->size = size;
    r->cinfo.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->errors.output_message = on_output;
    r->cinfo.client_data = r;
    r->source = (struct jpeg_source_mgr){.next_input_byte = bytes,
                                         .bytes_in_buffer = size,
                                         .init_source = on_start,
                                         .fill_input_buffer = on_empty,
                                         .skip_input_data = on_skip,
                                         .resync_to_restart = jpeg_resync_to_restart,
                                         .term_source = on_start};
    r->progress.progress_monitor = on_progress;
}

Error jpeg_decode(const void *bytes, size_t size, const ImageLimits *limits, Image *out,
                  int *warnings) {
    Reader *r = xcalloc(1, sizeof *r);
    r->limits = limits;
    start(r, bytes, size);
    *out = (Image){0};
    if (setjmp(r->jump) == 0) {
        jpeg_create_decompress(&r->cinfo);
        r->cinfo.src = &r->source; // creating cleared them
        r->cinfo.progress = &r->progress;
        read_picture(r);
    } else if (r->is_whole) { // damage behind the picture: Pillow does not even look there
        r->error = error_none();
        r->errors.num_warnings++;
    } else {
        image_free(&r->image);
    }
    *out = r->image;
    const Error error = r->error;
    *warnings += (int)r->errors.num_warnings;
    jpeg_destroy_decompress(&r->cinfo);
    free(r);
    return error;
}
