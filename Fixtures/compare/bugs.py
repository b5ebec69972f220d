"""Mistakes that people make in a MixLoRA model, each planted in one place of candidate.py: what `mixlora compare` must detect and locate.

A bug overrides methods of `Operations` in one layer (or, layer None, before and behind the layers). `first` are the points, as patterns,
of which one must be what compare calls the first tensor whose own operation is wrong; `cause` are the tags of which one must be its
first hint. "other" stands for mistakes that no transformation undoes: there the right hint is none. A method is written as a function
of (operations, the clean method, its arguments).
"""
import math
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
import torch
import torch.nn.functional as F
from candidate import ATTENTION, FEED_FORWARD, Operations, wide

BUGS = {}


@dataclass
class Bug:
    name: str
    layer: object
    first: list
    cause: list
    methods: dict
    case: str = "llama"
    settings: dict = field(default_factory=dict)

    def operations(self, model, layer): return (self.kind if layer == self.layer else Operations)(model, layer)

    @property
    def kind(self):
        def method(name, f): return lambda o, *a: f(o, lambda *b: getattr(Operations, name)(o, *b), *a)
        return type("Buggy", (Operations,), {name: method(name, f) for name, f in self.methods.items()})

    @property
    def phase(self): return "optimizer" if any(p == "loss_curve" for p in self.first) else "backward" if self.first[0].startswith("grad.") else "forward"

    def located(self, first): return first is not None and any(fnmatchcase(first, p) for p in self.first)


def bug(name, layer, first, cause, case="llama", settings=None, **methods):
    assert name not in BUGS, name
    of_layer = lambda p: p if p.startswith(("model.", "grad.model", "lm_head", "loss", "aux", "after", "exp_avg", "grad.lm", "grad.mix")) else \
        f"grad.model.layers.{layer}.{p[5:]}" if p.startswith("grad.") else f"model.layers.{layer}.{p}"
    BUGS[name] = Bug(name, layer, [of_layer(p) for p in first.split()], cause.split(), methods, case, settings or {})


# ---- tools: an operation whose derivative is written by hand, so that it can be wrong

class Written(torch.autograd.Function):
    @staticmethod
    def forward(ctx, forward, backward, *inputs):
        ctx.backward_of, ctx.inputs = backward, inputs
        return forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        found = ctx.backward_of(g, *ctx.inputs)
        return (None, None, *(found if isinstance(found, tuple) else (found,)))


def written(forward, backward, *inputs): return Written.apply(forward, backward, *inputs)
def tweak(x, change): return written(lambda x: x.view_as(x), lambda g, x: change(g), x)     # the same value, another gradient
def coarse(x, dtype=torch.bfloat16): return x.to(dtype).to(x.dtype)
def only(*places): return lambda place: place in places
def at(place, change): return lambda o, f, x, *a: change(o, f, x, *a) if a[-1] == place else f(x, *a)        # of linear, low_rank, add, rotate, norm


