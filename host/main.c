// main: jomed. The command line is command_line.c's business.
#include "kernels/device.h"
#include "verbs.h"

int main(int argc, char **argv) {
    device_threads_sleep(argv);
    return command_line_run(argc, argv);
}
