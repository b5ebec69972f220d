"""A MixLoRA model written by hand in PyTorch: what `mixlora compare` is tried on. It shares nothing with the Swift program.

It reads the files that `mixlora trace` reads (a Hugging Face folder, an adapter folder of MoE-PEFT or PEFT, a batch) and records its run
with the capture helper that `mixlora capture-helper torch` prints. Families: llama, mistral (window), qwen2 (biases), gemma (1 + w, √C).

`Operations` is the mathematics, a method an operation: bugs.py overrides one of them in one layer. `Candidate` puts them together.
`Settings` changes the order of sums and what is fused, never the meaning. N tokens, C channels, H heads, G key heads, D head width,
F hidden width, E experts, K experts a token.

usage: candidate.py MODEL ADAPTER|- BATCH OUT [key=value …]     as in  dtype=bfloat16 order=split fused=1 experts=batched steps=3
"""
import json, math, sys
from dataclasses import dataclass
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "Sources/CEmbedded/Capture"))
from mixlora_capture_torch import Capture

ATTENTION, FEED_FORWARD = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]


@dataclass
class Settings:
    dtype: str = "float32"        # of activations and of frozen weights; what is trained stays float32 (float64 in a float64 run)
    order: str = "plain"          # of the sums in products: plain, split (in two), reversed, chunked (a running sum)
    fused: int = 0                # attention by scaled_dot_product_attention; the points inside a fused part are not recorded
    experts: str = "perExpert"    # perExpert (the definition), sharedBase (W1, W2, W3 once for all), batched (one bmm for all experts' branches)
    wide: int = 0                 # branches of low rank in float32, as MoE-PEFT computes them
    threads: int = 1
    steps: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.01


def wide(x): return x if x.dtype in (torch.float32, torch.float64) else x.float()


