// text_lines: see text_lines.h.
#include "text_lines.h"

#include <string.h>

TextLines text_lines(const char *text, size_t size) {
    return (TextLines){.at = text, .end = text + size};
}

bool text_lines_next(TextLines *lines, const char **line, size_t *size) {
    if (lines->at == lines->end) {
        return false;
    }
    const char *stop = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
    stop = stop ? stop : lines->end;
    *line = lines->at;
    *size = (size_t)(stop - lines->at);
    *size -= *size > 0 && (*line)[*size - 1] == '\r';
    lines->at = stop < lines->end ? stop + 1 : stop;
    lines->number++;
    return true;
}

size_t text_lines_count(const char *text, size_t size, size_t most) {
    TextLines lines = text_lines(text, size);
    const char *line;
    for (size_t length; lines.number < most && text_lines_next(&lines, &line, &length);) {
    }
    return lines.number;
}
