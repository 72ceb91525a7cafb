// test_export_layout: towers exported into another family's layout: CLIP from transformers' folder
// to open_clip's and back to the same bytes, query heads on the way, the tiny towers as
// jina-clip-v1's, and forms that the other family has no place for. The libraries themselves open
// such folders in tools/verify_export.py.
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/hub_retriever.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/program.h"

#define CLIP(act, more)                                                                            \
    "{\"model_type\": \"clip\", \"projection_dim\": 5, \"vision_config\": {\"hidden_size\": 12," \
    " \"intermediate_size\": 20, \"num_hidden_layers\": 2, \"num_attention_heads\": 3," \
    " \"image_size\": 8, \"patch_size\": 4, \"hidden_act\": \"gelu\"}, \"text_config\":" \
    " {\"hidden_size\": 8, \"intermediate_size\": 12, \"num_hidden_layers\": 1," \
    " \"num_attention_heads\": 2, \"vocab_size\": 9, \"max_position_embeddings\": 6," \
    " \"hidden_act\": \"" act "\"" more "}}"
#define PICTURES(size)                                                                             \
    "{\"image_processor_type\": \"CLIPImageProcessor\", \"size\": " size ", \"crop_size\": 8," \
    " \"image_mean\": [0.1, 0.25, 0.5], \"image_std\": [0.3, 0.3, 0.2]}"
static const char clip[] = CLIP("gelu", ", \"eos_token_id\": 2"),
                  pictures[] = PICTURES("{\"shortest_edge\": 8}");

static void put(const char *name, const char *text) { world_write(name, text, strlen(text)); }

// The folder `clip` with towers of the formula's values in f16.
static void write_clip(const char *config) {
    HubRetriever hub;
    error_die("clip", hub_retriever_parse(&hub, config, strlen(config), false));
    Retriever *retriever = retriever_new(check_device(), DT_F16, &hub.config, false);
    tensors_formula(&retriever->tensors);
    char *dir = file_join_new(world_dir(), "clip"), *path = file_join_new(dir, "model.safetensors");
    error_die(dir, file_make_directories(dir));
    error_die(path, weights_save(&retriever->tensors, path, "", false, false));
    retriever_free(retriever);
    put("clip/config.json", config);
    put("clip/preprocessor_config.json", pictures);
    put("clip/vocab.json", "{}");
    put("clip/processing_own.py", "own = 1\n");
    free(path);
    free(dir);
}

// What the towers of a folder make of two pictures and two texts, which end in the largest id.
typedef struct {
    HubRetriever hub;
    float out[4 * 64];
    int E;
} Rows;

static Rows rows_of(const char *name) {
    Rows rows;
    SafeStore store;
    Retriever retriever;
    char *dir = file_join_new(world_dir(), name);
    error_die(dir, hub_retriever_open_new(&rows.hub, dir));
    retriever_build(&retriever, &rows.hub.config);
    error_die(dir, hub_retriever_load(&retriever, check_device(), DT_F32, &store, &rows.hub));
    const int S = rows.hub.config.image.image_size, V = rows.hub.config.text.V;
    rows.E = rows.hub.config.image.E;
    float *pixels = xmalloc((size_t)2 * 3 * S * S, sizeof *pixels);
    formula_fill(pixels, "pixels", 0, (size_t)2 * 3 * S * S, 0, 1);
    const int32_t ids[] = {3, 1, V - 1, 4, 4, 2, V - 1}, ends[] = {0, 3, 7};
    const TextBatch batch = {.B = 2, .N = 7, .max_T = 4, .ids = ids, .cu_seqlens = ends};
    Run run = run_new(check_device(), DT_F32, NULL, false);
    Arena arena = arena_new(check_device(), "test", 1 << 22);
    run.arena = &arena;
    EmbedImagesState image;
    EmbedTextsState text;
    CHECK(rows.E <= 64, "E=%d", rows.E);
    embed_images_fwd(&run, &retriever.image, &image, rows.out, pixels, 2);
    embed_texts_fwd(&run, &retriever.text, &text, rows.out + (size_t)2 * rows.E, &batch);
    arena_free(&arena);
    free(pixels);
    retriever_unbuild(&retriever);
    safestore_free(&store);
    free(dir);
    return rows;
}

static void rows_end(Rows *rows) { hub_retriever_free(&rows->hub); }

#define EXPORT "export log.level=error export.what=retriever "

