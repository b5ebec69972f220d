#!/usr/bin/env python3
"""Training steps on SmolLM2 side by side: ours against MoE-PEFT's MixLoRA and PEFT's plain LoRA, in speed and memory.

usage: bench.py MIXLORA GGUF FOLDER --out FILE.json [--runs 5] [--steps 5] [--threads 2]

FOLDER is what dequantise.py made of GGUF. Every run is a process of its own: it loads the model, makes one step that is not timed and
`--steps` that are, each of forward, backward and AdamW on 2 sequences of 256 random tokens, every column but a row's first labelled;
rank 16, all seven linears, dropout 0.05, float32. Tokens per second is the 512 tokens of the batch over the median step of the run.
The contenders take turns, and a table gives the median, least and most of their runs. Memory is the largest VmHWM of a contender's
processes, loading included.

  ours, MixLoRA            mixlora bench train --model FOLDER | GGUF           8 experts, 2 a token
  ours, LoRA               mixlora bench train --method lora --model FOLDER | GGUF
  MoE-PEFT, MixLoRA        its optimised path (W1 x and W3 x once a token); without and with recomputation, the faster one counts
  PEFT, LoRA               LlamaForCausalLM, sdpa attention

Exit 1 unless ours MixLoRA >= 1.6 x MoE-PEFT and <= 2 GiB, and ours LoRA >= PEFT, all of it from the folder and from the GGUF.
Run it on a machine that does nothing else.
"""
import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time

import common

BATCH, LENGTH, RANK, ALPHA, EXPERTS, TOP_K, DROPOUT, LR = 2, 256, 16, 32, 8, 2, 0.05, 2e-4
RATIO, MEMORY, LORA_RATIO = 1.6, 2.0, 1.0
GIB = 1 << 30


# ---- One peer, in a process of its own

def batch(vocabulary):
    import torch
    draw = torch.Generator().manual_seed(42)
    ids = torch.randint(0, vocabulary, (BATCH, LENGTH), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def timed(step, steps):
    """Seconds of each step after the first; the loss must be finite."""
    seconds = []
    for number in range(steps + 1):
        start = time.perf_counter()
        loss = step()
        if number > 0:
            seconds.append(time.perf_counter() - start)
        if not math.isfinite(loss):
            sys.exit(f"the loss is {loss}")
    return seconds


def moe_peft(folder, steps, gradient_checkpoint):
    import torch
    config = common.adapter_config(RANK, ALPHA, EXPERTS, TOP_K, DROPOUT)
    peer = common.MoEPEFT(folder, config, None, dropout=DROPOUT)
    adamw = torch.optim.AdamW(peer.parameters.values(), lr=LR)
    data = batch(peer.model.vocab_size_)

    def step():
        loss, aux = peer.forward(data, gradient_checkpoint)
        (loss + aux).backward()
        adamw.step()
        adamw.zero_grad()
        return loss.item()
    return timed(step, steps)


def peft(folder, steps):
    import torch
    import torch.distributed.tensor                      # peft 0.21 looks for it without importing it
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM
    base = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="sdpa")
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=[*common.ATTENTION, *common.FEED_FORWARD], task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    model.config.use_cache = False
    adamw = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)
    data = batch(model.config.vocab_size)

    def step():
        loss = model(**data).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        return loss.item()
    return timed(step, steps)


def peak_resident():
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * 1024


def child(name, folder, steps, threads):
    """What a process with --child does: one JSON line."""
    import torch
    torch.set_num_threads(threads)
    peers = {
        "moe-peft": lambda: moe_peft(folder, steps, "none"), "moe-peft-recompute": lambda: moe_peft(folder, steps, "recompute"),
        "peft": lambda: peft(folder, steps),
    }
    seconds = peers[name]()
    print(json.dumps({
        "tokens_per_second": BATCH * LENGTH / statistics.median(seconds), "peak_resident_bytes": peak_resident(), "seconds": seconds}))


# ---- All of them, in turn

def run(command, environment):
    """The JSON line that ends a process's output, with the kernel's count of its memory beside its own."""
    start = time.time()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    out, err = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}\n{err[-2000:]}")
    found = json.loads(out.strip().splitlines()[-1])
    for key in ("tokens_per_second", "peak_resident_bytes"):
        if not (math.isfinite(found[key]) and found[key] > 0):
            sys.exit(f"{' '.join(map(str, command))}: {key} is {found[key]}")
    return {**found, "process_seconds": time.time() - start}


