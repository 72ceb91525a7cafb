// peer_torch: see peer_torch.h. One process serves the whole run: importing torch takes seconds.
#include "bench/peer_torch.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench/peer_process.h"

static PeerProcess peer; // ends with the bench, whose pipes then close
static enum { UNKNOWN, PRESENT, ABSENT } state;

static bool is_ready(void) {
    char line[16];
    return fgets(line, sizeof line, peer.from) && strcmp(line, "ready\n") == 0;
}

static void run(void *unused) {
    (void)unused;
    double seconds;
    fputs("run\n", peer.to);
    fflush(peer.to);
    CHECK(fscanf(peer.from, "%lf", &seconds) == 1 && fgetc(peer.from) == '\n', "the peer has died");
    bench_took(seconds);
}

bench_fn *peer_torch(const char *fmt, ...) {
    if (state == UNKNOWN) {
        peer = peer_process_start("bench/peers/ops_torch.py");
        fprintf(peer.to, "%d\n", bench_threads());
        fflush(peer.to);
        state = is_ready() ? PRESENT : ABSENT;
    }
    if (state == ABSENT) {
        return NULL;
    }
    va_list args;
    va_start(args, fmt);
    vfprintf(peer.to, fmt, args);
    va_end(args);
    fputc('\n', peer.to);
    fflush(peer.to);
    CHECK(is_ready(), "ops_torch.py does not know '%s'", fmt);
    return run;
}
