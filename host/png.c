// png: PNG files to pictures and back; see png.h.
//
// libpng leaves a failed call by longjmp. Everything it may change lives in a Reader that its
// caller owns, so no local variable is lost on the way.
#include "png.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#define INFLATE_MOST 1032 // deflate cannot expand a byte to more than this many
#define INFLATE_SLACK 4096

typedef struct {
    const uint8_t *bytes;
    size_t size, at;
    const ImageLimits *limits;
    bool is_wide; // 16-bit RGBA is wanted, else 8 bits
    png_structp png;
    png_infop info;
    int width, height, channels;
    ImageMode mode;
    uint8_t *pixels;
    png_bytep *rows;
    int warnings;
    Error error;
} Reader;

// ---- callbacks ----
static void on_error(png_structp png, png_const_charp text) {
    Reader *r = png_get_error_ptr(png);
    if (r->error.code == EXIT_OK) { // not one of our own, which say more
        r->error = error_at(EXIT_BAD_DATA, r->at, "bad png: %s; replace the file", text);
    }
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
    (void)text;
    Reader *r = png_get_error_ptr(png);
    r->warnings++;
}

static void on_read(png_structp png, png_bytep to, size_t n) {
    Reader *r = png_get_io_ptr(png);
    if (n > r->size - r->at) {
        r->error = error_at(EXIT_BAD_DATA, r->size, "png ends after %zu bytes, in the middle of a "
                            "chunk; replace the file", r->size);
        png_error(png, "end of file");
    }
    memcpy(to, r->bytes + r->at, n);
    r->at += n;
}

// ---- reading ----
static void check_size(Reader *r) {
    const png_uint_32 w = png_get_image_width(r->png, r->info);
    const png_uint_32 h = png_get_image_height(r->png, r->info);
    const size_t side = (size_t)r->limits->max_side;
    if (w > side || h > side || (size_t)w * h > r->limits->max_pixels) {
        r->error = error_at(EXIT_BAD_DATA, 16,
                            "png of %u x %u is beyond the limit of %d a side, %zu "
                            "in all; scale it down",
                            w, h, r->limits->max_side, r->limits->max_pixels);
        png_error(r->png, "size");
    }
    // rowbytes is still that of the file here, before any transformation is asked for.
    if (png_get_rowbytes(r->png, r->info) * h / INFLATE_MOST > r->size + INFLATE_SLACK) {
        r->error = error_at(EXIT_BAD_DATA, 16, "png of %u x %u cannot be in %zu bytes; replace the "
                            "file", w, h, r->size);
        png_error(r->png, "size");
    }
    r->width = (int)w;
    r->height = (int)h;
}

// What Pillow would hold: a palette or single bits, colours with a transparent one, or samples.
static ImageMode mode_of(const Reader *r) {
    const png_byte type = png_get_color_type(r->png, r->info);
    if (type == PNG_COLOR_TYPE_PALETTE || png_get_bit_depth(r->png, r->info) == 1) {
        return IMAGE_INDEXED;
    }
    return png_get_valid(r->png, r->info, PNG_INFO_tRNS) ? IMAGE_KEYED : IMAGE_PLAIN;
}

static void ask_for_form(Reader *r) {
    if (r->is_wide) {
        png_set_expand_16(r->png);
        png_set_gray_to_rgb(r->png);
        png_set_add_alpha(r->png, 0xFFFF, PNG_FILLER_AFTER);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        png_set_swap(r->png);
#endif
    } else {
        png_set_expand(r->png); // palette, low depths and tRNS
        png_set_strip_16(r->png);
    }
}

// Everything that may jump. False after an error.
static bool read_picture(Reader *r) {
    if (setjmp(png_jmpbuf(r->png))) {
        return false;
    }
    png_set_read_fn(r->png, r, on_read);
    // libpng's own limit is set aside, so that ours speaks, which names a remedy. Up to check_size
    // nothing has been allocated that depends on the size.
    png_set_user_limits(r->png, 0x7FFFFFFF, 0x7FFFFFFF);
    // Texts, profiles, dates (-1: all but what decoding needs) are passed over. libpng would take
    // as much memory as a text says it is long, 2 GB in a file of 100 bytes.
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(r->png, r->info);
    check_size(r);
    r->mode = mode_of(r);
    ask_for_form(r);
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    r->channels = png_get_channels(r->png, r->info);
    const size_t row = png_get_rowbytes(r->png, r->info);
    const size_t want = (size_t)r->width * (size_t)r->channels * (r->is_wide ? 2 : 1);
    CHECK(row == want, "libpng wants rows of %zu bytes, not %zu", row, want);
    r->pixels = xmalloc((size_t)r->height, row);
    r->rows = xmalloc((size_t)r->height, sizeof *r->rows);
    for (int y = 0; y < r->height; y++) {
        r->rows[y] = r->pixels + (size_t)y * row;
    }
    png_read_image(r->png, r->rows);
    png_read_end(r->png, NULL);
    return true;
}

// On success r->pixels is the caller's; on error it is freed.
static Error read_all(Reader *r, int *warnings) {
    r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, on_error, on_warning);
    r->info = r->png ? png_create_info_struct(r->png) : NULL;
    if (!r->info) {
        png_destroy_read_struct(&r->png, NULL, NULL);
        return error_at(EXIT_RESOURCE, 0, "cannot start libpng: no memory");
    }
    if (!read_picture(r)) {
        free(r->pixels);
        r->pixels = NULL;
    }
    free(r->rows);
    png_destroy_read_struct(&r->png, &r->info, NULL);
    *warnings += r->warnings;
    return r->error;
}

Error png_decode(const void *bytes, size_t size, const ImageLimits *limits, Image *out,
                 int *warnings) {
    Reader r = {.bytes = bytes, .size = size, .limits = limits};
    const Error error = read_all(&r, warnings);
    *out = (Image){0};
    if (error.code == EXIT_OK) {
        *out = (Image){r.width, r.height, r.channels, r.mode, r.pixels};
    }
    return error;
}

Error png_decode16(const void *bytes, size_t size, const ImageLimits *limits, int *width,
                   int *height, uint16_t **out, int *warnings) {
    Reader r = {.bytes = bytes, .size = size, .limits = limits, .is_wide = true};
    const Error error = read_all(&r, warnings);
    *width = r.width;
    *height = r.height;
    *out = (uint16_t *)r.pixels;
    return error;
}

// ---- writing ----
typedef struct {
    uint8_t *bytes;
    size_t size, room;
} Writer;

static void on_write(png_structp png, png_bytep from, size_t n) {
    Writer *w = png_get_io_ptr(png);
    if (n > w->room - w->size) {
        w->room = 2 * w->room + n;
        w->bytes = xrealloc(w->bytes, w->room, 1);
    }
    memcpy(w->bytes + w->size, from, n);
    w->size += n;
}

static void on_flush(png_structp png) { (void)png; }

// Writing to memory fails only for want of memory or by our own mistake.
static _Noreturn void on_write_error(png_structp png, png_const_charp text) {
    (void)png;
    die(EXIT_RESOURCE, "cannot write a png: %s", text);
}

uint8_t *png_encode_new(const Image *image, size_t *size) {
    static const int types[] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA,
                                PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
    Writer w = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_write_error, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        die(EXIT_RESOURCE, "cannot start libpng: no memory");
    }
    png_set_write_fn(png, &w, on_write, on_flush);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 types[image->channels], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    const size_t row = (size_t)image->width * (size_t)image->channels;
    for (int y = 0; y < image->height; y++) {
        png_write_row(png, image->data + (size_t)y * row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    *size = w.size;
    return w.bytes;
}
