// settings: see settings.h.
#include "settings.h"

#include "kernels/vendor_cublaslt.h"
#include "memory_plan.h"

Device *device_of_kind(const Config *config, DeviceKind kind, int threads) {
    Device *dev = device_new(kind, 0, threads);
    device_set_advice(dev, memory_advice);
    if (config->kernels.arch == KEY_ARCH_SM80) {
        device_limit_arch(dev, 80);
    }
    return dev;
}

static void take_cublaslt(Device *dev) {
    char why[200] = "this build has none";
    if (device_kind(dev) == DEVICE_CPU) {
        die(EXIT_CONFIG, "matmul: cublaslt is for a GPU; use device=cuda, or matmul=own");
    }
    if (!cublaslt_open || !cublaslt_open(dev, why, sizeof why)) {
        die(EXIT_NO_DEPENDENCY, "matmul: %s; use matmul=own", why);
    }
    cublaslt_take_over(dev);
    LOG(INFO, "matmul=cublaslt: NVIDIA's products; bits may depend on what else is in a batch");
}

Device *device_of_keys(const Config *config, int threads) {
    DeviceKind kind = config->device == KEY_CUDA ? DEVICE_CUDA : DEVICE_CPU;
    char why[200];
    if (config->device == KEY_AUTO) {
        kind = device_is_there(DEVICE_CUDA, 0, why, sizeof why) ? DEVICE_CUDA : DEVICE_CPU;
    }
    Device *dev = device_of_kind(config, kind, threads);
    if (config->device == KEY_AUTO) {
        LOG(INFO, "device=auto: %s; %s", device_name(dev),
            kind == DEVICE_CUDA ? "a GPU is there" : why);
    } else if (kind == DEVICE_CUDA) {
        LOG(INFO, "device: %s; kernels of sm_%d", device_name(dev), device_arch(dev));
    }
    if (config->matmul == KEY_CUBLASLT) {
        take_cublaslt(dev);
    }
    return dev;
}

RetrieverTrainConfig retriever_settings(const Config *config, IndexSide side) {
    static const MarginalMode modes[] = {
        [KEY_LOSS_MARGINAL] = MARGINAL_MARGINAL, [KEY_LOSS_JOMED] = MARGINAL_JOMED,
        [KEY_LOSS_PDIST] = MARGINAL_PDIST,       [KEY_LOSS_EMDR2] = MARGINAL_EMDR2,
        [KEY_LOSS_LEGACY1] = MARGINAL_LEGACY_I,  [KEY_LOSS_LEGACY2] = MARGINAL_LEGACY_II,
        [KEY_LOSS_LEGACY3] = MARGINAL_LEGACY_III};
    if (config->retriever.loss == KEY_LOSS_EMDR2) {
        die(EXIT_CONFIG,
            "retriever.loss: emdr2 needs token log-likelihoods of free answers, which a "
            "closed label set does not have; use marginal");
    }
    return (RetrieverTrainConfig){.side = side,
                                  .K = config->retriever.k,
                                  .batch = config->retriever.batch,
                                  .refresh = config->retriever.refresh,
                                  .steps = config->retriever.steps,
                                  .share = (float)config->retriever.share,
                                  .marginal = {.mode = modes[config->retriever.loss],
                                               .Ts = (float)config->retriever.temperature,
                                               .Tg = (float)config->retriever.evidence_temperature,
                                               .F = 0.5f,
                                               .is_prior_t1 = config->exact.prior_t1,
                                               .is_element_mean = config->exact.kl_mean},
                                  .is_double_softmax = config->exact.double_softmax,
                                  .is_recompute_fp32 = config->exact.recompute_fp32,
                                  .is_stale_search_head = config->exact.stale_search_head &&
                                                          side == INDEX_IMAGE,
                                  .seed = (uint64_t)config->seed};
}

OptimConfig retriever_optim(const Config *config) {
    OptimConfig optim = optim_default();
    optim.beta2 = (float)config->retriever.beta2;
    optim.decays_all = config->exact.wd1;
    optim.weight_decay = config->exact.wd1 ? 1.0f : (float)config->retriever.weight_decay;
    optim.clip = (float)config->retriever.clip;
    optim.is_clip_before_backward = config->exact.clip_before_backward;
    return optim;
}

OptimConfig reader_optim(const Config *config) {
    OptimConfig optim = optim_default();
    optim.beta2 = (float)config->reader.beta2;
    optim.weight_decay = (float)config->reader.weight_decay;
    optim.clip = (float)config->reader.clip;
    return optim;
}

ReaderTrainConfig reader_settings(const Config *config) {
    return (ReaderTrainConfig){.micro_batch = config->reader.micro_batch,
                               .is_micro_mean = config->exact.micro_mean,
                               .recomputes = config->reader.recompute};
}

FusionConfig fusion_settings(const Config *config) {
    FusionConfig fusion = fusion_default();
    fusion.temperature = config->retriever.temperature;
    fusion.is_max_norm = config->exact.max_norm;
    return fusion;
}
