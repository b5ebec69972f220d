"""Writes moments64.safetensors: exp_avg and exp_avg_sq of torch.optim.AdamW after the three steps that make.py takes in topk.

Usage: python moments.py [--check]      (torch 2.5.1, safetensors 0.8.0)
"""
import sys
import make, torch
from safetensors.torch import load_file, save_file

kept = []


class Kept(torch.optim.AdamW):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        kept.append(self)


torch.set_num_threads(1)
torch.optim.AdamW = Kept
folder = make.HERE / "topk"
inputs = make.read_inputs(folder)
make.expectations(*inputs)
names, parameters = list(inputs[3]), kept[0].param_groups[0]["params"]
assert len(names) == len(parameters)
found = {f"{kind}.{name}": kept[0].state[p][kind].detach().clone().contiguous()
         for kind in ("exp_avg", "exp_avg_sq") for name, p in zip(names, parameters)}
file = make.HERE / "moments64.safetensors"
if "--check" in sys.argv:
    there = load_file(file)
    assert set(there) == set(found)
    worst = max(make.off({k: there[k]}, {k: v}) for k, v in found.items())
    print(f"{len(found)} tensors, off by {worst:.1e}")
    sys.exit(0 if worst <= make.SAME else 1)
save_file(found, file)
print(f"{len(found)} tensors")
