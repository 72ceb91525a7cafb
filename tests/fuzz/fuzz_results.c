// fuzz_results: results.json, from which report computes its tables.
#include "fuzz.h"
#include "host/results.h"

FUZZ(results) {
    RunResult *result = NULL;
    const bool is_accepted = fuzz_accepts(run_result_parse_new(&result, data, size));
    CHECK(is_accepted == (result != NULL), "a result, or none, without cause");
    run_result_free(result);
    return is_accepted;
}
