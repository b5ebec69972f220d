"""The operations that the cases are of, written out in PyTorch and float64; every derivative is autograd's.

Each takes its attributes `a` and its inputs `t` (leaves where they are differentiated) and gives the named results. N rows, C channels,
H heads, G key/value heads, D head width, F hidden width, V vocabulary, E experts, K slots, r rank.
"""
import math
import torch
import torch.nn.functional as F


def gradients(y, dy, t, names):
    """∂⟨y, dy⟩/∂x for each named input, as dx"""
    found = torch.autograd.grad([y], [t[n] for n in names], [dy])
    return {f"d{n}": g for n, g in zip(names, found)}


def linear(a, t):
    y = t["x"] @ t["weight"].T
    if "bias" in t: y = y + t["bias"]
    return dict(y=y, **gradients(y, t["dy"], t, [n for n in ("x", "weight", "bias") if n in t]))


def lora_linear(a, t):
    y = t["x"] @ t["weight"].T + a["scale"] * ((t["x"] @ t["A"].T) @ t["B"].T)
    if "bias" in t: y = y + t["bias"]
    return dict(y=y, **gradients(y, t["dy"], t, ["x", "A", "B"]))


def rms_norm(a, t):
    x = t["x"]
    y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + a["epsilon"]) * (a["offset"] + t["weight"])
    return dict(y=y, **gradients(y, t["dy"], t, ["x", "weight"]))


