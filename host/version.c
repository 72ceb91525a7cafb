// version: commit and flags come from the Makefile; this file alone is rebuilt when they change.
#include "version.h"

#ifndef JOMED_COMMIT
#define JOMED_COMMIT "unknown"
#endif
#ifndef JOMED_FLAGS
#define JOMED_FLAGS ""
#endif

const char version_text[] = "0.1";
const char version_commit[] = JOMED_COMMIT;
#if defined(__clang__)
const char version_build[] = "clang " __clang_version__ " " JOMED_FLAGS;
#else
const char version_build[] = "gcc " __VERSION__ " " JOMED_FLAGS;
#endif
