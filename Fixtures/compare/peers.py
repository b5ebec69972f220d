#!/usr/bin/env python3
"""Captures other programs on CPU with the helper of `mixlora capture-helper torch`: Hugging Face, PEFT and MoE-PEFT, forward, backward and
steps, on the models and adapters of ../peers; and MoE-PEFT with each of its known defects that can be switched on.

usage: peers.py OUT [NAME…]     writes OUT/NAME.safetensors and OUT/peers.json, which says what each was made from and what is to be found

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


def moe_peft(case, out, defect=None, dropout=1e-12, steps=STEPS):
    """`defect(model, moe_peft's modules)` may change what it does before the run; it returns what the run asks of it otherwise."""
    import moe_peft
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    folder, adapter, ids, mask, labels = inputs(case)
    a = json.loads((adapter / "adapter_config.json").read_text())
    dry = lambda a: {**a, "lora_dropout": dropout, **({"expert_lora": dry(a["expert_lora"])} if "expert_lora" in a else {})}
    asked = dict(evaluate=False, all_labels=False, jitter=0.0)
    asked.update(defect or {})
    model = moe_peft.LLMModel.from_pretrained(str(folder), device="cpu", load_dtype=torch.float32, attn_impl="eager")
    model.init_adapter(moe_peft.adapter_factory(adapter_name="x", **dry(a), **({"jitter_noise": asked["jitter"]} if asked["jitter"] else {})))
    pickled, theirs = adapter / "adapter_model.bin", model.get_adapter_weight_dict("x")
    files = torch.load(pickled, weights_only=True) if pickled.exists() else load_file(adapter / "adapter_model.safetensors")
    for name, p in theirs.items():
        p.data.copy_(files[name].data)
        p.requires_grad_()
    capture = Capture(model, mask, parameters={name: theirs[name] for name in files})
    if asked["all_labels"]: labels = ids

    def run():
        torch.manual_seed(0)
        found = model.forward(LLMModelInput(batch_configs_=[LLMBatchConfig("x", 0, len(ids))], batch_tokens_=ids.tolist(), batch_labels_=labels.tolist(),
                                            batch_masks_=mask.long().tolist(), efficient_operator_=not asked["evaluate"]))[0]
        return found.logits, found.loss, found.aux_loss
    train(capture, theirs.values(), run, out, steps)


# name: (how it is made, case, what compare should say: None for a match, else the places that are right for `first`)
RUNS = {
    **{f"transformers-{case}": (transformers, case, {}, None) for case in ("llama-bias-base", "qwen2-base", "mistral-base", "gemma-base", "gemma2-base", "llama-3-base")},
    "transformers-sdpa": (transformers, "qwen2-base", dict(attention="sdpa"), None),
    "transformers-bfloat16": (transformers, "mistral-base", dict(dtype=torch.bfloat16), None),
    "transformers-checkpoint": (transformers, "qwen2-base", dict(checkpoint="not reentrant"), None),
    "transformers-checkpoint-reentrant": (transformers, "qwen2-base", dict(checkpoint="reentrant"), None),
    **{f"peft-{case}": (peft, case, {}, None) for case in ("lora-llama", "lora-llama-subset", "lora-qwen2-rslora", "lora-gemma2")},
    **{f"moe-peft-{case}": (moe_peft, case, {}, None) for case in ("llama-topk", "llama-rslora", "llama-expert-lora", "mistral-topk", "qwen2-topk", "gemma-topk",
                                                                   "llama-dynamic", "qwen2-dynamic")},
    "moe-peft-vanilla": (moe_peft, "llama-topk", dict(defect=dict(evaluate=True)), None),
}


def main(out, *names):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for name in names or RUNS:
        how, case, more, where = RUNS[name]
        how(case, str(out / f"{name}.safetensors"), **more)
        c = INDEX[case]
        made.append(dict(name=name, file=f"{name}.safetensors", first=where, **{k: str(PEERS / c[k]) if c[k] else None for k in ("model", "adapter", "batch")}))
        print(name, flush=True)
    (out / "peers.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__": main(*sys.argv[1:])
