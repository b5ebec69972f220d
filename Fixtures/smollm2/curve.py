#!/usr/bin/env python3
"""Twenty training steps on SmolLM2, ours and MoE-PEFT's from the same adapter on the same batches: the two loss curves.

usage: curve.py MIXLORA GGUF FOLDER DATA --work DIR [--steps 20] [--lr 2e-4] [--seed 1] [--run DIR]

FOLDER is what dequantise.py made of GGUF. An adapter with A as `kaiming_uniform(a=√5)` draws it and random B and gate is written to
DIR/initial (rank 8, alpha 16, 8 experts, 2 a token, all seven linears, dropout 0); `mixlora train` starts from it with a constant
rate, no clipping, batches of 8 questions, and dumps its batches; MoE-PEFT's model gets the same adapter and the same batches under
torch.optim.AdamW. Its loss is the mean cross-entropy of the labelled columns plus its own balance loss of the real tokens.
Before that, every row of the dump must be a question in MoE-PEFT's own words with labels on its answer and end token alone.
--run takes batches.safetensors and run/metrics.jsonl from a folder in place of training.

Written to DIR: curve.json (the numbers) and curve.svg. Exit 1 if at any step the two losses, or the two balance losses, are more
than 1e-3 apart (relative).
"""
import argparse
import json
import os
import shutil
import sys

import common

LIMIT = 1e-3
BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.01     # torch's and ours


def train(arguments):
    """Our run: writes work/batches.safetensors and work/run/metrics.jsonl."""
    shutil.rmtree(f"{arguments.work}/run", ignore_errors=True)
    common.mixlora(
        arguments.mixlora, "train", "--model", arguments.gguf, "--data", arguments.data, "--task", ";".join(common.TASKS),
        "--steps", arguments.steps, "--batch", 8, "--rank", 8, "--alpha", 16, "--dropout", 0, "--clip", 0, "--schedule", "constant",
        "--lr", arguments.lr, "--weight-decay", DECAY, "--adapter", f"{arguments.work}/initial", "--seed", arguments.seed,
        "--dump-batches", f"{arguments.work}/batches.safetensors", "--out", f"{arguments.work}/run", "--quiet")


def read_run(folder, steps):
    """(metrics, batches) of the steps from 1 on."""
    from safetensors.torch import load_file
    with open(f"{folder}/run/metrics.jsonl", encoding="utf-8") as file:
        metrics = [json.loads(line) for line in file]
    if [line["step"] for line in metrics] != list(range(1, steps + 1)) or steps < 1:
        sys.exit(f"{folder}/run/metrics.jsonl: steps {[line['step'] for line in metrics]}, expected 1 to {steps}")
    dump = load_file(f"{folder}/batches.safetensors")
    parts = ("input_ids", "attention_mask", "labels")
    expected = {f"step.{n}.{part}" for n in range(1, steps + 1) for part in parts}
    if set(dump) != expected:
        sys.exit(f"{folder}/batches.safetensors: {sorted(set(dump) ^ expected)[:6]}")
    return metrics, [{part: dump[f"step.{n}.{part}"] for part in parts} for n in range(1, steps + 1)]


def check_batches(arguments, batches, metrics, end):
    """Every row is a question by MoE-PEFT's code, padded right, with labels on its answer and end token; lines count its real tokens."""
    pairs = [pair for task in common.TASKS for pair in common.questions(arguments.data, task)]
    wholes = common.tokenize(arguments.mixlora, arguments.gguf, [prompt + answer for prompt, answer in pairs])
    prompts = common.tokenize(arguments.mixlora, arguments.gguf, [prompt for prompt, _ in pairs])
    known = {(*whole, end): len(prompt) for whole, prompt in zip(wholes, prompts, strict=True)}
    rows = 0
    for number, (batch, line) in enumerate(zip(batches, metrics, strict=True), 1):
        if int(batch["attention_mask"].sum()) != line["tokens"]:
            sys.exit(f"step {number}: {int(batch['attention_mask'].sum())} real tokens, metrics.jsonl has {line['tokens']}")
        for row, (ids, mask, labels) in enumerate(zip(*(batch[k].tolist() for k in ("input_ids", "attention_mask", "labels")), strict=True)):
            real = sum(mask)
            start = known.get(tuple(ids[:real]))
            if start is None or mask != [1] * real + [0] * (len(mask) - real):
                sys.exit(f"step {number}, row {row}: not a question of {', '.join(common.TASKS)}: {ids}, mask {mask}")
            if labels != [-100] * start + ids[start:real] + [-100] * (len(ids) - real):
                sys.exit(f"step {number}, row {row}: labels are not the answer and the end token: {labels}")
            rows += 1
    if rows == 0:
        sys.exit("no rows")
    print(f"{rows} rows are questions in MoE-PEFT's words, labels on answer and end token")


