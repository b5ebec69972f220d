"""The programs that say what a case must give: our own in float64, and other people's.

The definition is written in plain torch tensors, float64: no attention mask and no padding (each row is cut to its real columns), no
expert shares anything with another, every derivative is autograd's. Beside it stand Hugging Face (float64, with LoRA and experts put in
by modules of another construction), MoE-PEFT (float32) and PEFT (both). All return the tensors of a trace by name:
logits, router_logits (zero at padding), loss, aux_loss, grad.*, and after three AdamW steps loss_curve and after.*
"""
import math, os, re
from contextlib import nullcontext
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

STEPS, LR, DECAY = 3, 0.01, 0.01                 # AdamW; the rest are torch's defaults
ATTENTION, FFN = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "down_proj", "up_proj"]
FAMILY = dict(llama="Llama", mistral="Mistral", qwen2="Qwen2", gemma="Gemma", gemma2="Gemma2")


# ---- what a configuration means

def head_width(c): return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def key_value_heads(c): return c.get("num_key_value_heads", c["num_attention_heads"])


def is_gemma(c): return c["model_type"] in ("gemma", "gemma2")


def tied(c): return c.get("tie_word_embeddings", is_gemma(c))


def window(c, layer):
    """Key j is visible to query i when 0 <= i - j < window."""
    if c["model_type"] == "mistral": return c.get("sliding_window") or math.inf
    if c["model_type"] == "qwen2" and c.get("use_sliding_window") and layer >= c["max_window_layers"]: return c["sliding_window"]
    if c["model_type"] == "gemma2" and layer % 2 == 0: return c["sliding_window"]
    return math.inf


def score_scale(c): return c["query_pre_attn_scalar"] ** 0.5 if c["model_type"] == "gemma2" else math.sqrt(head_width(c))


def capped(x, cap): return x if cap is None else cap * torch.tanh(x / cap)


