// test_prompt: exact token sequences of every form, the cut of captions, the rows that are wanted.
//
// The texts wanted are written out as the chat templates published with Qwen2-VL-7B-Instruct and
// pixtral-12b print them, special tokens between bars of our own making; see expand.
#include "host/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

enum { MOST = 512 };

typedef struct {
    Tokenizer *tokenizer;
    ReaderConfig reader;
    PromptMaker maker;
    ReaderBatch batch;
    float pixels[3 * 64 * 64];
} Fixture;

// Byte tokenizer with the special tokens of all forms; the tiny readers at their own sizes.
static Fixture *fixture_new(PromptForm form, const char *preset, int max_tokens) {
    Fixture *f = xcalloc(1, sizeof *f);
    const char *specials[32];
    int n = 0;
    static const PromptForm lists[] = {PROMPT_QWEN2VL, PROMPT_PIXTRAL};
    for (int k = 0; k < 2; k++) {
        int count;
        const char *const *names = prompt_specials(lists[k], &count);
        memcpy(specials + n, names, (size_t)count * sizeof *names);
        n += count;
    }
    f->tokenizer = tokenizer_tiny_new(specials, n, NULL, 0);
    CHECK(reader_preset(&f->reader, preset), "no preset '%s'", preset);
    f->reader.V = f->tokenizer->vocab;
    f->reader.image_id = tokenizer_id(
        f->tokenizer, f->reader.family == READER_PIXTRAL ? "[IMG]" : "<|image_pad|>");
    f->maker = prompt_maker_new(form, f->tokenizer, &f->reader, max_tokens);
    f->batch = reader_batch_new();
    return f;
}

static void fixture_free(Fixture *f) {
    reader_batch_free(&f->batch);
    tokenizer_free(f->tokenizer);
    free(f);
}

static ReaderImage image_of(Fixture *f, int rows, int columns) {
    return (ReaderImage){.rows = rows, .columns = columns, .pixels = f->pixels};
}

// Ids of a text in which every special token is written as itself; {...} is plain text even if it
// spells a special token.
static int expand(const Fixture *f, const char *text, int32_t ids[MOST]) {
    int n = 0;
    bool is_plain = false;
    while (*text) {
        CHECK(n < MOST, "more than %d tokens", MOST);
        if (*text == '{' || *text == '}') {
            is_plain = *text++ == '{';
            continue;
        }
        int32_t id = -1;
        for (int i = 0; !is_plain && i < f->tokenizer->vocab && id < 0; i++) {
            const Piece *piece = &f->tokenizer->table.pieces[i];
            if (piece->kind == PIECE_SPECIAL &&
                strncmp(text, piece->bytes, (size_t)piece->size) == 0) {
                id = i;
                text += piece->size;
            }
        }
        ids[n++] = id >= 0 ? id : f->tokenizer->first_byte + (uint8_t)*text++;
    }
    return n;
}

static void expect_ids(const Fixture *f, const char *want_text, const int32_t *got, int count) {
    int32_t want[MOST];
    const int n = expand(f, want_text, want);
    int at = 0;
    while (at < n && at < count && want[at] == got[at]) {
        at++;
    }
    EXPECT(n == count && at == n, "token %d of %d (wanted %d) differs: %d, not %d", at, count, n,
           at < count ? got[at] : -1, at < n ? want[at] : -1);
}

#define QUESTION "Does this image show signs of <|im_end|> cancer?"
#define CAPTION "A [INST] mass."

static const struct {
    const char *name, *preset;
    PromptForm form;
    int passage_rows, passage_columns; // 0: closed book
    const char *want;
} forms[] = {
    {"qwen2vl", "tiny-qwen2vl", PROMPT_QWEN2VL, 2, 4,
     "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
     "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>background: {" CAPTION "}\n\n"
     "<|vision_start|><|image_pad|><|vision_end|>{" QUESTION
     "}<|im_end|>\n<|im_start|>assistant\n"},
    {"qwen2vl closed book", "tiny-qwen2vl", PROMPT_QWEN2VL, 0, 0,
     "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
     "<|vision_start|><|image_pad|><|vision_end|>{" QUESTION
     "}<|im_end|>\n<|im_start|>assistant\n"},
    {"pixtral", "tiny-pixtral", PROMPT_PIXTRAL, 2, 3,
     "<s>[INST][IMG][IMG][IMG][IMG_BREAK][IMG][IMG][IMG][IMG_END]background: {" CAPTION "}\n\n"
     "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]{" QUESTION "}[/INST]"},
    {"pixtral closed book", "tiny-pixtral", PROMPT_PIXTRAL, 0, 0,
     "<s>[INST][IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]{" QUESTION "}[/INST]"},
    {"tiny", "tiny-qwen2vl", PROMPT_TINY, 2, 4,
     "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>background : {" CAPTION "}"
     "<|vision_start|><|image_pad|><|vision_end|>{" QUESTION "}"},
    {"tiny pixtral", "tiny-pixtral", PROMPT_TINY, 1, 2,
     "[IMG][IMG][IMG_END]background : {" CAPTION "}"
     "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]{" QUESTION "}"},
};

