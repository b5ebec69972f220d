#!/usr/bin/env python3
"""Captures other programs on CPU with the helper of `mixlora capture-helper torch`: Hugging Face, PEFT and MoE-PEFT, forward, backward and
steps, on the models and adapters of ../peers; and MoE-PEFT with each of its known defects that can be switched on.

usage: peers.py DIR/peers [NAME…]     writes NAME.safetensors there, and DIR/peers.json for judge.py: what each was made from and what is to be found

Pins: Python 3.11, torch 2.5.1, transformers 4.46.3, peft 0.21.2, moe-peft 2.0.2. Dropout is off (MoE-PEFT: 1e-12, it asserts more than 0).
"""
import json, os, sys, types
from pathlib import Path
os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
import torch
import torch.distributed.tensor                                   # peft 0.21 looks for it without importing it
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
sys.path.insert(0, str(HERE.parent.parent / "Sources/CEmbedded/Capture"))
from mixlora_capture_torch import Capture

MASKED = 7                                                       # a token that is there, for the run that masks it
STEPS, LR, DECAY = 2, 1e-3, 0.01
INDEX = {case["name"]: case for case in json.loads((PEERS / "cases.json").read_text())}


def inputs(case):
    """(model folder, adapter folder or None, batch with its mask, labels where they count)"""
    c = INDEX[case]
    batch = load_file(PEERS / c["batch"])
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    yes = torch.zeros_like(mask)
    yes[:, 1:] = mask[:, 1:] & mask[:, :-1] & (batch["labels"][:, 1:] != -100)
    return PEERS / c["model"], c["adapter"] and PEERS / c["adapter"], batch["input_ids"], mask, batch["labels"].where(yes, -100)


def cross_entropy(logits, labels): return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def train(capture, trained, run, out, steps=STEPS):
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=DECAY)
    for _ in range(max(1, steps)):
        logits, loss, aux = run()
        optimizer.zero_grad()
        (loss if aux is None else loss + aux).backward()
        capture.step(loss, aux, logits)
        if steps: optimizer.step()
    capture.save(out, optimizer if steps else None)


def transformers(case, out, dtype=torch.float32, attention="eager", checkpoint=False):
    """The base alone, all of it trained."""
    from transformers import AutoModelForCausalLM
    folder, _, ids, mask, labels = inputs(case)
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype, attn_implementation=attention)
    if checkpoint:
        model.gradient_checkpointing_enable(dict(use_reentrant=checkpoint == "reentrant"))
        model.train()
    capture, columns = Capture(model, mask), torch.arange(ids.shape[1])[None].expand_as(ids)

    def run():
        logits = model(input_ids=ids, attention_mask=mask.long(), position_ids=columns, use_cache=False).logits
        return logits, cross_entropy(logits, labels), None
    train(capture, model.parameters(), run, out, STEPS if dtype == torch.float32 else 0)


def peft(case, out):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    folder, adapter, ids, mask, labels = inputs(case)
    base = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()
    capture, columns = Capture(model, mask), torch.arange(ids.shape[1])[None].expand_as(ids)

    def run():
        logits = model(input_ids=ids, attention_mask=mask.long(), position_ids=columns, use_cache=False).logits
        return logits, cross_entropy(logits, labels), None
    train(capture, capture.parameters.values(), run, out)


def moe_peft(case, out, dropout=1e-12, jitter=0.0, vanilla=False, checkpoint="none", dtype=torch.float32, all_labels=False, masked=None, frozen=(), biased=False):
    """vanilla: without the shared W1 and W3 and the fused LoRA. The rest switches defects on:
    dropout and jitter take part in every pass; all_labels: prompt and padding count in the loss; masked: every token equal to this id is
    masked, as where it is also the padding; frozen: the fused LoRA skips what needs no gradient; biased: the fused LoRA's backward at
    dropout 0.05 over a mask of ones, which shows its factor 1/(1 − p) alone."""
    import moe_peft
    import moe_peft.common.lora_linear as lora_linear
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    folder, adapter, ids, mask, labels = inputs(case)
    a = json.loads((adapter / "adapter_config.json").read_text())
    p = 0.05 if biased else dropout
    dry = lambda a: {**a, "lora_dropout": p, **({"expert_lora": dry(a["expert_lora"])} if "expert_lora" in a else {})}
    model = moe_peft.LLMModel.from_pretrained(str(folder), device="cpu", load_dtype=dtype, attn_impl="eager")
    model.init_adapter(moe_peft.adapter_factory(adapter_name="x", **dry(a), **({"jitter_noise": jitter} if jitter else {})))
    pickled, theirs = adapter / "adapter_model.bin", model.get_adapter_weight_dict("x")
    files = torch.load(pickled, weights_only=True) if pickled.exists() else load_file(adapter / "adapter_model.safetensors")
    for name, q in theirs.items():
        q.data.copy_(files[name].data)
        q.requires_grad_(not any(part in name for part in frozen))
    if biased:
        lora_linear.F = types.SimpleNamespace(dropout=lambda x, p: x.clone())
        for layer in model.model_.layers_:
            for linear in layer.mlp_.mlp_.state_dict().values():
                for lora in linear.loras_.values(): lora.dropout_.p = 0.0                                       # the experts' own
    capture = Capture(model, mask, parameters={name: theirs[name] for name in files})
    if all_labels: labels = ids
    their_mask = mask if masked is None else mask & (ids != masked)

    def run():
        torch.manual_seed(0)
        found = model.forward(LLMModelInput(batch_configs_=[LLMBatchConfig("x", 0, len(ids))], batch_tokens_=ids.tolist(), batch_labels_=labels.tolist(),
                                            batch_masks_=their_mask.long().tolist(), efficient_operator_=not vanilla, gradient_checkpoint_=checkpoint))[0]
        return found.logits, found.loss, found.aux_loss
    try: train(capture, [q for q in theirs.values() if q.requires_grad], run, out, STEPS if dtype == torch.float32 and not frozen else 0)
    finally: lora_linear.F = F


