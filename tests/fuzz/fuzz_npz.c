// fuzz_npz: archives of arrays, and what MedMNIST makes of them.
#include "fuzz.h"
#include "host/dataset_files.h"
#include "host/npz.h"

enum { MOST = 1 << 20 };

FUZZ(npz) {
    Npz archive;
    const bool is_accepted = fuzz_accepts(npz_open_new(&archive, data, size));
    CHECK(is_accepted || archive.count == 0, "a refused archive left members");
    for (int i = 0; i < archive.count; i++) {
        NpyArray array;
        CHECK(npz_has(&archive, archive.members[i].name), "member %d is not found", i);
        if (fuzz_accepts(npz_load_new(&array, &archive, archive.members[i].name, MOST))) {
            CHECK(array.bytes <= MOST, "%zu bytes", array.bytes);
            fuzz_touch(array.data, array.bytes);
        }
        npy_free(&array);
    }
    npz_free(&archive);
    Dataset *ds = dataset_new();
    fuzz_accepts(dataset_parse_medmnist(ds, "fuzz.npz", data, size, MOST));
    dataset_free(ds);
    return is_accepted;
}
