#!/usr/bin/env python3
"""Makes the cases in this folder: one folder an operation with its numbers, for any backend in any language (README.md).

usage: make.py [--check] [CASE...]
  (nothing)  writes the cases
  --check    writes nothing: recomputes every case and compares it with its files
Exit 1 if a file is missing or differs (inputs and decisions: any bit, results: more than 1e-12 of their norm, budgets: more than 1 %).

Pins: Python 3.11, torch 2.5.1, safetensors 0.8.0, transformers 4.46.3 (only asked whether it finds the same rotary angles). Inputs come
from Python's own random numbers, which are the same everywhere, and have 8 bits: they are exact in bfloat16, float16 and float32. The
results are PyTorch's in float64 (operations.py). How far a right program may be off is measured beside them (rounding.py).
"""
import json, math, random, sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
import operations as op
from rounding import condition

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))
import make as golden                              # the whole model, written out once

ROUNDOFF = dict(float64=2.0 ** -53, float32=2.0 ** -24, float16=2.0 ** -11, bfloat16=2.0 ** -8)
MARGIN = 0.01                                      # least distance of a choice from another
EQUATIONS = {
    "linear": ["y = x Wᵀ + b", "dx = dy W", "dW = dyᵀ x", "db = Σ_n dy_n"],
    "lora-linear": ["h = x Aᵀ", "y = x Wᵀ + b + s h Bᵀ", "dB = s dyᵀ h", "dA = (s dy B)ᵀ x", "dx = dy W + s dy B A"],
    "rms-norm": ["ρ = 1 / √(mean x² + ε)", "y = ρ x ⊙ (offset + weight)"],
    "rotary": ["y_j = m (x_j cos pθ_j − x_{j+D/2} sin pθ_j)", "y_{j+D/2} = m (x_j sin pθ_j + x_{j+D/2} cos pθ_j)"],
    "attention": ["S_ij = scale q_i·k_j, with a soft cap c: c tanh(S_ij / c)", "P = softmax over the j that row i sees", "y_i = Σ_j P_ij v_j"],
    "gated": ["h = act(a) ⊙ c"],
    "router": ["z = x Gᵀ", "p = softmax(z)", "choice by the policy", "top-k: w = p / Σ_chosen p;  top-p: w = p / t"],
    "combine": ["y = Σ_k w_k h_k"],
    "experts": ["W′_e = W + s B_e A_e for each of the three matrices", "e(x) = W2′ (act(W1′ x + b1) ⊙ (W3′ x + b3)) + b2", "y = Σ_k w_k e_k(x)"],
    "feed-forward": ["W′ = W + s B A for each of the three matrices", "y = W2′ (act(W1′ x) ⊙ W3′ x)"],
    "head": ["z = x Wᵀ, with a soft cap c: c tanh(z / c)", "loss = mean over the counted rows of −log softmax(z)[label]"],
    "balance-loss": ["loss = coefficient · E · Σ_e F_e P_e", "pooledTopK: F slots, P mean probability, over all layers; perLayerArgmax: F first choices, a layer at a time, mean of the layers"],
    "embedding": ["y_n = scale · W[id_n]"],
    "adamw": ["x ← x (1 − lr λ)", "m ← m + (g − m)(1 − β₁)", "v ← β₂ v + (1 − β₂) g²", "x ← x − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)"],
    "sgd": ["b ← μ b + g + λ x", "x ← x − lr b"],
    "clip": ["norm = √Σ g²", "g ← g min(1, maximum / (norm + 1e-6))"],
    "model": ["loss + aux_loss of the batch and their gradients, by the names of `mixlora trace`"],
}
CASES = {}


def case(name, operation, attributes, inputs, leaves):
    """inputs: a function of a source of numbers that gives the tensors; leaves: which of them are differentiated"""
    assert name not in CASES and operation in EQUATIONS
    CASES[name] = (operation, attributes, inputs, leaves)


class Source:
    def __init__(self, seed): self.random = random.Random(seed)

    def __call__(self, *shape, scale=1.0, about=0.0):
        values = [about + scale * (2 * self.random.random() - 1) for _ in range(math.prod(shape))]
        return torch.tensor(values).bfloat16().float().reshape(shape)

    def integers(self, bound, *shape): return torch.tensor([int(self.random.random() * bound) for _ in range(math.prod(shape))]).reshape(shape)


