"""Records a run of a PyTorch model, forward and backward, for `mixlora compare`. Needs PyTorch alone; CPU or GPU.

    capture = Capture(model, batch["attention_mask"])       # (B,T), 1 where a token is real
    for _ in range(steps):
        logits, loss, aux = ...                              # your forward pass; aux: the balance loss, or None
        (loss + aux).backward()
        capture.step(loss, aux, logits)                      # behind backward; under a GradScaler with scale=scaler.get_scale()
        optimizer.step(); optimizer.zero_grad()
    capture.save("run.safetensors", optimizer)               # without an optimizer: the one pass, no values behind steps

Modules are found by walking the model and named as `mixlora trace` names them: Hugging Face's, PEFT's and MoE-PEFT's names are known,
`rename` (a function of a module's path) is for others. What is formed inside a module is given by hand: `capture.record(name, q)`, or with
the rows of an expert the places b·T + t of their tokens: `capture.record("model.layers.0.mlp.experts.3.hidden", h, tokens)`. A tensor
keeps its element type. Recorded are the first pass, the loss curve, and values behind the steps. `parameters`, by their names in the
adapter file, are the model's trained ones unless given (MoE-PEFT: `model.get_adapter_weight_dict(adapter)`). Without modules: model None.
Gradients are recorded divided by `scale`. Of accumulated micro-batches record one by itself. Under torch.compile modules run uncompiled here.
"""
import contextlib, json, os, re, struct, sys, torch, torch.overrides

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL"}
NAMES = [(r"_(?=\.|$)", ""), (r"^((base_model|module|_orig_mod)\.)+(model\.(?=model\.|lm_head))?", ""), (r"\.base_layer$", ".base"), (r"\.w([qkvo])\b", r".\1_proj"),
         (r"(\.mlp)?\.mlp\.w([123])\b", lambda m: f".mlp.{('gate', 'down', 'up')[int(m[2]) - 1]}_proj"), (r"^model\.lm_head$", "lm_head"),
         (r"\.mlp(\.moes\.[^.]+)?\.gate$", ".mlp.moe_gate"), (r"\.mlp\.(\w+_proj)\.loras\.moe\..*\.experts\.(\d+)$", r".mlp.experts.\2.\1")]
POINTS = re.compile(r"model\.layers\.\d+(\.((input|post_attention|pre_feedforward|post_feedforward)_layernorm|self_attn(\.[qkvo]_proj)?|mlp(\.(moe_gate|down_proj|(gate|up)_proj(\.base)?))?"
                    r"|mlp\.experts\.\d+\.(gate|up|down)_proj))?$|model\.norm$|lm_head$")

