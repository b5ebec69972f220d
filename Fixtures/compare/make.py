#!/usr/bin/env python3
"""Records what `mixlora compare` is judged by: candidate.py on small models, with every mistake of bugs.py and without any.

usage: make.py --bugs OUT [NAME…] | --clean OUT | --recorded | --check MIXLORA
  --bugs      OUT/bugs/NAME.safetensors, each mistake once; without NAME all of them
  --clean     OUT/clean/…: float32, bfloat16, float16 × orders of sums, threads, fused and not, three evaluations × seeds × families
  --recorded  a small selection of both into recorded/, which CI compares
  --check     that each mistake first changes the points that bugs.py says: the first tensor, in the order of a trace, in which the run
              with the mistake differs from the same run without it
OUT/cases/CASE holds the models, adapters and batches, OUT/{bugs,clean}.json what each record was made from and what is to be found.

Pins: Python 3.11, torch 2.5.1, safetensors 0.8.0. Values come from Python's `random`, so inputs are the same bits on every machine.
"""
import json, math, random, re, shutil, subprocess, sys, tempfile
from pathlib import Path
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from bugs import BUGS
from candidate import ATTENTION, FEED_FORWARD, Candidate, Operations, Settings

HERE = Path(__file__).resolve().parent
SEEDS = (1, 2, 3)

LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
             torch_dtype="float32", vocab_size=61, attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2, pad_token_id=0)
MISTRAL = dict(LLAMA, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4)
QWEN2 = dict(LLAMA, architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=True)
GEMMA = dict(LLAMA, architectures=["GemmaForCausalLM"], model_type="gemma", hidden_act="gelu_pytorch_tanh", head_dim=8, num_key_value_heads=1, rms_norm_eps=1e-6,
             tie_word_embeddings=True)
for c in (MISTRAL, QWEN2, GEMMA): del c["mlp_bias"]

MIXLORA = dict(bias="none", peft_type="MIXLORA", task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.05, target_modules=ATTENTION + FEED_FORWARD,
               routing_strategy="mixlora", num_experts=4, act_fn="silu", top_k=2, router_aux_loss_coef=0.01)
DYNAMIC = {k: v for k, v in dict(MIXLORA, routing_strategy="mixlora-dynamic", top_p=0.7, temperature=0.0).items() if k != "top_k"}
LORA = dict(base_model_name_or_path=None, bias="none", fan_in_fan_out=False, inference_mode=True, lora_alpha=8, lora_dropout=0.05, peft_type="LORA", r=4,
            target_modules=ATTENTION + FEED_FORWARD, task_type="CAUSAL_LM", use_rslora=False)
# rows: (padding left, padding right) in T columns; ignored: (row, column) with label -100
CASES = {
    "llama": dict(model=LLAMA, adapter=MIXLORA, T=10, rows=[(0, 0), (3, 0), (0, 4)], ignored=[(0, 2), (1, 5)]),
    "mistral": dict(model=MISTRAL, adapter=dict(MIXLORA, num_experts=6), T=12, rows=[(0, 0), (0, 3)], ignored=[(0, 1)]),
    "qwen2": dict(model=QWEN2, adapter=dict(MIXLORA, use_rslora=True), T=10, rows=[(2, 0), (0, 0)], ignored=[(1, 1), (1, 2)]),
    "gemma": dict(model=GEMMA, adapter=dict(MIXLORA, act_fn="gelu_pytorch_tanh", expert_lora=dict(r=3, lora_alpha=5)), T=9, rows=[(0, 0), (1, 2)], ignored=[]),
    "dynamic": dict(model=LLAMA, adapter=DYNAMIC, T=10, rows=[(0, 0), (2, 1)], ignored=[(0, 3)]),
    "tempered": dict(model=LLAMA, adapter=dict(DYNAMIC, temperature=0.8), T=8, rows=[(0, 0), (0, 0)], ignored=[]),
    "top1": dict(model=LLAMA, adapter=dict(MIXLORA, num_experts=8, top_k=1), T=10, rows=[(0, 0), (0, 2)], ignored=[]),
    "lora": dict(model=LLAMA, adapter=LORA, T=10, rows=[(0, 3), (0, 0)], ignored=[(1, 4)]),
    "rslora": dict(model=MISTRAL, adapter=dict(LORA, use_rslora=True), T=8, rows=[(0, 0)], ignored=[]),
}
FAMILIES = ["llama", "mistral", "qwen2", "gemma", "dynamic", "top1", "lora"]
# what a clean run may do differently
WAYS = [dict(), dict(order="split", fused=1, experts="sharedBase"), dict(order="chunked", experts="batched", threads=2, wide=1),
        dict(order="reversed", fused=1, experts="batched", threads=2)]