# ---- the cases

def linears():
    def numbers(n, i, o, bias=False):
        return lambda s: dict(x=s(n, i), weight=s(o, i, scale=i ** -0.5), **(dict(bias=s(o)) if bias else {}), dy=s(n, o))
    case("linear", "linear", {}, numbers(7, 9, 5), ["x", "weight"])
    case("linear-bias", "linear", {}, numbers(5, 8, 11, True), ["x", "weight", "bias"])
    case("linear-one-row", "linear", {}, numbers(1, 33, 3), ["x", "weight"])
    case("linear-long-sums", "linear", {}, numbers(3, 257, 4), ["x", "weight"])

    def lora(n, i, o, r, bias=False):
        return lambda s: dict(x=s(n, i), weight=s(o, i, scale=i ** -0.5), A=s(r, i, scale=i ** -0.5), B=s(o, r),
                              **(dict(bias=s(o)) if bias else {}), dy=s(n, o))
    case("lora-linear", "lora-linear", dict(scale=2.0), lora(7, 9, 5, 2), ["x", "A", "B"])
    case("lora-linear-rank-1-bias", "lora-linear", dict(scale=0.5), lora(6, 12, 8, 1, True), ["x", "A", "B"])
    case("lora-linear-rslora", "lora-linear", dict(scale=16 / math.sqrt(8)), lora(5, 16, 12, 8), ["x", "A", "B"])


def norms():
    def numbers(n, c, size=1.0): return lambda s: dict(x=s(n, c, scale=size), weight=s(c, scale=0.5, about=0.75), dy=s(n, c))
    case("rms-norm", "rms-norm", dict(offset=0.0, epsilon=1e-5), numbers(5, 12), ["x", "weight"])
    case("rms-norm-offset-1", "rms-norm", dict(offset=1.0, epsilon=1e-6), numbers(5, 12), ["x", "weight"])
    case("rms-norm-epsilon-counts", "rms-norm", dict(offset=0.0, epsilon=1e-3), numbers(4, 9, 0.03), ["x", "weight"])
    case("rms-norm-one-row", "rms-norm", dict(offset=0.0, epsilon=1e-5), numbers(1, 65), ["x", "weight"])


def rotations():
    def numbers(n, heads, width, first=0, step=1):
        return lambda s: dict(x=s(n, heads * width), positions=torch.arange(n) * step + first, dy=s(n, heads * width))
    D = 8
    yarn = dict(type="yarn", factor=4.0, original_positions=32, beta_fast=32.0, beta_slow=1.0)
    for name, attributes, inputs in [
        ("rotary", {}, numbers(9, 2, D)), ("rotary-base-500000", dict(base=500000.0), numbers(6, 3, D, first=3)),
        ("rotary-one-head-of-2", dict(head_width=2), numbers(5, 1, 2)),
        ("rotary-linear", dict(scaling=dict(type="linear", factor=4.0)), numbers(9, 2, D)),
        ("rotary-dynamic", dict(scaling=dict(type="dynamic", factor=2.0, original_positions=8)), numbers(9, 2, D, step=2)),
        ("rotary-yarn", dict(scaling=yarn), numbers(9, 2, D, step=5)),
        ("rotary-longrope-short", dict(scaling=dict(type="longrope", original_positions=16, magnitude=1.19, short=[1.0, 1.05, 1.1, 1.3],
                                                    long=[1.0, 2.0, 4.5, 9.0])), numbers(9, 2, D)),
        ("rotary-longrope-long", dict(scaling=dict(type="longrope", original_positions=16, magnitude=1.19, short=[1.0, 1.05, 1.1, 1.3],
                                                   long=[1.0, 2.0, 4.5, 9.0])), numbers(9, 2, D, step=3)),
        ("rotary-llama3", dict(scaling=dict(type="llama3", factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0,
                                            original_positions=64)), numbers(9, 2, D, step=6)),
    ]: case(name, "rotary", {"head_width": D, "base": 10000.0, **attributes}, inputs, ["x"])


