#!/usr/bin/env python3
"""Makes adamw8bit.safetensors, steps of bitsandbytes' own AdamW8bit on a processor, and quantize.safetensors, numbers by its definition.

usage: make.py [--check]
  (nothing)  writes the files
  --check    writes nothing: exit 1 if bitsandbytes gives anything else than the files have

Pins: Python 3.11, torch 2.5.1, bitsandbytes 0.50.2, safetensors 0.8.0, numpy 2.4.6. One thread.

Three parameters: `whole` is 17 blocks of 256 numbers, `rest` ends in a block of 4, `small` has fewer than 4096 numbers, so its moments stay
in 32 bits. The gradient of step s is FACTORS[s - 1] times the one that is kept, an exact product. One block of `whole` has no gradient at
all; in one the largest is negative, which the signed map has no number for; numbers span fourteen powers of two.

  map.signed, map.unsigned      (256)     create_dynamic_map
  start.P, gradient.P           float32
  S.after.P                     float32   the parameter behind step S
  S.m.P, S.v.P                  U8        codes of the moments; of `small` float32, the moments themselves
  S.m.P.scale, S.v.P.scale      float32   the largest magnitude of every block

On a processor bitsandbytes 0.50 does not look for the nearest of a map's values in float32: x / scale is rounded to one of 65 536 numbers
from -1 to 1, and the nearest to that one is taken. Given numbers of a type without a kernel (float64), torch.ops.bitsandbytes.quantize_blockwise
runs its definition instead, in float32: the nearest, the lower one of two. That is what GPUs do, but for negative moments which would become
0: those get the code below.

  x                                   (33,131)  float32
  signed.codes, unsigned.codes        U8        of x, of |x|: quantize_blockwise of float64, in blocks of 256
  signed.scale, unsigned.scale        float32
"""
import random, sys
from pathlib import Path
import torch
import bitsandbytes
from bitsandbytes.functional import create_dynamic_map
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).resolve().parent
FACTORS = [1.0, -0.5, 2.0, 0.25, 1.0]
SHAPES = dict(whole=(68, 64), rest=(41, 100), small=(9, 7))
LEARNING_RATE, WEIGHT_DECAY = 0.01, 0.1


def numbers(draw, shape):
    """Normal numbers times powers of two: the map has seven decades."""
    count = shape[0] * shape[1]
    return torch.tensor([draw.gauss(0, 1) * 2.0 ** -draw.randrange(14) for _ in range(count)]).reshape(shape)


def tensors():
    torch.set_num_threads(1)
    draw = random.Random(8)
    start = {name: numbers(draw, shape) for name, shape in SHAPES.items()}
    gradient = {name: numbers(draw, shape) for name, shape in SHAPES.items()}
    gradient["whole"].view(-1)[256:512] = 0
    gradient["whole"].view(-1)[600] = -9
    found = {"map.signed": create_dynamic_map(signed=True), "map.unsigned": create_dynamic_map(signed=False)}
    found |= {f"start.{name}": value.clone() for name, value in start.items()}
    found |= {f"gradient.{name}": value.clone() for name, value in gradient.items()}
    parameters = {name: torch.nn.Parameter(value) for name, value in start.items()}
    optimizer = bitsandbytes.optim.AdamW8bit(parameters.values(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step, factor in enumerate(FACTORS, 1):
        for name, parameter in parameters.items():
            parameter.grad = factor * gradient[name]
        optimizer.step()
        for name, parameter in parameters.items():
            state = optimizer.state[parameter]
            if step in (1, 2, len(FACTORS)):
                found[f"{step}.after.{name}"] = parameter.detach().clone()
            for moment, number in (("m", 1), ("v", 2)):
                found[f"{step}.{moment}.{name}"] = state[f"state{number}"].clone()
                if f"absmax{number}" in state:
                    found[f"{step}.{moment}.{name}.scale"] = state[f"absmax{number}"].clone()
    return found


def quantized():
    x = numbers(random.Random(9), (33, 131))
    found = {"x": x}
    for name, values in (("signed", x), ("unsigned", x.abs())):
        codes, scale = torch.ops.bitsandbytes.quantize_blockwise(values.double(), create_dynamic_map(signed=name == "signed"), 256)
        found |= {f"{name}.codes": codes, f"{name}.scale": scale}
    return found


def main():
    wrong = []
    for name, found in (("adamw8bit.safetensors", tensors()), ("quantize.safetensors", quantized())):
        if "--check" not in sys.argv:
            save_file(found, FOLDER / name, metadata={"bitsandbytes": bitsandbytes.__version__})
            continue
        kept = load_file(FOLDER / name)
        wrong += [key for key in found.keys() | kept.keys() if key not in kept or key not in found or not torch.equal(kept[key], found[key])]
    if wrong:
        sys.exit("not what bitsandbytes gives: " + ", ".join(sorted(wrong)))


main()
