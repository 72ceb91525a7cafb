// test_cmd_generate: jomed generate end to end with the tiny reader: one prompt, a file of chats,
// stops, draws; and misuse, in one line and by its kind of fault.
#include <stdlib.h>
#include <string.h>

#include "host/chat.h"
#include "host/json.h"
#include "tests/check.h"
#include "tests/program.h"

#define GENERATE "generate log.level=error generate.max_tokens=12 "

static void put(const char *name, const char *text) { world_write(name, text, strlen(text)); }

// What a run that must succeed prints.
static char *output_new(const char *arguments) {
    char *output;
    const int code = program_run(&output, GENERATE "%s", arguments);
    EXPECT(code == EXIT_OK && output[0], "'%s' ended with %d: %s", arguments, code, output);
    return output;
}

static void expect_outputs(const char *a, const char *b, bool is_same) {
    char *x = output_new(a), *y = output_new(b);
    EXPECT((strcmp(x, y) == 0) == is_same, "'%s' gives\n%s'%s' gives\n%s", a, x, b, y);
    free(x);
    free(y);
}

// ---- chats ----
static const char chats[] =
    "{\"id\": \"a\", \"messages\": [{\"role\": \"user\", \"content\": \"is it bright ?\"}]}\n"
    "{\"messages\": [{\"role\": \"system\", \"content\": \"yes or no \"}, {\"role\": \"user\", "
    "\"content\": [{\"type\": \"image\", \"image\": \"images/q0.png\"}, {\"type\": \"text\", "
    "\"text\": \"is\"}, {\"type\": \"image\", \"image\": \"images/q1.png\"}]}, "
    "{\"role\": \"assistant\", \"content\": \"no\"}, {\"role\": \"user\", \"content\": \"?\"}]}\n"
    "\n"
    "{\"id\": 7, \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", "
    "\"image\": \"images/q1.png\"}, {\"type\": \"text\", \"text\": \"is it bright ?\"}]}]}\n";

static void expect_chats(void) {
    world();
    put("chats.jsonl", chats);
    expect_outputs("generate.chats=chats.jsonl generate.batch=1",
                   "generate.chats=chats.jsonl generate.batch=3", true);
    expect_outputs("generate.chats=chats.jsonl generate.sample=true generate.batch=2",
                   "generate.chats=chats.jsonl generate.sample=true generate.batch=3", true);
    char *output = output_new("generate.chats=chats.jsonl"), *line = output;
    static const char *const ids[] = {"\"a\"", "2", "7"};
    for (int i = 0; i < 3; i++) {
        const size_t length = strcspn(line, "\n");
        json_t *row;
        error_die("line", json_parse_new(&row, line, length));
        char *id = json_dumps(json_object_get(row, "id"), JSON_ENCODE_ANY);
        const json_t *tokens = json_object_get(row, "tokens");
        EXPECT(strcmp(id, ids[i]) == 0 && json_integer_value(tokens) == 12 &&
                   json_is_false(json_object_get(row, "ended")) &&
                   json_is_string(json_object_get(row, "text")),
               "line %d: %.*s", i, (int)length, line);
        free(id);
        json_decref(row);
        line += length + (line[length] == '\n');
    }
    EXPECT(line[0] == '\0', "more lines: %s", line);
    free(output);
    // A prompt is the chat of one message.
    put("one.jsonl", strstr(chats, "{\"id\": 7"));
    char *whole = output_new("generate.prompt='is it bright ?' generate.image=[images/q1.png]");
    output = output_new("generate.chats=one.jsonl");
    json_t *row;
    error_die("line", json_parse_new(&row, output, strcspn(output, "\n")));
    char *text = xformat_new("%s\n", json_string_value(json_object_get(row, "text")));
    char *quoted[] = {json_quote_new(text), json_quote_new(whole)};
    EXPECT(strcmp(quoted[0], quoted[1]) == 0, "%s of the chat, %s of the prompt", quoted[0],
           quoted[1]);
    free(quoted[0]);
    free(quoted[1]);
    free(text);
    free(whole);
    free(output);
    json_decref(row);
}