def attentions():
    def add(name, n, h, g, d, **attributes):
        inputs = lambda s: dict(q=s(n, h * d, scale=1.5), k=s(n, g * d, scale=1.5), v=s(n, g * d), dy=s(n, h * d))
        case(name, "attention", {"heads": h, "key_value_heads": g, "head_width": d, "scale": d ** -0.5, "offsets": [0, n], **attributes}, inputs, ["q", "k", "v"])
    add("attention", 7, 2, 2, 4)
    add("attention-grouped", 6, 4, 2, 4)
    add("attention-one-key-head", 6, 3, 1, 4)
    add("attention-packed", 9, 2, 1, 4, offsets=[0, 4, 5, 9])
    add("attention-window", 9, 2, 2, 4, window=3)
    add("attention-window-packed", 10, 2, 1, 4, window=2, offsets=[0, 6, 10])
    add("attention-softcap", 6, 2, 2, 4, softcap=1.5)
    add("attention-own-scale-softcap-window", 8, 4, 2, 6, scale=0.375, softcap=2.0, window=4)
    add("attention-one-row", 1, 2, 2, 4, offsets=[0, 1])


def gates():
    for name in ("silu", "gelu_pytorch_tanh"):
        case(f"gated-{name.split('_')[0]}", "gated", dict(activation=name), lambda s: dict(a=s(5, 9, scale=3), c=s(5, 9), dh=s(5, 9)), ["a", "c"])


def routers():
    def add(name, n, c, e, slots, **attributes):
        case(name, "router", attributes, lambda s: dict(x=s(n, c), gate=s(e, c), dweights=s(n, slots)), ["x", "gate"])
    add("router-top-1", 6, 8, 4, 1, policy="top-k", k=1)
    add("router-top-2", 7, 8, 5, 2, policy="top-k", k=2)
    add("router-all", 5, 8, 4, 4, policy="top-k", k=4)
    add("router-top-p", 6, 8, 4, 4, policy="top-p", threshold=0.6, temperature=0.0)
    add("router-top-p-temperature", 6, 8, 4, 4, policy="top-p", threshold=0.3, temperature=2.0)
    CASES["router-top-1"][3].clear()                # w = 1 whatever p is: no gradient but rounding

    def pairs(n, slots, e, c, empty):
        def numbers(s):
            choice = torch.stack([torch.tensor(s.random.sample(range(e), slots)) for _ in range(n)])
            if empty: choice[torch.arange(n) % 3 == 1, 1:] = -1
            return dict(choice=choice, h=s(n, slots, c), weights=s(n, slots), dy=s(n, c))
        return numbers
    case("combine", "combine", dict(experts=5), pairs(7, 2, 5, 6, False), ["h", "weights"])
    case("combine-empty-slots", "combine", dict(experts=4), pairs(6, 4, 4, 6, True), ["h", "weights"])


def mixtures():
    def add(name, n=8, c=8, f=10, e=4, r=2, on=(1, 2, 3), bias=False, **attributes):
        def numbers(s):
            t = dict(x=s(n, c), gate=s(e, c), W1=s(f, c, scale=c ** -0.5), W3=s(f, c, scale=c ** -0.5), W2=s(c, f, scale=f ** -0.5))
            if bias: t.update(b1=s(f, scale=0.3), b3=s(f, scale=0.3), b2=s(c, scale=0.3))
            for number in on:
                i, o = (f, c) if number == 2 else (c, f)
                t.update({f"A{number}": s(e, r, i, scale=i ** -0.5), f"B{number}": s(e, o, r, scale=0.5)})
            return dict(t, dy=s(n, c))
        attributes = {"experts": e, "policy": "top-k", "k": 2, "scale": 2.0, "activation": "silu", **attributes}
        case(name, "experts", attributes, numbers, ["x", "gate"] + [m + str(i) for i in on for m in "AB"])
    add("experts-top-2")
    add("experts-top-1", k=1)
    add("experts-all", e=3, k=3)
    add("experts-one-without-tokens", n=3, e=8)
    add("experts-down-only", on=(2,))
    add("experts-gate-up-only", on=(1, 3), scale=0.75)
    add("experts-gelu-bias", activation="gelu_pytorch_tanh", bias=True)
    add("experts-top-p", policy="top-p", threshold=0.6, temperature=0.0)
    del CASES["experts-top-p"][1]["k"]

    def dense(s):
        c, f, r = 8, 10, 2
        t = dict(x=s(6, c), W1=s(f, c, scale=c ** -0.5), W3=s(f, c, scale=c ** -0.5), W2=s(c, f, scale=f ** -0.5))
        for number in (1, 2, 3):
            i, o = (f, c) if number == 2 else (c, f)
            t.update({f"A{number}": s(r, i, scale=i ** -0.5), f"B{number}": s(o, r, scale=0.5)})
        return dict(t, dy=s(6, c))
    case("feed-forward-lora", "feed-forward", dict(scale=2.0, activation="silu"), dense, ["x"] + [m + str(i) for i in (1, 2, 3) for m in "AB"])


