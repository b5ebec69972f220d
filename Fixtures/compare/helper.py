#!/usr/bin/env python3
"""What the helper of `mixlora capture-helper torch` records under a gradient scaler, clipping, checkpoints, torch.compile, and what it says
where it cannot: each held against a plain run of the same model.

    python helper.py            # a line a check; needs torch, transformers and peft
"""
import contextlib, importlib.util, io, pathlib, sys, warnings
import torch, torch.distributed.tensor                            # peft 0.21 looks for it without importing it
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HELPER = pathlib.Path(__file__).resolve().parents[2] / "Sources/CEmbedded/Capture/mixlora_capture_torch.py"
SPEC = importlib.util.spec_from_file_location("mixlora_capture_torch", HELPER)
helper = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(helper)

generator = torch.Generator().manual_seed(5)
IDS = torch.randint(0, 37, (4, 6), generator=generator)
MASK = torch.ones_like(IDS)
MASK[1, 4:] = 0


class Run:
    """A small Llama with LoRA, seen by the helper; what it says goes into `said`."""

    def __init__(self, mask=MASK, checkpoints=None, compiled=None):
        torch.manual_seed(0)
        sizes = dict(vocab_size=37, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=64, attn_implementation="eager", **sizes))
        targets = ["q_proj", "v_proj", "gate_proj", "down_proj"]
        model = self.model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False))
        if checkpoints is not None:
            model.base_model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=checkpoints))
            model.enable_input_require_grads()
            model.train()
            model.config.use_cache = False
        if compiled == "before": self.model = torch.compile(model, backend="eager")
        self.capture = helper.Capture(self.model, mask)
        if compiled == "after": self.model = torch.compile(model, backend="eager")
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        self.said = ""

    def loss(self, rows=slice(None)):
        return self.model(input_ids=IDS[rows], attention_mask=MASK[rows], labels=IDS[rows].masked_fill(MASK[rows] == 0, -100)).loss

    def step(self, loss, **more):
        with contextlib.redirect_stderr(io.StringIO()) as said: self.capture.step(loss, **more)
        self.said = said.getvalue()
        return self


def check(name, run, expected=None, factor=1.0, said=()):
    """`run` has the tensors of `expected`, gradients `factor` times as large, and says each of `said`; without any it says nothing."""
    wrong = [f"says {run.said!r}"] if not all(text in run.said for text in said) or bool(run.said) != bool(said) else []
    for tensor, value in (expected.capture.values if expected else {}).items():
        found = run.capture.values.get(tensor)
        value = value * factor if tensor.startswith("grad.") else value
        if found is None or not torch.allclose(found, value.to(found.dtype), rtol=1e-5, atol=1e-9): wrong.append(tensor)
    print("ok  " if not wrong else "FAIL", name, *wrong[:3])
    return not wrong


def plain(run, scale=1.0):
    loss = run.loss()
    (loss * scale).backward()
    return run.step(loss)


def scaled(run, unscale=False, told=True):
    scaler, loss = torch.amp.GradScaler(device="cpu", init_scale=1024.0), run.loss()
    scaler.scale(loss).backward()
    if unscale: scaler.unscale_(run.optimizer)
    run.step(loss, scale=scaler.get_scale() if told else 1)
    scaler.step(run.optimizer)
    return run


def clipped(run):
    loss = run.loss()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 0.01)
    return run.step(loss)


def accumulated(run, rows, divisor=2):
    for part in rows:
        loss = run.loss(part)
        (loss / divisor).backward()
    return run.step(loss, scale=1 / divisor)


def main():
    reference, halves = plain(Run()), [slice(0, 2), slice(2, 4)]
    passes = [
        check("a plain run", reference),
        check("GradScaler", scaled(Run()), reference),
        check("GradScaler, unscaled before step", scaled(Run(), unscale=True), reference),
        check("GradScaler, which nobody tells", scaled(Run(), told=False), reference, 1024.0, ["1024 ×"]),
        check("clipped before step", clipped(Run()), reference),
        check("a divided loss, which nobody tells", plain(Run(), 0.25), reference, 0.25, ["0.25 ×"]),
        check("accumulated micro-batches", accumulated(Run(), halves), said=["not recorded", "model.layers.0.output"]),
        check("one of them", accumulated(Run(MASK[:2]), halves[:1]), accumulated(Run(MASK[:2]), halves[:1], divisor=1)),
        check("checkpoints, reentrant", plain(Run(checkpoints=True)), reference),
        check("checkpoints", plain(Run(checkpoints=False)), reference),
        check("torch.compile before", plain(Run(compiled="before")), reference),
        check("torch.compile behind", plain(Run(compiled="after")), reference),
    ]
    restored = torch.autograd.backward.__module__ == "torch.autograd"
    print("ok  " if restored else "FAIL", "torch.autograd.backward is its own again")
    sys.exit(not (all(passes) and restored))


if __name__ == "__main__":
    main()
