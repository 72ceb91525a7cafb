// tokenizer_folders: see tokenizer_folders.h.
#define _XOPEN_SOURCE 700
#include "tests/tokenizer_folders.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/bpe_vocab.h"
#include "host/file.h"
#include "host/json.h"
#include "tests/check.h"

// A link dir/name to a file of the test data.
static bool link_data(const char *dir, const char *name, const char *data) {
    const char *place = check_data(data);
    if (!place) {
        return false;
    }
    char *const link = file_join_new(dir, name), *const whole = realpath(place, NULL);
    EXPECT(whole && symlink(whole, link) == 0, "no link '%s' to '%s'", link, place);
    free(whole);
    free(link);
    return true;
}

static void write_text(const char *dir, const char *name, const char *text) {
    char *const path = file_join_new(dir, name);
    EXPECT(file_replace(path, text, strlen(text)).code == EXIT_OK, "cannot write '%s'", path);
    free(path);
}

// tokenizer_config.json with the special tokens from id first on.
static void write_qwen2vl_config(const char *dir, int first) {
    static const char *const names[] = {
        "endoftext",    "im_start",   "im_end",       "object_ref_start", "object_ref_end",
        "box_start",    "box_end",    "quad_start",   "quad_end",         "vision_start",
        "vision_end",   "vision_pad", "image_pad",    "video_pad"};
    char *added = xstrdup("");
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        char *const more = xformat_new("%s%s\"%d\": {\"content\": \"<|%s|>\", \"special\": true}",
                                       added, i ? ", " : "", first + i, names[i]);
        free(added);
        added = more;
    }
    char *const config =
        xformat_new("{\"tokenizer_class\": \"Qwen2Tokenizer\", \"bos_token\": null,"
                    "\"eos_token\": \"<|im_end|>\", \"added_tokens_decoder\": {%s}}", added);
    write_text(dir, "tokenizer_config.json", config);
    free(config);
    free(added);
}

bool qwen2vl_folder(const char *dir) {
    if (!link_data(dir, "vocab.json", "tokenizers/qwen2/vocab.json") ||
        !link_data(dir, "merges.txt", "tokenizers/qwen2/merges.txt")) {
        return false;
    }
    write_qwen2vl_config(dir, 151643);
    return true;
}

void qwen2vl_folder_of_bytes(const char *dir) {
    json_t *vocab = json_object();
    for (int b = 0; b < 256; b++) {
        char symbol[5] = {0};
        byte_symbol(symbol, (uint8_t)b);
        json_object_set_new(vocab, symbol, json_integer(b));
    }
    char *const text = json_dumps(vocab, 0);
    write_text(dir, "vocab.json", text);
    write_text(dir, "merges.txt", "#version: 0.2\n");
    write_qwen2vl_config(dir, 256);
    json_decref(vocab);
    free(text);
}

bool pixtral_folder(const char *dir) {
    write_text(dir, "special_tokens.json",
               "{\"num_special\": 1000, \"names\": {\"<unk>\": 0, \"<s>\": 1, \"</s>\": 2, "
               "\"[INST]\": 3, \"[/INST]\": 4, \"[AVAILABLE_TOOLS]\": 5, "
               "\"[/AVAILABLE_TOOLS]\": 6, \"[TOOL_RESULTS]\": 7, \"[/TOOL_RESULTS]\": 8, "
               "\"[TOOL_CALLS]\": 9, \"[IMG]\": 10, \"<pad>\": 11, \"[IMG_BREAK]\": 12, "
               "\"[IMG_END]\": 13, \"[PREFIX]\": 14, \"[MIDDLE]\": 15, \"[SUFFIX]\": 16, "
               "\"[SYSTEM_PROMPT]\": 17, \"[/SYSTEM_PROMPT]\": 18, \"[TOOL_CONTENT]\": 19}}");
    return link_data(dir, "tekken.tiktoken", "tokenizers/tekken/tekken_v3.tiktoken");
}
