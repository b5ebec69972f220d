#!/usr/bin/env python3
"""Makes the cases in this folder: adapters as PEFT writes them, with every feature of a LoRA configuration, and what PEFT computes with them in float64.

usage: make.py [--check | --force] [CASE...]
  (nothing)  makes what is missing and checks what is there
  --check    writes nothing: recomputes every file from its seed
  --force    writes anew. A changed expectation is a changed contract: say why in the commit, never do it to make a test pass

Pins: Python 3.11, torch 2.5.1, safetensors 0.8.0, transformers 4.46.3, peft 0.21.2; one thread. The models are those of ../peers, whose
programs.py holds Hugging Face to float64. PEFT makes the model, the values are drawn by Python's `random`, and PEFT saves the folder:
configuration and names are its own. Then PEFT loads the folder for training, and its loss, gradients and three AdamW steps are kept under
the names of `mixlora trace`, which are those of the file.

`pissa` and `olora` are folders whose loading changes the base weights. `pissa-new` and `olora-new` have no tensors: PEFT draws the adapter
from the base, and trains it. Signs of singular vectors are nobody's choice, so of these the absolute values bind.
"""
import json, random, shutil, sys, tempfile
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))
import programs                                                   # noqa: E402
import make as peers                                              # noqa: E402
import torch.distributed.tensor                                   # noqa: E402  peft 0.21 looks for it without importing it
import peft                                                       # noqa: E402
import peft.tuners.lora.layer as lora_layer                       # noqa: E402

SAME = 1e-13
BATCH = dict(rows=[(0, 0), (0, 3), (2, 0)], ignored=[(0, 1), (2, 5)], T=8)
# name: (model, seed, what LoraConfig gets)
CASES = {
    "patterns": ("llama", 11, dict(r=3, lora_alpha=5, target_modules=r".*\.(q_proj|down_proj|v_proj)", use_rslora=True,
                                   rank_pattern={r"layers\.1\.self_attn\.q_proj": 2, "down_proj": 1, "^v_proj": 7},
                                   alpha_pattern={"q_proj": 7.5, r"model\.layers\.0\..*": 2})),
    "layers": ("llama", 12, dict(r=2, lora_alpha=4, target_modules=["k_proj", "o_proj", "up_proj", "model.layers.0.mlp.gate_proj"],
                                 layers_to_transform=[1], layers_pattern="layers", exclude_modules=["self_attn.o_proj"])),
    "all-linear": ("mistral", 13, dict(r=2, target_modules="all-linear", exclude_modules=r".*layers\.0\.mlp\..*")),
    "saved": ("llama", 14, dict(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head", "norm"])),
    "saved-linear": ("qwen2-untied", 15, dict(r=2, lora_alpha=3, target_modules=["q_proj", "k_proj", "gate_proj"], modules_to_save=["k_proj", "embed_tokens"])),
    "saved-tied-embedding": ("qwen2", 16, dict(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], modules_to_save=["embed_tokens"])),
    "saved-tied-head": ("gemma", 17, dict(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["lm_head"])),
    "saved-tied-both": ("gemma", 18, dict(r=1, lora_alpha=3, target_modules=["v_proj", "up_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "bias-all": ("llama-bias", 19, dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], bias="all")),
    "bias-lora-only": ("qwen2", 20, dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "o_proj"], bias="lora_only")),
    "bias-and-saved": ("llama-bias", 21, dict(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], bias="all", modules_to_save=["norm"])),
    "pissa": ("llama", 22, dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "down_proj"], init_lora_weights="pissa")),
    "olora": ("qwen2", 23, dict(r=3, lora_alpha=5, target_modules=["v_proj", "up_proj", "down_proj"], init_lora_weights="olora", use_rslora=True)),
    "pissa-new": ("llama", 24, dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "down_proj"], init_lora_weights="pissa")),
    "olora-new": ("qwen2", 25, dict(r=3, lora_alpha=5, target_modules=["v_proj", "up_proj", "down_proj"], init_lora_weights="olora")),
}
# Their values are those of the first: what older versions and other writers leave in a folder.
VARIANTS = {
    "old": ("saved", lambda a: {k: a[k] for k in ("r", "lora_alpha", "target_modules", "modules_to_save", "peft_type")} | dict(enable_lora=None, merge_weights=False, fan_in_fan_out=True),
            lambda n: n.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.").replace("lm_head.", "lm_head.modules_to_save.default.")),
    "old-bias": ("bias-lora-only", lambda a: a, lambda n: n.replace("base_layer.bias", "bias").removeprefix("base_model.model.")),
}


class Double:
    """torch, whose float32 is float64: PiSSA and OLoRA of PEFT factorise in float32 and refuse float64."""
    float32 = torch.float64
    def __getattr__(self, name): return getattr(torch, name)


def doubled(make):
    lora_layer.torch = Double()
    try: return make()
    finally: lora_layer.torch = torch


def folder(model): return HERE.parent / "peers" / "models" / model


def base(model): return programs.hugging_face_model(folder(model), json.loads((folder(model) / "config.json").read_text()))


def named(model):
    """The trained tensors by what the file calls them."""
    plain = lambda n: n.replace("modules_to_save.default.", "").replace(".default", "")
    return {plain(n): p for n, p in model.named_parameters() if p.requires_grad}


def saved_by_peft(case):
    """(adapter_config.json, tensors) of a model whose adapter has values drawn under the seed."""
    name, seed, settings = CASES[case]
    draw = random.Random(seed).random
    config = peft.LoraConfig(**settings, task_type="CAUSAL_LM", base_model_name_or_path="base", lora_dropout=0.0)
    model = doubled(lambda: peft.get_peft_model(base(name), config, autocast_adapter_dtype=False))
    if not case.endswith("-new"):
        for n, p in named(model).items():
            start = 0 if ".lora_" in n else p.data.float()        # PEFT's own are anybody's; a saved module begins with the base's
            p.data = start + peers.within(draw, 0.3, *p.shape)
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place, save_embedding_layers=False)
        wrote = json.loads((Path(place) / "adapter_config.json").read_text())
        tensors = load_file(Path(place) / "adapter_model.safetensors")
    wrote["base_model_name_or_path"] = f"../../peers/models/{name}"
    wrote["target_modules"] = sorted(wrote["target_modules"]) if isinstance(wrote["target_modules"], list) else wrote["target_modules"]
    if isinstance(wrote.get("exclude_modules"), list): wrote["exclude_modules"] = sorted(wrote["exclude_modules"])
    return wrote, {k: v.float().contiguous() for k, v in tensors.items()}, model, draw


