#!/usr/bin/env python3
"""Training steps on one GPU: MoE-PEFT's MixLoRA and PEFT's plain LoRA beside `mixlora bench train --backend cuda`, in turns, on one random model.

usage: peers.py SHAPE --binary MIXLORA [--runs 3] [--steps 8] [--batch 2] [--length 256] [--device cuda]
  SHAPE   a folder with a config.json

Rank 16, all seven linears, dropout 0.05, AdamW, float32 without TF32; 8 experts, 2 a token, where there are experts; every column is a label.
MoE-PEFT loops over its experts, with eager attention; PEFT's is sdpa. Each run is a process of its own, its first step not timed.
Prints the median tokens/s of each, the most memory (the GPU's; with --device cpu the process's), and how many times as fast ours is.
Needs transformers 4.46.3, tokenizers 0.20.3, huggingface_hub 0.36.2, moe-peft 2.0.2, datasets, evaluate, peft 0.21; torch 2.5.1 and 2.13 were tried.
"""
import argparse, json, math, os, re, statistics, subprocess, sys, tempfile, time

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def moe_peft(folder, a):
    """A step's loss by MoE-PEFT, and what is trained."""
    import torch, moe_peft
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    model = moe_peft.LLMModel.from_pretrained(folder, device=a.device, load_dtype=torch.float32, attn_impl="eager")
    model.init_adapter(moe_peft.adapter_factory(
        adapter_name="m", bias="none", peft_type="MIXLORA", task_type="CAUSAL_LM", base_model_name_or_path="m", r=16, lora_alpha=32, lora_dropout=0.05,
        target_modules=NAMES, routing_strategy="mixlora", num_experts=8, top_k=2, act_fn="silu", router_loss=True, router_aux_loss_coef=0.001))
    parameters = list(model.get_adapter_weight_dict("m").values())
    for p in parameters: p.requires_grad_()
    ids, masks = tokens(model.vocab_size_, a).tolist(), [[1] * a.length] * a.batch

    def loss():
        out = model.forward(LLMModelInput(batch_configs_=[LLMBatchConfig("m", 0, a.batch)], batch_tokens_=ids, batch_labels_=ids, batch_masks_=masks))[0]
        return out.loss + out.aux_loss
    return loss, parameters


def peft(folder, a):
    """The same by PEFT."""
    import torch
    import torch.distributed.tensor  # peft 0.21 looks for it without importing it
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM
    base = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="sdpa").to(a.device)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=NAMES, task_type="CAUSAL_LM")).train()
    model.config.use_cache = False
    ids = tokens(model.config.vocab_size, a).to(a.device)
    data = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return lambda: model(**data).loss, [p for p in model.parameters() if p.requires_grad]


def make(shape, folder):
    """Writes the random model. In a process of its own: the kernel counts a parent's memory into what a child has had at most."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig.from_pretrained(shape)).save_pretrained(folder)
    print(json.dumps({"made": folder}))


PEERS = {"MoE-PEFT MixLoRA": moe_peft, "PEFT LoRA": peft}


def tokens(vocabulary, a):
    import torch
    return torch.randint(0, vocabulary, (a.batch, a.length), generator=torch.Generator().manual_seed(42))


def child(a):
    """What a process with --child does: one JSON line."""
    if a.device == "cpu": os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
    import torch
    on_gpu = a.device.startswith("cuda")
    loss_of, parameters = PEERS[a.child](a.shape, a)
    if not parameters: sys.exit("nothing is trained")
    torch.backends.cuda.matmul.allow_tf32 = False
    adamw, seconds = torch.optim.AdamW(parameters, lr=2e-4), []
    before = [p.detach().cpu().clone() for p in parameters]
    for number in range(a.steps + 1):
        if on_gpu: torch.cuda.synchronize()
        start = time.perf_counter()
        loss = loss_of()
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        if not math.isfinite(loss.item()): sys.exit(f"the loss is {loss}")
        if on_gpu: torch.cuda.synchronize()
        if number > 0: seconds.append(time.perf_counter() - start)
    moved = sum(not torch.equal(p.detach().cpu(), q) for p, q in zip(parameters, before))
    if moved * 2 < len(parameters): sys.exit(f"{moved} of {len(parameters)} tensors moved")  # an idle expert's may stay
    print(json.dumps({
        "tokens_per_second": a.batch * a.length / statistics.median(seconds),
        "trained": sum(p.numel() for p in parameters), "torch": torch.__version__, "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else 0,
        "peak_resident_bytes": torch.cuda.max_memory_allocated() if on_gpu else peak_resident()}))


def peak_resident():
    with open("/proc/self/status", encoding="utf-8") as file: return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * 1024


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for key in () if "made" in found else ("tokens_per_second", "peak_resident_bytes"):
        if not 0 < found[key] < math.inf: sys.exit(f"{' '.join(command)}: {key} is {found[key]}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape")
    parser.add_argument("--binary", default="mixlora")
    for name, value in (("runs", 3), ("steps", 8), ("batch", 2), ("length", 256)): parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--device", default="cuda")
    for name in ("--child", "--make"): parser.add_argument(name, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.runs < 1 or a.steps < 1: parser.error("--runs and --steps are at least 1")
    os.environ |= {"USE_FLAX": "0", "HF_HUB_OFFLINE": "1"}  # an installed JAX is not loaded, no network is asked
    if a.device == "cuda": a.device = "cuda:0"
    if a.make: return make(a.shape, a.make)
    if a.child: return child(a)
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, os.path.abspath(__file__), a.shape, "--make", folder])
        common = ["--batch", str(a.batch), "--length", str(a.length), "--steps", str(a.steps)]
        ours = [a.binary, "bench", "train", "--json", "--model", folder, "--backend", "cpu" if a.device == "cpu" else "cuda", *common]
        theirs = [sys.executable, os.path.abspath(__file__), folder, "--device", a.device, *common, "--child"]
        commands = {"ours MixLoRA": ours, **{name: [*theirs, name] for name in PEERS}}
        found = {name: [] for name in commands}
        for _ in range(a.runs):
            for name, command in commands.items():
                found[name].append(run(command))
                print(name, json.dumps(found[name][-1]), file=sys.stderr, flush=True)
    rates = {name: statistics.median(r["tokens_per_second"] for r in runs) for name, runs in found.items()}
    for name, runs in found.items():
        ratio = "" if name == "ours MixLoRA" else f"   ours / this: {rates['ours MixLoRA'] / rates[name]:.2f}"
        print(f"{name:16} {rates[name]:9.1f} tokens/s   {max(r['peak_resident_bytes'] for r in runs) / 2**30:.2f} GiB{ratio}")


main()