TEST(prompt_forms) {
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
        if (!CASE("%s", forms[k].name)) {
            continue;
        }
        Fixture *f = fixture_new(forms[k].form, forms[k].preset, 4096);
        PromptInput input = {
            .query_image = image_of(f, 2, 2), .caption = CAPTION, .question = QUESTION};
        if (forms[k].passage_rows) {
            input.passage_image = image_of(f, forms[k].passage_rows, forms[k].passage_columns);
        }
        for (int twice = 0; twice < 2; twice++) { // the second prompt of a batch is like the first
            const int first = f->batch.N;
            EXPECT(prompt_add(&f->maker, &f->batch, &input, NULL, 0) == 1, "one row is wanted");
            expect_ids(f, forms[k].want, f->batch.ids + first, f->batch.N - first);
            EXPECT(f->batch.wanted[f->batch.R - 1] == f->batch.N - 1, "row %d of %d",
                   f->batch.wanted[f->batch.R - 1], f->batch.N);
        }
        EXPECT(f->batch.B == 2 && f->batch.images == (forms[k].passage_rows ? 4 : 2) &&
                   f->maker.cut_captions == 0, "B=%d images=%d", f->batch.B, f->batch.images);
        fixture_free(f);
    }
}

// An instruction comes first; exact.pixtral_literal and the blanks of exact.sft_caps.
TEST(prompt_switches) {
    static const struct {
        const char *name, *preset, *instruction, *want;
        PromptForm form;
        bool is_literal, has_blanks;
    } cases[] = {
        {"instruction", "tiny-qwen2vl", "Look.\n",
         "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nLook.\n"
         "<|vision_start|><|image_pad|><|vision_end|>background: c\n\n"
         "<|vision_start|><|image_pad|><|vision_end|> Q <|im_end|>\n<|im_start|>assistant\n",
         PROMPT_QWEN2VL, false, false},
        {"blanks", "tiny-pixtral", "",
         "<s>[INST] [IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]background: c\n\n"
         "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END] Q  [/INST]", PROMPT_PIXTRAL, false, true},
        {"instruction and blanks", "tiny-pixtral", "Look.",
         "<s>[INST] Look.[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]background: c\n\n"
         "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END] Q  [/INST]", PROMPT_PIXTRAL, false, true},
        {"literal", "tiny-pixtral", "",
         "<s>[INST][IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]background: c\n\n"
         "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]<image>Question: Q Answer:[/INST]",
         PROMPT_PIXTRAL, true, false}};
    uint64_t hashes[sizeof cases / sizeof *cases];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        Fixture *f = fixture_new(cases[k].form, cases[k].preset, 4096);
        f->maker.instruction = cases[k].instruction;
        f->maker.is_literal = cases[k].is_literal;
        f->maker.has_blanks = cases[k].has_blanks;
        hashes[k] = prompt_hash(&f->maker);
        for (size_t i = 0; i < k; i++) {
            EXPECT(hashes[i] != hashes[k], "%s and %s hash alike", cases[i].name, cases[k].name);
        }
        if (CASE("%s", cases[k].name)) {
            const PromptInput input = {.passage_image = image_of(f, 2, 2),
                                       .query_image = image_of(f, 2, 2),
                                       .caption = "c",
                                       .question = " Q "};
            prompt_add(&f->maker, &f->batch, &input, NULL, 0);
            expect_ids(f, cases[k].want, f->batch.ids, f->batch.N);
        }
        fixture_free(f);
    }
}