def losses():
    def add(name, n, v, ignored=(), size=1.0, **attributes):
        def numbers(s):
            labels = s.integers(v, n)
            for row in ignored: labels[row] = -100
            return dict(x=s(n, 8, scale=size), weight=s(v, 8), labels=labels)
        case(name, "head", attributes, numbers, ["x", "weight"])
    add("head", 6, 11)
    add("head-ignored-labels", 8, 13, ignored=(0, 3, 7))
    add("head-softcap", 6, 11, softcap=2.0)
    add("head-one-label", 4, 7, ignored=(0, 1, 3))
    add("head-large-logits", 5, 9, size=16.0)
    for form in ("pooledTopK", "perLayerArgmax"):
        case(f"balance-loss-{form}", "balance-loss", dict(form=form, coefficient=0.01, k=2), lambda s: dict(logits=s(3, 7, 5, scale=2)), ["logits"])
    case("balance-loss-top-1", "balance-loss", dict(form="pooledTopK", coefficient=0.5, k=1), lambda s: dict(logits=s(1, 6, 4, scale=2)), ["logits"])
    table = lambda s: dict(ids=s.integers(7, 9), weight=s(7, 5), dy=s(9, 5))
    case("embedding", "embedding", dict(scale=1.0), table, ["weight"])
    case("embedding-scaled", "embedding", dict(scale=math.sqrt(5)), table, ["weight"])


def optimizers():
    numbers = lambda steps: lambda s: dict(x=s(23), gradients=s(steps, 23, scale=0.5, about=1.0) * s.integers(2, 1, 23).mul(2).sub(1))
    adam = dict(learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8)
    case("adamw-first-step", "adamw", adam, numbers(1), [])
    case("adamw-three-steps", "adamw", adam, numbers(3), [])
    case("adamw-no-decay-large-epsilon", "adamw", dict(adam, weight_decay=0.0, epsilon=0.1), numbers(2), [])
    case("sgd-momentum", "sgd", dict(learning_rate=0.1, momentum=0.9, weight_decay=0.01), numbers(3), [])
    case("clip", "clip", dict(maximum=1.0), lambda s: dict(gradient=s(40)), [])
    case("clip-not-reached", "clip", dict(maximum=100.0), lambda s: dict(gradient=s(40)), [])


MODELS = {
    "model-mixlora": dict(seed=11, model={}, adapter={}, format="safetensors", T=7, rows=[(0, 0), (0, 2)], ignored=[(0, 1)]),
    "model-mixlora-tied-top-1": dict(seed=12, model=dict(num_key_value_heads=1, tie_word_embeddings=True),
                                 adapter=dict(num_experts=3, top_k=1, target_modules=golden.FFN, lora_alpha=3), format="safetensors", T=6,
                                 rows=[(2, 0), (0, 3), (1, 1)], ignored=[]),
    "model-base": dict(seed=13, model=dict(num_hidden_layers=1), adapter={}, format="safetensors", T=6, rows=[(0, 0), (1, 0)], ignored=[]),
}

for add in (linears, norms, rotations, attentions, gates, routers, mixtures, losses, optimizers): add()


# ---- what a case gives