class Capture:
    def __init__(self, model, attention_mask, parameters=None, rename=None):
        self.mask = torch.as_tensor(attention_mask).bool().cpu()                # (B,T)
        self.values, self.curve, self.wrapped, self.doubtful, self.recording, self.begun = {}, [], [], set(), True, 0
        self.inputs, self.choices, self.tokens = {}, {}, {}                     # of each mixture: its input, its decisions, its experts' tokens
        trained = {} if model is None else {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.parameters = parameters or {re.sub(r"_orig_mod\.|(?<=\.lora_[AB])\.\w+(?=\.weight$)", "", n): p for n, p in trained.items()}
        if model is not None: self._walk(model, "", {}, type(model).__module__.split(".")[0], rename or (lambda path: path))
        self.norm = ".pre_feedforward_layernorm" if any("pre_feedforward" in path for _, path, _ in self.wrapped) else ".post_attention_layernorm"
        self.backward, torch.autograd.backward = torch.autograd.backward, self._backward

    def _walk(self, thing, path, seen, package, rename):   # modules, what holds them, and objects of the model's own package, as MoE-PEFT's experts
        if id(thing) in seen: return
        seen[id(thing)] = thing
        own = isinstance(thing, torch.nn.Module) or type(thing).__module__.split(".")[0] == package
        if own and callable(getattr(thing, "forward", None)):
            name = rename(path)
            for pattern, known in NAMES: name = re.sub(pattern, known, name)
            if POINTS.match(name) or name == "model.embed_tokens": self._wrap(thing, name)
        parts = dict(enumerate(thing)) if isinstance(thing, (list, tuple)) else thing if isinstance(thing, dict) else {}
        for key, part in ({**vars(thing).get("_modules", {}), **vars(thing)} if own and hasattr(thing, "__dict__") else parts).items():
            if key != "_modules" and not isinstance(part, (torch.Tensor, str)): self._walk(part, f"{path}.{key}".lstrip("."), seen, package, rename)

    def _wrap(self, module, path):      # stands in front of `forward`: a hook is passed by where a program calls `forward` by its name
        forward = module.forward

        def watched(*inputs, **named):
            self._before(path, tensors := [x for x in (*inputs, *named.values()) if isinstance(x, torch.Tensor) and x.is_floating_point()])
            with Decisions(capture=self, path=path) if path.endswith(".mlp") else contextlib.nullcontext(): outputs = forward(*inputs, **named)
            self._after(path, outputs[0] if isinstance(outputs, (tuple, list)) else outputs, tensors)
            return outputs
        self.wrapped.append((module, path, vars(module).get("forward")))
        module.forward = torch.compiler.disable(watched)

    def _backward(self, tensors, *more, **named):   # torch.autograd.backward: where it begins tells the scale; gradients as they are before clipping
        self.backward(tensors, *more, **named)
        if not self.recording or torch._C._current_graph_task_id() != -1: return
        self.begun += sum(float(t.detach().sum()) for t in ([tensors] if torch.is_tensor(tensors) else tensors))
        self._gradients()

    def _gradients(self):
        self.values.update({"grad." + n: p.grad.detach().cpu().clone() for n, p in self.parameters.items() if p.grad is not None})

    def _before(self, path, tensors):
        layer, norm, _ = path.partition(self.norm)
        if norm or path == "model.layers.0": self._see(layer + ".residual.output" if norm else "model.embed_tokens.output", tensors[0])
        if path.endswith((".o_proj", ".mlp.down_proj")): self._see(path + ".input", tensors[0])
        if path.endswith(".mlp"): self.inputs[path] = tensors[0].detach().reshape(-1, tensors[0].shape[-1])

    def _after(self, path, y, inputs):
        if not isinstance(y, torch.Tensor) or not y.is_floating_point(): return
        if path == "model.embed_tokens": y.requires_grad_(y.requires_grad or torch.is_grad_enabled())      # frozen, but its gradient is a point
        elif ".experts." in path: self._expert(path, y, inputs[-1])
        else: self._see(path + ".output", y)

    def _expert(self, path, y, x):      # its rows are the tokens that chose it: slot after slot or in the order of tokens, as its input x shows
        mlp, expert, linear = re.match(r"(.*)\.experts\.(\d+)\.(.*)", path).groups()
        slots = (self.choices[mlp].T == int(expert)).nonzero()[:, 1] if mlp in self.choices else ()
        for t in (slots, slots.sort()[0]) if len(slots) and linear != "down_proj" else ():
            if len(t) == len(x) and torch.equal(self.inputs[mlp][t].to(x.dtype), x): self.tokens[mlp, expert] = t
        if (mlp, expert) not in self.tokens: return
        if linear == "down_proj": self._see(path.replace("down_proj", "hidden"), x, self.tokens[mlp, expert])
        self._see(path + ".output", y, self.tokens[mlp, expert])

    def record(self, name, tensor, tokens=None, gradient=True):
        """A tensor by hand, and its gradient: (B,T,width), or the rows of an expert with the places of their tokens. Returns it."""
        if self.recording: self._see(name, tensor, tokens, gradient, by_hand=True)
        return tensor

    def _see(self, name, tensor, tokens=None, gradient=True, by_hand=False):
        again = torch._C._current_graph_task_id() != -1                         # within backward: a checkpoint forms its block again
        if name in self.values and not again: self.doubtful.add(name)
        if name not in self.values and not self._keep(name, tensor, tokens, by_hand): return self.doubtful.add(name)
        if tokens is not None: self._keep(re.sub(r"(experts\.\d+)\..*", r"\1.tokens", name), tokens, tokens)
        if gradient and tensor.requires_grad: tensor.register_hook(lambda g: (self._keep("grad." + name, g, tokens, by_hand), None)[1])

    def _keep(self, name, tensor, tokens=None, by_hand=False):     # a copy, zero at padding; False where the shape is none of the batch's
        t, mask = tensor.detach().to("cpu", copy=True), self.mask               # (…,width), (B,T)
        if tokens is not None: t = t[mask.flatten()[tokens.cpu()]]
        elif t.dim() > 1 and t.numel() == mask.numel() * t.shape[-1]: t = t.reshape(*mask.shape, -1).masked_fill(~mask[..., None], 0)
        if not t.numel() or not (by_hand or tokens is not None or t.shape[:2] == mask.shape): return False
        self.values[name] = t.contiguous()
        return True

    def step(self, loss, aux_loss=None, logits=None, scale=1):
        """Behind backward, which began at scale · (loss + aux_loss): the first ends the recording; each adds to the loss curve."""
        losses = {k: v.detach().cpu().reshape(1).clone() for k, v in dict(loss=loss, aux_loss=aux_loss).items() if v is not None}
        self.curve.append(sum(losses.values()))
        if not self.recording: return
        self.recording, torch.autograd.backward, begins = False, self.backward, scale * float(self.curve[0])
        for module, _, old in self.wrapped: vars(module).pop("forward") if old is None else vars(module).update(forward=old)
        for name in self.doubtful: self.values.pop(name, None), self.values.pop("grad." + name, None)     # which call is meant?
        if self.doubtful: print(f"not recorded, because formed more than once before step, or not of the batch's {tuple(self.mask.shape)}:", *sorted(self.doubtful), file=sys.stderr)
        if not self.begun: self._gradients()                                    # of somebody's own backward
        elif abs(self.begun - begins) > 0.01 * abs(begins): print(f"backward began at {self.begun / begins:.6g} × scale · (loss + aux_loss): gradients are that many times too large; see step's scale", file=sys.stderr)
        for name in [n for n in self.values if n.startswith("grad.") and scale != 1]: self.values[name] = self.values[name].to(torch.promote_types(self.values[name].dtype, torch.float32)) / scale
        self.values.update(losses)
        if logits is not None: self._keep("logits", logits)

    def save(self, path, optimizer=None):
        """Writes the safetensors file; with an optimizer also its loss curve, values and moments behind its steps, lr and weight decay."""
        values, about, header, end = dict(self.values), dict(format="mixlora capture", torch=torch.__version__), {}, 0
        if optimizer is not None:
            values.update(loss_curve=torch.cat(self.curve), **{"after." + n: p.detach().cpu() for n, p in self.parameters.items()})
            values.update({f"{k}.{n}": v.cpu() for n, p in self.parameters.items() for k, v in optimizer.state.get(p, {}).items() if k.startswith("exp_avg")})
            about.update({k: str(optimizer.param_groups[0][k]) for k in ("lr", "weight_decay") if k in optimizer.param_groups[0]})
        for name, t in values.items():
            header[name] = dict(dtype=TYPES[t.dtype], shape=list(t.shape), data_offsets=[end, end := end + t.numel() * t.element_size()])
        text = (text := json.dumps({"__metadata__": about, **header}).encode()) + b" " * (-len(text) % 8)
        with open(f"{path}.part", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for t in values.values(): file.write(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        os.replace(f"{path}.part", path)

class Decisions(torch.overrides.TorchFunctionMode):
    """Sees which experts a mixture takes: what torch.topk says while its block runs."""
    def __init__(self, **about): super().__init__(); vars(self).update(about)

    def __torch_function__(self, function, types, inputs=(), named=None):
        found = function(*inputs, **(named or {}))
        if function in (torch.topk, torch.Tensor.topk):
            self.capture.choices[self.path] = found[1].detach().reshape(-1, found[1].shape[-1])
            self.capture._keep(self.path + ".moe_gate.choice", found[1])
        return found
