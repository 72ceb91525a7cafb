// peer_process: a peer that is not C: a Python script that holds the same problem and works when
// told.
//
// The script talks over its stdin and stdout; what it says is a matter between it and the bench. It
// takes the time of its own work, by the clock of bench_now, and the bench hands that to
// bench_took: neither the pipe nor the bench's own clock, which stands still meanwhile, would
// measure it.
#ifndef JOMED_BENCH_PEER_PROCESS_H
#define JOMED_BENCH_PEER_PROCESS_H

#include <stdio.h>

typedef struct {
    FILE *to, *from;
    int pid;
} PeerProcess;
// Starts python3 on a script of bench/peers; its threads sleep while they wait. Without python3, or
// where the script cannot go on, reading from it gives end of file; it says why on stderr.
PeerProcess peer_process_start(const char *script);
void peer_process_stop(PeerProcess *peer); // the script ends with its input

#endif
