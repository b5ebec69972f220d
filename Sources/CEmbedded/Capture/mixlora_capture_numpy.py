"""Records arrays of a run, by hand, for `mixlora compare`. Needs NumPy alone: whatever the program is written in, its numbers get here
as arrays (a kernel's output buffer, jax or mlx arrays, a dump that numpy.fromfile reads).

    capture = Capture(attention_mask)                        # (B,T), 1 where a token is real
    capture.record("model.layers.0.self_attn.q_proj.output", q)
    capture.record("grad.model.layers.0.self_attn.q_proj.output", dq)
    capture.record("model.layers.0.mlp.experts.3.hidden", h, tokens=places)    # rows of an expert: their places b·T + t
    capture.record("grad." + name_in_the_adapter_file, gradient)               # and after.<name> behind the steps
    capture.record("loss", loss)                             # loss_curve: the losses before each step
    capture.save("run.safetensors", lr=1e-3, weight_decay=0.01)

Names are those of `mixlora trace --list`. Activations are (B,T,width), or (B,T,heads,D), or (B·T,width); padding is cleared. An array
keeps its element type; bfloat16 is ml_dtypes' or, with bfloat16=True, its bits as uint16.
"""
import json, os, re, struct
import numpy as np

TYPES = dict(float64="F64", float32="F32", float16="F16", bfloat16="BF16", int64="I64", int32="I32", int16="I16", int8="I8", uint8="U8", bool="BOOL")
WHOLE = re.compile(r"(loss|aux_loss|loss_curve|router_logits)$|after\.|(.*\.)?(lora_[AB]|moe_gate)(\.default)?\.weight$|.*\.(weight|bias)$")


class Capture:
    def __init__(self, attention_mask):
        self.mask, self.values = np.asarray(attention_mask).astype(bool), {}

    def record(self, name, array, tokens=None, bfloat16=False):
        """Keeps a copy under a name of the trace. Raises where the shape is none of the batch's."""
        a = np.array(array, copy=True)
        kind = "bfloat16" if bfloat16 else a.dtype.name
        if kind not in TYPES: raise ValueError(f"{name}: element type {kind} is none of {', '.join(TYPES)}")
        if bfloat16 and a.itemsize != 2: raise ValueError(f"{name}: bfloat16=True wants its bits as uint16, not {a.dtype.name}")
        if tokens is not None:
            tokens = np.asarray(tokens).astype(np.int64)
            if len(tokens) != len(a): raise ValueError(f"{name}: {len(a)} rows for {len(tokens)} tokens")
            real = self.mask.reshape(-1)[tokens]
            a = a[real]
            self.values[re.sub(r"^(grad\.)?(.*experts\.\d+)\..*", r"\2.tokens", name)] = ("int64", tokens[real])
        elif WHOLE.match(name): a = np.atleast_1d(a)
        else:
            if a.size == 0 or a.size % self.mask.size: raise ValueError(f"{name}: shape {a.shape} for a batch of {self.mask.shape}")
            a = a.reshape(*self.mask.shape, -1)
            a[~self.mask] = 0
        self.values[name] = (kind, np.ascontiguousarray(a))

    def save(self, path, **about):
        """Writes the safetensors file. `about` (lr, weight_decay) stands in its metadata."""
        header, end = {"__metadata__": {"format": "mixlora capture", **{k: str(v) for k, v in about.items()}}}, 0
        for name, (kind, a) in self.values.items():
            header[name] = dict(dtype=TYPES[kind], shape=list(a.shape), data_offsets=[end, end + a.nbytes])
            end += a.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(f"{path}.part", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, a in self.values.values(): file.write(a.tobytes())
        os.replace(f"{path}.part", path)