def margin(operation, attributes, results, inputs):
    """The least distance of a decision from another one."""
    if operation not in ("router", "experts", "balance-loss"): return math.inf
    logits = inputs["logits"].double() if operation == "balance-loss" else inputs["x"].double() @ inputs["gate"].double().T
    p = logits.softmax(-1)
    order = p.sort(-1, descending=True)[0]
    if attributes.get("policy") == "top-p":
        scaled = order / attributes["temperature"] if attributes["temperature"] > 0 else order
        return min((scaled.cumsum(-1) - attributes["threshold"]).abs().min().item(), (order[..., :-1] - order[..., 1:]).min().item())
    k = attributes["k"]                             # their order counts too, and the first choice of the balance loss
    return (order[..., :-1] - order[..., 1:])[..., :min(k, order.shape[-1] - 1)].min().item()


def computed(operation, attributes, inputs, leaves):
    def run():
        t = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
        for n in leaves: t[n].requires_grad_()
        return {n: y.detach().contiguous() for n, y in getattr(op, operation.replace("-", "_"))(attributes, t).items()}
    return run


def made(name):
    operation, attributes, numbers, leaves = CASES[name]
    seed = 1
    while True:                                     # the first seed whose decisions are beyond doubt
        inputs = numbers(Source(f"{name} {seed}"))
        if margin(operation, attributes, None, inputs) >= MARGIN: break
        seed += 1
    if operation == "router" and not leaves:
        plain = op.gradients
        op.gradients = lambda *_: {}
    run = computed(operation, attributes, inputs, leaves)
    results = run()
    worst, longest = condition(run, results)
    results = {n: y for n, y in results.items() if worst.get(n, 0) < 1e4}      # not what is nothing but rounding
    if operation == "router" and not leaves:
        op.gradients = plain
        del inputs["dweights"]
    return operation, attributes, inputs, results, worst, longest


def model(name):
    golden.CASES[name] = MODELS[name]
    c, W, a, P, batch = golden.inputs(name)
    W, P = ({k: v.bfloat16().float() for k, v in t.items()} for t in (W, P))
    if name == "model-base": a, P = None, {}

    def run():
        w, p = ({k: v.double().requires_grad_() for k, v in t.items()} for t in (W, P))
        if a is None:
            logits, yes = golden.forward(c, w, a, p, batch), golden.counted(batch)
            loss = -logits[:, :-1].log_softmax(-1).gather(-1, batch["labels"][:, 1:, None].clamp(min=0))[..., 0][yes[:, 1:]].mean()
            results, total, trained = dict(logits=logits, loss=loss.reshape(1)), loss, w
        else:
            for k in w: w[k].requires_grad_(False)
            logits, router, loss, balance, gap = golden.forward(c, w, a, p, batch)
            assert gap > 1e-3, f"{name}: a router's decision is within {gap}"
            results, total, trained = dict(logits=logits, router_logits=router, loss=loss.reshape(1), aux_loss=balance.reshape(1)), loss + balance, p
        found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
        results.update({f"grad.{k}": torch.zeros_like(v) if g is None else g for (k, v), g in zip(trained.items(), found)})
        return {k: v.detach().contiguous() for k, v in results.items()}
    results = run()
    worst, longest = condition(run, results, runs=8)
    return c, W, a, P, batch, results, worst, longest


def rounded_up(x):
    if x == 0: return 0.0
    digits = 10 ** (2 - math.floor(math.log10(x)))
    return math.ceil(x * digits) / digits


def gamma(n, u): return n * u / (1 - n * u)


def budgets(kappa, n):
    """κ (γ_n(u) + γ_n(2⁻⁵³) + u of the storage); what is stored in 16 bits adds up in float32"""
    add = lambda stored: ROUNDOFF["float32"] if stored in ("float16", "bfloat16") else ROUNDOFF[stored]
    return {p: float(f"{kappa * (gamma(n, add(p)) + gamma(n, 2.0 ** -53) + u):.3e}") for p, u in ROUNDOFF.items()}


def description(operation, attributes, inputs, results, worst, longest):
    outputs = {}
    for n, y in results.items():
        if y.dtype != torch.float64: outputs[n] = dict(exact=True)
        else:
            kappa = rounded_up(worst[n])
            outputs[n] = dict(condition=kappa, length=longest, budget=budgets(kappa, longest))
    return dict(case=1, operation=operation, equation=EQUATIONS[operation], attributes=attributes, inputs=list(inputs), outputs=outputs)


