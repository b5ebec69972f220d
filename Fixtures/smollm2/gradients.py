#!/usr/bin/env python3
"""Loss and adapter gradients on SmolLM2 with real questions: MoE-PEFT in float32, ours in float32, ours in float64.

usage: gradients.py MIXLORA GGUF FOLDER DATA --work DIR [--batches 4] [--questions 1] [--loss-on answer|all] [--seed 1]

FOLDER is what dequantise.py made of GGUF. The adapter is random with a non-zero B (rank 8, alpha 16, 8 experts, 2 a token, all seven
linears). A batch is `--questions` questions of the tasks in MoE-PEFT's own words, padded right, with labels on the answer and the end
token, or on all real columns. Where two router logits lie close, rounding may choose another expert, so a batch is taken only if in
float64 the K-th and the next router logit of every token in every layer are at least 1e-4 apart.

Exit 1 beyond a limit (norm-wise, ‖a − b‖ ≤ ε·max(‖b‖, 10⁻³ × median norm of its kind); of losses |a − b| ≤ ε|b|):
  MoE-PEFT float32 against ours float32    2e-3
  ours float32 against ours float64        2e-4
"""
import argparse
import json
import os
import random
import sys

import common

GAP = 1e-4
PEER, SELF = 2e-3, 2e-4


def candidates(arguments, end):
    """Endless batches of questions, each beginning with the next task."""
    draw, pools = random.Random(arguments.seed), {}
    for task in common.TASKS:
        pairs = common.questions(arguments.data, task)
        draw.shuffle(pairs)
        pools[task] = pairs
    turn = 0
    while True:
        chosen = [pools[common.TASKS[(turn + i) % len(common.TASKS)]].pop() for i in range(arguments.questions)]
        wholes = common.tokenize(arguments.mixlora, arguments.gguf, [prompt + answer for prompt, answer in chosen])
        prompts = common.tokenize(arguments.mixlora, arguments.gguf, [prompt for prompt, _ in chosen])
        if any(whole[:len(prompt)] != prompt for whole, prompt in zip(wholes, prompts, strict=True)):
            continue  # a token that ends in the prompt and in the answer
        rows = [(prompt, whole[len(prompt):]) for whole, prompt in zip(wholes, prompts, strict=True)]
        batch = common.padded(rows, end)
        if arguments.loss_on == "all":
            batch["labels"] = batch["input_ids"].where(batch["attention_mask"] == 1, -100)
            batch["labels"][:, 0] = -100
        turn += 1
        yield batch


def trace(arguments, dtype, batch, backward):
    """Our trace of a batch, by name."""
    from safetensors.torch import load_file, save_file
    path, out = f"{arguments.work}/batch.safetensors", f"{arguments.work}/trace.safetensors"
    save_file(batch, path)
    common.mixlora(
        arguments.mixlora, "trace", "--model", arguments.gguf, "--adapter", f"{arguments.work}/adapter", "--batch", path,
        "--out", out, "--dtype", dtype, *(["--backward"] if backward else []))
    found = load_file(out)
    os.remove(out)
    return found


def gap(found, batch, layers, top_k):
    """Least distance between the K-th and the next router logit of a real token."""
    import torch
    logits = found["router_logits"].view(layers, *batch["input_ids"].shape, -1)[:, batch["attention_mask"] == 1]
    order = torch.sort(logits, dim=-1, descending=True)[0]
    least = (order[..., top_k - 1] - order[..., top_k]).min().item()
    return least, order.shape[0] * order.shape[1], logits.std().item()


def gradients(found):
    return {name.removeprefix("grad."): tensor for name, tensor in found.items() if name.startswith("grad.")}


def moe_peft(model, batch):
    import torch
    for parameter in model.parameters.values():
        parameter.grad = None
    loss, aux = model.forward(batch)
    (loss + aux).backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.parameters.items()}
    return {"loss": loss.item(), "aux_loss": aux.item()}, found


def report(title, found, wanted, losses, wanted_losses, limit):
    """Prints the errors of losses and of gradients by kind. True if none is beyond the limit."""
    print(f"  {title} (limit {limit:.0e})")
    good = True
    rows = [(name, common.relative(losses[name], wanted_losses[name]), f"{losses[name]:.7f}") for name in ("loss", "aux_loss")]
    rows += [(each, error, f"{count} tensors; worst {name}") for each, (error, name, count) in sorted(common.errors(found, wanted).items())]
    for name, error, remark in rows:
        within = error <= limit
        good = good and within
        print(f"    {name:52} {error:.1e}  {remark}{'' if within else '  BEYOND THE LIMIT'}")
    return good, max(error for _, error, _ in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("mixlora", "gguf", "folder", "data"):
        parser.add_argument(name)
    parser.add_argument("--work", required=True, help="folder for what is written: adapter, batch, trace")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--questions", type=int, default=1)
    parser.add_argument("--loss-on", choices=("answer", "all"), default="answer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gate-std", type=float, default=0.5, help="its inputs are small: router logits deviate by 2")
    parser.add_argument("--b-std", type=float, default=0.02)
    parser.add_argument("--tries", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.batches < 1 or arguments.questions < 1:
        parser.error("--batches and --questions: at least 1")
    common.check_pins("torch", "transformers", "moe-peft", "safetensors")
    with open(f"{arguments.folder}/config.json", encoding="utf-8") as file:
        base = json.load(file)
    config = common.adapter_config(rank=8, alpha=16, experts=8, top_k=2)
    tensors = common.random_adapter(base, config, arguments.seed, arguments.gate_std, arguments.b_std)
    os.makedirs(arguments.work, exist_ok=True)
    common.write_adapter(f"{arguments.work}/adapter", config, tensors)
    peer = common.MoEPEFT(arguments.folder, config, tensors)

    good, taken, tried, worst = True, 0, 0, {}
    for batch in candidates(arguments, base["eos_token_id"]):
        if taken == arguments.batches or tried == arguments.tries:
            break
        tried += 1
        least, gaps, spread = gap(trace(arguments, "float64", batch, False), batch, base["num_hidden_layers"], config["top_k"])
        shape, real = tuple(batch["input_ids"].shape), int(batch["attention_mask"].sum())
        print(f"batch {tried}: {shape}, {real} real tokens, {int((batch['labels'] != -100).sum())} labels; least of {gaps} router gaps "
              f"{least:.1e} (logits' deviation {spread:.2f})" + ("" if least >= GAP else f", below {GAP:.0e}: not taken"), flush=True)
        if not least >= GAP:
            continue
        taken += 1
        exact, single = trace(arguments, "float64", batch, True), trace(arguments, "float32", batch, True)
        ours_losses, exact_losses = ({name: found[name].item() for name in ("loss", "aux_loss")} for found in (single, exact))
        theirs_losses, theirs = moe_peft(peer, batch)
        for title, comparison in (
                ("MoE-PEFT float32 against ours float32", (theirs, gradients(single), theirs_losses, ours_losses, PEER)),
                ("ours float32 against ours float64", (gradients(single), gradients(exact), ours_losses, exact_losses, SELF)),
                ("MoE-PEFT float32 against ours float64", (theirs, gradients(exact), theirs_losses, exact_losses, PEER))):
            within, error = report(title, *comparison)
            good = good and within
            worst[title] = max(worst.get(title, 0.0), error)
    for title, error in worst.items():
        print(f"worst of {taken} batches: {title}: {error:.1e}")
    if taken < arguments.batches:
        print(f"only {taken} of {arguments.batches} batches: {tried} tried")
        good = False
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
