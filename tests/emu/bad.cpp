// bad: the list of the kernels with mistakes, for the test in C; see bad.h.
#include <cstdio>
#include <unistd.h>
#include <vector>

#include "core.h"

struct Entry {
    const char *name;
    void (*run)();
};
static std::vector<Entry> &entries() { // made on first use: the files register before main
    static std::vector<Entry> all;
    return all;
}

namespace emu {
bool bad_list(const char *name, void (*run)()) {
    entries().push_back({name, run});
    return true;
}
void bad_result(const char *what, int i, float got, float want) {
    fprintf(stderr, "wrong result: %s %d is %g, want %g\n", what, i, (double)got, (double)want);
    _exit(70);
}
} // namespace emu

extern "C" {
int emu_bad_count(void);
const char *emu_bad_name(int i);
void emu_bad_run(int i);
const char *emu_build(void);
}
int emu_bad_count(void) { return (int)entries().size(); }
const char *emu_bad_name(int i) { return entries()[(size_t)i].name; }
void emu_bad_run(int i) { entries()[(size_t)i].run(); }
const char *emu_build(void) {
#if defined(EMU_CHECK)
    return "check";
#elif defined(__SANITIZE_ADDRESS__)
    return "asan";
#else
    return "plain";
#endif
}
