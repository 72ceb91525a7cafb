// lora: low-rank adapters on linear layers: building, and merging into the weights.
// Names follow PEFT: module.lora_A.weight, module.lora_B.weight (the file puts "base_model.model."
// before). The forward and backward are the linear layer's (layer.h). Source: Hu et al. 2021, and
// PEFT for the initial values and the sharing of A in fused modules.
#ifndef JOMED_MODELS_LORA_H
#define JOMED_MODELS_LORA_H

#include "layer.h"

typedef struct {
    int rank;       // 0: no adapter
    float alpha;
    bool is_rslora; // rank-stabilised (Kalajdzievski 2023)
} LoraConfig;
float lora_scale(LoraConfig config); // s = alpha / rank, or alpha / sqrt(rank) where is_rslora

// Adds A, uniform in +-1/sqrt(in), and B, zero, to the list as adapter tensors named after module.
void lora_add(TensorList *list, Linear *linear, const char *module, LoraConfig config);
// The same for a layer that is slice `part` (rows first .. first+out-1 of `rows`) of a fused
// module: B is that slice of the file's B, and A is the module's one A, which the slices share.
void lora_add_slice(TensorList *list, Linear *linear, const char *module, const char *part,
                    int first, int rows, LoraConfig config);
// values (out,in) += s B A, in f32, on the host: what export merge=true writes after one rounding.
// Chains over r ascending that start from 0, then one addition.
void lora_merge(const TensorList *list, const Linear *linear, float *values);

#endif
