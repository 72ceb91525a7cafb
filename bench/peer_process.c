// peer_process: see peer_process.h.
#define _POSIX_C_SOURCE 200809L
#include "bench/peer_process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base.h"

PeerProcess peer_process_start(const char *script) {
    int down[2], up[2];
    CHECK(pipe(down) == 0 && pipe(up) == 0, "no pipes for '%s'", script);
    for (int i = 0; i < 2; i++) { // a script started later must not hold this one's pipes open
        fcntl(down[i], F_SETFD, FD_CLOEXEC);
        fcntl(up[i], F_SETFD, FD_CLOEXEC);
    }
    signal(SIGPIPE, SIG_IGN); // writing to a script that has ended is an error, not the end of us
    const pid_t pid = fork();
    CHECK(pid >= 0, "no process for '%s'", script);
    if (pid == 0) {
        dup2(down[0], 0);
        dup2(up[1], 1);
        setenv("OMP_WAIT_POLICY", "passive", 1); // its threads must not spin against ours
        execlp("python3", "python3", script, (char *)NULL);
        _exit(EXIT_NO_DEPENDENCY);
    }
    close(down[0]);
    close(up[1]);
    return (PeerProcess){fdopen(down[1], "wb"), fdopen(up[0], "rb"), pid};
}

void peer_process_stop(PeerProcess *peer) {
    fclose(peer->to);
    fclose(peer->from);
    waitpid(peer->pid, NULL, 0);
}