def frequencies(c, length):
    """Radians per position of each pair of channels (D/2) in a batch of `length` columns, and what cos and sin are multiplied with. As
    transformers 4.57.6 has it for `rope_scaling` and 5 for `rope_parameters`, equation by equation of the papers."""
    rope = c.get("rope_parameters") or {"rope_theta": c.get("rope_theta", 10000.0), **(c.get("rope_scaling") or {})}
    kind, factor, D, f, magnitude = rope.get("rope_type", rope.get("type", "default")), rope.get("factor"), head_width(c), [], 1.0
    base, positions = rope["rope_theta"], c["max_position_embeddings"]
    stretch = lambda m=1: 1 + 0.1 * m * math.log(factor) if factor > 1 else 1.0
    if kind == "dynamic": base *= (factor * max(length, positions) / positions - factor + 1) ** (D / (D - 2))
    if kind == "yarn":
        old = rope.get("original_max_position_embeddings") or positions
        magnitude = rope.get("attention_factor")
        if magnitude is None: magnitude = stretch(rope["mscale"]) / stretch(rope["mscale_all_dim"]) if rope.get("mscale") and rope.get("mscale_all_dim") else stretch()
        edge = lambda turns: D * math.log(old / (2 * math.pi * turns)) / (2 * math.log(base))             # which pair makes so many turns in the old context
        low, high = edge(rope.get("beta_fast") or 32), edge(rope.get("beta_slow") or 1)
        if rope.get("truncate", True): low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, D - 1)
    if kind == "longrope":
        old = c.get("original_max_position_embeddings") or ("rope_parameters" in c and rope.get("original_max_position_embeddings")) or positions
        if "original_max_position_embeddings" in c and ("rope_scaling" in c or factor is None): factor = positions / old
        magnitude = rope.get("attention_factor")
        if magnitude is None: magnitude = math.sqrt(1 + math.log(factor) / math.log(old)) if factor > 1 else 1.0
    for j in range(D // 2):
        w = base ** (-2 * j / D)
        if kind == "linear": w /= factor
        if kind == "llama3":                                      # turns within the original context: many: as it is; few: slower; between: between
            turns = rope["original_max_position_embeddings"] * w / (2 * math.pi)
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            fast = min(max((turns - low) / (high - low), 0), 1)
            w = fast * w + (1 - fast) * w / factor
        if kind == "yarn":
            slow = min(max((j - low) / (high - low if high != low else 0.001), 0), 1)
            w = (1 - slow) * w + slow * w / factor
        if kind == "longrope": w /= rope["long_factor" if length > old else "short_factor"][j]
        f.append(w)
    return torch.tensor(f, dtype=torch.float64), magnitude


def lora_scale(a): return a["lora_alpha"] / (math.sqrt(a["r"]) if a.get("use_rslora") else a["r"])


def coefficient(a): return a.get("router_aux_loss_coef", 0.001) * a.get("router_loss", True)


def is_dynamic(a): return a["routing_strategy"] == "mixlora-dynamic"


def tempered(a, p): return p / a["temperature"] if a["temperature"] > 0 else p


def up_to(q, top_p):
    """(…,E) bool: experts by falling q, ties by the lower index, up to and including the first at which the sum exceeds top_p."""
    yes = torch.zeros_like(q, dtype=torch.bool)
    for token, row in zip(yes.view(-1, q.shape[-1]), q.detach().reshape(-1, q.shape[-1]).tolist()):
        total = 0.0
        for e in sorted(range(len(row)), key=lambda e: (-row[e], e)):
            token[e], total = True, total + row[e]
            if total > top_p: break
    return yes


def experts_chosen(a, batch, out):
    """How many experts the real tokens of all layers have: {number: tokens}, before any step."""
    r = out["router_logits"].view(-1, real(batch).numel(), a["num_experts"])[:, real(batch).flatten()]
    n = up_to(tempered(a, r.softmax(-1)), a["top_p"]).sum(-1).flatten().tolist()
    return {k: n.count(k) for k in sorted(set(n))}


def counted(batch):
    """Columns (B,T) whose label counts: this and the one before are real, and the label is not -100."""
    mask, yes = real(batch), torch.zeros_like(batch["labels"], dtype=torch.bool)
    yes[:, 1:] = mask[:, 1:] & mask[:, :-1] & (batch["labels"][:, 1:] != -100)
    return yes


def real(batch): return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


# ---- the definition. N tokens of one row, C channels, H heads, G key/value heads, D head width, E experts, K per token

class Row:
    """One row of the batch of `length` columns, cut to its real ones, through the whole model. Without an adapter: a None, P empty."""

    def __init__(self, c, W, a, P, length):
        self.c, self.W, self.a, self.P, self.router_logits = c, W, a or {}, P, []
        self.turning = length and frequencies(c, length)

    def linear(self, i, part, name, x, expert=None):              # W x + b + s B A x, where there are b, and A and B
        base, a = f"layers.{i}.{part}.{name}", self.a
        y = x @ self.W[f"model.{base}.weight"].T + self.W.get(f"model.{base}.bias", 0)
        lora = ("base_model.model.model." if a.get("peft_type") == "LORA" else "mixlora.") + base
        if expert is not None: lora, a = f"{lora}.experts.{expert}", {**a, **a.get("expert_lora", {})}
        if f"{lora}.lora_A.weight" not in self.P: return y
        A, B = (self.P[f"{lora}.lora_{m}.weight"] for m in "AB")
        return y + lora_scale(a) * (x @ A.T @ B.T)

    def attention(self, i, x, position):
        H, G, D, N = self.c["num_attention_heads"], key_value_heads(self.c), head_width(self.c), len(x)
        q, k, v = (self.linear(i, "self_attn", n, x).reshape(N, h, D) for n, h in (("q_proj", H), ("k_proj", G), ("v_proj", G)))
        q, k = (rotate(z, position, *self.turning) for z in (q, k))
        k, v = (z.repeat_interleave(H // G, 1) for z in (k, v))                                   # (N,H,D)
        score = torch.einsum("nhd,mhd->hnm", q, k) / score_scale(self.c)
        back = position[:, None] - position[None]                                                 # (N,N) how far key m lies behind query n
        score = capped(score, self.c.get("attn_logit_softcapping"))
        score = score.masked_fill((back < 0) | (back >= window(self.c, i)), -math.inf)
        return self.linear(i, "self_attn", "o_proj", torch.einsum("hnm,mhd->nhd", score.softmax(-1), v).reshape(N, H * D))

    def expert(self, i, x, e=None):                               # E_e(x) = W2' (act(W1' x) * W3' x), each W' with this expert's LoRA
        of = lambda name, x: self.linear(i, "mlp", name, x, e)
        return of("down_proj", (gelu if is_gemma(self.c) else F.silu)(of("gate_proj", x)) * of("up_proj", x))

    def feed_forward(self, i, x):
        if "num_experts" not in self.a: return self.expert(i, x)
        r = x @ self.P[f"mixlora.layers.{i}.mlp.moe_gate.weight"].T                               # (N,E)
        self.router_logits.append(r)
        if is_dynamic(self.a):                                                                    # w (N,E), 0 where not chosen, of a sum below 1
            q = tempered(self.a, r.softmax(-1))
            w = q * up_to(q, self.a["top_p"])
        else:
            top, chosen = r.softmax(-1).topk(self.a["top_k"], -1)                                 # (N,K) probabilities over all E
            w = torch.zeros_like(r).scatter(-1, chosen, top / top.sum(-1, keepdim=True))
        return sum(w[:, e, None] * self.expert(i, x, e) for e in range(self.a["num_experts"]))

    def logits(self, ids, position):
        c, four = self.c, self.c["model_type"] == "gemma2"        # Gemma 2 also norms what it adds
        def norm(x, name): return (self.W[f"model.{name}.weight"] + is_gemma(c)) * x / torch.sqrt((x * x).mean(-1, keepdim=True) + c["rms_norm_eps"])
        def added(y, name): return norm(y, name) if four else y
        x = self.W["model.embed_tokens.weight"][ids] * (math.sqrt(c["hidden_size"]) if is_gemma(c) else 1)        # (N,C)
        for i in range(c["num_hidden_layers"]):
            of = f"layers.{i}.{{}}_layernorm".format
            x = x + added(self.attention(i, norm(x, of("input")), position), of("post_attention"))
            x = x + added(self.feed_forward(i, norm(x, of("pre_feedforward" if four else "post_attention"))), of("post_feedforward"))
        y = norm(x, "norm") @ self.W["model.embed_tokens.weight" if tied(c) else "lm_head.weight"].T
        return capped(y, c.get("final_logit_softcapping"))


def gelu(x): return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))    # "gelu_pytorch_tanh"


def rotate(x, position, frequency, magnitude):   # (N,heads,D); channel j turns with channel j + D/2
    angle = position[:, None, None] * frequency                                                   # (N,1,D/2)
    a, b = (magnitude * x).chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def balance_loss(a, r, form):
    """r (layers,M,E): router logits of the real tokens"""
    E, p = a["num_experts"], r.softmax(-1)
    if form == "perLayerArgmax":                                  # the paper's equation 8 in each layer, then the mean over layers
        share = F.one_hot(r.argmax(-1), E).double().mean(1)                                       # (layers,E)
        return coefficient(a) * E * (share * p.mean(1)).sum(-1).mean()
    if is_dynamic(a): share = up_to(tempered(a, p), a["top_p"]).double().mean((0, 1))             # pooledTopK: slots / (layers × tokens)
    else: share = F.one_hot(r.topk(a["top_k"], -1)[1], E).double().sum(2).mean((0, 1))
    return coefficient(a) * E * (share * p.mean((0, 1))).sum()


def margin(a, r, form):
    """Least distance between the last chosen and the next router logit; for perLayerArgmax also between the first two; of sums of
    probabilities from top_p, where that decides."""
    order = r.detach().sort(-1, descending=True)[0]
    if is_dynamic(a):
        sums = tempered(a, order.softmax(-1)).cumsum(-1)
        last = (sums <= a["top_p"]).sum(-1, keepdim=True).clamp(max=a["num_experts"] - 1)         # as an index into the order
        step = torch.cat([order, torch.full_like(order[..., :1], -math.inf)], -1)
        return min((step.gather(-1, last) - step.gather(-1, last + 1)).min().item(), (sums - a["top_p"]).abs().min().item())
    at = [k for k in {a["top_k"], 1 if form == "perLayerArgmax" else a["top_k"]} if k < a["num_experts"]]
    return min(((order[..., k - 1] - order[..., k]).min().item() for k in at), default=math.inf)


def together(c, W, adapters, batch, form="pooledTopK"):
    """Row b with the (configuration, tensors) of number batch["adapter"][b], or with none (-1). Logits (B,T,V) and for each adapter router
    logits (layers,B,T,E) or None, all 0 at padding and on other rows; cross-entropies (A); balance losses (A); smallest margin"""
    ids, mask, of = batch["input_ids"], real(batch), batch["adapter"]
    logits, yes, routed = torch.zeros(*ids.shape, c["vocab_size"], dtype=torch.float64), counted(batch)[:, 1:], ["num_experts" in (a or {}) for a, _ in adapters]
    router = [torch.zeros(c["num_hidden_layers"], *ids.shape, a["num_experts"], dtype=torch.float64) if yes else None for (a, _), yes in zip(adapters, routed)]
    for b, i in enumerate(of.tolist()):
        row, at = Row(c, W, *(adapters[i] if i >= 0 else (None, {})), ids.shape[1]), mask[b].nonzero()[:, 0]    # a position is a column
        logits[b, at] = row.logits(ids[b, at], at.double())
        for layer, r in enumerate(row.router_logits): router[i][layer, b, at] = r
    nll = -logits[:, :-1].log_softmax(-1).gather(-1, batch["labels"][:, 1:, None].clamp(min=0))[..., 0]
    loss = torch.stack([nll[yes & (of == i)[:, None]].mean() for i in range(len(adapters))])
    own = [r[:, mask & (of == i)[:, None]] if routed[i] else None for i, r in enumerate(router)]
    aux = torch.stack([balance_loss(a, r, form) if r is not None else torch.zeros((), dtype=torch.float64) for (a, _), r in zip(adapters, own)])
    return logits, router, loss, aux, min((margin(a, r, form) for (a, _), r in zip(adapters, own) if r is not None), default=math.inf)


def everywhere(batch): return {**batch, "adapter": torch.zeros(len(batch["input_ids"]), dtype=torch.int64)}


def forward(c, W, a, P, batch, form):
    """The same for one adapter, or none, in all rows."""
    logits, router, loss, aux, gap = together(c, W, [(a, P)], everywhere(batch), form)
    return logits, router[0] if router[0] is None else router[0].flatten(0, 2), loss[0], aux[0], gap


def train(parameters, run):
    """A trace with three steps. `run()` gives logits, router logits (or several by name), loss, aux loss (of one adapter or of each), margin;
    `parameters` by their names in the files."""
    adamw, out, curve, gaps = torch.optim.AdamW(parameters.values(), lr=LR, weight_decay=DECAY), {}, [], []
    for step in range(STEPS):
        logits, router, loss, aux, gap = run()
        adamw.zero_grad()
        (loss + aux).sum().backward()
        for p in parameters.values(): p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # an idle expert still decays
        if step == 0:
            router = {} if router is None else router if isinstance(router, dict) else dict(router_logits=router)
            out.update(logits=logits, **router, loss=loss.reshape(-1), aux_loss=aux.reshape(-1))
            out.update({f"grad.{k}": p.grad.clone() for k, p in parameters.items()})
        curve.append((loss + aux).detach())
        gaps.append(gap)
        adamw.step()
    out.update(loss_curve=torch.stack(curve), **{f"after.{k}": p for k, p in parameters.items()})
    out = {k: v.detach().clone().contiguous() for k, v in out.items()}
    assert all(v.isfinite().all() and v.dtype == logits.dtype for v in out.values())
    return out, gaps


def definition(c, W, a, P, batch, form="pooledTopK"):
    """The trace of a case and the router margin before each step. Trained is the adapter, or without one the base."""
    W, P = ({k: v.double() for k, v in t.items()} for t in (W, P))
    trained = P if a else W
    for p in trained.values(): p.requires_grad_()
    return train(trained, lambda: forward(c, W, a, P, batch, form))


def train_plural(adapters, run):
    """The trace of several adapters, given [{name: parameter}] and a `run` as `together`, under the names of the contract."""
    def named():
        logits, router, *rest = run()
        return logits, {f"adapter.{i}.router_logits": r.flatten(0, 2) for i, r in enumerate(router) if r is not None}, *rest
    out, gaps = train({f"adapter.{i}.{k}": p for i, P in enumerate(adapters) for k, p in P.items()}, named)
    out["loss_curve"] = out["loss_curve"].T.contiguous()                                          # (A,steps)
    return {re.sub(r"^(grad|after)\.(adapter\.\d+)\.", r"\2.\1.", k): v for k, v in out.items()}, gaps


def plural(c, W, adapters, batch):
    """The trace of several (configuration, tensors) and the router margin before each step."""
    W, adapters = {k: v.double() for k, v in W.items()}, [(a, {k: v.double().requires_grad_() for k, v in P.items()}) for a, P in adapters]
    return train_plural([P for _, P in adapters], lambda: together(c, W, adapters, batch))


def rows_of(batch, i): return {k: v[batch["adapter"] == i] for k, v in batch.items() if k != "adapter"}


def alone(trace, batch, i):
    """What the trace of several says of one adapter, or of the base (-1), as a trace of its rows alone."""
    mine, own = batch["adapter"] == i, f"adapter.{i}."
    out = {"logits": trace["logits"][mine], **{k[len(own):]: v for k, v in trace.items() if k.startswith(own)}}
    if i >= 0: out.update({k: trace[k][i].reshape(-1) for k in ("loss", "aux_loss", "loss_curve")})
    if "router_logits" in out:
        r = out["router_logits"].unflatten(0, (-1, *batch["input_ids"].shape))
        assert not r[:, ~mine].any()
        out["router_logits"] = r[:, mine].flatten(0, 2)
    return out


def base_gradients(c, W, a, P, batch):
    """grad.* of every base tensor while the adapter is there."""
    W, P = ({k: v.double() for k, v in t.items()} for t in (W, P))
    for p in W.values(): p.requires_grad_()
    _, _, loss, aux, _ = forward(c, W, a, P, batch, "pooledTopK")
    (loss + aux).backward()
    return {f"grad.{k}": p.grad.clone() for k, p in W.items()}


# ---- Hugging Face, float64

class TrulyDouble(TorchFunctionMode):
    """Hugging Face computes norms, softmax and the rotary table in float32 whatever the model's dtype. Inside this, it asks for float32 and gets float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        swap = lambda x: torch.float64 if x is torch.float32 else x
        if function is torch.Tensor.float: function = torch.Tensor.double
        return function(*map(swap, args), **{k: swap(v) for k, v in (kwargs or {}).items()})


def computing(dtype): return TrulyDouble() if dtype == torch.float64 else nullcontext()


class WithLoRA(torch.nn.Module):
    def __init__(self, base, A, B, scale):
        super().__init__()
        self.base, self.A, self.B, self.scale = base, torch.nn.Parameter(A), torch.nn.Parameter(B), scale

    def forward(self, x): return self.base(x) + self.scale * F.linear(F.linear(x, self.A), self.B)


class Experts(torch.nn.Module):
    """Each expert on the rows routed to it, added up expert by expert."""

    def __init__(self, mlp, gate, experts, a):
        super().__init__()
        self.mlp, self.gate, self.experts, self.a = mlp, torch.nn.Parameter(gate), torch.nn.ModuleList(experts), a

    def route(self, p):
        """(N,slots) experts and their weights, 0 in slots that stay empty"""
        if not is_dynamic(self.a):
            top, chosen = p.topk(self.a["top_k"], -1)
            return chosen, top / top.sum(-1, keepdim=True)
        q, chosen = tempered(self.a, p).sort(dim=-1, descending=True, stable=True)
        return chosen, q * (q.cumsum(-1) - q <= self.a["top_p"])

    def forward(self, x):
        flat = x.flatten(0, -2)
        self.logits = F.linear(flat, self.gate)
        chosen, weight = self.route(F.softmax(self.logits, -1))
        y = torch.zeros_like(flat)
        for e, lora in enumerate(self.experts):
            row, slot = ((chosen == e) & (weight > 0)).nonzero(as_tuple=True)
            of = lambda name, z: (lora[name] if name in lora else getattr(self.mlp, name))(z)
            h = self.mlp.act_fn(of("gate_proj", flat[row])) * of("up_proj", flat[row])
            y = y.index_add(0, row, of("down_proj", h) * weight[row, slot, None])
        return y.view_as(x)


def hugging_face_model(folder, c, dtype=torch.float64):
    """Transformers 4.46.3 does not know `rope_parameters` and windows every layer of Qwen2: it gets the first translated, see `hugging_face`.
    ImportError where a version computes a scaling otherwise than 4.57.6, or 5 for its own keys, does."""
    import transformers
    kind = ((c.get("rope_parameters") or c.get("rope_scaling")) or {}).get("rope_type", "default")
    if kind in ("dynamic", "yarn", "longrope") and transformers.__version__ < "4.57": raise ImportError(f"{kind} needs transformers 4.57.6")
    if "rope_parameters" in c and kind != "default" and "5" > transformers.__version__ > "4.47": raise ImportError("rope_parameters need transformers 5")
    config = transformers.AutoConfig.from_pretrained(folder)
    if "rope_parameters" in c and transformers.__version__ < "5":
        rope = dict(c["rope_parameters"])
        config.rope_theta = rope.pop("rope_theta")
        config.rope_scaling = rope if rope["rope_type"] != "default" else None
    if c["model_type"] == "gemma" and transformers.__version__ >= "5": config.hidden_act = "gelu_pytorch_tanh"     # as 4 does whatever stands there
    config._attn_implementation, config.use_cache = "eager", False                                # Gemma 2's cache is written in place
    torch.set_default_dtype(dtype)
    try:
        with computing(dtype): model = getattr(transformers, FAMILY[c["model_type"]] + "ForCausalLM")(config).eval()
    finally: torch.set_default_dtype(torch.float32)
    missing, unread = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not unread and missing == (["lm_head.weight"] if tied(c) else []), (missing, unread)
    assert all(b.dtype == dtype for n, b in model.named_buffers() if "inv_freq" in n) and all(p.dtype == dtype for p in model.parameters())
    return model


def install(model, a, P):
    """Puts the adapter into the model: (trained tensors by name, expert blocks)"""
    for p in model.parameters(): p.requires_grad_(False)
    parameters, blocks, P = {}, [], {k: v.double() for k, v in P.items()}
    root = "base_model.model.model" if a["peft_type"] == "LORA" else "mixlora"

    def lora(base, name, a):
        m = WithLoRA(base, P[name + ".lora_A.weight"], P[name + ".lora_B.weight"], lora_scale(a))
        parameters.update({name + ".lora_A.weight": m.A, name + ".lora_B.weight": m.B})
        return m
    for i, layer in enumerate(model.model.layers):
        routed = "num_experts" in a
        for part, names in ((layer.self_attn, ATTENTION), (layer.mlp, [] if routed else FFN)):
            for n in (n for n in names if n in a["target_modules"]):
                setattr(part, n, lora(getattr(part, n), f"{root}.layers.{i}.{'self_attn' if part is layer.self_attn else 'mlp'}.{n}", a))
        if not routed: continue
        gate = f"mixlora.layers.{i}.mlp.moe_gate.weight"
        experts = [torch.nn.ModuleDict({n: lora(getattr(layer.mlp, n), f"mixlora.layers.{i}.mlp.{n}.experts.{e}", {**a, **a.get("expert_lora", {})})
                                        for n in FFN if n in a["target_modules"]}) for e in range(a["num_experts"])]
        layer.mlp = Experts(layer.mlp, P[gate], experts, a)
        parameters[gate] = layer.mlp.gate
        blocks.append(layer.mlp)
    assert set(parameters) == set(P), set(parameters) ^ set(P)
    return {k: parameters[k] for k in P}, blocks


def through(model, blocks, a, batch, form="pooledTopK"):
    mask = real(batch)
    logits = model(input_ids=batch["input_ids"], attention_mask=mask.long()).logits
    yes = counted(batch)[:, 1:]
    loss, shown = F.cross_entropy(logits[:, :-1][yes], batch["labels"][:, 1:][yes]), logits * mask[..., None]
    if not blocks: return shown, None, loss, loss.new_zeros(()), math.inf
    r = torch.stack([b.logits.view(*mask.shape, -1) for b in blocks])                             # (layers,B,T,E)
    return shown, (r * mask[..., None]).flatten(0, 2), loss, balance_loss(a, r[:, mask], form), margin(a, r[:, mask], form)


def hugging_face_logits(folder, c, batch):
    """Of the base alone."""
    model = hugging_face_model(folder, c)
    with TrulyDouble(), torch.no_grad(): return through(model, [], None, batch)[0]


def decoded(c, W, ids, prompt):
    """Logits (len(ids) - prompt + 1, V) behind each token from the prompt's last on, the others coming one by one: a key stays as it was
    turned when it was new, in a pass of as many columns as there were tokens by then."""
    frequency = [frequencies(c, max(prompt, p + 1)) for p in range(len(ids))]
    row = Row(c, {k: v.double() for k, v in W.items()}, None, {}, None)
    row.turning = torch.stack([f for f, _ in frequency])[:, None], frequency[0][1]                # (N,1,D/2)
    return row.logits(ids, torch.arange(len(ids)).double())[prompt - 1:]


def hugging_face_decoded(folder, c, ids, prompt):
    """The same by transformers with its cache."""
    model, cache, out = hugging_face_model(folder, c), None, []
    torch.set_default_dtype(torch.float64)
    try:
        with TrulyDouble(), torch.no_grad():
            for new in [ids[:prompt], *ids[prompt:, None]]:
                step = model(input_ids=new[None], past_key_values=cache, use_cache=True)
                cache, _ = step.past_key_values, out.append(step.logits[0, -1])
    finally: torch.set_default_dtype(torch.float32)
    return torch.stack(out)


def hugging_face(folder, c, W, a, P, batch, form="pooledTopK"):
    """A trace by transformers 4 or 5, and the configuration it really computed (4.46.3 in eager mode: every layer of Qwen2 has the window)."""
    import transformers
    if c.get("use_sliding_window") and transformers.__version__ < "5": c = {**c, "max_window_layers": 0}
    model = hugging_face_model(folder, c)
    parameters, blocks = install(model, a, P) if a else (dict(model.named_parameters()), [])
    if not a: assert set(parameters) == set(W), set(parameters) ^ set(W)
    torch.set_default_dtype(torch.float64)                        # what a tensor of positions times a number is
    try:
        with TrulyDouble(): return train({k: parameters[k] for k in (P if a else W)}, lambda: through(model, blocks, a, batch, form))[0], c
    finally: torch.set_default_dtype(torch.float32)


# ---- PEFT, plain LoRA read from the adapter's folder: float32, and float64 too

def peft(folder, adapter, c, P, batch, dtype=torch.float32):
    import torch.distributed.tensor                               # peft 0.21 looks for it without importing it
    from peft import PeftModel
    model = PeftModel.from_pretrained(hugging_face_model(folder, c, dtype), adapter, is_trainable=True, autocast_adapter_dtype=False).to(dtype).eval()
    theirs = {k.replace(".default", ""): p for k, p in model.named_parameters() if p.requires_grad}
    assert set(theirs) == set(P), set(theirs) ^ set(P)
    with computing(dtype): return train({k: theirs[k] for k in P}, lambda: through(model, [], None, batch))[0]


def peft_config(a):
    """What PEFT writes for the same settings, as a dict."""
    import torch.distributed.tensor
    from peft import LoraConfig
    keys = ("r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "use_rslora", "base_model_name_or_path", "inference_mode")
    wrote = LoraConfig(**{k: a[k] for k in keys}).to_dict()
    return {k: sorted(v) if isinstance(v, set) else v.value if hasattr(v, "value") else v for k, v in wrote.items()}


# ---- MoE-PEFT, float32

def moe_peft_plural(folder, c, adapters, batch):
    """All adapters in one batch, which it wants sorted by adapter; the base alone is an adapter without targets. Its loss knows only -100,
    its operators want a dropout above 0, and what it leaves at padding is cleared."""
    os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
    import transformers
    if transformers.__version__ >= "5": raise ImportError("moe-peft 2.0.2 needs transformers 4")
    import moe_peft
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    dry = lambda a: {**a, "lora_dropout": 1e-12, **({"expert_lora": dry(a["expert_lora"])} if "expert_lora" in a else {})}
    model = moe_peft.LLMModel.from_pretrained(str(folder), device="cpu", load_dtype=torch.float32, attn_impl="eager")
    mask, order, trained = real(batch), batch["adapter"].argsort(stable=True), []
    model.init_adapter(moe_peft.adapter_factory("LORA", "-1", r=1, lora_alpha=1, lora_dropout=1e-12, target_modules=[]))
    for i, (a, P) in enumerate(adapters):
        config = moe_peft.adapter_factory(adapter_name=str(i), **dry(a))
        wrote = {**config.export(), "base_model_name_or_path": a["base_model_name_or_path"], "task_type": "CAUSAL_LM"}
        assert a["peft_type"] == "LORA" or wrote == {k: v for k, v in dry(a).items() if k not in ("router_aux_loss_coef", "router_loss")}, wrote
        model.init_adapter(config)
        theirs = model.get_adapter_weight_dict(str(i))
        assert set(theirs) == set(P), set(theirs) ^ set(P)
        for k, p in theirs.items(): p.data.copy_(P[k]); p.requires_grad_()
        trained.append({k: theirs[k] for k in P})
    rows = [(i, (batch["adapter"] == i).nonzero()[:, 0]) for i in batch["adapter"].unique().tolist()]             # ascending, as `order`
    ends = torch.tensor([len(at) for _, at in rows]).cumsum(0).tolist()
    labels = batch["labels"].where(counted(batch), -100)

    def run():
        found = model.forward(LLMModelInput(batch_configs_=[LLMBatchConfig(str(i), end - len(at), end) for (i, at), end in zip(rows, ends)],
                                            batch_tokens_=batch["input_ids"][order].tolist(), batch_labels_=labels[order].tolist(),
                                            batch_masks_=mask[order].long().tolist()))
        logits, router = torch.zeros(*mask.shape, c["vocab_size"]), [None] * len(adapters)
        loss, aux = ([torch.zeros(())] * len(adapters) for _ in "12")
        for (i, at), o in zip(rows, found):
            logits = logits.index_copy(0, at, o.logits * mask[at][..., None])
            if i < 0: continue
            loss[i], aux[i] = o.loss, aux[i] if o.aux_loss is None else o.aux_loss
            if o.router_logits is None: continue
            r = o.router_logits.view(-1, *mask[at].shape, adapters[i][0]["num_experts"]) * mask[at][..., None]
            router[i] = torch.zeros(len(r), *mask.shape, r.shape[-1]).index_copy(1, at, r)
        return logits, router, torch.stack(loss), torch.stack(aux), math.inf
    return train_plural(trained, run)[0]


def moe_peft(folder, c, a, P, batch):
    batch = everywhere(batch)
    return alone(moe_peft_plural(folder, c, [(a, P)], batch), batch, 0)


# ---- optimisers and schedules

RUNS = {                                         # every run: 5 steps from the same start with the same gradients
    "adamw": dict(optimizer="adamw", lr=0.01, weight_decay=0.01),
    "adamw-no-decay": dict(optimizer="adamw", lr=0.002, weight_decay=0.0),
    "adamw-lora-plus": dict(optimizer="adamw", lr=0.001, weight_decay=0.01, lora_plus=16.0),
    "adamw-clip": dict(optimizer="adamw", lr=0.01, weight_decay=0.01, max_norm=1.0),
    "adamw-clip-wide": dict(optimizer="adamw", lr=0.01, weight_decay=0.01, max_norm=1000.0),
    "sgd": dict(optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.01),
    "sgd-momentum": dict(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd-momentum-clip": dict(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.0, max_norm=1.0),
    "sgd-lora-plus": dict(optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=0.01, lora_plus=4.0),
}


def optimize(run, start, gradients, dtype):
    """Parameters after each step (steps, ...) by name, and `norm` (steps): the gradients' norm before clipping."""
    p = {k: torch.nn.Parameter(v.to(dtype).clone()) for k, v in start.items()}
    of_B = lambda yes: [v for k, v in p.items() if ("lora_B" in k) == yes]
    groups = [dict(params=of_B(False)), dict(params=of_B(True), lr=run["lr"] * run.get("lora_plus", 1.0))]
    rest = {k: run[k] for k in ("lr", "weight_decay", "momentum") if k in run}
    o = (torch.optim.AdamW if run["optimizer"] == "adamw" else torch.optim.SGD)(groups, **rest)
    seen, norms = {k: [] for k in p}, []
    for step in range(len(next(iter(gradients.values())))):
        for k in p: p[k].grad = gradients[k][step].to(dtype).clone()
        norms.append(torch.nn.utils.clip_grad_norm_(p.values(), run.get("max_norm", math.inf)))
        o.step()
        for k in p: seen[k].append(p[k].detach().clone())
    return dict(norm=torch.stack(norms), **{k: torch.stack(v) for k, v in seen.items()})


SCHEDULES, SCHEDULE_LR = ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt"], 2e-4


def schedules():
    """The lr that each step uses, by transformers 4.46.3's get_scheduler with nothing but its defaults."""
    from transformers import get_scheduler
    out = []
    for name in SCHEDULES:
        for steps in (20, 7):
            for warmup in (0, math.ceil(0.1 * steps)):
                o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=SCHEDULE_LR)
                s, lr = get_scheduler(name, o, num_warmup_steps=warmup, num_training_steps=steps), []
                for _ in range(steps):
                    lr.append(o.param_groups[0]["lr"])
                    o.step()
                    s.step()
                out.append(dict(schedule=name, steps=steps, warmup=warmup, lr=lr))
    return out
