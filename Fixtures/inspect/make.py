#!/usr/bin/env python3
"""Makes the files of this folder (see README.md).

usage: make.py [--check]     (--check writes nothing; exit 1 if anything differs)
"""
import json, math, sys, tempfile
from fractions import Fraction
from pathlib import Path

import gguf, numpy, torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def numbers():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, 1500, generator=g, dtype=torch.float64)
    special = torch.tensor([1.5, math.nan, -2.25, math.inf, -math.inf, 0.5], dtype=torch.float64)
    return {
        "f64": x, "f32": x.float(), "f16": x.half(), "bf16": x.bfloat16(),
        "f64.special": special, "f32.special": special.float(), "f16.special": special.half(), "bf16.special": special.bfloat16(),
        "f64.huge": torch.tensor([1e300, -2e300, 5e299], dtype=torch.float64),
        "f64.tiny": torch.tensor([3e-300, -4e-300], dtype=torch.float64), "f64.subnormal": torch.tensor([3e-320, 0], dtype=torch.float64),
        "f32.subnormal": torch.tensor([1e-45, -1e-40]), "f32.zero": torch.zeros(2, 2), "f32.nothing": torch.zeros(0, 3),
        "f32.nan": torch.tensor([math.nan, math.inf]), "f32.scalar": torch.tensor(-7.5),
        "bool": torch.tensor([True, False, True]), "u8": torch.tensor([0, 255, 7], dtype=torch.uint8),
        "i8": torch.tensor([-128, 127, 3], dtype=torch.int8), "i16": torch.tensor([-32768, 32767, 5], dtype=torch.int16),
        "i32": torch.tensor([-(2**31), 2**31 - 1, 9], dtype=torch.int32), "i64": torch.tensor([-(2**63), 2**53, 11]),
        "f8": x[:1, :4].to(torch.float8_e4m3fn), "long": (torch.arange(9_001, dtype=torch.float32) % 97 - 48) / 8,
    }


def lora():
    """Layers of 3 inputs and 5 outputs, and the reverse, under rank 4; one B is zero, one update has rank 1."""
    g = torch.Generator().manual_seed(2)
    tensors = {}
    for layer, (name, o, i) in enumerate([("q_proj", 5, 3), ("v_proj", 3, 5), ("q_proj", 6, 6), ("v_proj", 6, 6)]):
        prefix = f"base_model.model.model.layers.{layer // 2}.self_attn.{name}"
        tensors[prefix + ".lora_A.weight"] = torch.randn(4, i, generator=g)
        tensors[prefix + ".lora_B.weight"] = torch.randn(o, 4, generator=g) * (layer != 2)
    prefix = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    tensors[prefix] = tensors[prefix][:1].repeat(4, 1)
    return tensors


LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": True, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM", "bias": "none", "some_future_switch": False}


def number(x):
    return float(x) if math.isfinite(x) else None


def statistics(values):
    x = numpy.asarray(values, dtype=numpy.float64).ravel()
    finite = x[numpy.isfinite(x)]
    out = {"nonfinite": int(x.size - finite.size), "min": None, "max": None, "mean": None, "norm": None}
    if finite.size:
        mean = float(sum(map(Fraction, finite)) / finite.size)  # exact, rounded once
        out.update(min=float(finite.min()), max=float(finite.max()), mean=mean, norm=number(math.hypot(*map(float, finite))))
    return out


def updates(tensors, config):
    out = {}
    for name in tensors:
        if not name.endswith(".lora_A.weight"):
            continue
        path = name[: -len(".lora_A.weight")]
        settings = dict(config)
        if ".experts." in path:
            settings.update(config.get("expert_lora") or {})
        r = settings["r"]
        s = settings["lora_alpha"] / (math.sqrt(r) if settings.get("use_rslora") else r)
        a, b = (tensors[path + end].detach().double().numpy() for end in (".lora_A.weight", ".lora_B.weight"))
        sigma = numpy.linalg.svd(s * b @ a, compute_uv=False)[:r]
        out[path] = [float(v) for v in sigma] + [0.0] * (r - len(sigma))
    return out


def adapter(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    file = folder / "adapter_model.safetensors"
    return updates(load_file(file) if file.exists() else torch.load(folder / "adapter_model.bin", weights_only=True), config)


def make(out):
    (out / "lora").mkdir()
    save_file(numbers(), out / "numbers.safetensors")
    save_file(lora(), out / "lora/adapter_model.safetensors")
    (out / "lora/adapter_config.json").write_text(json.dumps(LORA, indent=1) + "\n")
    blocks = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(ROOT / "gguf/blocks.gguf").tensors}
    expected = {
        "numbers": {n: statistics(t.double().numpy()) for n, t in numbers().items() if n != "f8"},
        "blocks": {n: statistics(v) for n, v in blocks.items()},
        "updates": {"inspect/lora": adapter(out / "lora"),
                    **{f"golden/{c}/adapter": adapter(ROOT / f"golden/{c}/adapter") for c in ("topk", "ffn-only", "left-padding")}},
    }
    (out / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


def close(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(close(x, y) for x, y in zip(a, b))
    return a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= 1e-13 * max(1, abs(a)))


with tempfile.TemporaryDirectory() as folder:
    out = Path(folder)
    make(out)
    names = ["numbers.safetensors", "lora/adapter_model.safetensors", "lora/adapter_config.json", "expected.json"]
    if "--check" in sys.argv:
        differs = [n for n in names[:3] if (out / n).read_bytes() != (HERE / n).read_bytes()]
        if not close(json.loads((out / names[3]).read_text()), json.loads((HERE / names[3]).read_text())):
            differs.append(names[3])
        print("differs: " + ", ".join(differs) if differs else "all the same")
        sys.exit(1 if differs else 0)
    (HERE / "lora").mkdir(exist_ok=True)
    for n in names:
        (HERE / n).write_bytes((out / n).read_bytes())
