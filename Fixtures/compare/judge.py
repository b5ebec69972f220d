#!/usr/bin/env python3
"""Judges `mixlora compare` by the records of make.py and peers.py.

usage: judge.py MIXLORA DIR [--bugs] [--clean] [--peers] [--tight N] [--only GLOB] [--details]
  --bugs      how many mistakes are detected (exit 1), located (`first` at the right point), and given their cause as the first hint
  --clean     false alarms among the clean runs, routing flips, and how tight the budgets of clean float32 tensors are: median of
              budget / error by kind of operation
  --peers     the same of other programs' runs (peers.py)
  --tight N   in N clean float32 runs each tensor in turn gets a perturbation of 4 × budget in a random direction: which are not found
None of the four means --bugs --clean. Exit 1 if anything of issue 12's promises is missed.
"""
import argparse, json, random, statistics, subprocess, sys, tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def compare(mixlora, here, record, file=None):
    """(exit code, lines of the tensors, last line, what it said on standard error)"""
    place = lambda p: str(Path(here) / p)
    adapter = ["--adapter", place(record["adapter"])] if record.get("adapter") else []
    command = [mixlora, "compare", "--model", place(record["model"]), *adapter, "--batch", place(record["batch"]), file or place(record["file"]), "--json", "--quiet", "--threads", "1"]
    run = subprocess.run(command, capture_output=True, text=True)
    try: lines = [json.loads(l) for l in run.stdout.splitlines()]
    except ValueError: lines = []
    last = lines.pop() if lines and "verdict" in lines[-1] and "tensor" not in lines[-1] else {}
    return run.returncode, lines, last, run.stderr.strip()[-300:]


def cause_of(last):
    """The name of the first hint."""
    causes = last.get("cause_details") or []
    return causes[0]["name"] if causes else None


def share(n, of): return f"{n} of {of} ({100 * n / max(of, 1):.1f} %)"


def bugs(options, records, run):
    found = list(run(records))
    count, tags, missed = Counter(), defaultdict(Counter), []
    for record, (code, lines, last, error) in found:
        first, cause = last.get("first"), cause_of(last)
        detected, located = code == 1 and last.get("verdict") == "mismatch", first is not None and any(fnmatchcase(first, p) for p in record["first"])
        right = detected and (cause in record["cause"] or (cause is None and "other" in record["cause"]))
        count.update({"all": 1, "detected": int(detected), "located": int(located), "right": int(right), record["phase"]: 1, record["phase"] + " located": int(located)})
        tags[record["cause"][0]].update(all=1, right=int(right))
        if options.details or not (detected and located and right):
            said = ["detected" if detected else f"NOT DETECTED (exit {code})", "located" if located else f"AT {first} NOT {' '.join(record['first'])}",
                    "cause" if right else f"CAUSE {cause} NOT {' '.join(record['cause'])}"]
            missed.append(f"  {record['name']}: {', '.join(said)} {error if code not in (0, 1) else ''}")
    n = count["all"]
    print(f"mistakes: detected {share(count['detected'], n)}, located {share(count['located'], n)}, right cause first {share(count['right'], n)}")
    print("  located by phase:", ", ".join(f"{p} {share(count[p + ' located'], count[p])}" for p in ("forward", "backward", "optimizer")))
    print("  cause by kind:", ", ".join(f"{t} {c['right']}/{c['all']}" for t, c in sorted(tags.items())))
    print("\n".join(sorted(missed)))
    return count["detected"] == n and count["located"] >= 0.97 * n and count["right"] >= 0.8 * n


def clean(options, records, run, what="clean runs"):
    alarms, flips, tight, looser = [], Counter(), defaultdict(list), defaultdict(list)
    count = Counter()
    for record, (code, lines, last, error) in run(records):
        count.update(runs=1)
        if code != 0 or last.get("verdict") != "match" or not last.get("compared"):
            bad = [l["tensor"] for l in lines if l.get("verdict") == "mismatch"]
            alarms.append(f"  {record['name']}: exit {code}, first {last.get('first')}, {len(bad)} mismatches {bad[:3]} {error if code != 1 else ''}")
        routing = last.get("routing") or {}
        flips.update({k: routing.get(k) or 0 for k in ("decisions", "flips", "explained")}, runs=int(bool(routing.get("flips"))))
        dtype = (record.get("settings") or {}).get("dtype", "float32")
        for l in lines:
            if dtype != "float32" or l.get("verdict") != "ok": continue
            for budget, error, into in (("budget", "error", tight), ("local_budget", "local_error", looser)):
                if l.get(budget) and l.get(error): into[kind(l)].append(l[budget] / l[error])
    print(f"{what}: {count['runs']}, false alarms {len(alarms)}; decisions {flips['decisions']}, flips {flips['flips']} in {flips['runs']} runs, explained {flips['explained']}")
    print("\n".join(alarms[:60]))
    for name, into in (("budget / error", tight), ("local budget / local error", looser)):
        every = [r for v in into.values() for r in v]
        if every: print(f"  float32, median of {name}: all {statistics.median(every):.1f};", ", ".join(f"{k} {statistics.median(v):.1f}" for k, v in sorted(into.items())))
    return not alarms and all(statistics.median(v) <= 30 for v in (tight and [[r for v in tight.values() for r in v]] or []))


