#!/usr/bin/env python3
"""One process with two threads against two ranks of one core each: tokens a second, and what the exchange takes of a step.

usage: speed.py MIXLORA MODEL DATA [--steps 6] [--turns 3] [--batch 8] [--accumulate 8] [--launcher mpirun] [--limit 3600]

Both train a MixLoRA (rank 16, 8 experts, 2 a token, dropout 0.05, seven linears) on the same samples, in the same parts. They take turns. A
run's figure is the median of its steps' tokens a second, the first step aside; the ratio is the median of the turns' ratios, since a machine
whose pace drifts drifts less within a turn. Two threads and one make other bits, so the losses are compared to rounding only. Run it on a
machine of two cores that does nothing else.
"""
import argparse, json, os, pathlib, signal, statistics, subprocess, sys, tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("mixlora")
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--turns", type=int, default=3)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--accumulate", type=int, default=8)
parser.add_argument("--launcher", default="mpirun")
parser.add_argument("--limit", type=int, default=3600, help="seconds that a run may take")
options = parser.parse_args()


def finished(name, command):
    """Runs a command to its end. One that takes too long is asked to end first, so that a launcher ends its ranks, too; then all of it is killed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, error = process.communicate(timeout=options.limit)
        return subprocess.CompletedProcess(command, process.returncode, output, error)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            error = process.communicate(timeout=10)[1]
        except subprocess.TimeoutExpired:
            error = "and it had to be killed"
        sys.exit(f"{name}: no end after {options.limit} s (--limit)\n{error}")
    finally:  # also behind Ctrl-C
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


version = subprocess.run([options.launcher, "--version"], capture_output=True, text=True).stdout
binding = ["--allow-run-as-root", "--bind-to", "core", "--map-by", "core"] if "Open MPI" in version else ["-bind-to", "core"]
contenders = {
    "one process, two threads": ([], 2),
    "two ranks, a core each": ([options.launcher, *binding, "-n", "2"], 1),
}
rates, shares, losses = ({name: [] for name in contenders} for _ in range(3))
with tempfile.TemporaryDirectory() as scratch:
    for turn in range(options.turns):
        for number, (name, (launcher, threads)) in enumerate(contenders.items()):
            out = pathlib.Path(scratch) / f"{turn}-{number}"
            command = [
                *launcher, options.mixlora, "train", "--model", options.model, "--data", options.data, "--out", str(out), "--steps",
                str(options.steps), "--batch", str(options.batch), "--accumulate", str(options.accumulate), "--threads", str(threads),
                "--quiet", "--json"]
            run = finished(name, command)
            if run.returncode != 0:
                sys.exit(run.stderr)
            steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            rates[name].append(statistics.median(step["tokens_per_second"] for step in steps[1:]))
            losses[name].append(steps[-1]["loss"])
            part = statistics.mean(step["tokens"] for step in steps) / options.accumulate
            for line in map(json.loads, run.stdout.splitlines()):
                if "ranks" in line:
                    shares[name].append((line["exchange_seconds"] / line["seconds"], line["waiting_seconds"] / line["seconds"], line["sent_bytes"]))

print(f"{version.splitlines()[0]}; {options.turns} runs of {options.steps} steps each, in turns; {part:.0f} tokens a part")
for name, found in rates.items():
    text = f"{name}: {statistics.median(found):.1f} tokens/s ({min(found):.1f} to {max(found):.1f}), last loss {losses[name][0]:.6f}"
    if shares[name]:
        exchange, waiting, sent = (statistics.median(column) for column in zip(*shares[name]))
        text += f"; {100 * exchange:.2f} % of the time in exchanges, {100 * waiting:.2f} % waiting, {sent / options.steps / 1e6:.2f} MB a step sent"
    print(text)
ratios = [two / one for one, two in zip(*rates.values())]
print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
sys.exit(0 if statistics.median(ratios) >= 0.9 else 1)
