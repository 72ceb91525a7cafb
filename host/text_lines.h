// text_lines: the lines of a text in memory, ended by \n or \r\n.
#ifndef JOMED_HOST_TEXT_LINES_H
#define JOMED_HOST_TEXT_LINES_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *at, *end; // what is left
    size_t number;        // of the line handed out last, from 1
} TextLines;
TextLines text_lines(const char *text, size_t size);
// The next line without its end, not NUL-terminated; false at the end of the text.
bool text_lines_next(TextLines *lines, const char **line, size_t *size);
// How many there are, at most `most`.
size_t text_lines_count(const char *text, size_t size, size_t most);

#endif
