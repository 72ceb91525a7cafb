# The tiny readers of tests/test_lora_steps.c in transformers, of its versions 4.45 and recent ones:
# their configuration, the prompts, and how these become batches. Prompts are written as text and
# cut by the plainest tokenizer: special tokens, then bytes.
import numpy
import torch
import transformers

PATCH, MERGE = 4, 2
IS_OLD = transformers.__version__.startswith("4.")
SPECIALS = dict(
    qwen2vl=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
             "<|image_pad|>"],
    pixtral=["<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"])
GRIDS = [(2, 2), (2, 4), (4, 2)]  # rows and columns of patches
# passage image or None, query image, caption, question, answer
PROMPTS = [(0, 1, "opacity", "grade?", "no"), (2, 0, "a clear lung", "grade?", "yes"),
           (None, 2, "", "what is seen?", "a nodule"), (1, 1, "mass", "grade?", "3"),
           (1, 2, "", "what is seen?", "no"), (0, 0, "effusion, left", "grade?", "opacities")]


class Family:
    def __init__(self, name):
        self.name, self.specials = name, SPECIALS[name]
        self.image = self.specials.index("<|image_pad|>" if name == "qwen2vl" else "[IMG]")

    def model(self):
        text = dict(vocab_size=len(self.specials) + 256, hidden_size=16, intermediate_size=12,
                    num_hidden_layers=2, hidden_act="silu", bos_token_id=None, eos_token_id=None,
                    pad_token_id=None)
        if self.name == "qwen2vl":
            text.update(num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6)
            vision = dict(depth=2, embed_dim=8, hidden_size=16, num_heads=1, mlp_ratio=1,
                          in_channels=3, patch_size=PATCH, spatial_merge_size=MERGE,
                          temporal_patch_size=2)
            ids = dict(image_token_id=self.image, vision_start_token_id=3, vision_end_token_id=4,
                       video_token_id=999, tie_word_embeddings=False)
            sections = [2, 1, 1]
            if IS_OLD:
                config = transformers.Qwen2VLConfig(
                    vision_config=vision, rope_theta=10000.0, attn_implementation="eager",
                    rope_scaling=dict(type="mrope", mrope_section=sections), **text, **ids)
            else:
                text["rope_parameters"] = dict(rope_type="default", rope_theta=10000.0,
                                               mrope_section=sections)
                config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
            kind = transformers.Qwen2VLForConditionalGeneration
        else:
            text.update(model_type="mistral", num_attention_heads=4, num_key_value_heads=2,
                        head_dim=8, rms_norm_eps=1e-5, sliding_window=None)
            vision = dict(model_type="pixtral", hidden_size=16, intermediate_size=12,
                          num_hidden_layers=2, num_attention_heads=2, head_dim=8, image_size=16,
                          patch_size=PATCH, hidden_act="silu")
            if IS_OLD:
                text["rope_theta"], vision["rope_theta"] = 1000.0, 10000.0
            else:
                text["rope_parameters"] = dict(rope_type="default", rope_theta=1000.0)
                vision["rope_parameters"] = dict(rope_type="default", rope_theta=10000.0)
            config = transformers.LlavaConfig(
                text_config=text, vision_config=vision, image_token_index=self.image,
                projector_hidden_act="gelu", vision_feature_layer=-1, image_seq_length=1,
                vision_feature_select_strategy="full", tie_word_embeddings=False)
            kind = transformers.LlavaForConditionalGeneration
        config._attn_implementation = "eager"
        return kind(config)

    def targets(self):
        names = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
        return (rf"(?!.*patch_embed).*\.(qkv|proj|fc1|fc2|{names})" if self.name == "qwen2vl"
                else rf"(?!.*patch_conv).*\.({names})")

    def image_text(self, image):
        rows, columns = GRIDS[image]
        if self.name == "qwen2vl":
            return "<|vision_start|>" + "<|image_pad|>" * (rows * columns // 4) + "<|vision_end|>"
        row = "[IMG]" * columns
        return "[IMG_BREAK]".join([row] * rows) + "[IMG_END]"

    def texts(self, prompt):
        """Prompt and answer as the chat templates print them."""
        passage, query, caption, question, answer = prompt
        content = self.image_text(query) + question
        if passage is not None:
            content = self.image_text(passage) + f"background: {caption}\n\n" + content
        if self.name == "qwen2vl":
            return ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
                    + content + "<|im_end|>\n<|im_start|>assistant\n", answer + "<|im_end|>")
        return "<s>[INST]" + content + "[/INST]", answer + "</s>"

    def ids(self, text):
        out = []
        while text:
            name = next((s for s in self.specials if text.startswith(s)), None)
            if name:
                out.append(self.specials.index(name))
                text = text[len(name):]
            else:
                out += [len(self.specials) + byte for byte in text[0].encode()]
                text = text[1:]
        return out

    def collate(self, prompts, pixels):
        """Right-padded, labels -100 on prompt and padding."""
        rows = [[self.ids(text) for text in self.texts(prompt)] for prompt in prompts]
        longest = max(len(a) + len(b) for a, b in rows)
        pad = lambda value, row: row + [value] * (longest - len(row))
        batch = dict(input_ids=torch.tensor([pad(0, a + b) for a, b in rows]),
                     attention_mask=torch.tensor([pad(0, [1] * len(a + b)) for a, b in rows]),
                     labels=torch.tensor([pad(-100, [-100] * len(a) + b) for a, b in rows]))
        images = [i for prompt in prompts for i in prompt[:2] if i is not None]
        if self.name == "qwen2vl":
            batch["pixel_values"] = torch.cat([self.patches(pixels[i]) for i in images])
            batch["image_grid_thw"] = torch.tensor([(1, *GRIDS[i]) for i in images])
            if not IS_OLD:
                batch["mm_token_type_ids"] = (batch["input_ids"] == self.image).int()
        elif IS_OLD:
            batch["pixel_values"] = [torch.from_numpy(pixels[i]) for i in images]
        else:
            whole = torch.zeros(len(images), 3, 4 * PATCH, 4 * PATCH)
            for n, i in enumerate(images):
                whole[n, :, :pixels[i].shape[1], :pixels[i].shape[2]] = torch.from_numpy(pixels[i])
            batch["pixel_values"] = whole
            batch["image_sizes"] = torch.tensor([[PATCH * side for side in GRIDS[i]]
                                                 for i in images])
        return batch

    def patches(self, image):
        """The image processor's order: merge cells, and (channel, time, y, x) inside a patch."""
        gh, gw = image.shape[1] // PATCH, image.shape[2] // PATCH
        x = numpy.stack([image, image])[None].reshape(1, 2, 3, gh // MERGE, MERGE, PATCH,
                                                      gw // MERGE, MERGE, PATCH)
        return torch.from_numpy(x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(gh * gw, -1).copy())

    def rename(self, name):
        name = name.replace("base_model.model.", "").replace(".default", "")
        name = name.replace(".base_layer", "")
        if IS_OLD:
            return name
        name = name.replace("model.visual.", "visual.").replace("model.vision_tower.",
                                                                "vision_tower.")
        name = name.replace("model.multi_modal_projector.", "multi_modal_projector.")
        if self.name == "qwen2vl":
            return name.replace("model.language_model.", "model.")
        name = "language_model." + name if name.startswith("lm_head") else name
        return name.replace("model.language_model.", "language_model.model.")


def pixels():
    """The three images of the prompts."""
    rng = numpy.random.default_rng(7)
    return [rng.standard_normal((3, r * PATCH, c * PATCH)).astype(numpy.float32) for r, c in GRIDS]
