# Twenty LoRA steps of the reader beside PEFT and transformers' Trainer, in f32: the losses, and the
# adapters afterwards. Writes tests/data/lora_steps_{qwen2vl,pixtral}_{old,new}.safetensors; old
# or new is the version of transformers it runs under: 4.45.0 with peft 0.12.0, the pins of the
# original, whose loss is the mean over the means of the passes of a step; or a recent one, whose
# loss is the mean over all answer tokens of a step. The versions are in the files' metadata. What
# the fixtures repeat of the configuration stands in tests/test_lora_steps.c, too.
#
# Weights and the adapters at the start come from the formula of tools/reference.py.
import os
import tempfile

import numpy
import peft
import torch
import transformers
from safetensors.numpy import save_file
from torch.utils.data import SequentialSampler

import reference
import tiny_reader

RANK, ALPHA = 3, 6
STEPS, WARMUP, LR, PASSES, EACH = 20, 2, 1e-3, 3, 2


class Trainer(transformers.Trainer):
    """Prompts in their order; keeps what every pass adds to the loss of its step."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.parts.append(loss.item())
        return loss


def dump(family):
    pixels = tiny_reader.pixels()
    model = peft.get_peft_model(family.model(), peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=family.targets()))
    named = {family.rename(n): p for n, p in model.named_parameters()}
    values = reference.formula_weights({n: tuple(p.shape) for n, p in named.items()})
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(values[name]))
    with tempfile.TemporaryDirectory() as where:
        arguments = transformers.TrainingArguments(
            output_dir=where, max_steps=STEPS, per_device_train_batch_size=EACH,
            gradient_accumulation_steps=PASSES, learning_rate=LR, warmup_steps=WARMUP,
            lr_scheduler_type="cosine", weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch",
            save_strategy="no", report_to=[], remove_unused_columns=False, use_cpu=True,
            dataloader_pin_memory=False, disable_tqdm=True, logging_strategy="no")
        trainer = Trainer(model=model, args=arguments, train_dataset=tiny_reader.PROMPTS,
                          data_collator=lambda prompts: family.collate(prompts, pixels))
        trainer.parts = []
        trainer.train()
    losses = numpy.array(trainer.parts, numpy.float64).reshape(STEPS, PASSES).sum(1)
    tensors = {"loss": losses}
    tensors.update({f"input/pixels{i}": p for i, p in enumerate(pixels)})
    for b, prompt in enumerate(tiny_reader.PROMPTS):
        ids = [family.ids(text) for text in family.texts(prompt)]
        tensors[f"input/ids{b}"] = numpy.array(ids[0] + ids[1][:-1], numpy.int32)
    for name, parameter in named.items():
        if "lora" in name:
            tensors["adapter/" + name] = parameter.detach().numpy()
    file = f"lora_steps_{family.name}_{'old' if tiny_reader.IS_OLD else 'new'}.safetensors"
    save_file({n: numpy.ascontiguousarray(t) for n, t in tensors.items()},
              os.path.join(reference.DATA, file), metadata={
                  "format": "pt", "torch": torch.__version__, "peft": peft.__version__,
                  "transformers": transformers.__version__})
    print(f"{file}: {os.path.getsize(os.path.join(reference.DATA, file))} bytes, loss "
          f"{losses[0]:.9f} to {losses[-1]:.9f}")


for name in tiny_reader.SPECIALS:
    dump(tiny_reader.Family(name))
