#!/usr/bin/env python3
"""Makes the golden cases in this folder: tiny Llama models with a MixLoRA adapter and what they must give in float64.

usage: make.py [--check | --force] [CASE...]
  (nothing)  makes the cases that are missing and checks those that are there
  --check    writes nothing: recomputes every case from its seed and from its files
  --force    writes the cases anew. A changed expectation is a changed contract: say why in the commit, never do it to make a test pass
Exit 1 if a file is missing or differs from what the seed gives (inputs: any bit, expectations: more than 1e-13), or a cross-check fails.

Pins: Python 3.11, torch 2.5.1, safetensors 0.8.0; for the cross-checks transformers 4.46.3 and moe-peft 2.0.2, which are skipped, and
said to be, where they cannot be imported. Seeds stand in CASES. One thread is used; another machine may differ in the last bits.

The model is written out below in plain float64 tensors: no attention mask and no padding (each row is cut to its real columns),
no expert shares anything with another, every derivative is autograd's. Values in the files are float32 and the computation starts
from exactly those. Routing must be beyond doubt: GAP is the least distance between the K-th and the next router logit.
"""
import json, math, os, random, sys
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
GAP, SAME = 1e-3, 1e-13                          # least router margin, largest change of an expectation
STEPS, LR, DECAY = 3, 0.01, 0.01                 # AdamW; the rest are torch's defaults
HF_LIMIT, MOE_PEFT_LIMIT = 1e-5, 3e-4            # float32 programs against this one, relative norm of each tensor
ATTENTION, FFN = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]

LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", torch_dtype="float32", hidden_act="silu",
             attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
             vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
MIXLORA = dict(bias="none", peft_type="MIXLORA", task_type="CAUSAL_LM", base_model_name_or_path="../model", r=2, lora_alpha=4,
               lora_dropout=0.05, target_modules=ATTENTION + FFN, routing_strategy="mixlora", num_experts=4, act_fn="silu", top_k=2,
               router_aux_loss_coef=0.01)
# rows: (padding left, padding right) in T columns; ignored: (row, column) with label -100; labels of padding stay the ids, the mask rules them out
CASES = {
    "topk": dict(seed=57, model={}, adapter={}, format="bin", T=9, rows=[(0, 0), (0, 3), (0, 6)], ignored=[(0, 1), (0, 2)]),
    "ffn-only": dict(seed=34, model=dict(tie_word_embeddings=True, rms_norm_eps=1e-6, rope_theta=500000.0, num_key_value_heads=4),
                     adapter=dict(target_modules=FFN, num_experts=5, top_k=3, router_aux_loss_coef=0.02, expert_lora=dict(r=3, lora_alpha=5)),
                     format="safetensors", T=8, rows=[(0, 0), (0, 2)], ignored=[(1, 1), (1, 2), (1, 3)]),
    "left-padding": dict(seed=48, model=dict(num_key_value_heads=1), adapter=dict(num_experts=6), format="safetensors",
                         T=10, rows=[(4, 0), (0, 3), (2, 2)], ignored=[(0, 7), (1, 1), (2, 3), (2, 4)]),
}


# ---- the inputs of a case, from its seed

def inputs(case):
    """(config.json, model tensors, adapter_config.json, adapter tensors, batch)"""
    s = CASES[case]
    c, a = {**LLAMA, **s["model"]}, {**MIXLORA, **s["adapter"]}
    draw = random.Random(s["seed"]).random           # Python's own: the same bits on every machine, which torch.randn does not give
    within = lambda bound, *shape: torch.tensor([bound * (2 * draw() - 1) for _ in range(math.prod(shape))]).float().reshape(shape)
    C, hidden, V, D = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["hidden_size"] // c["num_attention_heads"]
    kv = D * c["num_key_value_heads"]
    shape = dict(q_proj=(C, C), k_proj=(kv, C), v_proj=(kv, C), o_proj=(C, C), gate_proj=(hidden, C), up_proj=(hidden, C), down_proj=(C, hidden))

    W, P = {"model.embed_tokens.weight": within(1, V, C), "model.norm.weight": 1 + within(0.2, C)}, {}
    if not c["tie_word_embeddings"]: W["lm_head.weight"] = within(0.5, V, C)

    def lora(name, linear, r):
        out, into = shape[linear]
        P[name + ".lora_A.weight"] = within(into ** -0.5, r, into)
        P[name + ".lora_B.weight"] = within(0.5, out, r)
    for i in range(c["num_hidden_layers"]):
        for norm in ("input_layernorm", "post_attention_layernorm"): W[f"model.layers.{i}.{norm}.weight"] = 1 + within(0.2, C)
        P[f"mixlora.layers.{i}.mlp.moe_gate.weight"] = within(1, a["num_experts"], C)
        for linear in ATTENTION + FFN:
            part = "self_attn" if linear in ATTENTION else "mlp"
            W[f"model.layers.{i}.{part}.{linear}.weight"] = within(0.35, *shape[linear])
            if linear not in a["target_modules"]: continue
            if part == "self_attn": lora(f"mixlora.layers.{i}.self_attn.{linear}", linear, a["r"])
            else:
                for e in range(a["num_experts"]): lora(f"mixlora.layers.{i}.mlp.{linear}.experts.{e}", linear, a.get("expert_lora", a)["r"])

    ids = torch.tensor([[3 + int(draw() * (V - 3)) for _ in range(s["T"])] for _ in s["rows"]])
    mask = torch.ones_like(ids)
    for b, (left, right) in enumerate(s["rows"]): mask[b, :left] = 0; mask[b, s["T"] - right:] = 0
    ids = ids * mask                             # padding is token 0
    labels = ids.clone()
    for b, t in s["ignored"]: labels[b, t] = -100
    return c, W, a, P, dict(input_ids=ids, attention_mask=mask, labels=labels)