// There and back again is the same file; in between the same towers have other names.
TEST(export_layout_clip) {
    world();
    write_clip(clip);
    program_must_run(EXPORT "export.layout=open_clip retriever.model=clip export.dir=open");
    program_must_run(EXPORT "export.layout=clip retriever.model=open export.dir=back");
    expect_same_file("clip/model.safetensors", "back/model.safetensors");
    expect_same_file("clip/vocab.json", "open/vocab.json");
    EXPECT(!world_has("open/config.json") && !world_has("open/preprocessor_config.json") &&
               !world_has("open/processing_own.py") && !world_has("back/open_clip_config.json"),
           "files of the other family were copied");
    Rows here = rows_of("clip"), there = rows_of("open"), back = rows_of("back");
    EXPECT(there.hub.family == HUB_OPEN_CLIP && here.E == 5 && there.E == 5, "E=%d", there.E);
    EXPECT(there.hub.config.image.block.act == ACT_GELU && there.hub.config.image.block.F == 20 &&
               there.hub.config.text.block.F == 12 && there.hub.max_tokens == 6, "another form");
    EXPECT(memcmp(here.out, there.out, sizeof(float) * 4 * 5) == 0 &&
               memcmp(here.out, back.out, sizeof(float) * 4 * 5) == 0, "%g %g %g",
           (double)here.out[0], (double)there.out[0], (double)back.out[0]);
    char *text = world_text_new("open/open_clip_config.json");
    EXPECT(text && strstr(text, "\"mean\": [") && strstr(text, "0.25") &&
               strstr(text, "\"resize_mode\": \"shortest\""), "%s", text);
    free(text);
    rows_end(&here);
    rows_end(&there);
    rows_end(&back);
}

// A head of other values replaces the image tower alone.
TEST(export_layout_head) {
    world();
    write_clip(clip);
    HubRetriever hub;
    error_die("clip", hub_retriever_parse(&hub, clip, strlen(clip), false));
    Head *head = head_new(check_device(), DT_F32, &hub.config.image, false);
    tensors_formula(&head->tensors);
    tensors_disturb(&head->tensors, 0.2);
    char *path = file_join_new(world_dir(), "head.safetensors");
    error_die(path, weights_save(&head->tensors, path, "", false, true));
    program_must_run(EXPORT "export.what=text-head export.layout=open_clip retriever.model=clip "
                            "retriever.text_head=head.safetensors export.dir=open");
    Rows here = rows_of("clip"), there = rows_of("open");
    EXPECT(memcmp(here.out, there.out, sizeof(float) * 2 * 5) != 0, "the image tower stayed");
    EXPECT(memcmp(here.out + 10, there.out + 10, sizeof(float) * 2 * 5) == 0, "texts changed");
    rows_end(&here);
    rows_end(&there);
    head_free(head);
    free(path);
}

// The tiny towers, whose names are jina-clip-v1's already, get that family's configuration.
TEST(export_layout_tiny) {
    world_with_index();
    program_must_run(EXPORT "c.yaml export.layout=jina_clip " TOWERS " export.dir=jina");
    expect_same_file("towers/retriever.safetensors", "jina/model.safetensors");
    Rows rows = rows_of("jina");
    EXPECT(rows.hub.family == HUB_JINA_CLIP && rows.E == 64 && rows.hub.config.image.L == 3 &&
               rows.hub.config.text.block.has_alibi, "another form");
    rows_end(&rows);
    char *output;
    const int code = program_run(&output, "model info model.dir=jina");
    EXPECT(strstr(output, "jina_clip") && strstr(output, "preprocessor_config.json") == NULL,
           "code %d: %s", code, output);
    free(output);
}

TEST(export_layout_refused) {
    static const struct {
        const char *name, *config, *pictures, *arguments, *wants[2];
        int code;
    } bad[] = {
        {"two activations", CLIP("quick_gelu", ""), pictures, "export.layout=open_clip",
         {"text tower", "open_clip has no place"}, EXIT_BAD_DATA},
        {"eps", CLIP("gelu", ", \"layer_norm_eps\": 1e-6"), pictures, "export.layout=open_clip",
         {"text tower", "open_clip has no place"}, EXIT_BAD_DATA},
        {"an end that is not the largest id", CLIP("gelu", ", \"eos_token_id\": 7"), pictures,
         "export.layout=open_clip", {"the token that ends", "open_clip has no place"},
         EXIT_BAD_DATA},
        {"CLIP as jina's", clip, pictures, "export.layout=jina_clip",
         {"image tower", "jina_clip has no place"}, EXIT_BAD_DATA},
        {"another crop", clip, PICTURES("{\"shortest_edge\": 16}"), "export.layout=open_clip",
         {"pictures", "open_clip has no place"}, EXIT_BAD_DATA},
        {"no weights", clip, pictures, "export.layout=jina_clip retriever.model=",
         {"retriever.weights", "not set"}, EXIT_CONFIG},
        {"no such layout", clip, pictures, "export.layout=jina", {"export.layout", "jina_clip"},
         EXIT_CONFIG},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (CASE("%s", bad[i].name)) {
            world();
            write_clip(bad[i].config);
            put("clip/preprocessor_config.json", bad[i].pictures);
            char *output;
            const int code = program_run(
                &output, EXPORT "retriever.model=clip export.dir=out %s", bad[i].arguments);
            EXPECT(code == bad[i].code, "code %d: %s", code, output);
            expect_error_line(output, bad[i].wants, 2);
            EXPECT(!world_has("out") && !world_has("out.partial"), "something was left");
            free(output);
        }
    }
}