def contenders(arguments):
    ours = [arguments.mixlora, "bench", "train", "--json", "--batch", BATCH, "--length", LENGTH, "--rank", RANK, "--experts", EXPERTS,
            "--top-k", TOP_K, "--dropout", DROPOUT, "--steps", arguments.steps, "--threads", arguments.threads]
    theirs = [sys.executable, os.path.abspath(__file__), arguments.mixlora, arguments.gguf, arguments.folder, "--steps", arguments.steps,
              "--threads", arguments.threads, "--child"]
    out = {
        "ours MixLoRA, folder": [*ours, "--model", arguments.folder], "ours MixLoRA, GGUF": [*ours, "--model", arguments.gguf],
        "MoE-PEFT MixLoRA": [*theirs, "moe-peft"], "MoE-PEFT MixLoRA, recomputing": [*theirs, "moe-peft-recompute"],
        "ours LoRA, folder": [*ours, "--method", "lora", "--model", arguments.folder],
        "ours LoRA, GGUF": [*ours, "--method", "lora", "--model", arguments.gguf], "PEFT LoRA": [*theirs, "peft"],
    }
    return {name: [str(part) for part in command] for name, command in out.items()}


def machine(arguments):
    """lscpu's model, OpenBLAS's core as our program loads it, torch's instruction set, load."""
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout
    fields = dict(re.findall(r"^(.+?):\s*(.*)$", lscpu, re.M))
    loud = subprocess.run(
        [arguments.mixlora, "bench", "train", "--help"], capture_output=True, text=True, env={**os.environ, "OPENBLAS_VERBOSE": "2"})
    core = re.search(r"Core: (\S+)", loud.stderr + loud.stdout)
    import torch
    return {
        "lscpu_model": fields.get("Model name"), "cpu_family_model": f"{fields.get('CPU family')}/{fields.get('Model')}",
        "cpus": fields.get("CPU(s)"), "openblas_core": core[1] if core else "not said", "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": arguments.threads, "load_average": os.getloadavg()[0],
    }


def summary(found):
    rates = [each["tokens_per_second"] for each in found]
    return {"tokens_per_second": statistics.median(rates), "least": min(rates), "most": max(rates),
            "peak_gib": max(each["peak_resident_bytes"] for each in found) / GIB}


def verdicts(table):
    """(claim, value, limit, holds)"""
    def rate(name):
        return table[name]["tokens_per_second"]
    peer = max(rate("MoE-PEFT MixLoRA"), rate("MoE-PEFT MixLoRA, recomputing"))
    out = []
    for form in ("folder", "GGUF"):
        ratio, memory, lora = rate(f"ours MixLoRA, {form}") / peer, table[f"ours MixLoRA, {form}"]["peak_gib"], rate(f"ours LoRA, {form}") / rate("PEFT LoRA")
        out += [(f"ours MixLoRA, {form} / MoE-PEFT MixLoRA", ratio, f">= {RATIO}", ratio >= RATIO),
                (f"ours MixLoRA, {form}: peak GiB", memory, f"<= {MEMORY}", memory <= MEMORY),
                (f"ours LoRA, {form} / PEFT LoRA", lora, f">= {LORA_RATIO}", lora >= LORA_RATIO)]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("mixlora", "gguf", "folder"):
        parser.add_argument(name)
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.folder, arguments.steps, arguments.threads)
    if arguments.out is None or arguments.runs < 1 or arguments.steps < 1:
        parser.error("--out is needed, --runs and --steps are at least 1")
    common.check_pins("torch", "transformers", "moe-peft", "peft", "safetensors")
    about = machine(arguments)
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "MKL_NUM_THREADS": str(arguments.threads), "SWIFT_BACKTRACE": "enable=no"}
    commands = contenders(arguments)
    found = {name: [] for name in commands}
    for number in range(arguments.runs):
        for name, command in commands.items():
            found[name].append(run(command, environment))
            print(f"run {number + 1}  {name:30} {found[name][-1]['tokens_per_second']:7.1f} tokens/s", file=sys.stderr, flush=True)

    table = {name: summary(runs) for name, runs in found.items()}
    print(f"\n| median of {arguments.runs}, {arguments.steps} steps each | tokens/s | least to most | peak GiB |\n|---|---|---|---|")
    for name, row in table.items():
        print(f"| {name} | {row['tokens_per_second']:.1f} | {row['least']:.1f} to {row['most']:.1f} | {row['peak_gib']:.2f} |")
    print("\n| claim | measured | limit | |\n|---|---|---|---|")
    results = verdicts(table)
    for claim, value, limit, holds in results:
        print(f"| {claim} | {value:.2f} | {limit} | {'holds' if holds else 'DOES NOT HOLD'} |")
    about["load_average_after"] = os.getloadavg()[0]
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({
            "machine": about, "batch": BATCH, "length": LENGTH, "rank": RANK, "experts": EXPERTS, "top_k": TOP_K, "dropout": DROPOUT,
            "steps": arguments.steps, "table": table, "claims": [dict(zip(("claim", "measured", "limit", "holds"), r)) for r in results],
            "runs": found}, file, indent=1)
    good = bool(results) and all(holds for *_, holds in results)
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
