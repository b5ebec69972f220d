#!/usr/bin/env python3
"""Training steps of MixLoRA on one GPU: MoE-PEFT beside `mixlora bench train --backend cuda`, in turns, on the same random weights.

usage: peers.py SHAPE --binary MIXLORA [--runs 3] [--steps 8] [--batch 2] [--length 256] [--device cuda]
  SHAPE   a folder with a config.json

Rank 16, 8 experts, 2 a token, all seven linears, dropout 0.05, float32, AdamW; every column is a label. Each run is a process of its own.
Prints the median tokens/s of each, the ratio, and the most GPU memory. Pins as ../smollm2: torch 2.5.1, transformers 4.46.3, moe-peft 2.0.2.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def moe_peft(folder, a):
    if a.device == "cpu": os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
    import torch, moe_peft
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    device = "cuda:0" if a.device == "cuda" else a.device
    model = moe_peft.LLMModel.from_pretrained(folder, device=device, load_dtype=torch.float32, attn_impl="eager")
    model.init_adapter(moe_peft.adapter_factory(
        adapter_name="m", bias="none", peft_type="MIXLORA", task_type="CAUSAL_LM", base_model_name_or_path="m", r=16, lora_alpha=32, lora_dropout=0.05,
        target_modules=NAMES, routing_strategy="mixlora", num_experts=8, top_k=2, act_fn="silu", router_loss=True, router_aux_loss_coef=0.001))
    parameters = list(model.get_adapter_weight_dict("m").values())
    for p in parameters: p.requires_grad_()
    adamw = torch.optim.AdamW(parameters, lr=2e-4)
    ids = torch.randint(0, model.vocab_size_, (a.batch, a.length), generator=torch.Generator().manual_seed(42)).tolist()
    masks, seconds = [[1] * a.length] * a.batch, []
    for number in range(a.steps + 1):
        start = time.perf_counter()
        out = model.forward(LLMModelInput(batch_configs_=[LLMBatchConfig("m", 0, a.batch)], batch_tokens_=ids, batch_labels_=ids, batch_masks_=masks))[0]
        (out.loss + out.aux_loss).backward()
        adamw.step()
        adamw.zero_grad()
        if not torch.isfinite(out.loss).item(): sys.exit(f"the loss is {out.loss}")  # .item() waits for the device
        if number > 0: seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else 0
    print(json.dumps({"tokens_per_second": a.batch * a.length / statistics.median(seconds), "peak_resident_bytes": peak}))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape")
    parser.add_argument("--binary", default="mixlora")
    for name, value in (("runs", 3), ("steps", 8), ("batch", 2), ("length", 256)): parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child: return moe_peft(a.shape, a)
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(1)
        LlamaForCausalLM(LlamaConfig.from_pretrained(a.shape)).save_pretrained(folder)
        common = ["--batch", str(a.batch), "--length", str(a.length), "--steps", str(a.steps)]
        ours = [a.binary, "bench", "train", "--json", "--model", folder, "--backend", "cpu" if a.device == "cpu" else "cuda", *common]
        theirs = [sys.executable, os.path.abspath(__file__), folder, "--child", "--device", a.device, *common]
        found = {"MoE-PEFT": [], "ours": []}
        for _ in range(a.runs):
            found["MoE-PEFT"].append(run(theirs))
            found["ours"].append(run(ours))
    rates = {name: statistics.median(r["tokens_per_second"] for r in runs) for name, runs in found.items()}
    for name, runs in found.items():
        print(f"{name:10} {rates[name]:9.1f} tokens/s   {max(r['peak_resident_bytes'] for r in runs) / 2**30:.2f} GiB")
    print(f"ours / MoE-PEFT: {rates['ours'] / rates['MoE-PEFT']:.2f}")


main()