def both(z): return (z[..., :z.shape[-1] // 2], z[..., z.shape[-1] // 2:])


def turned(o, z, angle):                                         # halves, by given angles (…,T,D/2)
    cos, sin = (f(angle).to(z.dtype).unsqueeze(-2) for f in (torch.cos, torch.sin))
    a, b = both(z)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def in_pairs(o, f, z, place):                                    # channel 2j turns with channel 2j + 1
    mixed = f(torch.cat([z[..., 0::2], z[..., 1::2]], -1), place)
    return torch.stack(both(mixed), -1).flatten(-2)


Q, K, QK = "self_attn.q_proj.rotated.output", "self_attn.k_proj.rotated.output", "self_attn.[qk]_proj.rotated.output"

# ---- rotation
bug("rotary-pairs", 1, Q, "rotary-pairs", rotate=in_pairs)
bug("rotary-pairs-keys-only", 0, K, "rotary-pairs", rotate=at("k_proj", in_pairs))
bug("rotary-pairs-qwen2", 1, Q, "rotary-pairs", case="qwen2", rotate=in_pairs)
bug("rotary-position-plus-one", 0, Q, "rotary-offset", positions=lambda o, f, T: f(T) + 1)
bug("rotary-position-of-keys-minus-one", 1, K, "rotary-offset", rotate=at("k_proj", lambda o, f, z, place: turned(o, z, (torch.arange(z.shape[1]) - 1).double()[:, None] * o.frequencies(z.shape[-1]))))
bug("rotary-position-of-queries-plus-two", 1, Q, "rotary-offset", rotate=at("q_proj", lambda o, f, z, place: turned(o, z, (torch.arange(z.shape[1]) + 2).double()[:, None] * o.frequencies(z.shape[-1]))))
bug("rotary-position-restarts-behind-padding", 0, Q, "rotary-offset", rotate=lambda o, f, z, place: turned(o, z, (o.model.real.long().cumsum(1) - 1).double()[..., None] * o.frequencies(z.shape[-1])))
bug("rotary-base-500000", 0, Q, "rotary-base", theta=lambda o, f: 500000.0)
bug("rotary-base-10000-for-a-million", 1, Q, "rotary-base", case="qwen2", theta=lambda o, f: 10000.0)
bug("rotary-exponent-over-D", 1, Q, "rotary-base", frequencies=lambda o, f, D: o.theta() ** (-torch.arange(0, D // 2, dtype=torch.float64) / D))
bug("rotary-other-way-round", 1, Q, "other rotary-inverse", angles=lambda o, f, T, D: -f(T, D))
bug("rotary-keys-not-turned", 0, K, "other missing-branch missing-term", rotate=at("k_proj", lambda o, f, z, place: z))
bug("rotary-angles-in-bfloat16", 1, Q, "other rounded-weights low-precision", angles=lambda o, f, T, D: coarse(f(T, D)))

# ---- projections: frozen weights, biases
permuted = lambda w, heads: w.view(heads, 2, -1, w.shape[-1]).transpose(1, 2).reshape(w.shape)               # as GGUF files hold q and k


def changed(linear, change):                                     # a frozen layer's (W, b), changed
    return lambda o, f, place: change(o, *f(place)) if place == linear else f(place)


def of_other(linear, other): return lambda o, f, place: f(other) if place == linear else f(place)


bug("q-rows-permuted", 1, "self_attn.q_proj.output", "qk-permuted", weight=changed("q_proj", lambda o, w, b: (permuted(w, o.c["num_attention_heads"]), b)))
bug("k-rows-permuted", 0, "self_attn.k_proj.output", "qk-permuted", weight=changed("k_proj", lambda o, w, b: (permuted(w, o.c["num_key_value_heads"]), b)))
bug("q-weight-transposed", 1, "self_attn.q_proj.output", "transposed", weight=changed("q_proj", lambda o, w, b: (w.T, b)))
bug("o-weight-transposed", 0, "self_attn.o_proj.output self_attn.output", "transposed", weight=changed("o_proj", lambda o, w, b: (w.T, b)))
bug("k-gets-v-weights", 1, "self_attn.k_proj.output", "swapped", weight=of_other("k_proj", "v_proj"))
bug("v-gets-k-weights", 0, "self_attn.v_proj.output", "swapped", weight=of_other("v_proj", "k_proj"))
bug("gate-and-up-swapped", 1, "mlp.experts.*.gate_proj.output", "swapped", weight=lambda o, f, place: f({"gate_proj": "up_proj", "up_proj": "gate_proj"}.get(place, place)))
bug("gate-and-up-swapped-shared", 1, "mlp.gate_proj.base.output", "swapped", settings=dict(experts="sharedBase"),
    weight=lambda o, f, place: f({"gate_proj": "up_proj", "up_proj": "gate_proj"}.get(place, place)))
bug("o-weight-of-the-layer-before", 1, "self_attn.o_proj.output self_attn.output", "swapped", weight=changed("o_proj", lambda o, w, b: (o.model.W["model.layers.0.self_attn.o_proj.weight"], b)))
bug("q-bias-missing", 1, "self_attn.q_proj.output", "missing-bias", case="qwen2", weight=changed("q_proj", lambda o, w, b: (w, None)))
bug("v-bias-missing", 0, "self_attn.v_proj.output", "missing-bias", case="qwen2", weight=changed("v_proj", lambda o, w, b: (w, None)))
bug("k-bias-twice", 1, "self_attn.k_proj.output", "missing-bias scale other", case="qwen2", weight=changed("k_proj", lambda o, w, b: (w, 2 * b)))
bug("o-weights-rounded-to-bfloat16", 0, "self_attn.o_proj.output self_attn.output", "rounded-weights", weight=changed("o_proj", lambda o, w, b: (coarse(w), b)))
bug("gate-weights-rounded-to-bfloat16", 1, "mlp.gate_proj.base.output", "rounded-weights", settings=dict(experts="sharedBase"), weight=changed("gate_proj", lambda o, w, b: (coarse(w), b)))
bug("up-weights-rounded-to-float16", 0, "mlp.experts.*.up_proj.output", "rounded-weights", weight=changed("up_proj", lambda o, w, b: (coarse(w, torch.float16), b)))
bug("head-rounded-to-bfloat16", None, "lm_head.output", "rounded-weights", linear=lambda o, f, x, w, b, place: f(x, coarse(w), b, place))
bug("q-product-in-bfloat16", 1, "self_attn.q_proj.output", "other rounded-weights low-precision", linear=at("q_proj", lambda o, f, x, w, b, place: f(x.bfloat16(), w.bfloat16(), b, place).to(x.dtype)))
bug("down-sum-in-bfloat16", 0, "mlp.experts.*.down_proj.output", "other rounded-weights low-precision",
    linear=at("down_proj", lambda o, f, x, w, b, place: coarse(x[:, :24] @ w[:, :24].T) + coarse(x[:, 24:] @ w[:, 24:].T)))
bug("head-skips-its-last-channel", None, "lm_head.output", "other missing-term", linear=lambda o, f, x, w, b, place: f(x[..., :-1], w[:, :-1], b, place))

# ---- branches of low rank
bug("branch-scale-missing-q", 1, "self_attn.q_proj.output", "scale", scale=lambda o, f, place: 1.0 if place == "q_proj" else f(place))
bug("branch-scale-twice-v", 0, "self_attn.v_proj.output", "scale", scale=lambda o, f, place: f(place) ** 2 if place == "v_proj" else f(place))
bug("branch-scale-by-root-of-rank", 1, "mlp.experts.*.gate_proj.output", "scale", scale=lambda o, f, place: o.a["lora_alpha"] / math.sqrt(o.a["r"]) if place == "gate_proj" else f(place))
bug("branch-scale-root-missing", 0, "self_attn.q_proj.output", "scale", case="rslora", scale=lambda o, f, place: o.a["lora_alpha"] / o.a["r"])
bug("branch-scale-alpha-alone", 1, "mlp.gate_proj.output", "scale", case="lora", scale=lambda o, f, place: o.a["lora_alpha"] if place == "gate_proj" else f(place))
bug("branch-added-twice-o", 1, "self_attn.o_proj.output self_attn.output", "scale", add=at("o_proj", lambda o, f, y, branch, place: y + 2 * branch))
bug("branch-subtracted-k", 1, "self_attn.k_proj.output", "scale", add=at("k_proj", lambda o, f, y, branch, place: y - branch))
bug("branch-missing-v", 0, "self_attn.v_proj.output", "missing-branch", branch=lambda o, f, linear, *e: None if linear == "v_proj" else f(linear, *e))
bug("branch-missing-of-expert-2-up", 1, "mlp.experts.2.up_proj.output", "missing-branch", branch=lambda o, f, linear, *e: None if (linear, *e) == ("up_proj", 2) else f(linear, *e))
bug("branch-missing-down-lora", 0, "mlp.down_proj.output mlp.output", "missing-branch", case="lora", branch=lambda o, f, linear, *e: None if linear == "down_proj" else f(linear, *e))
bug("branch-loses-its-last-rank", 1, "self_attn.q_proj.output", "other missing-term", low_rank=at("q_proj", lambda o, f, x, A, B, place: f(x, A[:-1], B[:, :-1], place)))
bug("branch-ranks-out-of-step", 0, "mlp.experts.*.down_proj.output", "other swapped", low_rank=at("down_proj", lambda o, f, x, A, B, place: f(x, A.roll(1, 0), B, place)))
bug("branch-A-of-k-in-q", 1, "self_attn.q_proj.output", "swapped", branch=lambda o, f, linear, *e: (f("k_proj")[0], f("q_proj")[1]) if linear == "q_proj" else f(linear, *e))
bug("branch-of-the-layer-before", 1, "self_attn.v_proj.output", "swapped", branch=lambda o, f, linear, *e: o.model.ops[0].branch(linear) if linear == "v_proj" else f(linear, *e))
bug("branch-reads-rounded-input", 0, "self_attn.k_proj.output", "other rounded-weights low-precision", low_rank=at("k_proj", lambda o, f, x, A, B, place: f(coarse(x), A, B, place)))
bug("branch-A-rounded-to-bfloat16", 1, "self_attn.o_proj.output self_attn.output", "rounded-weights", low_rank=at("o_proj", lambda o, f, x, A, B, place: f(x, coarse(A), B, place)))
bug("experts-0-and-1-swapped-gate", 1, "mlp.experts.[01].gate_proj.output", "experts-swapped", branch=lambda o, f, linear, e=None: f(linear, {0: 1, 1: 0}.get(e, e)) if linear == "gate_proj" else f(linear, e))
bug("experts-1-and-3-swapped-down", 0, "mlp.experts.[13].down_proj.output", "experts-swapped", branch=lambda o, f, linear, e=None: f(linear, {1: 3, 3: 1}.get(e, e)) if linear == "down_proj" else f(linear, e))
bug("experts-0-and-2-swapped-down-shared", 0, "mlp.output", "experts-swapped", settings=dict(experts="sharedBase"),
    branch=lambda o, f, linear, e=None: f(linear, {0: 2, 2: 0}.get(e, e)) if linear == "down_proj" else f(linear, e))
bug("experts-numbered-from-the-end", 1, "mlp.experts.*.gate_proj.output", "experts-swapped", branch=lambda o, f, linear, e=None: f(linear, None if e is None else 3 - e))
bug("experts-all-use-the-first-up", 0, "mlp.experts.*.up_proj.output", "experts-swapped other", branch=lambda o, f, linear, e=None: f(linear, 0) if linear == "up_proj" else f(linear, e))

# ---- embedding, norms, residual
bug("embedding-scale-missing", None, "model.embed_tokens.output", "scale", case="gemma", embedding_scale=lambda o, f: 1)
bug("embedding-scale-without-root", None, "model.embed_tokens.output", "scale", case="gemma", embedding_scale=lambda o, f: o.c["hidden_size"])
bug("embedding-scale-where-none-is", None, "model.embed_tokens.output", "scale", embedding_scale=lambda o, f: math.sqrt(o.c["hidden_size"]))
bug("embedding-scale-rounded", None, "model.embed_tokens.output", "scale rounded-weights", case="gemma", embedding_scale=lambda o, f: coarse(torch.tensor(f())).item())
bug("embedding-of-the-next-id", None, "model.embed_tokens.output", "other swapped label-shift", embed=lambda o, f, ids, w: f((ids + 1) % len(w), w))
bug("rows-of-the-batch-swapped", None, "model.embed_tokens.output", "other swapped", embed=lambda o, f, ids, w: f(ids.flip(0), w))
bug("norm-epsilon-missing", 1, "input_layernorm.output", "missing-term other", epsilon=lambda o, f: 0.0)
bug("norm-epsilon-outside-the-root", 0, "post_attention_layernorm.output", "other missing-term",
    norm=at("post_attention_layernorm", lambda o, f, x, g, place: x / ((x * x).mean(-1, keepdim=True).sqrt() + o.epsilon()) * g))
bug("norm-one-plus-weight", 1, "post_attention_layernorm.output", "offset-norm", norm=at("post_attention_layernorm", lambda o, f, x, g, place: f(x, 1 + g, place)))
bug("norm-weight-without-one", 0, "input_layernorm.output", "offset-norm", case="gemma", norm=at("input_layernorm", lambda o, f, x, g, place: f(x, g - 1, place)))
bug("last-norm-weight-without-one", None, "model.norm.output", "offset-norm", case="gemma", norm=lambda o, f, x, g, place: f(x, g - 1, place))
bug("norm-subtracts-the-mean", 1, "input_layernorm.output", "other missing-term", norm=at("input_layernorm", lambda o, f, x, g, place: f(x - x.mean(-1, keepdim=True), g, place)))
bug("norm-weight-missing", 0, "post_attention_layernorm.output", "other missing-term missing-branch", norm=at("post_attention_layernorm", lambda o, f, x, g, place: f(x, torch.ones_like(g), place)))
bug("norm-weights-of-the-other-norm", 1, "input_layernorm.output", "swapped", norm=at("input_layernorm", lambda o, f, x, g, place: f(x, o.model.W["model.layers.1.post_attention_layernorm.weight"], place)))
bug("norm-in-bfloat16", 0, "input_layernorm.output", "other rounded-weights low-precision", norm=at("input_layernorm", lambda o, f, x, g, place: f(x.bfloat16(), g.bfloat16(), place).to(x.dtype)))
bug("norm-sum-instead-of-mean", 1, "post_attention_layernorm.output", "scale", norm=at("post_attention_layernorm", lambda o, f, x, g, place: x * torch.rsqrt((x * x).sum(-1, keepdim=True) + o.epsilon()) * g))
bug("norm-without-root", None, "model.norm.output", "other scale", norm=lambda o, f, x, g, place: x / ((x * x).mean(-1, keepdim=True) + o.epsilon()) * g)
bug("residual-missing-attention", 1, "residual.output", "missing-branch", residual=at("attention", lambda o, f, x, y, place: y + 0 * x))
bug("residual-missing-mlp", 0, "model.layers.0.output", "missing-branch", residual=at("mlp", lambda o, f, x, y, place: y + 0 * x))
bug("residual-twice-mlp", 1, "model.layers.1.output", "other scale missing-branch", residual=at("mlp", lambda o, f, x, y, place: 2 * x + y))
bug("residual-is-the-normed-input", 0, "residual.output", "other swapped", residual=at("attention", lambda o, f, x, y, place: Operations.norm(o, x, o.model.W["model.layers.0.input_layernorm.weight"], "") + y))
bug("residual-attention-left-out", 0, "residual.output", "missing-branch", residual=at("attention", lambda o, f, x, y, place: x + 0 * y))

# ---- attention
O = "self_attn.o_proj.input"
bug("key-heads-tiled", 1, O, "key-heads-order", repeat=lambda o, f, z, n: z.repeat(1, 1, n, 1))
bug("key-heads-tiled-qwen2", 0, O, "key-heads-order", case="qwen2", repeat=lambda o, f, z, n: z.repeat(1, 1, n, 1))


def values_tiled(o, f, q, k, v, seen):
    G = o.c["num_key_value_heads"]
    return f(q, k, v.view(*v.shape[:2], G, -1, v.shape[-1])[:, :, :, 0].repeat(1, 1, v.shape[2] // G, 1), seen)


bug("value-heads-tiled", 0, O, "key-heads-order", attend=values_tiled)
bug("first-key-head-for-all", 1, O, "other key-heads-order", repeat=lambda o, f, z, n: z[:, :, :1].expand(-1, -1, z.shape[2] * n, -1))
bug("attention-scale-missing", 0, O, "scale", attention_scale=lambda o, f, D: 1.0)
bug("attention-scale-without-root", 1, O, "scale", attention_scale=lambda o, f, D: 1 / D)
bug("attention-scale-by-channels", 1, O, "scale", attention_scale=lambda o, f, D: 1 / math.sqrt(o.c["hidden_size"]))
bug("attention-scale-twice", 0, O, "scale", attend=lambda o, f, q, k, v, seen: f(q / math.sqrt(q.shape[-1]), k, v, seen))
bug("mask-sees-the-next", 0, O, "mask-off-by-one", visible=lambda o, f, real: (torch.ones(real.shape[1], real.shape[1]).tril(1).bool() & real[:, None, :]) | torch.eye(real.shape[1]).bool())
bug("mask-hides-itself", 1, O, "mask-off-by-one", visible=lambda o, f, real: f(real) & ~(torch.eye(real.shape[1]).bool() & (real.long().cumsum(1) > 1)[:, :, None]))
bug("mask-missing", 1, O, "mask-off-by-one other", visible=lambda o, f, real: (real[:, None, :] & real[:, :, None]) | torch.eye(real.shape[1]).bool())
bug("window-one-wider", 0, O, "window-off-by-one", case="mistral", window=lambda o, f: f() + 1)
bug("window-one-narrower", 1, O, "window-off-by-one", case="mistral", window=lambda o, f: f() - 1)
bug("window-ignored", 1, O, "window-off-by-one other", case="mistral", window=lambda o, f: None)
bug("padding-is-attended", 0, O, "other mask-off-by-one", visible=lambda o, f, real: f(torch.ones_like(real)))
bug("softmax-over-queries", 1, O, "other transposed", softmax=lambda o, f, z: torch.softmax(z.masked_fill(z == -math.inf, -1e30), -2))
bug("softmax-in-bfloat16", 0, O, "other rounded-weights low-precision", softmax=lambda o, f, z: torch.softmax(z.bfloat16(), -1).to(z.dtype))
bug("softmax-divides-by-one-more", 1, O, "other missing-term scale", softmax=lambda o, f, z: z.exp() / (1 + z.exp().sum(-1, keepdim=True)))
bug("heads-laid-out-before-tokens", 0, O, "other transposed", attend=lambda o, f, q, k, v, seen: f(q, k, v, seen).transpose(1, 2).reshape(q.shape))
bug("query-heads-in-reverse", 1, O, "other key-heads-order swapped", attend=lambda o, f, q, k, v, seen: f(q.flip(2), k, v, seen))
bug("queries-and-keys-swapped", 0, O, "swapped other", attend=lambda o, f, q, k, v, seen: f(k, q, v, seen))

# ---- router
G, CHOICE, W, TOKENS = "mlp.moe_gate.output", "mlp.moe_gate.choice", "mlp.moe_gate.weights.output", "mlp.experts.*.tokens"
bug("router-weights-unnormalized", 1, W, "unnormalized", weights=lambda o, f, p, c: p.gather(-1, c))
bug("router-weights-normalized-where-they-are-not", 0, W, "topk-before-softmax unnormalized", case="dynamic", weights=lambda o, f, p, c: (w := f(p, c)) / w.sum(-1, keepdim=True))
bug("router-softmax-of-probabilities", 0, W, "other topk-before-softmax", weights=lambda o, f, p, c: p.gather(-1, c).softmax(-1))
bug("router-weights-in-the-other-order", 1, W, "other swapped", weights=lambda o, f, p, c: f(p, c).flip(-1))
bug("router-weights-all-equal", 0, W, "other unnormalized", weights=lambda o, f, p, c: f(p, c) * 0 + 1 / c.shape[-1])
bug("router-second-expert-without-weight", 1, W, "other missing-term", weights=lambda o, f, p, c: f(p, c) * torch.tensor([1.0, 0.0]))
bug("router-weights-in-bfloat16", 0, W, "other rounded-weights low-precision", weights=lambda o, f, p, c: coarse(f(p, c)))
bug("router-temperature-ignored", 1, f"{W} {CHOICE}", "scale other", case="tempered", tempered=lambda o, f, p: p)
bug("router-sigmoid", 1, "mlp.moe_gate.probabilities.output", "wrong-activation other", probabilities=lambda o, f, z: z.sigmoid())
bug("router-softmax-over-tokens", 0, "mlp.moe_gate.probabilities.output", "transposed other", probabilities=lambda o, f, z: z.softmax(0))
bug("router-takes-the-smallest", 0, f"{CHOICE} {TOKENS}", "other", choose=lambda o, f, p: f(-p))
bug("router-skips-the-best", 1, f"{CHOICE} {TOKENS}", "other", choose=lambda o, f, p: p.sort(dim=-1, descending=True)[1][:, 1:3])
bug("router-stops-before-top-p", 0, f"{CHOICE} {TOKENS}", "other", case="dynamic", choose=lambda o, f, p: f(p).where(torch.arange(p.shape[-1]) < ((f(p) >= 0).sum(-1, keepdim=True) - 1).clamp(min=1), -1))
bug("router-gate-rows-swapped", 1, G, "experts-swapped", gate=lambda o, f, x, w: f(x, w[[1, 0, 2, 3]]))
bug("router-gate-rounded-to-bfloat16", 0, G, "rounded-weights", gate=lambda o, f, x, w: f(x, coarse(w)))
bug("router-reads-half-of-the-channels", 1, G, "other missing-term", gate=lambda o, f, x, w: f(x[:, ::2], w[:, ::2]))
bug("router-gate-of-the-layer-before", 1, G, "swapped", gate=lambda o, f, x, w: f(x, o.model.P["mixlora.layers.0.mlp.moe_gate.weight"]))

# ---- experts
H, D, Y = "mlp.experts.*.hidden", "mlp.experts.*.down_proj.output", "mlp.output"
bug("activation-gelu-for-silu", 1, H, "wrong-activation", activation=lambda o, f, a: F.gelu(a))
bug("activation-relu-for-silu", 0, H, "wrong-activation", activation=lambda o, f, a: F.relu(a))
bug("activation-exact-gelu", 1, H, "wrong-activation", case="gemma", activation=lambda o, f, a: F.gelu(a))
bug("activation-silu-for-gelu", 0, H, "wrong-activation", case="gemma", activation=lambda o, f, a: F.silu(a))
bug("activation-quick-gelu", 1, "mlp.hidden mlp.down_proj.input", "wrong-activation", case="lora", activation=lambda o, f, a: a * torch.sigmoid(1.702 * a))
bug("activation-on-up-instead-of-gate", 0, H, "swapped wrong-activation", hidden=lambda o, f, a, c: f(c, a))
bug("activation-on-both", 1, H, "wrong-activation other", hidden=lambda o, f, a, c: o.activation(a) * o.activation(c))
bug("gate-added-to-up", 0, H, "other", hidden=lambda o, f, a, c: o.activation(a) + c)
bug("tokens-go-to-the-next-expert", 1, f"{TOKENS} {CHOICE}", "experts-swapped other", dispatch=lambda o, f, c, real, e: f(c, real, (e + 1) % 4))
bug("tokens-beyond-capacity-dropped", 0, f"{TOKENS} {CHOICE} {Y}", "other missing-branch missing-term", dispatch=lambda o, f, c, real, e: tuple(z[:4] for z in f(c, real, e)))
bug("tokens-of-the-row-before", 1, f"mlp.experts.*.gate_proj.output", "other", gather=lambda o, f, x, t: f(x, (t - 1) % len(x)))
bug("expert-outputs-unweighted", 0, Y, "other unnormalized missing-term scale", weigh=lambda o, f, w, e, n: wide(e))
bug("expert-outputs-weighted-twice", 1, Y, "other scale", weigh=lambda o, f, w, e, n: f(w * w, e, n))
bug("expert-outputs-weighted-twice-shared", 0, "mlp.down_proj.input", "other scale", settings=dict(experts="sharedBase"), weigh=lambda o, f, w, e, n: f(w * w, e, n))
bug("expert-3-left-out-of-the-sum", 1, Y, "missing-branch", weigh=lambda o, f, w, e, n: f(w, e, n) * (n != 3))
bug("expert-sum-last-writer-wins", 0, Y, "other missing-branch", scatter=lambda o, f, y, t, e: y.index_put((t,), e))
bug("expert-sum-in-bfloat16", 1, Y, "other rounded-weights low-precision", scatter=lambda o, f, y, t, e: coarse(f(y, t, e)))
bug("expert-input-unnormed-rounding", 0, "mlp.experts.*.gate_proj.output", "other rounded-weights low-precision", gather=lambda o, f, x, t: coarse(f(x, t)))
bug("nan-in-one-element", 1, "mlp.experts.*.up_proj.output", "other", add=at("up_proj", lambda o, f, y, b, place: f(y, b, place).index_put((torch.tensor([0]), torch.tensor([3])), torch.tensor(math.nan))))

# ---- losses
X = "loss"
bug("labels-not-shifted", None, X, "label-shift", cross_entropy=lambda o, f, z, y, yes: o.mean(-torch.log_softmax(z[:, 1:], -1).gather(-1, y[:, 1:, None].clamp(min=0))[..., 0], yes[:, 1:]))
bug("labels-shifted-twice", None, X, "label-shift", cross_entropy=lambda o, f, z, y, yes: o.mean(-torch.log_softmax(z[:, :-2], -1).gather(-1, y[:, 2:, None].clamp(min=0))[..., 0], yes[:, 2:]))
bug("loss-is-the-sum", None, X, "loss-mean", mean=lambda o, f, t, yes: t[yes].sum())
bug("loss-is-the-mean-of-rows", None, X, "loss-mean", mean=lambda o, f, t, yes: ((t * yes).sum(1) / yes.sum(1)).mean())
bug("loss-divides-by-all-columns", None, X, "loss-mean", mean=lambda o, f, t, yes: t[yes].sum() / yes.numel())
bug("loss-counts-ignored-labels", None, X, "other loss-mean", counted=lambda o, f, real, labels: f(real, labels.clamp(min=0)))
bug("loss-counts-padding", None, X, "other loss-mean", counted=lambda o, f, real, labels: f(torch.ones_like(real), labels))
bug("loss-logits-in-bfloat16", None, X, "other rounded-weights low-precision", cross_entropy=lambda o, f, z, y, yes: f(coarse(z), y, yes))
A = "aux_loss"
bug("balance-by-the-first-expert-alone", None, A, "balance-form", balance=lambda o, f, p, c: f(p, c[:, :1]))
bug("balance-without-the-number-of-experts", None, A, "balance-form scale", balance=lambda o, f, p, c: f(p, c) / p.shape[-1])
bug("balance-divided-by-k", None, A, "balance-form scale", balance=lambda o, f, p, c: f(p, c) / c.shape[-1])
bug("balance-layer-by-layer", None, A, "balance-form", balance=lambda o, f, p, c: torch.stack([f(a, b) for a, b in zip(p.chunk(2), c.chunk(2))]).mean())
bug("balance-summed-over-layers", None, A, "balance-form scale", balance=lambda o, f, p, c: torch.stack([f(a, b) for a, b in zip(p.chunk(2), c.chunk(2))]).sum())
bug("balance-of-probabilities-alone", None, A, "balance-form", balance=lambda o, f, p, c: o.a["router_aux_loss_coef"] * p.shape[-1] * (p.mean(0) ** 2).sum())
bug("balance-coefficient-ten-times", None, A, "scale balance-form", balance=lambda o, f, p, c: 10 * f(p, c))

# ---- backward: everything forward is right
gk = "grad.self_attn.[qk]_proj.rotated.output"
bug("softmax-backward-without-the-sum", 1, gk, "missing-term", softmax=lambda o, f, z: written(f, lambda g, z: z.softmax(-1) * g, z))
bug("attention-scale-missing-in-backward", 0, gk, "scale", attend=lambda o, f, q, k, v, seen: f(tweak(q, lambda g: g * math.sqrt(q.shape[-1])), tweak(k, lambda g: g * math.sqrt(q.shape[-1])), v, seen))
bug("values-get-no-gradient", 1, "grad.self_attn.v_proj.output", "missing-branch", attend=lambda o, f, q, k, v, seen: f(q, k, tweak(v, lambda g: 0 * g), seen))
bug("keys-get-no-gradient", 0, "grad.self_attn.k_proj.rotated.output", "missing-branch", attend=lambda o, f, q, k, v, seen: f(q, tweak(k, lambda g: 0 * g), v, seen))
bug("key-gradient-of-one-head-of-its-group", 1, "grad.self_attn.[kv]_proj.*output", "other missing-branch key-heads-order",
    repeat=lambda o, f, z, n: written(lambda z: f(z, n), lambda g, z: g.view(*z.shape[:3], n, z.shape[3])[:, :, :, 0], z))
bug("key-gradient-tiled", 0, "grad.self_attn.[kv]_proj.*output", "key-heads-order", repeat=lambda o, f, z, n: written(lambda z: f(z, n), lambda g, z: g.view(*z.shape[:2], n, *z.shape[2:]).sum(2), z))
bug("rotation-not-undone-in-backward", 1, "grad.self_attn.[qk]_proj.output", "other rotary-inverse", rotate=lambda o, f, z, place: written(lambda z: f(z, place), lambda g, z: f(g, place), z))
bug("rotation-left-out-of-backward", 0, "grad.self_attn.[qk]_proj.output", "other missing-term", rotate=lambda o, f, z, place: tweak_through(lambda z: f(z, place), z))
bug("o-backward-transposed", 1, "grad.self_attn.o_proj.input", "transposed", linear=at("o_proj", lambda o, f, x, w, b, place: written(lambda x: f(x, w, b, place), lambda g, x: g @ w.T, x)))
bug("q-backward-transposed", 0, "grad.input_layernorm.output", "transposed", linear=at("q_proj", lambda o, f, x, w, b, place: written(lambda x: f(x, w, b, place), lambda g, x: g @ w.T, x)))
bug("q-base-left-out-of-backward", 1, "grad.input_layernorm.output", "missing-branch", linear=at("q_proj", lambda o, f, x, w, b, place: f(x.detach(), w, b, place)))
bug("gate-base-left-out-of-backward", 0, "grad.post_attention_layernorm.output", "missing-branch", linear=at("gate_proj", lambda o, f, x, w, b, place: f(x.detach(), w, b, place)))
bug("branch-left-out-of-backward-q", 1, "grad.input_layernorm.output", "missing-branch", low_rank=at("q_proj", lambda o, f, x, A, B, place: f(x.detach(), A, B, place)))
bug("branch-left-out-of-backward-experts-up", 0, "grad.post_attention_layernorm.output", "missing-branch", low_rank=at("up_proj", lambda o, f, x, A, B, place: f(x.detach(), A, B, place)))
bug("branch-left-out-of-backward-down", 1, "grad.mlp.experts.*.hidden", "missing-branch", low_rank=at("down_proj", lambda o, f, x, A, B, place: f(x.detach(), A, B, place)))
bug("branch-backward-scaled-by-dropout", 0, "grad.input_layernorm.output", "scale", low_rank=at("v_proj", lambda o, f, x, A, B, place: f(tweak(x, lambda g: g / 0.95), A, B, place)))
bug("router-left-out-of-backward", 1, "grad.post_attention_layernorm.output", "missing-branch", gate=lambda o, f, x, w: f(x.detach(), w))
bug("router-weights-without-gradient", 0, "grad.mlp.moe_gate.output grad.mlp.moe_gate.weights.output", "missing-branch", weights=lambda o, f, p, c: tweak(f(p, c), lambda g: 0 * g))
bug("router-weights-detached-in-the-sum", 1, "grad.mlp.moe_gate.output grad.mlp.moe_gate.weights.output", "missing-branch", weigh=lambda o, f, w, e, n: f(tweak(w, lambda g: 0 * g), e, n))
bug("router-normalization-left-out-of-backward", 1, "grad.mlp.moe_gate.output", "missing-term", weights=lambda o, f, p, c: (w := p.gather(-1, c)) / w.sum(-1, keepdim=True).detach())
bug("router-softmax-backward-without-the-sum", 0, "grad.mlp.moe_gate.output", "missing-term", probabilities=lambda o, f, z: written(f, lambda g, z: z.softmax(-1) * g, z))
bug("balance-without-gradient", None, "grad.model.layers.1.mlp.moe_gate.output", "missing-branch", balance=lambda o, f, p, c: f(p.detach(), c))
bug("balance-gradient-twice", None, "grad.model.layers.1.mlp.moe_gate.output", "scale balance-form", balance=lambda o, f, p, c: tweak(f(p, c), lambda g: 2 * g))
bug("residual-left-out-of-backward-attention", 1, "grad.model.layers.0.output", "missing-branch", residual=at("attention", lambda o, f, x, y, place: x.detach() + y))
bug("residual-left-out-of-backward-mlp", 0, "grad.residual.output", "missing-branch", residual=at("mlp", lambda o, f, x, y, place: x.detach() + y))
bug("residual-gradient-twice", 1, "grad.residual.output", "other scale missing-branch", residual=at("mlp", lambda o, f, x, y, place: tweak(x, lambda g: 2 * g) + y))


def norm_backward(formula):                                      # dx by a formula of (dy ⊙ g, x, ρ)
    def norm(o, f, x, g, place):
        def backward(d, x):
            rho = torch.rsqrt((x * x).mean(-1, keepdim=True) + o.epsilon())
            return formula(d * g, x, rho)
        return written(lambda x: f(x, g, place), backward, x)
    return norm


without_second = norm_backward(lambda d, x, rho: rho * d)
bug("norm-backward-without-second-term", 1, "grad.residual.output", "missing-term", norm=at("post_attention_layernorm", without_second))
bug("norm-backward-without-second-term-input", 1, "grad.model.layers.0.output", "missing-term", norm=at("input_layernorm", without_second))
bug("last-norm-backward-without-second-term", None, "grad.model.layers.1.output", "missing-term", norm=without_second)
bug("norm-backward-mean-for-sum", 0, "grad.residual.output", "missing-term other", norm=at("post_attention_layernorm", norm_backward(lambda d, x, rho: rho * d - rho ** 3 * x * (d * x).sum(-1, keepdim=True))))
bug("norm-backward-weight-missing", 0, "grad.model.embed_tokens.output", "other missing-term", norm=at("input_layernorm", lambda o, f, x, g, place: written(lambda x: f(x, g, place), lambda d, x: torch.autograd.functional.vjp(lambda x: f(x, torch.ones_like(g), place), x, d)[1], x)))
ga = "grad.mlp.experts.*.gate_proj.output"
sigma = torch.sigmoid
bug("silu-derivative-without-second-term", 1, ga, "missing-term wrong-activation", activation=lambda o, f, a: written(f, lambda g, a: g * sigma(a), a))
bug("silu-derivative-of-relu", 0, ga, "wrong-activation", activation=lambda o, f, a: written(f, lambda g, a: g * (a > 0), a))
bug("gelu-derivative-exact", 1, ga, "wrong-activation", case="gemma", activation=lambda o, f, a: written(f, lambda g, a: g * (0.5 * (1 + torch.erf(a / math.sqrt(2))) + a * torch.exp(-a * a / 2) / math.sqrt(2 * math.pi)), a))
bug("up-gradient-without-activation", 0, "grad.mlp.experts.*.up_proj.output", "wrong-activation missing-term", hidden=lambda o, f, a, c: written(f, lambda g, a, c: (g * c * (sigma(a) + a * sigma(a) * (1 - sigma(a))), g * a), a, c))
bug("gate-gradient-without-up", 1, ga, "missing-term other", hidden=lambda o, f, a, c: written(f, lambda g, a, c: (g * (sigma(a) + a * sigma(a) * (1 - sigma(a))), g * F.silu(a)), a, c))
bug("gate-gradient-sign", 0, ga, "scale", activation=lambda o, f, a: written(f, lambda g, a: -g * (sigma(a) + a * sigma(a) * (1 - sigma(a))), a))
bug("gate-gradient-in-bfloat16", 1, ga, "other rounded-weights low-precision", hidden=lambda o, f, a, c: f(tweak(a, coarse), c))
gd = "grad.mlp.experts.*.down_proj.output"
bug("expert-gradient-without-weight", 1, gd, "missing-term other unnormalized scale", weigh=lambda o, f, w, e, n: f(w, tweak(e, lambda g: g / w[:, None]), n))
bug("expert-0-without-gradient", 0, "grad.mlp.experts.0.down_proj.output", "missing-branch", weigh=lambda o, f, w, e, n: f(w, tweak(e, lambda g: 0 * g) if n == 0 else e, n))
bug("expert-weights-gradient-shared", 0, "grad.mlp.moe_gate.weights.output", "scale", settings=dict(experts="sharedBase"), weigh=lambda o, f, w, e, n: f(tweak(w, lambda g: g / 2), e, n))
bug("gather-backward-last-writer-wins", 1, "grad.post_attention_layernorm.output", "other missing-branch", gather=lambda o, f, x, t: f(tweak(x, lambda g: g), t) if len(t) % 2 else f(tweak(x, lambda g: 0 * g), t))
bug("cross-entropy-backward-without-one-hot", None, "grad.lm_head.output", "missing-term", cross_entropy=lambda o, f, z, y, yes: written(lambda z: f(z, y, yes), lambda g, z: F.pad(z[:, :-1].softmax(-1) * yes[:, 1:, None] / yes.sum() * g, (0, 0, 0, 1)), z))
bug("cross-entropy-backward-of-the-sum", None, "grad.lm_head.output", "scale loss-mean", cross_entropy=lambda o, f, z, y, yes: tweak(f(z, y, yes), lambda g: g * yes.sum()))
bug("cross-entropy-backward-one-column-late", None, "grad.lm_head.output", "label-shift other", cross_entropy=lambda o, f, z, y, yes: f(tweak(z, lambda g: g.roll(1, 1)), y, yes))
bug("head-backward-in-bfloat16", None, "grad.model.norm.output", "other rounded-weights low-precision", linear=lambda o, f, x, w, b, place: written(lambda x: f(x, w, b, place), lambda g, x: coarse(g) @ coarse(w), x))
bug("loss-scale-not-undone", None, "grad.lm_head.output", "scale", total=lambda o, f, loss, aux: tweak(loss + aux, lambda g: 128 * g))
bug("nan-in-one-gradient", 1, "grad.mlp.experts.*.up_proj.output", "other", hidden=lambda o, f, a, c: f(a, tweak(c, lambda g: g.index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(math.nan)))))


def parameter(linear, which, change, expert=None):               # the gradient of A (0) or B (1), changed
    def branch(o, f, place, e=None):
        found = f(place, e)
        if place != linear or (expert is not None and e != expert) or found is None: return found
        return tuple(tweak(p, change) if i == which else p for i, p in enumerate(found))
    return branch


P = "grad.mixlora.layers."
bug("A-gradient-without-scale", 1, P + "1.self_attn.q_proj.lora_A.weight", "scale", branch=parameter("q_proj", 0, lambda g: g / 2))
bug("B-gradient-without-scale", 0, P + "0.mlp.down_proj.experts.*.lora_B.weight", "scale", branch=parameter("down_proj", 1, lambda g: g / 2))
bug("B-without-gradient", 1, P + "1.self_attn.v_proj.lora_B.weight", "missing-branch", branch=parameter("v_proj", 1, lambda g: 0 * g))
bug("A-gradient-ranks-out-of-step", 0, P + "0.mlp.gate_proj.experts.*.lora_A.weight", "other swapped", branch=parameter("gate_proj", 0, lambda g: g.roll(1, 0)))
bug("A-gradient-of-one-expert-twice", 1, P + "1.mlp.up_proj.experts.1.lora_A.weight", "scale", branch=parameter("up_proj", 0, lambda g: 2 * g, expert=1))
bug("A-gradient-in-bfloat16", 0, P + "0.self_attn.k_proj.lora_A.weight", "other rounded-weights low-precision", branch=parameter("k_proj", 0, coarse))
bug("gate-gradient-twice", 1, P + "1.mlp.moe_gate.weight", "scale", gate=lambda o, f, x, w: f(x, tweak(w, lambda g: 2 * g)))
bug("gate-gradient-rows-swapped", 0, P + "0.mlp.moe_gate.weight", "experts-swapped", gate=lambda o, f, x, w: f(x, tweak(w, lambda g: g[[1, 0, 2, 3]])))

# ---- AdamW: three steps, of a size at which the rules differ by more than rounding
STEPS = dict(steps=3, lr=0.02, weight_decay=0.1)
AFTER = "loss_curve exp_avg* after.*"


def adamw(change=None, betas=(0.9, 0.999), eps=1e-8, correct=(True, True), decay="before", inside=False):
    def step(o, f, name, p, g, state, n, lr, wd):
        m, v = (state.setdefault(moment, torch.zeros_like(p)) for moment in ("exp_avg", "exp_avg_sq"))
        if change: n, g, lr, wd = change(name, p, g, state, n, lr, wd)
        if decay == "l2": g = g + wd * p
        if decay == "before": p.mul_(1 - lr * wd)
        m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
        v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        a, b = (1 - beta ** n if yes else 1.0 for beta, yes in zip(betas, correct))
        p.sub_(lr * (m / a) / ((v / b + eps).sqrt() if inside else (v / b).sqrt() + eps))
        if decay == "behind": p.mul_(1 - lr * wd)
    return step


def steps(name, cause, step=None, first=AFTER, case="llama", **more): bug(name, None, first, cause, case, STEPS, adamw=step or adamw(**more))


steps("adamw-epsilon-inside-the-root", "adamw-eps", inside=True)
steps("adamw-epsilon-1e-5", "adamw-eps", eps=1e-5)
steps("adamw-no-bias-correction", "adamw-bias-correction", correct=(False, False))
steps("adamw-bias-correction-of-m-alone", "adamw-bias-correction", correct=(True, False))
steps("adamw-step-counted-from-two", "adamw-bias-correction", change=lambda name, p, g, s, n, lr, wd: (n + 1, g, lr, wd))
steps("adamw-l2-for-decay", "adamw-l2", decay="l2")
steps("adamw-decay-behind-the-step", "adamw-order", decay="behind")
steps("adamw-decay-missing", "adamw-order adamw-l2 other missing-term", decay="none")
steps("adamw-decay-without-lr", "other scale adamw-order", step=lambda o, f, name, p, g, s, n, lr, wd: f(name, p, g, s, n, lr, wd / lr * 0.5))
steps("adamw-beta1-0.95", "adamw-beta", betas=(0.95, 0.999))
steps("adamw-beta2-0.95", "adamw-beta", betas=(0.9, 0.95))
steps("adamw-betas-swapped", "adamw-beta", betas=(0.999, 0.9))
steps("adamw-is-sgd", "other adamw-beta", step=lambda o, f, name, p, g, s, n, lr, wd: p.mul_(1 - lr * wd).sub_(lr * g))
steps("adamw-is-sign", "other adamw-beta", betas=(0.0, 0.0))
steps("adamw-gradients-add-up", "other", step=adamw(change=lambda name, p, g, s, n, lr, wd: (n, s.__setitem__("sum", s.get("sum", 0) + g) or s["sum"], lr, wd)))
steps("adamw-gate-does-not-decay", "other adamw-order", first="loss_curve after.*moe_gate.weight", change=lambda name, p, g, s, n, lr, wd: (n, g, lr, 0.0 if "moe_gate" in name else wd))
steps("adamw-B-learns-faster", "other scale", first="loss_curve after.*lora_B.weight", change=lambda name, p, g, s, n, lr, wd: (n, g, lr * (4 if "lora_B" in name else 1), wd))
steps("adamw-half-the-rate", "other scale", change=lambda name, p, g, s, n, lr, wd: (n, g, lr / 2, wd))
steps("adamw-moments-forgotten", "other adamw-beta", change=lambda name, p, g, s, n, lr, wd: (s["exp_avg"].zero_(), s["exp_avg_sq"].zero_()) and (n, g, lr, wd))
steps("adamw-values-rounded-to-bfloat16", "rounded-weights", step=lambda o, f, name, p, *a: (f(name, p, *a), p.copy_(coarse(p))))
steps("adamw-idle-experts-do-not-decay", "other adamw-order", case="top1", first="loss_curve after.*experts*", step=lambda o, f, name, p, g, *a: f(name, p, g, *a) if g.abs().max() > 0 else None)


def tweak_through(forward, z): return written(forward, lambda g, z: g, z)


# ---- some of them in runs of low precision, where rounding could hide them
for low, names in dict(bfloat16="""rotary-pairs rotary-base-500000 q-rows-permuted key-heads-tiled attention-scale-missing mask-sees-the-next branch-scale-missing-q
 branch-missing-v o-weight-transposed norm-one-plus-weight residual-missing-attention router-weights-unnormalized activation-gelu-for-silu experts-0-and-1-swapped-gate
 expert-outputs-weighted-twice labels-not-shifted loss-is-the-sum softmax-backward-without-the-sum residual-left-out-of-backward-mlp silu-derivative-of-relu
 values-get-no-gradient B-without-gradient router-left-out-of-backward norm-backward-without-second-term""",
                       float16="rotary-position-plus-one q-bias-missing window-one-wider gate-and-up-swapped-shared balance-by-the-first-expert-alone key-gradient-tiled").items():
    for name in names.split(): BUGS[f"{name}-{low}"] = replace(BUGS[name], name=f"{name}-{low}", settings=dict(BUGS[name].settings, dtype=low))


if __name__ == "__main__":
    from collections import Counter
    print(len(BUGS), "bugs:", dict(Counter(b.phase for b in BUGS.values())))