def write_inputs(folder, case):
    c, W, a, P, batch = inputs(case)
    for part in ("model", "adapter"): (folder / part).mkdir(parents=True, exist_ok=True)
    for part, name, value in (("model", "config", c), ("adapter", "adapter_config", a)):
        (folder / part / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    save_file(W, folder / "model/model.safetensors", metadata=dict(format="pt"))
    if CASES[case]["format"] == "bin":           # as MoE-PEFT's trainer writes it: Parameters in a dict
        torch.save({k: torch.nn.Parameter(v) for k, v in P.items()}, folder / "adapter/adapter_model.bin")
    else: save_file(P, folder / "adapter/adapter_model.safetensors")
    save_file(batch, folder / "batch.safetensors")


def read_inputs(folder):
    read = lambda file: json.loads((folder / file).read_text())
    pickled = folder / "adapter/adapter_model.bin"
    P = torch.load(pickled, weights_only=True) if pickled.exists() else load_file(folder / "adapter/adapter_model.safetensors")
    return (read("model/config.json"), load_file(folder / "model/model.safetensors"), read("adapter/adapter_config.json"),
            {k: v.detach() for k, v in P.items()}, load_file(folder / "batch.safetensors"))


# ---- the definition, float64. N tokens of one row, C channels, H heads, G key/value heads, D head width, E experts, K per token

def rms_norm(x, weight, eps): return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def rotate(x, position, theta):                  # (N,heads,D); channel j turns with channel j + D/2
    half = x.shape[-1] // 2
    angle = position[:, None, None] * theta ** (-torch.arange(half, dtype=x.dtype) / half)        # (N,1,D/2)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Row:
    """One row of the batch, cut to its real columns, through the whole model. Without an adapter: a None, P empty."""

    def __init__(self, c, W, a, P): self.c, self.W, self.a, self.P, self.router_logits = c, W, a, P, []

    def linear(self, x, base, lora, settings):   # W x + s B A x, where the adapter has A and B
        y = x @ self.W[f"model.layers.{base}.weight"].T
        if f"mixlora.layers.{lora}.lora_A.weight" not in self.P: return y
        A, B = (self.P[f"mixlora.layers.{lora}.lora_{m}.weight"] for m in "AB")
        return y + settings["lora_alpha"] / settings["r"] * (x @ A.T @ B.T)

    def attention(self, i, x, position):
        H, G, N = self.c["num_attention_heads"], self.c["num_key_value_heads"], len(x)
        of = lambda name, x: self.linear(x, f"{i}.self_attn.{name}", f"{i}.self_attn.{name}", self.a)
        q, k, v = (of(n, x).reshape(N, heads, -1) for n, heads in (("q_proj", H), ("k_proj", G), ("v_proj", G)))
        q, k = (rotate(z, position, self.c["rope_theta"]) for z in (q, k))
        k, v = (z.repeat_interleave(H // G, 1) for z in (k, v))                                   # (N,H,D)
        score = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1])
        score = score.masked_fill(torch.ones(N, N).triu(1).bool(), -math.inf)                     # m > n is the future
        return of("o_proj", torch.einsum("hnm,mhd->nhd", score.softmax(-1), v).reshape(N, -1))

    def expert(self, i, x, e):                   # E_e(x) = W2' (silu(W1' x) * W3' x), each W' = W + s B A of this expert
        of = lambda name, x: self.linear(x, f"{i}.mlp.{name}", f"{i}.mlp.{name}.experts.{e}", self.a and self.a.get("expert_lora", self.a))
        return of("down_proj", F.silu(of("gate_proj", x)) * of("up_proj", x))

    def feed_forward(self, i, x):
        if not self.a: return self.expert(i, x, None)
        r = x @ self.P[f"mixlora.layers.{i}.mlp.moe_gate.weight"].T                               # (N,E)
        self.router_logits.append(r)
        top, chosen = r.softmax(-1).topk(self.a["top_k"], -1)                                     # (N,K) probabilities over all E
        w = torch.zeros_like(r).scatter(-1, chosen, top / top.sum(-1, keepdim=True))              # (N,E), 0 where not chosen
        return sum(w[:, e, None] * self.expert(i, x, e) for e in range(self.a["num_experts"]))

    def logits(self, ids, position):
        norm = lambda x, name: rms_norm(x, self.W[f"model.{name}.weight"], self.c["rms_norm_eps"])
        x = self.W["model.embed_tokens.weight"][ids]                                              # (N,C)
        for i in range(self.c["num_hidden_layers"]):
            x = x + self.attention(i, norm(x, f"layers.{i}.input_layernorm"), position)
            x = x + self.feed_forward(i, norm(x, f"layers.{i}.post_attention_layernorm"))
        return norm(x, "norm") @ self.W["model.embed_tokens.weight" if self.c["tie_word_embeddings"] else "lm_head.weight"].T


def counted(batch):
    """Columns (B,T) whose label counts: this and the one before are real, and the label is not -100."""
    mask, yes = batch["attention_mask"].bool(), torch.zeros_like(batch["labels"], dtype=torch.bool)
    yes[:, 1:] = mask[:, 1:] & mask[:, :-1] & (batch["labels"][:, 1:] != -100)
    return yes


def forward(c, W, a, P, batch):
    """logits (B,T,V) and router logits (layers,B,T,E), both 0 at padding; cross-entropy; balance loss; smallest router margin"""
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    B, T = ids.shape
    logits, router = torch.zeros(B, T, c["vocab_size"], dtype=torch.float64), None
    if a: router = torch.zeros(c["num_hidden_layers"], B, T, a["num_experts"], dtype=torch.float64)
    for b in range(B):
        row, real = Row(c, W, a, P), mask[b].nonzero()[:, 0]                                      # a position is a column
        logits[b, real] = row.logits(ids[b, real], real.double())
        for i, r in enumerate(row.router_logits): router[i, b, real] = r
    if not a: return logits

    yes = counted(batch)
    loss = -logits[:, :-1].log_softmax(-1).gather(-1, batch["labels"][:, 1:, None].clamp(min=0))[..., 0][yes[:, 1:]].mean()
    r, K, E = router[:, mask].flatten(0, 1), a["top_k"], a["num_experts"]                         # (M,E), M = layers × real tokens
    share = F.one_hot(r.topk(K, -1)[1], E).sum((0, 1)).double() / len(r)                          # slots each expert got / M
    balance = a["router_aux_loss_coef"] * E * (share * r.softmax(-1).mean(0)).sum()
    order = r.detach().sort(-1, descending=True)[0]
    return logits, router.reshape(-1, E), loss, balance, (order[:, K - 1] - order[:, K]).min().item()


def expectations(c, W, a, P, batch):
    W, P = ({k: v.double() for k, v in t.items()} for t in (W, P))
    for p in P.values(): p.requires_grad_()
    adamw, out, curve, gaps = torch.optim.AdamW(P.values(), lr=LR, weight_decay=DECAY), {}, [], []
    for step in range(STEPS):
        logits, router, loss, balance, gap = forward(c, W, a, P, batch)
        adamw.zero_grad()
        (loss + balance).backward()
        if step == 0:
            out.update(logits=logits, router_logits=router, loss=loss.reshape(1), aux_loss=balance.reshape(1))
            out.update({f"grad.{k}": p.grad.clone() for k, p in P.items()})
        curve.append(loss + balance)
        gaps.append(gap)
        adamw.step()
    out.update(loss_curve=torch.stack(curve), **{f"after.{k}": p for k, p in P.items()})
    out = {k: v.detach().clone().contiguous() for k, v in out.items()}
    assert min(gaps) >= GAP, f"a router margin of {min(gaps):.1e} is below {GAP}: choose another seed"
    assert all(v.dtype == torch.float64 and v.isfinite().all() for v in out.values())
    return out, gaps


# ---- other people's programs, float32

def off(found, wanted):
    """Largest relative error over the tensors of `wanted`."""
    error = lambda x, y: ((x.double() - y).norm() / y.norm().clamp(min=1e-12)).item() if x.shape == y.shape else math.inf
    return max(e if math.isfinite(e) else math.inf for e in (error(found[k], v) for k, v in wanted.items()))


def hugging_face(folder, c, W, batch):
    """The base model's logits."""
    from transformers import LlamaForCausalLM
    model = LlamaForCausalLM.from_pretrained(folder / "model", attn_implementation="eager").float().eval()
    with torch.no_grad(): logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    ours = forward(c, {k: v.double() for k, v in W.items()}, None, {}, batch)
    return off(dict(logits=logits * batch["attention_mask"][..., None]), dict(logits=ours))


def moe_peft(folder, a, P, batch, expected):
    """Logits, router logits, both losses and every gradient. Its loss knows only -100, its operators want a dropout above 0."""
    os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
    import moe_peft
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    model = moe_peft.LLMModel.from_pretrained(str(folder / "model"), device="cpu", load_dtype=torch.float32, attn_impl="eager")
    model.init_adapter(moe_peft.adapter_factory(adapter_name="m", **{**a, "lora_dropout": 1e-12}))
    theirs, mask = model.get_adapter_weight_dict("m"), batch["attention_mask"]
    assert set(theirs) == set(P), set(theirs) ^ set(P)
    for k, p in theirs.items(): p.data.copy_(P[k]); p.requires_grad_()
    labels = batch["labels"].where(counted(batch), -100)
    o = model.forward(LLMModelInput(batch_configs_=[LLMBatchConfig("m", 0, len(mask))], batch_tokens_=batch["input_ids"].tolist(),
                                    batch_labels_=labels.tolist(), batch_masks_=mask.tolist()))[0]
    (o.loss + o.aux_loss).backward()
    real = mask.flatten().repeat(len(o.router_logits) // mask.numel())[:, None]
    found = dict(logits=o.logits * mask[..., None], router_logits=o.router_logits * real, loss=o.loss.reshape(1), aux_loss=o.aux_loss.reshape(1),
                 **{f"grad.{k}": torch.zeros_like(p) if p.grad is None else p.grad for k, p in theirs.items()})
    return off(found, {k: v for k, v in expected.items() if k != "loss_curve" and not k.startswith("after.")})


# ---- making and checking

def differences(case, folder):
    """What in the folder is not what the seed, or the definition applied to the folder's inputs, gives."""
    try: there, kept = read_inputs(folder), load_file(folder / "expected64.safetensors")
    except (FileNotFoundError, ValueError) as e: return [str(e)]
    bad = []
    for name, x, y in zip(("config.json", "model", "adapter_config.json", "adapter", "batch"), there, inputs(case), strict=True):
        tensors = isinstance(next(iter(y.values())), torch.Tensor)
        if set(x) != set(y) or any(not (torch.equal(x[k], y[k]) and x[k].dtype == y[k].dtype if tensors else x[k] == y[k]) for k in y):
            bad.append(f"{name} is not what seed {CASES[case]['seed']} gives")
    new, _ = expectations(*there)
    if set(new) != set(kept): bad.append(f"expected64 has other tensors: {sorted(set(new) ^ set(kept))[:3]}")
    else: bad += [f"{k} is off by {e:.1e}" for k in new if not (e := off({k: kept[k]}, {k: new[k]})) <= SAME]
    return bad


def run(case, check, force):
    folder = HERE / case
    write = force or not (folder.exists() or check)
    if write:
        expected, _ = expectations(*inputs(case))            # first, because it may refuse the seed
        write_inputs(folder, case)
        save_file(expected, folder / "expected64.safetensors")
    bad = differences(case, folder)
    if bad: return print(f"{case}: " + "; ".join(bad[:5])) or False
    c, W, a, P, batch = read_inputs(folder)
    expected, gaps = expectations(c, W, a, P, batch)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{case}: {'written' if write else 'same'}, {len(expected)} tensors, {size / 1000:.0f} kB, router margins {' '.join(f'{g:.1e}' for g in gaps)}")
    good = True
    for name, limit, other in (("transformers", HF_LIMIT, lambda: hugging_face(folder, c, W, batch)),
                               ("moe_peft", MOE_PEFT_LIMIT, lambda: moe_peft(folder, a, P, batch, expected))):
        try: e = other()
        except ModuleNotFoundError as x: print(f"  {name}: not run, {x}"); continue
        print(f"  {name}: off by {e:.1e}, limit {limit:.0e}")
        good = good and e <= limit
    return good


if __name__ == "__main__":
    flags, names = [x for x in sys.argv[1:] if x.startswith("-")], [x for x in sys.argv[1:] if not x.startswith("-")]
    if set(flags) - {"--check", "--force"} or len(flags) > 1 or set(names) - set(CASES): sys.exit(__doc__)
    torch.set_num_threads(1)
    sys.exit(0 if all([run(n, "--check" in flags, "--force" in flags) for n in names or CASES]) else 1)