def angles(a, limit):
    """θ (D/2) and the factor of cos and sin, by the formulas of the papers; limit: the largest position and one more"""
    D, base, s = a["head_width"], a["base"], a.get("scaling", {})
    j = torch.arange(D // 2, dtype=torch.float64)
    theta, kind, f, T = base ** (-2 * j / D), s.get("type"), s.get("factor"), s.get("original_positions")
    if kind is None: return theta, 1.0
    if kind == "linear": return theta / f, 1.0
    if kind == "dynamic":
        g = f * max(limit, T) / T - (f - 1)
        return (base * g ** (D / (D - 2))) ** (-2 * j / D), 1.0
    if kind == "yarn":
        plane = lambda turns: D * math.log(T / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(plane(s["beta_fast"])), 0), min(math.ceil(plane(s["beta_slow"])), D - 1)
        slow = ((j - low) / (high - low)).clamp(0, 1)
        return theta * (1 - slow) + theta / f * slow, 0.1 * math.log(f) + 1
    if kind == "longrope":
        divisors = torch.tensor(s["long" if limit > T else "short"], dtype=torch.float64)
        return theta / divisors, s["magnitude"]
    if kind == "llama3":
        wave = 2 * math.pi / theta
        share = ((T / wave - s["low_frequency_factor"]) / (s["high_frequency_factor"] - s["low_frequency_factor"])).clamp(0, 1)
        return theta * (share + (1 - share) / f), 1.0
    raise KeyError(kind)


def rotary(a, t):
    N, D = len(t["x"]), a["head_width"]
    theta, magnitude = angles(a, int(t["positions"].max()) + 1)
    angle = (t["positions"].double()[:, None] * theta)[:, None]                       # (N,1,D/2)
    x = t["x"].reshape(N, -1, D)
    p, q = x[..., :D // 2], x[..., D // 2:]                                           # plane j is channels j and j + D/2
    y = magnitude * torch.cat([p * angle.cos() - q * angle.sin(), p * angle.sin() + q * angle.cos()], -1).reshape(N, -1)
    return dict(y=y, **gradients(y, t["dy"], t, ["x"]))


def attention(a, t):
    H, G, D, N = a["heads"], a["key_value_heads"], a["head_width"], len(t["q"])
    heads = lambda x, n: x.reshape(N, n, D).transpose(0, 1)                           # (n,N,D)
    q, k, v = heads(t["q"], H), heads(t["k"], G), heads(t["v"], G)
    k, v = k.repeat_interleave(H // G, 0), v.repeat_interleave(H // G, 0)             # head h reads group h / (H / G)
    scores = a["scale"] * (q @ k.transpose(1, 2))                                     # (H,N,N)
    if "softcap" in a: scores = a["softcap"] * torch.tanh(scores / a["softcap"])
    row, begin = torch.arange(N), torch.zeros(N, dtype=torch.long)
    for offset in a["offsets"][:-1]: begin[row >= offset] = offset
    seen = (row[None] <= row[:, None]) & (row[None] >= begin[:, None])                # its own sequence, up to itself
    if "window" in a: seen &= row[:, None] - row[None] < a["window"]
    y = (scores.masked_fill(~seen, -math.inf).softmax(-1) @ v).transpose(0, 1).reshape(N, H * D)
    return dict(y=y, **gradients(y, t["dy"], t, ["q", "k", "v"]))


def activated(name, x): return F.silu(x) if name == "silu" else F.gelu(x, approximate="tanh")


def gated(a, t):
    h = activated(a["activation"], t["a"]) * t["c"]
    return dict(h=h, **gradients(h, t["dh"], t, ["a", "c"]))


def chosen(a, p):
    """choice (N,S), −1 where a slot is empty, and weights (N,S), 0 there"""
    if a["policy"] == "top-k":
        top, choice = p.topk(a["k"], -1)
        return choice, top / top.sum(-1, keepdim=True)
    scaled = p / a["temperature"] if a["temperature"] > 0 else p
    sorted_p, choice = scaled.sort(-1, descending=True)
    before = sorted_p.cumsum(-1) - sorted_p                                           # the sum of what is larger
    taken = before.detach() <= a["threshold"]
    return choice.masked_fill(~taken, -1), sorted_p * taken


def router(a, t):
    z = t["x"] @ t["gate"].T
    p = z.softmax(-1)
    choice, weights = chosen(a, p)
    results = dict(logits=z, probabilities=p, choice=choice, weights=weights)
    return dict(results, **gradients(weights, t["dweights"] * (choice >= 0), t, ["x", "gate"]))


def combine(a, t):
    y = (t["weights"][..., None] * t["h"] * (t["choice"] >= 0)[..., None]).sum(1)     # h (N,S,C)
    return dict(y=y, **gradients(y, t["dy"], t, ["h", "weights"]))


def experts(a, t):
    x, E, s = t["x"], a["experts"], a["scale"]
    p = (x @ t["gate"].T).softmax(-1)
    choice, weights = chosen(a, p)
    w = torch.zeros_like(p).scatter_add(-1, choice.clamp(min=0), weights)             # (N,E)

    def matrix(number, e, v):
        y = v @ t[f"W{number}"].T
        if f"b{number}" in t: y = y + t[f"b{number}"]
        if f"A{number}" in t: y = y + s * ((v @ t[f"A{number}"][e].T) @ t[f"B{number}"][e].T)
        return y
    y = torch.zeros_like(x)
    for e in range(E):
        rows = (choice == e).any(-1).nonzero()[:, 0]                                  # only the tokens that chose it
        if len(rows) == 0: continue
        v = x[rows]
        out = matrix(2, e, activated(a["activation"], matrix(1, e, v)) * matrix(3, e, v))
        y = y.index_add(0, rows, w[rows, e, None] * out)
    names = ["x", "gate"] + [n for n in t if n[0] in "AB" and n[1:].isdigit()]
    if a["policy"] == "top-k" and a["k"] == 1: names.remove("gate")                   # zero, but for rounding
    return dict(y=y, choice=choice, **gradients(y, t["dy"], t, names))


def head(a, t):
    z = t["x"] @ t["weight"].T
    if "softcap" in a: z = a["softcap"] * torch.tanh(z / a["softcap"])
    counted = t["labels"] >= 0
    loss = F.cross_entropy(z[counted], t["labels"][counted]).reshape(1)
    return dict(logits=z, loss=loss, **gradients(loss, torch.ones(1, dtype=torch.float64), t, ["x", "weight"]))


def balance_loss(a, t):
    z, E, K = t["logits"], t["logits"].shape[-1], a["k"]                              # (layers,N,E)
    p = z.softmax(-1)
    choice = p.topk(K, -1)[1]
    one = F.one_hot(choice if a["form"] == "pooledTopK" else choice[..., :1], E).double().sum(-2)     # (layers,N,E)
    if a["form"] == "pooledTopK": loss = E * (one.mean((0, 1)) * p.mean((0, 1))).sum()
    else: loss = (E * (one.mean(1) * p.mean(1)).sum(-1)).mean()
    loss = a["coefficient"] * loss.reshape(1)
    return dict(loss=loss, **gradients(loss, torch.ones(1, dtype=torch.float64), t, ["logits"]))


def embedding(a, t):
    y = F.embedding(t["ids"], t["weight"]) * a["scale"]
    return dict(y=y, **gradients(y, t["dy"], t, ["weight"]))


def adamw(a, t):
    x = torch.nn.Parameter(t["x"].detach().clone())
    optimizer = torch.optim.AdamW([x], lr=a["learning_rate"], betas=(a["beta1"], a["beta2"]), eps=a["epsilon"],
                                  weight_decay=a["weight_decay"], foreach=False)
    for g in t["gradients"]:
        x.grad = g.detach().clone()
        optimizer.step()
    state = optimizer.state[x]
    return dict(x=x.detach(), m=state["exp_avg"], v=state["exp_avg_sq"])


def sgd(a, t):
    x = torch.nn.Parameter(t["x"].detach().clone())
    optimizer = torch.optim.SGD([x], lr=a["learning_rate"], momentum=a["momentum"], weight_decay=a["weight_decay"], foreach=False)
    for g in t["gradients"]:
        x.grad = g.detach().clone()
        optimizer.step()
    return dict(x=x.detach(), b=optimizer.state[x]["momentum_buffer"])


def clip(a, t):
    x = torch.nn.Parameter(torch.zeros_like(t["gradient"]))
    x.grad = t["gradient"].detach().clone()
    norm = torch.nn.utils.clip_grad_norm_([x], a["maximum"], foreach=False)
    return dict(norm=norm.reshape(1), gradient=x.grad)


def feed_forward(a, t):
    def matrix(number, v):
        y = v @ t[f"W{number}"].T
        return y + a["scale"] * ((v @ t[f"A{number}"].T) @ t[f"B{number}"].T) if f"A{number}" in t else y
    y = matrix(2, activated(a["activation"], matrix(1, t["x"])) * matrix(3, t["x"]))
    return dict(y=y, **gradients(y, t["dy"], t, ["x"] + [n for n in t if n[0] in "AB" and n[1:].isdigit()]))