// ---- one prompt ----
// Printable answers: the byte tokens of the world's reader are not, most of them.
static void expect_stop(void) {
    world();
    char *whole = output_new("generate.prompt=bright");
    const size_t size = strlen(whole);
    size_t at = 1; // a letter behind the first, that is not there before
    while (at < size && (strchr("\"'\\`$[], #:{}", whole[at]) || whole[at] < 33 ||
                         memchr(whole, whole[at], at))) {
        at++;
    }
    EXPECT(at < size, "no letter to stop at in '%s'", whole);
    if (at < size) {
        char *arguments = xformat_new("generate.prompt=bright 'generate.stop=[\"%c\", \"zzz\"]'",
                                      whole[at]);
        char *stopped = output_new(arguments);
        EXPECT(strlen(stopped) == at + 1 && strncmp(stopped, whole, at) == 0,
               "'%s' cut at '%c' is '%s'", whole, whole[at], stopped);
        free(stopped);
        free(arguments);
    }
    free(whole);
}

// ---- misuse ----
#define USER "{\"messages\": [{\"role\": \"user\", \"content\": "
static void expect_misuse(void) {
    static const struct {
        const char *arguments, *chats, *error;
        int code;
    } cases[] = {
        {"", NULL, "generate.prompt: not set", EXIT_CONFIG},
        {"generate.prompt=a generate.chats=x.jsonl", NULL, "leave one out", EXIT_CONFIG},
        {"generate.chats=x.jsonl generate.system=a", NULL, "system messages", EXIT_CONFIG},
        {"generate.chats=x.jsonl", NULL, "x.jsonl: ", EXIT_NO_INPUT},
        {"generate.prompt=a 'generate.stop=[\"\"]'", NULL, "generate.stop", EXIT_CONFIG},
        {"generate.prompt=a generate.image=[no.png]", NULL, "no.png", EXIT_NO_INPUT},
        {"generate.prompt=a generate.image=[c.yaml]", NULL, "c.yaml", EXIT_BAD_DATA},
        {"generate.prompt=a generate.top_p=0", NULL, "generate.top_p", EXIT_CONFIG},
        {"generate.prompt=is_it_so_long_as_that prompt.max_tokens=8", NULL, "prompt.max_tokens: 8",
         EXIT_CONFIG},
        {"generate.chats=x.jsonl", "\n", "no chats", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", "\n{}", "x.jsonl:2: member 'messages'", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", "{\"messages\": []}", "the user's", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", "{\"messages\": [3]}", "message 1: wants an object",
         EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "3}]}", "message 1: member 'content'", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "[{\"type\": \"video\"}]}]}", "type 'video'",
         EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "[{\"type\": \"image\"}]}]}", "member 'image'",
         EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "\"a\"}, {\"role\": \"user\", \"content\": \"b\"}]}",
         "message 2: role 'user' out of turn", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "\"a\"}, {\"role\": \"tool\", \"content\": \"b\"}]}",
         "role 'tool'", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "\"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
         "the last one must be the user's", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "\"a\"}, {\"role\": \"assistant\", \"content\": "
         "[{\"type\": \"image\", \"image\": \"a.png\"}]}]}", "only a user", EXIT_BAD_DATA},
        {"generate.chats=x.jsonl", USER "[{\"type\": \"image\", \"image\": \"/etc/hosts\"}]}]}",
         "/etc/hosts", EXIT_BAD_DATA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].chats) {
            put("x.jsonl", cases[i].chats);
        }
        char *output;
        const int code = program_run(&output, GENERATE "%s", cases[i].arguments);
        EXPECT(code == cases[i].code, "%s %s ends with %d, not %d", cases[i].arguments,
               cases[i].chats ? cases[i].chats : "", code, cases[i].code);
        expect_error_line(output, &cases[i].error, 1);
        free(output);
    }
}

TEST(cmd_generate) {
    if (CASE("chats")) {
        expect_chats();
    }
    if (CASE("stop")) {
        expect_stop();
    }
    if (CASE("draws")) {
        world();
        expect_outputs("generate.prompt=bright generate.sample=true",
                       "generate.prompt=bright generate.sample=true", true);
        expect_outputs("generate.prompt=bright generate.sample=true generate.top_k=1",
                       "generate.prompt=bright", true);
        expect_outputs("generate.prompt=bright generate.repetition_penalty=0.001",
                       "generate.prompt=bright", false);
    }
    if (CASE("misuse")) {
        world();
        expect_misuse();
    }
}