def expected(case, place, model, draw):
    """What PEFT gives in float64 for the folder at `place`, or for the new adapter in `model`."""
    name = CASES[case][0]
    c = json.loads((folder(name) / "config.json").read_text())
    batch = peers.batch_of(random.Random(CASES[case][1] + 1000).random, c, BATCH)
    if not case.endswith("-new"):
        model = doubled(lambda: peft.PeftModel.from_pretrained(base(name), place, is_trainable=True, autocast_adapter_dtype=False))
    model = model.to(torch.float64).eval()
    parameters = named(model)
    with programs.TrulyDouble(): out, _ = programs.train(parameters, lambda: programs.through(model, [], None, batch))
    return batch, out


def main():
    torch.set_num_threads(1)
    flags = [a for a in sys.argv[1:] if a.startswith("-")]
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")] or [*CASES, *VARIANTS]
    check, force = "--check" in flags, "--force" in flags
    bad = []

    def keep(path, write, same):
        if (force or not path.exists()) and not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        if not path.exists() or not same(path): bad.append(str(path.relative_to(HERE)))

    def close(path, value):
        there = load_file(path)
        return set(there) == set(value) and all(
            there[k].dtype == v.dtype and (there[k].abs() - v.abs()).norm() <= SAME * max(1.0, v.norm()) for k, v in value.items())

    for case in [c for c in CASES if c in wanted]:
        config, tensors, model, draw = saved_by_peft(case)
        place = HERE / case
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        keep(place / "adapter_config.json", lambda p: p.write_text(text), lambda p: p.read_text() == text)
        if not case.endswith("-new"):
            keep(place / "adapter_model.safetensors", lambda p: save_file(tensors, p, metadata=dict(format="pt")),
                 lambda p: peers.same(load_file(p), tensors))
        batch, out = expected(case, place, model, draw)
        keep(place / "batch.safetensors", lambda p: save_file(batch, p), lambda p: peers.same(load_file(p), batch))
        keep(place / "expected64.safetensors", lambda p: save_file(out, p), lambda p: close(p, out))
        print(f"{case}: {len(tensors)} tensors, loss {out['loss_curve'].tolist()}")
    for case in [c for c in VARIANTS if c in wanted]:
        of, settings, name = VARIANTS[case]
        config, tensors = json.loads((HERE / of / "adapter_config.json").read_text()), load_file(HERE / of / "adapter_model.safetensors")
        text = json.dumps(settings(config), indent=2) + "\n"
        renamed = {name(k): v for k, v in tensors.items()}
        keep(HERE / case / "adapter_config.json", lambda p: p.write_text(text), lambda p: p.read_text() == text)
        keep(HERE / case / "adapter_model.safetensors", lambda p: save_file(renamed, p), lambda p: peers.same(load_file(p), renamed))
    index = [dict(name=c, model=f"../peers/models/{m}", loads=not c.endswith("-new")) for c, (m, _, _) in CASES.items()]
    keep(HERE / "cases.json", lambda p: p.write_text(json.dumps(index, indent=1) + "\n"), lambda p: json.loads(p.read_text()) == index)
    for path in bad: print(f"{path}: missing, or not what its seed gives")
    sys.exit(1 if bad else 0)


if __name__ == "__main__": main()
