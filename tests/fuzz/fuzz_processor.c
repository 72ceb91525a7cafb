// fuzz_processor: preprocessor_config.json in its three layouts.
#include "fuzz.h"
#include "host/processor_file.h"

FUZZ(processor) {
    ProcessorConfig config;
    return fuzz_accepts(processor_parse(&config, data, size));
}
