# Converts open_clip_pytorch_model.bin, as BiomedCLIP ships, to open_clip_model.safetensors beside
# it: the same tensors under the same names. Run once; the engine itself does not read pickles.
#
#   python tools/convert_biomedclip.py DIR
#
# Tensors that share memory are stored once each; what is no tensor is refused. Needs torch and
# safetensors. weights_only keeps the pickle from running code.
import os
import sys

import torch
from safetensors.torch import save_file

if len(sys.argv) != 2:
    sys.exit("usage: python tools/convert_biomedclip.py DIR")
source = os.path.join(sys.argv[1], "open_clip_pytorch_model.bin")
target = os.path.join(sys.argv[1], "open_clip_model.safetensors")
state = torch.load(source, map_location="cpu", weights_only=True)
state = state.get("state_dict", state)
others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
if others:
    sys.exit(f"{source}: not tensors: {', '.join(others[:5])}")
save_file({name: value.clone().contiguous() for name, value in state.items()}, target,
          metadata={"format": "pt"})
count = sum(value.numel() for value in state.values())
print(f"{target}: {len(state)} tensors, {count} values")