def inputs(case, seed=1, small=False):
    """(config.json, model tensors, adapter_config.json, adapter tensors, batch) from the case's seed"""
    s, draw = CASES[case], random.Random(f"{case} {seed}").random
    c, a = dict(s["model"]), s["adapter"]
    if small: c.update(hidden_size=16, intermediate_size=24, vocab_size=31, **({"head_dim": 4} if "head_dim" in c else {}))
    within = lambda bound, *shape: torch.tensor([bound * (2 * draw() - 1) for _ in range(math.prod(shape))]).float().reshape(shape)
    C, hidden, V, H = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["num_attention_heads"]
    D = c.get("head_dim") or C // H
    kv, gemma, reach = D * c["num_key_value_heads"], c["model_type"] == "gemma", math.sqrt(3 / C)
    shapes = dict(q_proj=(D * H, C), k_proj=(kv, C), v_proj=(kv, C), o_proj=(C, D * H), gate_proj=(hidden, C), up_proj=(hidden, C), down_proj=(C, hidden))
    norm = lambda: within(0.4, C) if gemma else 1 + within(0.3, C)
    W, P = {"model.embed_tokens.weight": within(1 / math.sqrt(C) if gemma else 1, V, C), "model.norm.weight": norm()}, {}
    if not c["tie_word_embeddings"]: W["lm_head.weight"] = within(2 * reach, V, C)
    mixture = a["peft_type"] == "MIXLORA"

    def lora(name, linear, r):
        out, into = shapes[linear]
        P[name + ".lora_A.weight"], P[name + ".lora_B.weight"] = within(into ** -0.5, r, into), within(0.3, out, r)
    for i in range(c["num_hidden_layers"]):
        for n in ("input_layernorm", "post_attention_layernorm"): W[f"model.layers.{i}.{n}.weight"] = norm()
        if mixture: P[f"mixlora.layers.{i}.mlp.moe_gate.weight"] = within(0.5, a["num_experts"], C)
        for linear in ATTENTION + FEED_FORWARD:
            part = "self_attn" if linear in ATTENTION else "mlp"
            W[f"model.layers.{i}.{part}.{linear}.weight"] = within((2 if linear in ("q_proj", "k_proj") else 1) * reach, *shapes[linear])
            if c["model_type"] == "qwen2" and linear[0] in "qkv": W[f"model.layers.{i}.{part}.{linear}.bias"] = within(0.3, shapes[linear][0])
            if not mixture: lora(f"base_model.model.model.layers.{i}.{part}.{linear}", linear, a["r"])
            elif part == "self_attn": lora(f"mixlora.layers.{i}.self_attn.{linear}", linear, a["r"])
            else:
                for e in range(a["num_experts"]): lora(f"mixlora.layers.{i}.mlp.{linear}.experts.{e}", linear, a.get("expert_lora", a)["r"])
    T = s["T"] - 3 if small else s["T"]
    ids = torch.tensor([[3 + int(draw() * (V - 3)) for _ in range(T)] for _ in s["rows"]])
    mask = torch.ones_like(ids)
    for b, (left, right) in enumerate(s["rows"]): mask[b, :left] = 0; mask[b, T - right:] = 0
    ids = ids * mask
    labels = ids.clone()
    for b, t in s["ignored"]: labels[b, t] = -100
    return c, W, a, P, dict(input_ids=ids, attention_mask=mask, labels=labels)


