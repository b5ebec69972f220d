#!/usr/bin/env python3
"""What MixLoRA is good for: trains MixLoRA and plain LoRA on the same tasks and records what came of it.

    study.py demo    --binary mixlora --work DIR --results demo.jsonl                                the demo's model and tasks
    study.py smollm2 --binary mixlora --work DIR --results smollm2.jsonl --model GGUF --data TASKS   SmolLM2 and the paper's tasks
    study.py cost    --binary mixlora [--results demo.jsonl]                                         what a token costs, and equal ranks

A run is one line of JSON in the results file, written when it ends. A line that is there is not run again, so a study that was
stopped goes on by the same command. `--jobs N` makes N runs at once, `--seconds S` starts none that would not end in time (and
stops what is not ready then). Which runs there are and in which order stands in plan_demo.py and plan_smollm2.py. What came of them, in
tables: lesson 12. Python 3.9 with its standard library, and the program `mixlora`. Exit status: 0 when the study is whole, 3 when
runs are missing, 1 when one failed.
"""
import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cost
import plan_demo
import plan_smollm2


class Job:
    """One run: `key` names it, `fields` say what it is, `work(context)` makes it and gives what came of it."""

    def __init__(self, kind, fields, cost, work):
        self.kind, self.fields, self.cost, self.work = kind, fields, cost, work
        self.key = " ".join([kind] + [f"{name}={value}" for name, value in fields.items()])


class Stopped(Exception):
    """The time was up."""


class Context:
    """Where runs are made, and with what."""

    def __init__(self, options):
        self.options, self.work = options, Path(options.work).resolve()
        self.deadline = time.time() + options.seconds if options.seconds else None
        self.work.mkdir(parents=True, exist_ok=True)
        self.mixlora = str(Path(options.binary).resolve())

    def folder(self, key):
        """Where the run of this name writes."""
        return self.work / "".join(c if c.isalnum() or c in "-.=" else "_" for c in key)

    def run(self, *arguments):
        """What the program prints. It is stopped when the time is up."""
        device = ["--backend", self.options.backend, "--threads", str(self.options.threads), "--quiet"]
        command = [self.mixlora, *map(str, arguments), *device]
        left = self.deadline - time.time() if self.deadline else None
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, env={**os.environ, "SWIFT_BACKTRACE": "enable=no"})
        except subprocess.TimeoutExpired:
            raise Stopped
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)[:600]}\nexit {done.returncode}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def train(self, key, model, data, arguments):
        """Trains; the adapter's folder, the steps' metrics, and what is recorded of every training."""
        out = self.folder(key)
        shutil.rmtree(out, ignore_errors=True)  # of a run that was stopped
        try:
            printed = self.run("train", "--model", model, "--data", data, "--out", out, "--json", *arguments)
        except RuntimeError as error:
            if "not finite" not in str(error):
                raise
            return out, {"loss": None, "failed": str(error).splitlines()[-1]}
        summary = json.loads(printed.splitlines()[-1])
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        if summary["steps"] != len(metrics) or not metrics:
            raise RuntimeError(f"{key}: {len(metrics)} lines of metrics for {summary['steps']} steps")
        last = metrics[-min(100, len(metrics)):]
        result = {
            "parameters": summary["trainable_parameters"], "train_seconds": round(summary["seconds"], 1), "tokens": summary["tokens"],
            "loss": rounded(mean(m["loss"] for m in last)),  # of the last hundred steps
        }
        if metrics[-1].get("validation_loss") is not None:
            result["validation"] = rounded(metrics[-1]["validation_loss"])
        if last[0].get("expert_load"):
            layers = zip(*(m["expert_load"] for m in last))
            result["busy"] = [round(evenly_busy([mean(values) for values in zip(*layer)]), 2) for layer in layers]
        return out, result


def evenly_busy(shares):
    """As many experts, evenly busy, have the entropy of these shares: e^(−Σ p ln p), 1 to E."""
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def rounded(number):
    """Four digits that count."""
    return float(f"{number:.4g}")


