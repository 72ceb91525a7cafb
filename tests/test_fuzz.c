// test_fuzz: the fuzzer's targets on their small corpora, in any build: tests/data/fuzz/NAME/ok-*
// must be accepted, bad-* refused, and none may crash. `make fuzz` looks for more.
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/file.h"
#include "tests/fuzz/fuzz.h"

static void replay(fuzz_fn *target, const char *dir) {
    char **names;
    int count;
    error_die(dir, file_list_new(&names, &count, dir));
    int accepted = 0;
    for (int i = 0; i < count; i++) {
        char *path = file_join_new(dir, names[i]);
        FileBytes bytes;
        error_die(path, file_read_new(&bytes, path, 1 << 20));
        // Exactly as many bytes as there are: a heap block without file_read_new's zero behind it.
        uint8_t *copy = xmalloc(bytes.size + !bytes.size, 1);
        memcpy(copy, bytes.data, bytes.size);
        const bool is_accepted = target(copy, bytes.size);
        const bool is_sound = strncmp(names[i], "ok-", 3) == 0;
        EXPECT(is_accepted == is_sound, "%s was %s", path, is_accepted ? "accepted" : "refused");
        accepted += is_accepted;
        free(copy);
        file_bytes_free(&bytes);
        free(path);
    }
    EXPECT(accepted > 0 && accepted < count, "%s: %d of %d accepted; both kinds must be there", dir,
           accepted, count);
    file_list_free(names, count);
}

TEST(fuzz_corpus) {
    log_set_level(LOG_ERROR);
#define REPLAY(name)                                                                               \
    if (CASE(#name)) {                                                                             \
        replay(fuzz_##name, check_fixture("fuzz/" #name));                                         \
    }
    FUZZ_TARGETS(REPLAY)
#undef REPLAY
}