def write(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    if name in MODELS:
        c, W, a, P, batch, results, worst, longest = model(name)
        parts = [("model", "config", c, W, "model")] + ([("adapter", "adapter_config", a, P, "adapter_model")] if a else [])
        for part, config, value, tensors, file in parts:
            (folder / part).mkdir(exist_ok=True)
            (folder / part / f"{config}.json").write_text(json.dumps(value, indent=1) + "\n")
            save_file(tensors, folder / part / f"{file}.safetensors", metadata=dict(format="pt"))
        inputs, text = batch, description("model", dict(model="model", **(dict(adapter="adapter") if a else {})), batch, results, worst, longest)
    else:
        operation, attributes, inputs, results, worst, longest = made(name)
        text = description(operation, attributes, inputs, results, worst, longest)
    save_file({k: v.contiguous() for k, v in inputs.items()}, folder / "inputs.safetensors")
    save_file(results, folder / "expected.safetensors")
    lines = json.dumps(text, ensure_ascii=False, indent=1)
    (folder / "case.json").write_text(lines + "\n")


def same(name, folder, other):
    """What differs between a case's files and those made anew."""
    for path in sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file()):
        if not (folder / path).exists(): yield f"{path} is missing"
        elif path.suffix == ".safetensors":
            x, y = load_file(folder / path), load_file(other / path)
            if x.keys() != y.keys(): yield f"{path} has other tensors"
            for k in x.keys() & y.keys():
                exact = path.name != "expected.safetensors" or not y[k].is_floating_point()
                if x[k].shape != y[k].shape or x[k].dtype != y[k].dtype: yield f"{path} {k} has another shape or type"
                elif exact and not torch.equal(x[k], y[k]): yield f"{path} {k} differs"
                elif not exact and not (x[k] - y[k]).norm() <= 1e-12 * y[k].norm(): yield f"{path} {k} differs"
        else:
            x, y = json.loads((folder / path).read_text()), json.loads((other / path).read_text())
            for side in (x, y):
                for output in side.get("outputs", {}).values(): output.pop("budget", None)
            for n, output in y.get("outputs", {}).items():
                found, wanted = x.get("outputs", {}).get(n, {}).pop("condition", 0), output.pop("condition", 0)
                if not abs(found - wanted) <= 0.01 * wanted: yield f"{path}: the condition of {n} is {wanted}, there {found}"
            if x != y: yield f"{path} differs"


def check_angles():
    """transformers finds the same angles in float32"""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    keys = dict(linear={}, dynamic={}, yarn=dict(beta_fast="beta_fast", beta_slow="beta_slow"),
                llama3=dict(low_freq_factor="low_frequency_factor", high_freq_factor="high_frequency_factor"))
    for name, (operation, a, numbers, _) in CASES.items():
        kind = a.get("scaling", {}).get("type") if operation == "rotary" else None
        if kind not in keys: continue
        s, limit = a["scaling"], int(numbers(Source(f"{name} 1"))["positions"].max()) + 1
        scaling = dict(rope_type=kind, factor=s["factor"], **{k: s[v] for k, v in keys[kind].items()})
        if kind == "llama3": scaling["original_max_position_embeddings"] = s["original_positions"]
        config = LlamaConfig(hidden_size=2 * a["head_width"], num_attention_heads=2, rope_theta=a["base"], rope_scaling=scaling,
                             max_position_embeddings=4 * s["original_positions"] if kind == "llama3" else s.get("original_positions", 64))
        theirs, magnitude = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=limit)
        ours, factor = op.angles(a, limit)
        error = ((theirs.double() - ours) / ours).abs().max().item()
        assert error < 1e-6 and abs(magnitude - factor) < 1e-6, f"{name}: {error}, {magnitude} {factor}"


def main():
    import tempfile
    check = "--check" in sys.argv
    names = [a for a in sys.argv[1:] if not a.startswith("--")] or [*CASES, *MODELS]
    torch.set_num_threads(1)
    check_angles()
    problems = []
    for name in names:
        if not check: write(name, HERE / name)
        else:
            with tempfile.TemporaryDirectory() as other:
                write(name, Path(other))
                problems += [f"{name}: {p}" for p in same(name, HERE / name, Path(other))]
    for p in problems: print(p)
    print(f"{len(names)} cases {'checked' if check else 'written'}, {len(problems)} problems")
    sys.exit(bool(problems))


if __name__ == "__main__": main()