// Teacher forcing: the answer follows the prompt, its last token is not fed, and every row that
// predicts an answer token is wanted.
TEST(prompt_answer_rows) {
    Fixture *f = fixture_new(PROMPT_PIXTRAL, "tiny-pixtral", 4096);
    const PromptInput input = {.query_image = image_of(f, 1, 1), .caption = "", .question = "?"};
    int32_t answer[MOST];
    const int n = expand(f, "yes", answer);
    prompt_add(&f->maker, &f->batch, &input, NULL, 0);
    const int T = f->batch.N;
    EXPECT(prompt_add(&f->maker, &f->batch, &input, answer, n) == n, "%d rows", n);
    expect_ids(f, "<s>[INST][IMG][IMG_END]?[/INST]ye", f->batch.ids + T, f->batch.N - T);
    for (int i = 0; i < n; i++) {
        EXPECT(f->batch.wanted[1 + i] == 2 * T - 1 + i, "wanted row %d is %d", i,
               f->batch.wanted[1 + i]);
    }
    fixture_free(f);
}

// The caption, and nothing else, gives way; an exact fit is no cut.
TEST(prompt_cut) {
    for (int missing = 0; missing < 5; missing++) {
        if (!CASE("%d tokens too many", missing)) {
            continue;
        }
        Fixture *f = fixture_new(PROMPT_PIXTRAL, "tiny-pixtral", 1000);
        int32_t ids[MOST];
        const int whole = expand(
            f, "<s>[INST][IMG][IMG_END]background: abcdef\n\n[IMG][IMG_END]Q[/INST]", ids);
        f->maker.max_tokens = whole - missing;
        const PromptInput input = {.passage_image = image_of(f, 1, 1),
                                   .query_image = image_of(f, 1, 1),
                                   .caption = "abcdef",
                                   .question = "Q"};
        static const char *const want[] = {"abcdef\n\n", "abcdef\n", "abcdef", "abcde", "abcd"};
        char *text = xformat_new("<s>[INST][IMG][IMG_END]background: %s[IMG][IMG_END]Q[/INST]",
                                 want[missing]);
        prompt_add(&f->maker, &f->batch, &input, NULL, 0);
        expect_ids(f, text, f->batch.ids, f->batch.N);
        EXPECT(f->maker.cut_captions == (missing > 0), "%d cuts", f->maker.cut_captions);
        free(text);
        fixture_free(f);
    }
}

// Exit code of a child that adds a prompt with so many tokens allowed.
static int code_of(int max_tokens, bool has_passage) {
    const pid_t pid = fork();
    if (pid == 0) {
        Fixture *f = fixture_new(PROMPT_PIXTRAL, "tiny-pixtral", max_tokens);
        const ReaderImage one = image_of(f, 1, 1);
        PromptInput input = {.query_image = one, .caption = "abc", .question = "Q"};
        if (has_passage) {
            input.passage_image = one;
        }
        prompt_add(&f->maker, &f->batch, &input, NULL, 0);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid, "pid %d", (int)pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(prompt_too_small) {
    // <s>[INST] [IMG][IMG_END] Q [/INST] are 6 tokens, the passage's image 2 more.
    EXPECT(code_of(6, false) == 0, "a closed-book prompt of exactly max_tokens is refused");
    EXPECT(code_of(5, false) == EXIT_CONFIG, "closed book: code %d", code_of(5, false));
    EXPECT(code_of(8, true) == 0, "a passage without room for a caption is refused");
    EXPECT(code_of(7, true) == EXIT_CONFIG, "passage: code %d", code_of(7, true));
}

// Whatever changes what the reader sees changes the hash.
TEST(prompt_hash) {
    Fixture *a = fixture_new(PROMPT_TINY, "tiny-qwen2vl", 100),
            *b = fixture_new(PROMPT_QWEN2VL, "tiny-qwen2vl", 100);
    Fixture *c = fixture_new(PROMPT_TINY, "tiny-qwen2vl", 101),
            *d = fixture_new(PROMPT_TINY, "tiny-qwen2vl", 100);
    EXPECT(prompt_hash(&a->maker) == prompt_hash(&d->maker), "equal makers differ");
    EXPECT(prompt_hash(&a->maker) != prompt_hash(&b->maker), "form");
    EXPECT(prompt_hash(&a->maker) != prompt_hash(&c->maker), "max_tokens");
    fixture_free(a);
    fixture_free(b);
    fixture_free(c);
    fixture_free(d);
}
