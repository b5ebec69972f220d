"""A second program for every float64 expectation: plain NumPy, built another way, and finite differences instead of derivatives.

Whole padded batches under one visibility mask (programs.py cuts rows instead), every LoRA merged into its weight, rotation as complex
multiplication, experts as one weighted sum. It shares no code with programs.py, nor with torch. `make.py --check` runs it on every case.
"""
import math
import numpy as np

FORWARD, GRADIENT = 1e-12, 1e-7                   # limits: relative norm of a tensor; |fd - <g,d>| / max(|<g,d>|, |g||d|/sqrt(n))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft(x, cap): return x if not cap else cap - 2 * cap / (np.exp(2 * x / cap) + 1)              # cap tanh(x / cap)


class Model:
    """c: config.json, W: its tensors, a: adapter_config.json or None, P: its tensors. All arrays float64."""

    def __init__(self, c, W, a, P):
        self.c, self.W, self.a, self.P = c, W, a or {}, P
        self.gemma, self.gemma2 = c["model_type"].startswith("gemma"), c["model_type"] == "gemma2"

    def dense(self, i, part, name, expert=None):                  # (W + s B A, bias)
        base, a = f"layers.{i}.{part}.{name}", self.a
        key = f"base_model.model.model.{base}" if a.get("peft_type") == "LORA" else f"mixlora.{base}"
        if expert is not None: key, a = f"{key}.experts.{expert}", {**a, **a.get("expert_lora", {})}
        w = self.W[f"model.{base}.weight"]
        if key + ".lora_A.weight" in self.P:
            r = a["r"]
            w = w + a["lora_alpha"] / (r ** 0.5 if a.get("use_rslora", False) else r) * self.P[key + ".lora_B.weight"] @ self.P[key + ".lora_A.weight"]
        return w.T, self.W.get(f"model.{base}.bias", 0.0)

    def norm(self, x, name): return x / np.sqrt(np.mean(x ** 2, -1, keepdims=True) + self.c["rms_norm_eps"]) * (self.W[f"model.{name}.weight"] + (1.0 if self.gemma else 0.0))

    def turn(self, T, D):                                         # (T,1,D/2) complex numbers, one per column and pair of channels
        if "rope_parameters" in self.c: rope, base = self.c["rope_parameters"], self.c["rope_parameters"]["rope_theta"]
        else: rope, base = self.c.get("rope_scaling") or {}, self.c.get("rope_theta", 10000.0)
        w, size, kind, grown = 1.0 / base ** (np.arange(0, D, 2) / D), 1.0, rope.get("rope_type"), rope.get("factor")
        known = self.c["max_position_embeddings"]
        if kind == "linear": w = w / grown
        if kind == "dynamic" and T > known: w = w * (1 + grown * (T - known) / known) ** (-np.arange(0, D, 2) / (D - 2))
        if kind == "yarn":                                        # by turns: t(j) = T w / 2π; the bounds of its logarithm are those of j
            old, j = rope.get("original_max_position_embeddings", known), np.arange(D // 2)
            ends = [-D / 2 * np.emath.logn(base, 2 * np.pi * rope.get(k, d) / old) for k, d in (("beta_fast", 32), ("beta_slow", 1))]
            if rope.get("truncate", True): ends = [np.floor(ends[0]), np.ceil(ends[1])]
            ends = [max(ends[0], 0), min(ends[1], D - 1)]
            w = w * np.interp(j, [ends[0], ends[1] + (ends[0] == ends[1]) / 1000], [1, 1 / grown])
            m = [np.log(grown ** (0.1 * rope.get(k, 0))) + 1 for k in ("mscale", "mscale_all_dim")]
            size = rope["attention_factor"] if rope.get("attention_factor") is not None else m[0] / m[1] if all(rope.get(k) for k in ("mscale", "mscale_all_dim")) else np.log(grown ** 0.1) + 1
        if kind == "longrope":
            old = self.c.get("original_max_position_embeddings") or (rope["original_max_position_embeddings"] if "rope_parameters" in self.c else known)
            w = w / np.array(rope["short_factor"] if T <= old else rope["long_factor"])
            ratio = known / old if "original_max_position_embeddings" in self.c else grown or known / old
            size = rope.get("attention_factor") or np.sqrt(np.emath.logn(old, old * ratio))
        if kind == "llama3":
            length, old, slow = 2 * np.pi / w, rope["original_max_position_embeddings"], w / rope["factor"]
            s = (old / length - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            w = np.where(length < old / rope["high_freq_factor"], w, np.where(length > old / rope["low_freq_factor"], slow, (1 - s) * slow + s * w))
        return size * np.exp(1j * np.arange(T)[:, None, None] * w)

    def attention(self, i, x, real):
        c, (B, T, _) = self.c, x.shape
        H, D = c["num_attention_heads"], c.get("head_dim") or x.shape[-1] // c["num_attention_heads"]
        heads = {}
        for n in "qkv":
            w, b = self.dense(i, "self_attn", n + "_proj")
            heads[n] = (x @ w + b).reshape(B, T, -1, D)
        for n in "qk":
            z = (heads[n][..., :D // 2] + 1j * heads[n][..., D // 2:]) * self.turn(T, D)
            heads[n] = np.concatenate([z.real, z.imag], -1)
        for n in "kv": heads[n] = np.repeat(heads[n], H // heads[n].shape[2], 2)
        back = np.arange(T)[:, None] - np.arange(T)[None]         # (T,T)
        windowed = c["model_type"] == "mistral" or (c["model_type"] == "qwen2" and c.get("use_sliding_window") and i >= c["max_window_layers"])
        W = c.get("sliding_window") if windowed or (self.gemma2 and i % 2 == 0) else None
        seen = (back >= 0) & (back < (W or T)) & real[:, None, None, :] | np.eye(T, dtype=bool)      # (B,1,T,T); a padded column sees itself
        score = np.einsum("bnhd,bmhd->bhnm", heads["q"], heads["k"]) / (c["query_pre_attn_scalar"] if self.gemma2 else D) ** 0.5
        score = np.where(seen, soft(score, c.get("attn_logit_softcapping")), -np.inf)
        w, b = self.dense(i, "self_attn", "o_proj")
        return np.einsum("bhnm,bmhd->bnhd", softmax(score), heads["v"]).reshape(B, T, -1) @ w + b

    def swiglu(self, i, x, e=None):
        (w1, b1), (w3, b3), (w2, b2) = (self.dense(i, "mlp", n + "_proj", e) for n in ("gate", "up", "down"))
        h = x @ w1 + b1
        g = (8 / np.pi) ** 0.5 * (h + 0.044715 * h * h * h) if self.gemma else h                  # either activation is h times a logistic curve
        return h / (1 + np.exp(-g)) * (x @ w3 + b3) @ w2 + b2

    def routed(self, p, hold):
        """(weights, chosen), both (B,T,E)"""
        dynamic = self.a["routing_strategy"] == "mixlora-dynamic"
        if dynamic and self.a["temperature"] > 0: p = p / self.a["temperature"]
        order = np.argsort(-p, -1, kind="stable")
        place = np.argsort(order, -1)                                                             # 0 for the likeliest expert
        before = np.array([(p * (place < k)).sum(-1) for k in range(p.shape[-1])])                # (E,B,T) what the k likeliest have together
        keep = hold if hold is not None else place < ((before <= self.a["top_p"]).sum(0)[..., None] if dynamic else self.a["top_k"])
        return p * keep / (1.0 if dynamic else (p * keep).sum(-1, keepdims=True)), keep

    def forward(self, ids, real, hold=None):
        """logits (B,T,V), router logits (layers,B,T,E), chosen (layers,B,T,E) bool; `hold` fixes the choice, for finite differences."""
        x, routers, chosen = self.W["model.embed_tokens.weight"][ids], [], []
        if self.gemma: x = x * np.sqrt(np.float64(x.shape[-1]))
        for i in range(self.c["num_hidden_layers"]):
            layer = f"layers.{i}."
            y = self.attention(i, self.norm(x, layer + "input_layernorm"), real)
            x = x + (self.norm(y, layer + "post_attention_layernorm") if self.gemma2 else y)
            z = self.norm(x, layer + ("pre_feedforward_layernorm" if self.gemma2 else "post_attention_layernorm"))
            if "num_experts" in self.a:
                routers.append(z @ self.P[f"mixlora.{layer}mlp.moe_gate.weight"].T)
                w, keep = self.routed(softmax(routers[-1]), None if hold is None else hold[i])
                chosen.append(keep)
                y = sum(w[..., e, None] * self.swiglu(i, z, e) for e in range(self.a["num_experts"]))
            else: y = self.swiglu(i, z)
            x = x + (self.norm(y, layer + "post_feedforward_layernorm") if self.gemma2 else y)
        own = "lm_head.weight" in self.W                                                          # else the head is the embedding
        y = self.norm(x, "norm") @ self.W["lm_head.weight" if own else "model.embed_tokens.weight"].T
        return soft(y, self.c.get("final_logit_softcapping")), np.array(routers), np.array(chosen)

    def losses(self, batch, form, hold=None):
        """(logits, router logits, both 0 at padding; cross-entropy; balance loss; what to hold)"""
        ids = batch["input_ids"]
        real = batch.get("attention_mask", np.ones_like(ids)).astype(bool)
        logits, r, chosen = self.forward(ids, real, hold and hold[0])
        nll, n = 0.0, 0
        for b, t in np.argwhere(real[:, 1:] & real[:, :-1] & (batch["labels"][:, 1:] != -100)):
            z = logits[b, t]
            nll, n = nll + z.max() + math.log(np.exp(z - z.max()).sum()) - z[batch["labels"][b, t + 1]], n + 1
        logits = logits * real[..., None]
        if not len(r): return logits, None, nll / n, 0.0, None
        p, E = softmax(r), self.a["num_experts"]
        share = hold[1] if hold else (chosen if form == "pooledTopK" else r >= r.max(-1, keepdims=True))
        F, Q = share[:, real].mean(1), p[:, real].mean(1)                                         # (layers,E); every layer has as many tokens
        aux = (F.mean(0) * Q.mean(0)).sum() if form == "pooledTopK" else (F * Q).sum(-1).mean()
        aux *= self.a.get("router_aux_loss_coef", 0.001) * E if self.a.get("router_loss", True) else 0.0
        return logits, (r * real[..., None]).reshape(-1, E), nll / n, aux, (chosen, share)


def check(c, W, a, P, batch, expected, form="pooledTopK", seed=0):
    """Largest error of the forward tensors that are there, and of the gradients; each gradient along one random direction."""
    W, P = ({k: v.astype(np.float64) for k, v in t.items()} for t in (W, P))
    model = Model(c, W, a, P)
    logits, router, loss, aux, hold = model.losses(batch, form)
    ours = dict(logits=logits, router_logits=router, loss=np.array([loss]), aux_loss=np.array([aux]))
    error = lambda x, y: float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-300)) if np.any(x != y) else 0.0
    ours["loss_curve"] = ours["loss"] + ours["aux_loss"]
    forward = [error(v, expected[k][:1] if k == "loss_curve" else expected[k]) for k, v in ours.items() if k in expected]
    random, gradient, step = np.random.default_rng(seed), [], 3e-4
    total = lambda: sum(model.losses(batch, form, hold)[2:4])
    for k, g in ((k[5:], g) for k, g in expected.items() if k.startswith("grad.")):
        where = P if k in P else W
        kept, d = where[k], random.standard_normal(g.shape)
        d, fd = d / np.linalg.norm(d), 0.0
        for times, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):                                # central, error of order step^4
            where[k] = kept + times * step * d
            fd += weight * total() / (12 * step)
        where[k] = kept
        exact, scale = float((g * d).sum()), float(np.linalg.norm(g)) / math.sqrt(g.size)
        gradient.append(abs(fd - exact) / max(abs(exact), scale, 1e-300) if fd != exact else 0.0)
    return {**(dict(forward=max(forward)) if forward else {}), "gradient": max(gradient, default=0.0)}


# ---- optimisers and schedules

def optimize(run, start, gradients):
    """As programs.optimize, float64."""
    p, m, v, seen, norms = dict(start), {}, {}, {k: [] for k in start}, []
    for t in range(len(next(iter(gradients.values())))):
        g = {k: gradients[k][t] for k in p}
        norms.append(math.sqrt(sum((x ** 2).sum() for x in g.values())))
        factor = min(1.0, run["max_norm"] / (norms[-1] + 1e-6)) if "max_norm" in run else 1.0
        for k in p:
            lr, x, decay = run["lr"] * (run.get("lora_plus", 1.0) if "lora_B" in k else 1.0), factor * g[k], run["weight_decay"]
            if run["optimizer"] == "adamw":                       # decay first, at the group's own lr
                m[k] = 0.9 * m.get(k, 0) + 0.1 * x
                v[k] = 0.999 * v.get(k, 0) + 0.001 * x ** 2
                p[k] = p[k] * (1 - lr * decay) - lr * (m[k] / (1 - 0.9 ** (t + 1))) / (np.sqrt(v[k] / (1 - 0.999 ** (t + 1))) + 1e-8)
            else:                                                 # decay is part of the gradient, and so of the momentum
                x = x + decay * p[k]
                m[k] = run["momentum"] * m.get(k, 0) + x
                p[k] = p[k] - lr * m[k]
            seen[k].append(p[k])
    return dict(norm=np.array(norms), **{k: np.array(x) for k, x in seen.items()})


def schedule(name, steps, warmup, lr):
    """The closed forms, step by step."""
    out = []
    for t in range(steps):
        x = (t - warmup) / max(1, steps - warmup)                 # 0 … 1 after the warm-up
        if name != "constant" and t < warmup: factor = t / warmup # so the very first step uses lr 0
        elif name == "linear": factor = 1 - x
        elif name == "cosine": factor = (1 + math.cos(math.pi * x)) / 2
        elif name == "cosine_with_restarts": factor = (1 + math.cos(math.pi * (x % 1))) / 2                  # one cycle: nothing restarts
        elif name == "polynomial": factor = 1 - x + x * 1e-7 / lr # power 1, down to 1e-7
        elif name == "inverse_sqrt": factor = ((t - warmup) / (warmup or 10000) + 1) ** -0.5
        else: factor = 1.0
        out.append(lr * factor)
    return out