def mean(values):
    values = list(values)
    return sum(values) / len(values)


class Results:
    """The lines of the results file by key."""

    def __init__(self, path):
        self.path, self.lock = Path(path), threading.Lock()
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.done = {line["key"]: line for line in map(json.loads, lines)}

    def add(self, line):
        with self.lock, self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            self.done[line["key"]] = line


class Runner:
    """Makes the runs of a plan, several at once. What a plan wants may depend on the lines that are there."""

    def __init__(self, plan, context, results):
        self.plan, self.context, self.results = plan, context, results
        self.lock, self.running, self.failed, self.late = threading.Condition(), set(), set(), False
        self.pace = {}  # seconds for a unit of cost, by kind; the slowest seen

    def next(self):
        """The first run that is wanted, or None; waits while one that is being made may lead to another."""
        with self.lock:
            while True:
                for job in self.plan(self.results.done, Job):
                    if job.key in self.results.done or job.key in self.running or job.key in self.failed:
                        continue
                    if self.context.options.only not in job.key:
                        continue
                    expected = job.cost * self.pace.get(job.kind, self.context.options.pace)
                    if self.context.deadline and time.time() + expected > self.context.deadline:
                        self.late = True
                        continue
                    self.running.add(job.key)
                    return job
                if not self.running:
                    return None
                self.lock.wait()

    def worker(self):
        while job := self.next():
            start = time.time()
            try:
                line = {"key": job.key, "kind": job.kind, **job.fields, **job.work(self.context, job.key)}
                seconds = time.time() - start
                options = self.context.options
                line.update(seconds=round(seconds, 1), machine=machine(), jobs=options.jobs, backend=options.backend)
                self.results.add(line)
                print(f"{seconds:7.1f} s  {job.key}", flush=True)
                with self.lock:
                    self.pace[job.kind] = max(self.pace.get(job.kind, 0), seconds / job.cost)
            except Stopped:
                self.late = True
                with self.lock:
                    self.failed.add(job.key)
            except Exception as error:  # another run may still be right
                print(f"failed: {job.key}\n{error}", file=sys.stderr, flush=True)
                with self.lock:
                    self.failed.add(job.key)
            with self.lock:
                self.running.discard(job.key)
                self.lock.notify_all()

    def run(self):
        threads = [threading.Thread(target=self.worker) for _ in range(self.context.options.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        missing = [job.key for job in self.plan(self.results.done, Job) if job.key not in self.results.done]
        print(f"{len(self.results.done)} runs recorded, {len(missing)} of those known are missing")
        return 3 if self.late else 1 if self.failed else 0


def machine():
    """The processor's name, where Linux tells it."""
    try:
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        return f"{names[0]}, {len(names)} threads"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["demo", "smollm2", "cost"])
    parser.add_argument("--binary", default="mixlora", help="the program")
    parser.add_argument("--work", default="study-work", help="folder for what runs write")
    parser.add_argument("--results", help="file of results, one line a run")
    parser.add_argument("--model", help="of smollm2: SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--data", help="of smollm2: folder of arc-e, boolq, obqa")
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="threads of a run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--seconds", type=float, help="start no run that would not end within this time, and end all then")
    parser.add_argument("--pace", type=float, default=1, help="seconds for a unit of cost, until a run of the kind has shown it")
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs with this in their name")
    parser.add_argument("--scale", type=float, default=1, help="share of the steps, to try the script")
    parser.add_argument("--limit", type=int, default=200, help="questions of a task")
    options = parser.parse_args()
    if options.study == "cost":
        return cost.show(options)
    if not options.results or (options.study == "smollm2" and not (options.model and options.data)):
        parser.error("--results, and for smollm2 --model and --data, are needed")
    plan = plan_demo.Plan(options) if options.study == "demo" else plan_smollm2.Plan(options)
    context = Context(options)
    plan.prepare(context)
    return Runner(plan, context, Results(options.results)).run()


if __name__ == "__main__":
    sys.exit(main())