def train_moe_peft(arguments, config, tensors, batches):
    """Yields (loss, balance loss, parameters) of each of their steps, after it."""
    import torch
    peer = common.MoEPEFT(arguments.folder, config, tensors)
    adamw = torch.optim.AdamW(peer.parameters.values(), lr=arguments.lr, betas=BETAS, eps=EPSILON, weight_decay=DECAY)
    for batch in batches:
        loss, aux = peer.forward(batch)
        adamw.zero_grad()
        (loss + aux).backward()
        for parameter in peer.parameters.values():      # an expert without a token still decays
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        adamw.step()
        yield loss.item(), aux.item(), peer.parameters


def svg(ours, theirs):
    """Both curves: ours a line, theirs circles."""
    width, height, left, top = 560, 320, 56, 24
    high, low = max(ours + theirs), min(ours + theirs)
    high, low = high + 0.05 * (high - low or 1), low - 0.05 * (high - low or 1)
    across, down = width - left - 20, height - top - 44

    def x(step):
        return left + across * (step - 1) / max(1, len(ours) - 1)

    def y(loss):
        return top + down * (high - loss) / (high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i in range(5):
        value = low + (high - low) * i / 4
        out.append(f'<path d="M{left} {y(value):.1f}h{across}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for step in range(1, len(ours) + 1):
        if step == 1 or step % 5 == 0:
            out.append(f'<text x="{x(step):.1f}" y="{top + down + 18}" text-anchor="middle">{step}</text>')
    points = " ".join(f"{x(i):.1f},{y(loss):.1f}" for i, loss in enumerate(ours, 1))
    out.append(f'<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="2"/>')
    out += [f'<circle cx="{x(i):.1f}" cy="{y(loss):.1f}" r="4" fill="none" stroke="#d62728"/>' for i, loss in enumerate(theirs, 1)]
    out.append(f'<text x="{left + across / 2}" y="{height - 8}" text-anchor="middle">step</text>')
    out.append(f'<text x="{width - 24}" y="{top + 4}" text-anchor="end">cross-entropy: <tspan fill="#1f77b4">line MixLoRA for Swift</tspan>, '
               '<tspan fill="#d62728">circles MoE-PEFT</tspan></text></svg>')
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("mixlora", "gguf", "folder", "data"):
        parser.add_argument(name)
    parser.add_argument("--work", required=True, help="folder for what is written")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gate-std", type=float, default=0.5)
    parser.add_argument("--b-std", type=float, default=0.02)
    parser.add_argument("--run", help="folder with initial/, batches.safetensors and run/metrics.jsonl of such a run")
    arguments = parser.parse_args()
    common.check_pins("torch", "transformers", "moe-peft", "safetensors")
    from safetensors.torch import load_file
    with open(f"{arguments.folder}/config.json", encoding="utf-8") as file:
        base = json.load(file)
    config = common.adapter_config(rank=8, alpha=16, experts=8, top_k=2)
    os.makedirs(arguments.work, exist_ok=True)
    if arguments.run:
        tensors = load_file(f"{arguments.run}/initial/adapter_model.safetensors")
    else:
        tensors = common.random_adapter(base, config, arguments.seed, arguments.gate_std, arguments.b_std)
        common.write_adapter(f"{arguments.work}/initial", config, tensors)
        train(arguments)
    place = arguments.run or arguments.work
    metrics, batches = read_run(place, arguments.steps)
    check_batches(arguments, batches, metrics, base["eos_token_id"])

    rows, worst = [], 0.0
    for line, (loss, aux, adapter) in zip(metrics, train_moe_peft(arguments, config, tensors, batches), strict=True):
        off = common.relative(line["loss"], loss), common.relative(line["aux_loss"], aux)
        worst = max(worst, *off)
        rows.append({"step": line["step"], "ours": line["loss"], "moe_peft": loss, "relative_error": off[0], "ours_aux": line["aux_loss"],
                     "moe_peft_aux": aux, "relative_error_aux": off[1], "tokens": line["tokens"]})
        print(f"step {line['step']:3}  ours {line['loss']:.6f}  MoE-PEFT {loss:.6f}  off by {off[0]:.1e}   balance {line['aux_loss']:.7f} "
              f"{aux:.7f}  off by {off[1]:.1e}", flush=True)
    ours = load_file(f"{place}/run/adapter_model.safetensors")
    if set(ours) != set(adapter):
        sys.exit("the trained adapters have different tensors")
    difference = sum((ours[k].double() - v.detach().double()).square().sum() for k, v in adapter.items()) ** 0.5
    moved = sum((v.detach().double() - tensors[k].double()).square().sum() for k, v in adapter.items()) ** 0.5
    moved_apart = (difference / moved).item()
    print(f"the trained adapters are {moved_apart:.1e} of the way apart that training moved them (not judged)")
    good = worst <= LIMIT and len(rows) == arguments.steps
    with open(f"{arguments.work}/curve.json", "w", encoding="utf-8") as file:
        json.dump({"limit": LIMIT, "worst": worst, "adapters_apart": moved_apart, "lr": arguments.lr, "steps": rows}, file, indent=1)
    with open(f"{arguments.work}/curve.svg", "w", encoding="utf-8") as file:
        file.write(svg([row["ours"] for row in rows], [row["moe_peft"] for row in rows]))
    print(f"worst of {len(rows)} steps: {worst:.1e} (limit {LIMIT:.0e}); {arguments.work}/curve.json, curve.svg")
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
