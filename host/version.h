// version: what was built, for --version, build.json and reports.
#ifndef JOMED_HOST_VERSION_H
#define JOMED_HOST_VERSION_H

extern const char version_text[];   // "0.1"
extern const char version_commit[]; // git commit, with "+changes" if there were some, or "unknown"
extern const char version_build[];  // compiler and CPU flags

#endif
