// Datasets built in memory, and how they are read back.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/dataset.h"
#include "tests/check.h"

TEST(dataset_in_memory) {
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, (const char *const[]){"benign", "malignant"}, 2);
    EXPECT(dataset_class(ds, "malignant") == 1 && dataset_class(ds, "Benign") == -1, "classes");
    enum { ROWS = 700 };
    for (int i = 0; i < ROWS; i++) {
        char id[16], text[2000];
        snprintf(id, sizeof id, "row-%d", i);
        memset(text, 'a' + i % 26, sizeof text);
        text[i] = '\0';
        Record record = record_empty();
        record.id = id;
        record.text = text;
        record.question = "which grade?";
        record.label = i % 2;
        record.image = image_new(3, 2, 1);
        record.image.data[5] = (uint8_t)i;
        EXPECT(dataset_add(ds, &record) == i, "row %d", i);
        image_free(&record.image);
    }
    for (int i = 0; i < ROWS; i++) {
        const Record *record = &ds->records[i];
        EXPECT(atoi(record->id + 4) == i && strlen(record->text) == (size_t)i, "strings of %d", i);
        EXPECT(i == 0 || record->text[0] == 'a' + i % 26, "text of %d", i);
        EXPECT(record->answer[0] == '\0' && record->path[0] == '\0', "unknown is empty");
        EXPECT(record->question == ds->records[0].question, "a repeated string is kept once");
        Image image;
        EXPECT(dataset_image(ds, i, &image), "image of %d", i);
        EXPECT(image.width == 3 && image.height == 2 && image.data[5] == (uint8_t)i, "pixels %d", i);
        EXPECT((record->image_hash == ds->records[0].image_hash) == (i % 256 == 0), "hash %d", i);
        image_free(&image);
    }
    dataset_free(ds);
}