def kind(line):
    name, gradient = line["tensor"], "grad " if line["tensor"].startswith("grad.") else ""
    for pattern, found in (("after.*", "after"), ("*.lora_[AB].*", "branch"), ("*moe_gate.weight", "gate"), ("*rotated.output", "rotated"), ("*o_proj.input", "attention"), ("*norm.output", "norm"),
                           ("*moe_gate*", "router"), ("*hidden", "hidden"), ("*down_proj.input", "hidden"), ("*_proj.*output", "product"), ("*residual.output", "residual"), ("*embed_tokens.output", "embedding"),
                           ("*mlp.output", "mlp"), ("*loss*", "losses"), ("*lm_head*", "head"), ("logits", "head"), ("*layers.*", "block")):
        if fnmatchcase(name, pattern): return found if found == "after" else gradient + found
    return "other"


def tight(options, records, run):
    """A perturbation of 4 × budget, and of 4 × local budget, in one tensor: is it found?"""
    draw, missed, count = random.Random(1), [], Counter()
    chosen = [r for r in records if r["settings"]["dtype"] == "float32"]
    chosen = [chosen[i * len(chosen) // options.tight] for i in range(min(options.tight, len(chosen)))]
    with tempfile.TemporaryDirectory() as scratch:
        for record, (_, lines, _, _) in run(chosen):
            with safe_open(Path(options.dir) / record["file"], "pt") as f: values, about = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()
            tried = []
            for l in lines:
                for budget in ("budget", "local_budget"):
                    t = values.get(l["tensor"])
                    if t is None or not t.is_floating_point() or not l.get(budget) or t.norm() == 0: continue
                    if draw.random() > options.share: continue
                    direction = torch.randn(t.shape, generator=torch.Generator().manual_seed(len(tried))) * (t != 0)
                    changed = dict(values, **{l["tensor"]: t + direction * (4 * l[budget] * t.norm() / direction.norm())})
                    file = f"{scratch}/{len(tried)}.safetensors"
                    save_file({k: v.contiguous() for k, v in changed.items()}, file, metadata=about)
                    tried.append((l["tensor"], budget, dict(record, file=file)))
            for (name, budget, _), (_, (code, _, last, _)) in zip(tried, run([t[2] for t in tried])):
                count.update(tried=1, found=int(code == 1), named=int(last.get("first") == name))
                if code != 1: missed.append(f"  {record['name']}: {name} by 4 × {budget}")
    print(f"perturbations of 4 × budget: {count['tried']}, found {share(count['found'], count['tried'])}, named {share(count['named'], count['tried'])}")
    print("\n".join(missed[:40]))
    return not missed


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("mixlora")
    options.add_argument("dir")
    for flag in ("--bugs", "--clean", "--peers", "--details"): options.add_argument(flag, action="store_true")
    options.add_argument("--tight", type=int, default=0)
    options.add_argument("--share", type=float, default=1.0, help="share of the tensors that --tight tries")
    options.add_argument("--only", default="*")
    options.add_argument("--jobs", type=int, default=2)
    options = options.parse_args()
    chosen = [w for w in ("bugs", "clean", "peers", "tight") if getattr(options, w)] or ["bugs", "clean"]
    ok = True

    def run(records):
        with ThreadPoolExecutor(options.jobs) as pool:
            yield from zip(records, pool.map(lambda r: compare(options.mixlora, options.dir, r), records))
    for what in chosen:
        index = Path(options.dir) / f"{'clean' if what == 'tight' else what}.json"
        records = [r for r in json.loads(index.read_text()) if fnmatchcase(r["name"], options.only)]
        if not records: sys.exit(f"{index}: no record is named {options.only}")
        if what == "peers": right, wrong = [r for r in records if not r["first"]], [r for r in records if r["first"]]
        if what == "peers" and wrong: ok &= bugs(options, wrong, run)
        ok &= dict(bugs=bugs, clean=clean, tight=tight).get(what, lambda o, r, run: clean(o, right, run, "other programs"))(options, records, run)
    sys.exit(0 if ok else 1)


if __name__ == "__main__": main()
