// file: the only way we read, map, replace and append files.
//
// A file that others rely on is never written in place: the new content goes to a temporary name in
// the same directory, is synced, closed, renamed over the old one, and the directory is synced.
// Whatever moment the machine dies, the old or the new file is there, whole. Every return value is
// checked.
//
// All functions return an Error without the path in its text: error_die(path, error) puts it in
// front. Codes: EXIT_NO_INPUT nothing there, EXIT_NO_OUTPUT cannot be created, EXIT_IO failed on
// the way (disk full). The offset is ERROR_NOWHERE unless a byte is to blame.
// Left out: locks (runlog), formats, network file systems without rename.
// Source: "Files are hard" (Luu) and the fsync rules of SQLite's atomic commit.
#ifndef JOMED_HOST_FILE_H
#define JOMED_HOST_FILE_H

#include <stdarg.h>

#include "kernels/base.h"

// ---- reading ----
// The bytes of one file. data is never NULL, also when size is 0.
typedef struct {
    const uint8_t *data;
    size_t size;
    bool is_mapped; // else on the heap, with a zero byte after the end
} FileBytes;
// Reads a whole regular file onto the heap; refuses (EXIT_BAD_DATA) one larger than limit bytes.
Error file_read_new(FileBytes *out, const char *path, size_t limit);
// Maps a whole regular file for reading. Somebody who truncates the file meanwhile kills us
// (SIGBUS); our own writers never do, because they rename.
Error file_map_new(FileBytes *out, const char *path);
void file_bytes_free(FileBytes *bytes); // also fine on a zeroed struct

// ---- replacing ----
// A file in the making. The first error sticks: later adds do nothing, and commit returns it.
typedef struct {
    char *path, *temporary;
    int fd;
    size_t used;    // bytes in buffer
    size_t written; // bytes given so far, the offset of the next one
    uint8_t *buffer;
    Error error;
} FileWriter;
Error file_writer_open(FileWriter *writer, const char *path);
void file_writer_add(FileWriter *writer, const void *data, size_t size);
void file_writer_print(FileWriter *writer, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
// Makes the new content the file's and ends the writer. On an error the old file stands and nothing
// is left behind.
Error file_writer_commit(FileWriter *writer);
void file_writer_abandon(FileWriter *writer); // ends the writer, the old file stands
// The same for content that is in memory already.
Error file_replace(const char *path, const void *data, size_t size);

// ---- appending ----
// A log that must not stop the work: each line is one write(2); a line that cannot be written whole
// is counted and dropped, and the first one is reported.
typedef struct {
    char *path;
    int fd;
    size_t dropped;
    bool is_torn; // the last write stopped inside a line: the next one starts a new line
} FileLog;
Error file_log_open(FileLog *log, const char *path); // creates, or appends behind a whole line
void file_log_line(FileLog *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void file_log_line_args(FileLog *log, const char *fmt, va_list args);
void file_log_close(FileLog *log); // warns when lines were dropped

// ---- descriptors, for writers with a layout of their own ----
Error file_write_all(int fd, const void *data, size_t size); // repeats short writes
Error file_sync(int fd);
Error file_sync_directory(const char *path);
Error file_close(int fd); // the return value of close counts: some file systems report there

// ---- directories and names ----
bool file_exists(const char *path);
bool file_is_directory(const char *path);
Error file_make_directories(const char *path);       // with parents; fine when they are there
Error file_rename(const char *from, const char *to); // and syncs the directory of `to`
Error file_remove_tree(const char *path); // a file or a directory with all in it; fine when absent
// Can a file be created in directory path (made first)? Tried, not guessed.
Error file_check_writable(const char *path);
// Free for us on the file system of path; UINT64_MAX: unknown.
uint64_t file_free_bytes(const char *path);
// Names in a directory without "." and "..", sorted by strcmp. Free with file_list_free.
Error file_list_new(char ***names, int *count, const char *path);
void file_list_free(char **names, int count);
char *file_join_new(const char *directory, const char *name); // name itself when absolute
// Path of a file named by data (a JSONL row, an index): relative to root, and inside it after
// symbolic links are followed. Absolute names and escapes are refused (EXIT_BAD_DATA) unless
// allow_absolute; a file that is not there gives EXIT_NO_INPUT.
Error file_resolve_new(char **out, const char *root, const char *name, bool allow_absolute);

// ---- faults for tests ----
// The k-th (1 = next) call of kind "open", "write", "fsync", "close" or "rename" in this module
// fails with that errno, and with is_persistent all later ones do. kind NULL ends it.
void file_fault(const char *kind, int k, int error_number, bool is_persistent);

#endif