class Operations:
    """The operations of one layer, or of what stands before and behind the layers (layer None)."""

    def __init__(self, model, layer=None):
        self.model, self.layer, self.c, self.a, self.s = model, layer, model.c, model.a or {}, model.s
        self.gemma = self.c["model_type"].startswith("gemma")

    # ---- what the files hold

    def weight(self, linear):                                    # W and b of a frozen layer
        name = f"model.layers.{self.layer}.{'self_attn' if linear in ATTENTION else 'mlp'}.{linear}"
        return self.model.W[name + ".weight"], self.model.W.get(name + ".bias")

    def branch(self, linear, expert=None):                       # A and B of a branch, or None where the adapter has none
        name, P = f"layers.{self.layer}.{'self_attn' if linear in ATTENTION else 'mlp'}.{linear}", self.model.P
        name = f"base_model.model.model.{name}" if not self.model.mixture else f"mixlora.{name}" if expert is None else f"mixlora.{name}.experts.{expert}"
        return (P[name + ".lora_A.weight"], P[name + ".lora_B.weight"]) if name + ".lora_A.weight" in P else None

    # ---- products

    def product(self, x, w):                                     # x (…,I), w (O,I) → x wᵀ (…,O)
        if self.s.order == "plain": return x @ w.T
        if self.s.order == "reversed": return x.flip(-1) @ w.flip(-1).T
        parts = 2 if self.s.order == "split" else 4
        xs, ws = x.chunk(parts, -1), w.chunk(parts, -1)
        y = xs[0] @ ws[0].T
        for a, b in zip(xs[1:], ws[1:]): y = y + a @ b.T
        return y

    def linear(self, x, w, b, place):                            # x wᵀ + b; `place` says which layer it is, as in "q_proj"
        y = self.product(x, w)
        return y if b is None else y + b

    def scale(self, place):                                      # s = alpha / r, or alpha / √r
        a = self.a if place in ATTENTION else {**self.a, **self.a.get("expert_lora", {})}
        return a["lora_alpha"] / (math.sqrt(a["r"]) if a.get("use_rslora") else a["r"])

    def low_rank(self, x, A, B, place):                          # s (x Aᵀ) Bᵀ
        h = self.product(wide(x), A) if self.s.wide else self.product(x, A.to(x.dtype))
        return (self.scale(place) * self.product(h, B.to(h.dtype))).to(x.dtype)

    def add(self, y, branch, place): return y + branch           # base + branch

    # ---- embedding, norm, residual

    def embed(self, ids, w): return w[ids] * self.embedding_scale()
    def embedding_scale(self): return math.sqrt(self.c["hidden_size"]) if self.gemma else 1
    def epsilon(self): return self.c["rms_norm_eps"]

    def norm(self, x, g, place):                                 # ρ x ⊙ g,  ρ = 1/√(mean x² + ε)
        z = wide(x)
        y = z * torch.rsqrt((z * z).mean(-1, keepdim=True) + self.epsilon())
        return (y * (1 + wide(g))).to(x.dtype) if self.gemma else y.to(x.dtype) * g

    def residual(self, x, y, place): return x + y                # place: "attention" or "mlp"

    # ---- attention

    def theta(self): return self.c.get("rope_theta", 10000.0)
    def positions(self, T): return torch.arange(T)

    def frequencies(self, D): return self.theta() ** (-torch.arange(0, D // 2, dtype=torch.float64) / (D // 2))

    def angles(self, T, D):                                      # (T,D/2)
        return self.positions(T).double()[:, None] * self.frequencies(D)

    def rotate(self, z, place):                                  # (B,T,heads,D); channel j turns with channel j + D/2
        D = z.shape[-1]
        angle = self.angles(z.shape[1], D)
        cos, sin = (f(angle).to(wide(z).dtype).to(z.dtype)[:, None] for f in (torch.cos, torch.sin))
        a, b = z[..., :D // 2], z[..., D // 2:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def repeat(self, z, times): return z.repeat_interleave(times, 2)                        # (B,T,G,D) → (B,T,H,D)
    def attention_scale(self, D): return 1 / math.sqrt(D)

    def window(self):                                            # Qwen2's is a switch, and has a first layer
        qwen2 = self.c["model_type"] == "qwen2"
        if qwen2 and not (self.c.get("use_sliding_window") and self.layer >= self.c.get("max_window_layers", 28)): return None
        return self.c.get("sliding_window")

    def visible(self, real):                                     # (B,T,T): query t sees key u
        T = real.shape[1]
        t, u = torch.arange(T)[:, None], torch.arange(T)[None]
        seen = u <= t
        if self.window(): seen = seen & (u > t - self.window())
        return (seen & real[:, None, :]) | torch.eye(T, dtype=torch.bool)                   # padding looks at itself: no empty row

    def softmax(self, z): return torch.softmax(wide(z), -1).to(z.dtype)

    def attend(self, q, k, v, seen):                             # (B,T,H,D) each → (B,T,H,D)
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        if self.s.fused:
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None], scale=self.attention_scale(q.shape[-1]))
        else:
            z = (q @ k.transpose(-1, -2) * self.attention_scale(q.shape[-1])).masked_fill(~seen[:, None], -math.inf)
            o = self.softmax(z) @ v
        return o.transpose(1, 2)

    # ---- router

    def gate(self, x, w): return self.product(wide(x), w)        # (M,E)
    def probabilities(self, z): return torch.softmax(z, -1)

    def choose(self, p):                                         # (M,K) experts, −1 where there is none, by falling p
        if "top_p" not in self.a: return p.sort(dim=-1, descending=True, stable=True)[1][:, :self.a.get("top_k", 2)]
        q, order = self.tempered(p).sort(dim=-1, descending=True, stable=True)
        return order.masked_fill(q.cumsum(-1) - q > self.a["top_p"], -1)

    def tempered(self, p): return p / self.a["temperature"] if self.a.get("temperature") else p

    def weights(self, p, choice):                                # (M,K)
        w = self.tempered(p).gather(-1, choice.clamp(min=0)) * (choice >= 0)
        return w if "top_p" in self.a else w / w.sum(-1, keepdim=True)

    def dispatch(self, choice, real, expert):                    # the tokens of an expert and which of their slots it is
        return ((choice == expert) & real[:, None]).nonzero(as_tuple=True)

    def balance(self, p, choice):                                # of all layers together: (layers·N,E), (layers·N,K)
        if not self.a.get("router_loss", True): return p.new_zeros(())
        E = p.shape[-1]
        share = F.one_hot(choice + 1, E + 1)[..., 1:].sum((0, 1)).to(p.dtype) / len(p)
        return self.a.get("router_aux_loss_coef", 0.001) * E * (share * p.mean(0)).sum()

    # ---- experts

    def activation(self, a): return F.gelu(a, approximate="tanh") if self.gemma else F.silu(a)
    def hidden(self, a, c): return self.activation(a) * c
    def gather(self, x, tokens): return x[tokens]                # (M,·) → (rows,·)
    def weigh(self, w, e, expert): return wide(w[:, None] * e)   # (rows,·), summed in float32
    def scatter(self, y, tokens, e): return y.index_add(0, tokens, e)

    # ---- losses

    def counted(self, real, labels):                             # (B,T): whose label is asked
        yes = torch.zeros_like(real)
        yes[:, 1:] = real[:, 1:] & real[:, :-1] & (labels[:, 1:] != -100)
        return yes

    def cross_entropy(self, logits, labels, yes):                # column t is predicted by column t − 1
        z, y, yes = wide(logits)[:, :-1], labels[:, 1:].clamp(min=0), yes[:, 1:]
        return self.mean(-torch.log_softmax(z, -1).gather(-1, y[..., None])[..., 0], yes)

    def mean(self, terms, yes): return terms[yes].sum() / yes.sum()
    def total(self, loss, aux): return loss + aux

    def clear(self, parameters):
        for p in parameters: p.grad = None

    def adamw(self, name, p, g, state, step, lr, decay):               # torch's order: the decay first
        beta1, beta2, eps = 0.9, 0.999, 1e-8
        m, v = (state.setdefault(moment, torch.zeros_like(p)) for moment in ("exp_avg", "exp_avg_sq"))
        p.mul_(1 - lr * decay)
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        p.sub_(lr * (m / (1 - beta1 ** step)) / ((v / (1 - beta2 ** step)).sqrt() + eps))


class Candidate:
    """The model: its files, and the pass. `operations(model, layer)` gives the operations of a layer; bugs.py gives others."""

    def __init__(self, model, adapter, settings, operations=Operations):
        self.s, self.c = settings, json.loads((Path(model) / "config.json").read_text())
        self.a, self.P = None, {}
        if adapter:
            folder = Path(adapter)
            self.a = json.loads((folder / "adapter_config.json").read_text())
            pickled = folder / "adapter_model.bin"
            self.P = torch.load(pickled, weights_only=True) if pickled.exists() else load_file(folder / "adapter_model.safetensors")
        dtype = getattr(torch, settings.dtype)
        self.W = {k: v.to(dtype) for k, v in load_file(Path(model) / "model.safetensors").items()}
        self.P = {k: v.detach().to(torch.float64 if dtype == torch.float64 else torch.float32).clone().requires_grad_() for k, v in self.P.items()}
        self.mixture = bool(self.a) and self.a["peft_type"] == "MIXLORA"
        self.ops, self.outer = [operations(self, i) for i in range(self.c["num_hidden_layers"])], operations(self, None)

    def base(self, i, x, linear): return self.ops[i].linear(x, *self.ops[i].weight(linear), linear)

    def adapted(self, i, x, linear, expert=None, base=None):
        """W x + b + s B A x"""
        y, branch = self.base(i, x, linear) if base is None else base, self.ops[i].branch(linear, expert)
        return y if branch is None else self.ops[i].add(y, self.ops[i].low_rank(x, *branch, linear), linear)

    def attention(self, i, x, real, see):
        ops, (B, T, _) = self.ops[i], x.shape
        H = self.c["num_attention_heads"]
        G, D = self.c.get("num_key_value_heads", H), self.c.get("head_dim") or self.c["hidden_size"] // H
        q, k, v = (see(f"{n}.output", self.adapted(i, x, n)).view(B, T, -1, D) for n in ("q_proj", "k_proj", "v_proj"))
        q, k = ops.rotate(q, "q_proj"), ops.rotate(k, "k_proj")
        if not self.s.fused: q, k = (see(f"{n}.rotated.output", z.flatten(2)).view(z.shape) for n, z in (("q_proj", q), ("k_proj", k)))
        o = ops.attend(q, ops.repeat(k, H // G), ops.repeat(v, H // G), ops.visible(real))
        o = see("o_proj.input", o.flatten(2))
        return see("output", see("o_proj.output", self.adapted(i, o, "o_proj")))

    def experts(self, i, x, real, see):
        """x (M,C), real (M); y = Σ_k w_k e_k"""
        ops, gate = self.ops[i], self.P[f"mixlora.layers.{i}.mlp.moe_gate.weight"]
        z = see("moe_gate.output", ops.gate(x, gate))
        p = see("moe_gate.probabilities.output", ops.probabilities(z), gradient=False)
        choice = see("moe_gate.choice", ops.choose(p))
        w = see("moe_gate.weights.output", ops.weights(p, choice))
        rows = {e: ops.dispatch(choice, real, e) for e in range(len(gate))}
        rows = {e: r for e, r in rows.items() if len(r[0])}
        shared = self.s.experts != "perExpert"
        bases = {n: see(f"{n}.base.output", self.base(i, x, n)) if shared else None for n in ("gate_proj", "up_proj")}

        def stage(linear, inputs):                               # every expert's W x + s B A x, by the expert's number
            if linear == "down_proj": base = {e: None for e in rows} if not shared else {e: 0 for e in rows}
            else: base = {e: ops.gather(bases[linear], t) if shared else None for e, (t, _) in rows.items()}
            if self.s.experts == "batched" and all(ops.branch(linear, e) for e in rows):
                longest = max(len(v) for v in inputs.values())
                padded = torch.stack([F.pad(v, (0, 0, 0, longest - len(v))) for v in inputs.values()])                      # (E',longest,I)
                A, B = (torch.stack([ops.branch(linear, e)[j] for e in rows]).to(padded.dtype) for j in (0, 1))
                out = ops.scale(linear) * (padded @ A.transpose(1, 2) @ B.transpose(1, 2))
                return {e: ops.add(base[e], y[:len(inputs[e])], linear) for e, y in zip(rows, out)}
            return {e: self.adapted(i, v, linear, e, base[e]) for e, v in inputs.items()}

        def seen(point, values): return {e: see(f"experts.{e}.{point}", v, tokens=rows[e][0]) for e, v in values.items()}
        into = {e: ops.gather(x, t) for e, (t, _) in rows.items()}
        a = seen("gate_proj.output", stage("gate_proj", into))
        c = seen("up_proj.output", stage("up_proj", into))
        h = seen("hidden", {e: ops.hidden(a[e], c[e]) for e in rows})
        d = stage("down_proj", h)
        if not shared: d = seen("down_proj.output", d)
        y, u = (wide(x.new_zeros(len(x), n)) for n in (x.shape[1], next(iter(h.values())).shape[1]))
        for e, (t, k) in rows.items():
            if isinstance(d[e], torch.Tensor): y = ops.scatter(y, t, ops.weigh(w[t, k], d[e], e))
            if shared: u = ops.scatter(u, t, ops.weigh(w[t, k], h[e], e))
        if shared: y = y + wide(self.base(i, see("down_proj.input", u.to(x.dtype)), "down_proj"))
        return y.to(x.dtype), p[real], choice[real]

    def feed_forward(self, i, x, real, see):
        if self.mixture:
            y, *routing = self.experts(i, x.flatten(0, 1), real.flatten(), see)
            self.routing.append(routing)
            return see("output", y.view(x.shape))
        a, c = (see(f"{n}.output", self.adapted(i, x, n)) for n in ("gate_proj", "up_proj"))
        h = see("down_proj.input", self.ops[i].hidden(a, c))
        return see("output", see("down_proj.output", self.adapted(i, h, "down_proj")))

    def forward(self, batch, see):
        """logits (B,T,V), cross-entropy, balance loss"""
        ids, self.routing, outer = batch["input_ids"], [], self.outer
        real = self.real = batch.get("attention_mask", torch.ones_like(ids)).bool()
        x = outer.embed(ids, self.W["model.embed_tokens.weight"])
        if not x.requires_grad and torch.is_grad_enabled(): x.requires_grad_()
        x = see("model.embed_tokens.output", x)
        for i, ops in enumerate(self.ops):
            name = f"model.layers.{i}."
            within = lambda part: lambda point, t, **more: see(f"{name}{part}.{point}", t, **more)
            n = see(f"{name}input_layernorm.output", ops.norm(x, self.W[f"{name}input_layernorm.weight"], "input_layernorm"))
            x = see(f"{name}residual.output", ops.residual(x, self.attention(i, n, real, within("self_attn")), "attention"))
            n = see(f"{name}post_attention_layernorm.output", ops.norm(x, self.W[f"{name}post_attention_layernorm.weight"], "post_attention_layernorm"))
            x = see(f"{name}output", ops.residual(x, self.feed_forward(i, n, real, within("mlp")), "mlp"))
        x = see("model.norm.output", outer.norm(x, self.W["model.norm.weight"], "norm"))
        logits = see("lm_head.output", outer.linear(x, self.W.get("lm_head.weight", self.W["model.embed_tokens.weight"]), None, "lm_head"))
        loss = outer.cross_entropy(logits, batch["labels"], outer.counted(real, batch["labels"]))
        aux = outer.balance(*(torch.cat(z) for z in zip(*self.routing))) if self.mixture else loss.new_zeros(())
        return logits, loss, aux

    def run(self, batch, out):
        """The pass, backward and the steps, recorded into `out`."""
        torch.set_num_threads(self.s.threads)
        ids = batch["input_ids"]
        capture = Capture(None, batch.get("attention_mask", torch.ones_like(ids)), parameters=self.P)
        state = {k: {} for k in self.P}
        for step in range(max(1, self.s.steps)):
            logits, loss, aux = self.forward(batch, capture.record)
            self.outer.clear(self.P.values())
            self.outer.total(loss, aux).backward()
            capture.step(loss, aux, logits)
            with torch.no_grad():
                for k, p in self.P.items():
                    if self.s.steps: self.outer.adamw(k, p, torch.zeros_like(p) if p.grad is None else p.grad, state[k], step + 1, self.s.lr, self.s.weight_decay)
        groups = type("Steps", (), dict(param_groups=[dict(lr=self.s.lr, weight_decay=self.s.weight_decay)], state={p: state[k] for k, p in self.P.items()}))
        capture.save(out, groups if self.s.steps else None)


def main(model, adapter, batch, out, *more):
    settings = Settings()
    for key, value in (m.split("=") for m in more): setattr(settings, key, type(getattr(settings, key))(value))
    Candidate(model, None if adapter == "-" else adapter, settings).run(load_file(batch), out)


if __name__ == "__main__": main(*sys.argv[1:])