def write(out, case, seed=1, small=False):
    """The case's folder, written where it is missing; its parts relative to `out`."""
    place = Path(out) / "cases" / f"{case}-{seed}"
    if not (place / "batch.safetensors").exists():
        c, W, a, P, batch = inputs(case, seed, small)
        for part, name, value in (("model", "config", c), ("adapter", "adapter_config", a)):
            (place / part).mkdir(parents=True, exist_ok=True)
            (place / part / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
        save_file(W, place / "model/model.safetensors", metadata=dict(format="pt"))
        save_file(P, place / "adapter/adapter_model.safetensors", metadata=dict(format="pt"))
        save_file(batch, place / "batch.safetensors")
    return {k: f"cases/{case}-{seed}/{f}" for k, f in (("model", "model"), ("adapter", "adapter"), ("batch", "batch.safetensors"))}


def record(out, file, parts, settings, operations=Operations):
    out = Path(out)
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    Candidate(out / parts["model"], out / parts["adapter"], Settings(**settings), operations).run(load_file(out / parts["batch"]), str(out / file))


def buggy(out, names=(), small=False):
    """Every mistake once."""
    made = []
    for bug in (BUGS[n] for n in names or BUGS):
        parts = write(out, bug.case, small=small)
        settings = dict(dict(dtype="float32", steps=0), **bug.settings)
        record(out, f"bugs/{bug.name}.safetensors", parts, settings, bug.operations)
        made.append(dict(name=bug.name, file=f"bugs/{bug.name}.safetensors", phase=bug.phase, first=bug.first, cause=bug.cause, **parts))
    return made


def clean(out, families=FAMILIES, seeds=SEEDS, small=False, only=None):
    made = []
    for family in families:
        for seed in seeds:
            parts = write(out, family, seed, small)
            for dtype in ("float32", "bfloat16", "float16"):
                for n, way in enumerate(WAYS):
                    if only not in (None, (dtype, n)): continue
                    name = f"{family}-{seed}-{dtype}-{n}"
                    settings = dict(way, dtype=dtype, steps=3 if dtype == "float32" else 0, lr=0.01, weight_decay=0.05)
                    record(out, f"clean/{name}.safetensors", parts, settings)
                    made.append(dict(name=name, file=f"clean/{name}.safetensors", phase=None, first=[], cause=[], settings=settings, **parts))
    return made


# what CI compares: mistakes of every kind, and clean runs, of the smallest models
RECORDED = """rotary-pairs rotary-position-of-keys-minus-one rotary-base-500000 q-rows-permuted o-weight-transposed gate-and-up-swapped q-bias-missing
 o-weights-rounded-to-bfloat16 branch-scale-missing-q branch-missing-of-expert-2-up experts-0-and-1-swapped-gate embedding-scale-missing norm-one-plus-weight
 residual-missing-mlp key-heads-tiled attention-scale-without-root mask-sees-the-next window-one-wider router-weights-unnormalized activation-gelu-for-silu
 labels-not-shifted labels-shifted-twice loss-is-the-mean-of-rows balance-by-the-first-expert-alone softmax-backward-without-the-sum branch-left-out-of-backward-q
 norm-backward-without-second-term silu-derivative-without-second-term adamw-epsilon-inside-the-root adamw-l2-for-decay""".split()
RECORDED_CLEAN = [("llama", 1, "float32", 0), ("llama", 1, "bfloat16", 1), ("llama", 1, "float16", 2), ("qwen2", 1, "bfloat16", 2), ("gemma", 1, "float32", 1),
                  ("gemma", 1, "bfloat16", 0), ("dynamic", 1, "float32", 2), ("top1", 1, "bfloat16", 3), ("lora", 1, "float16", 1), ("lora", 1, "float32", 2)]
ATTENTION_POINTS, MLP_POINTS, GRADIENT = r"input_layernorm|self_attn|residual", r"residual|post_attention_layernorm|mlp|output", r"(grad\.)?"


def around(bug):
    """Of a mistake's record: the points of its half of the block, forward, and backward where it is there, so that the file stays small."""
    layer, point = bug.layer, bug.first[0].replace("grad.", "")
    if bug.phase == "optimizer": return r"loss_curve|(grad|after)\.mixlora\.layers\.1\.(self_attn|mlp\.(moe_gate|down_proj))\..*"
    if layer is None: names = r"model\.embed_tokens\..*|model\.norm\..*|lm_head.*|model\.layers\.1\.(output|mlp\.moe_gate.*)|model\.layers\.0\.input_layernorm\..*|model\.layers\.0\.mlp\.moe_gate.*"
    else:
        names = r"residual|post_attention_layernorm|output|mlp\.output" if point.endswith("residual.output") and bug.phase == "backward" else ATTENTION_POINTS if "self_attn" in point or "input_layernorm" in point else MLP_POINTS
        names = rf"model\.layers\.{layer}\.({names})(\..*)?|mixlora\.layers\.{layer}\.({names}).*" + (rf"|model\.layers\.{layer - 1}\.output" if layer else r"|model\.embed_tokens.*")
    if bug.name == "labels-shifted-twice": names += r"|grad\.lm_head.*"  # behind padding it takes logits that no record has
    return rf"loss|aux_loss|{GRADIENT if bug.phase == 'backward' else ''}({names})"


def keep(file, names):
    with safe_open(file, "pt") as f: values, about = {k: f.get_tensor(k) for k in f.keys() if re.fullmatch(names, k)}, f.metadata()
    save_file(values, file, metadata=about)


def recorded(out):
    made = buggy(out, RECORDED, small=True)
    for r in made: keep(out / r["file"], around(BUGS[r["name"]]))
    for family, seed, dtype, n in RECORDED_CLEAN:
        one = clean(out, [family], [seed], small=True, only=(dtype, n))
        for r in one: keep(out / r["file"], r"loss.*|aux_loss|(grad\.)?(mixlora|base_model\.model\.model|model)\.layers\.1.*|(grad\.)?model\.(norm|layers\.0)\.output")
        made += one
    return made


def check(mixlora):
    """Mistakes whose run first differs elsewhere than bugs.py says."""
    bad = 0
    with tempfile.TemporaryDirectory() as out:
        orders, cleans = {}, {}
        for bug in BUGS.values():
            parts = write(out, bug.case)
            settings = dict(dict(dtype="float32", steps=0), **bug.settings)
            key = bug.case, json.dumps(settings)
            if key not in cleans:
                record(out, "clean.safetensors", parts, settings)
                cleans[key] = load_file(f"{out}/clean.safetensors")
                about = [str(Path(out) / parts[p]) for p in ("model", "adapter", "batch")]
                trace = [mixlora, "trace", "--model", about[0], "--adapter", about[1], "--batch", about[2], "--out", f"{out}/trace.safetensors", "--backward", "--activations",
                         "--evaluation", settings.get("experts", "perExpert"), "--steps", "3"]
                subprocess.run(trace, check=True, capture_output=True)
                with safe_open(f"{out}/trace.safetensors", "pt") as f: orders[key] = json.loads(f.metadata()["order"])
            record(out, "bug.safetensors", parts, settings, bug.operations)
            found, wanted = load_file(f"{out}/bug.safetensors"), cleans[key]
            differs = lambda k: k in found and k in wanted and not (found[k].shape == wanted[k].shape and off(found[k], wanted[k]) < 1e-6)
            first = next((k for k in orders[key] if differs(k)), None)
            if not bug.located(first):
                bad += 1
                print(f"{bug.name}: first {first}, expected {bug.first}", [k for k in wanted if k not in found][:3], flush=True)
            elif found[first].shape == wanted[first].shape: print(f"{bug.name}: {first} off by {off(found[first], wanted[first]):.1e}")
    print(f"{len(BUGS)} mistakes, {bad} elsewhere")
    return bad


def off(a, b):
    e = ((a.double() - b.double()).norm() / max(b.double().norm().item(), 1e-30)).item()
    return e if math.isfinite(e) else math.inf


def main(what, out=None, *names):
    torch.set_num_threads(1)
    if what == "--check": sys.exit(check(out) > 0)
    if what == "--bugs": index, made = "bugs.json", buggy(out, names)
    elif what == "--clean": index, made = "clean.json", clean(out)
    elif what == "--recorded":
        out = HERE / "recorded"
        shutil.rmtree(out, ignore_errors=True)
        made = recorded(out)
        (out / "bugs.json").write_text(json.dumps([m for m in made if m["phase"]], indent=1) + "\n")
        index, made = "clean.json", [m for m in made if not m["phase"]]
    else: sys.exit(__doc__)
    (Path(out) / index).write_text(json.dumps(made, indent=1) + "\n")
    print(len(made), "records")


if __name__ == "__main__": main(*sys.argv[1:])