# name: (how it is made, case, settings, the points that are right for `first` or None for a match, and the causes that are right)
RUNS = {
    **{f"transformers-{case}": (transformers, case, {}, None) for case in ("llama-bias-base", "qwen2-base", "mistral-base", "gemma-base", "gemma2-base", "llama-3-base")},
    "transformers-sdpa": (transformers, "qwen2-base", dict(attention="sdpa"), None),
    "transformers-bfloat16": (transformers, "mistral-base", dict(dtype=torch.bfloat16), None),
    "transformers-checkpoint": (transformers, "qwen2-base", dict(checkpoint="not reentrant"), None),
    "transformers-checkpoint-reentrant": (transformers, "qwen2-base", dict(checkpoint="reentrant"), None),
    **{f"peft-{case}": (peft, case, {}, None) for case in ("lora-llama", "lora-llama-subset", "lora-qwen2-rslora", "lora-gemma2")},
    **{f"moe-peft-{case}": (moe_peft, case, {}, None) for case in ("llama-topk", "llama-rslora", "llama-expert-lora", "mistral-topk", "qwen2-topk", "gemma-topk",
                                                                   "llama-dynamic", "qwen2-dynamic")},
    "moe-peft-vanilla": (moe_peft, "llama-topk", dict(vanilla=True), None),
    "moe-peft-checkpoint": (moe_peft, "llama-topk", dict(checkpoint="recompute"), None),
    "moe-peft-bfloat16": (moe_peft, "llama-rslora", dict(dtype=torch.bfloat16), None),
    # defects that can be switched on
    "moe-peft-dropout-always-on": (moe_peft, "llama-topk", dict(dropout=0.05), "model.layers.0.self_attn.q_proj.output", "other"),
    "moe-peft-jitter-in-place": (moe_peft, "llama-topk", dict(jitter=0.01), "model.layers.0.mlp.*", "other low-precision"),
    "moe-peft-padding-in-the-loss": (moe_peft, "llama-topk", dict(all_labels=True), "loss", "other loss-mean"),
    "moe-peft-padding-in-the-dynamic-balance-loss": (moe_peft, "llama-dynamic-temperature", {}, "aux_loss", "other balance-form"),
    "moe-peft-real-token-masked": (moe_peft, "qwen2-topk", dict(masked=MASKED), "model.layers.0.self_attn.o_proj.input", "other mask-off-by-one"),
    "moe-peft-frozen-branch-skipped": (moe_peft, "llama-topk", dict(frozen=["layers.0.self_attn.v_proj"]), "model.layers.0.self_attn.v_proj.output", "missing-branch"),
    "moe-peft-fused-backward-biased": (moe_peft, "llama-topk", dict(biased=True), "grad.model.layers.1.self_attn.o_proj.input grad.mixlora.layers.1.self_attn.o_proj.lora_A.weight", "scale"),
}


def main(out, *names):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for name in names or RUNS:
        how, case, more, where, cause = (*RUNS[name], None)[:5]
        how(case, str(out / f"{name}.safetensors"), **more)
        c = INDEX[case]
        made.append(dict(name=name, file=f"{out.name}/{name}.safetensors", phase="backward" if where and where.startswith("grad.") else "forward", first=where.split() if where else [],
                         cause=cause.split() if cause else [], settings=dict(dtype="bfloat16" if "bfloat16" in name else "float32"), **{k: str(PEERS / c[k]) if c[k] else None for k in ("model", "adapter", "batch")}))
        print(name, flush=True)
    if not names: (out.parent / "peers.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__": main(*sys.argv[1:])
