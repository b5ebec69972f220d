"""The demo's base model: its six tasks, and tasks that contradict each other, together and each alone.

Five experiments, each with one MixLoRA (8 experts, top 2) and LoRAs of ranks that are equal to it in one respect (`study.py cost`):

- demo: the six tasks of `mixlora demo`, branches on all seven linears, rank 4.
- shifts: six tasks that contradict each other: the same words are asked of all six, and no letter of an answer is right for two.
  Branches in the feed-forward blocks alone, rank 1, so that there are more tasks than a token meets ranks.
- many: as shifts, with twelve tasks, more than there are experts, and more than LoRA has ranks.
- often: the demo's tasks alone once more, with as many updates as all had together, of a sixth of the samples, at the rates found there.
- wide: as many, but with rank to spare: LoRA of as many numbers has all the rank that a matrix of this model can have.

Learning rates are searched on seed 42 by the loss on 50 lines a task that are held back from training, for each method by itself,
anew for tasks alone; test questions are asked of every run, and chose nothing.
"""
import json
import random
import sys
from pathlib import Path

import gradients
from search import Search

root = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / "Fixtures/demo"))
import world  # noqa: E402

BASE = root / "Sources/CEmbedded/Demo"
SEEDS = [42, 43, 44]
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]  # a search begins with three of them
STEPS, BATCH, HELD_BACK, QUESTIONS = 800, 48, 50, 200
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
# name: (world, linears, where the search begins, seeds, methods). The LoRAs train as many numbers, take as many multiplications a token
# as the engine makes, and as much time (demo) or are of the rank that a token meets (shifts); the last takes as many multiplications as the
# equations ask for, of the K experts alone. Of many and wide there is one seed at one rate: a look, no
# measurement.
EXPERIMENTS = {
    "demo": ("demo", None, RATES[2:5], SEEDS, [("mixlora", 4), ("lora", 21), ("lora", 11), ("lora", 38), ("lora", 7)]),
    "shifts": ("shifts", FEED_FORWARD, RATES[3:6], SEEDS, [("mixlora", 1), ("lora", 9), ("lora", 5), ("lora", 2), ("lora", 3)]),
    "often": ("demo", None, [], SEEDS, [("mixlora", 4), ("lora", 21)]),
    "many": ("many", FEED_FORWARD, [1e-2], SEEDS[:1], [("mixlora", 1), ("lora", 9)]),
    "wide": ("many", FEED_FORWARD, [3e-3], SEEDS[:1], [("mixlora", 16), ("lora", 129)]),
}
# By places in the alphabet; +1 is what the base model has learnt as `next`.
SHIFTS = {"A": -3, "B": -2, "C": -1, "D": 2, "E": 3, "F": 4}
MANY = dict(zip("ABCDEFGHIJKL", range(2, 14)))


def shifted(name, shifts, learn, ask):
    """Lines to learn from and test questions of contradicting tasks: the same words for all of them."""
    rng, seen, words = random.Random(f"{world.SEED} {name}"), set(), []
    while len(words) < learn + ask:
        word = world.letters(rng)
        if "".join(word) not in seen:
            seen.add("".join(word))
            words.append(word)

    def lines(words):
        made = [{"task": name, "prompt": f"{name}: {' '.join(word)} ->", "completion": "".join(" " + c for c in world.shift(word, by))}
                for word in words for name, by in shifts.items()]
        rng.shuffle(made)
        return made
    return lines(words[:learn]), lines(words[learn:])


def demo_lines():
    def lines(name, count, avoiding=()):
        return world.questions(world.DEMO, count, random.Random(f"{world.SEED} {name}.jsonl"), avoiding)
    test = lines("test", QUESTIONS)
    return lines("train", 2000, test), test


class Plan:
    def __init__(self, options):
        self.options = options
        self.lines = {
            "demo": demo_lines(), "shifts": shifted("shifts", SHIFTS, 2000, QUESTIONS), "many": shifted("many", MANY, 2000, QUESTIONS // 2)}
        self.tasks = {name: sorted({line["task"] for line in test}) for name, (_, test) in self.lines.items()}
        for name, (learn, test) in self.lines.items():
            if {line["prompt"] for line in learn} & {line["prompt"] for line in test}:
                raise RuntimeError(f"{name}: a test question among the lines to learn from")

    def prepare(self, context):
        """Writes data/WORLD/{all,TASK}/{train,held,test}.jsonl."""
        self.data = context.work / "data"
        for name, (learn, test) in self.lines.items():
            for tasks in [self.tasks[name]] + [[task] for task in self.tasks[name]]:
                folder = self.folder(name, tasks)
                folder.mkdir(parents=True, exist_ok=True)
                of = {task: [line for line in learn if line["task"] == task] for task in tasks}
                held = {line["prompt"] for task in tasks for line in of[task][-HELD_BACK:]}
                parts = {
                    "train": [line for line in learn if line["task"] in of and line["prompt"] not in held],
                    "held": [line for line in learn if line["prompt"] in held],
                    "test": [line for line in test if line["task"] in of],
                }
                for part, lines in parts.items():
                    (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def folder(self, name, tasks):
        return self.data / name / (tasks[0] if len(tasks) == 1 else "all")

    def __call__(self, done, Job):
        jobs, best = [], {}
        for name in ["demo", "shifts"]:
            jobs += self.study(done, Job, name, [self.tasks[EXPERIMENTS[name][0]]], best)
        jobs += [self.gradients(Job, name, m, rate) for (name, m), rate in best.items() if m in EXPERIMENTS[name][4][:2]]
        jobs += self.study(done, Job, "demo", [[task] for task in self.tasks["demo"]], {})
        for method in EXPERIMENTS["often"][4]:
            if rate := best.get(("demo", method)):
                jobs += [self.trained(Job, "often", method, rate, seed, [task]) for seed in SEEDS for task in self.tasks["demo"]]
        for name in ["wide", "many"]:
            jobs += self.study(done, Job, name, [self.tasks["many"]], {})
        return jobs

    def study(self, done, Job, name, sets, best):
        """Search on the first seed, then the other seeds, of every set of tasks; of tasks alone for the LoRA of equal numbers only."""
        _, _, rates, seeds, methods = EXPERIMENTS[name]

        def runs(method, rate, seed):
            return [self.trained(Job, name, method, rate, seed, tasks) for tasks in sets]
        methods = methods[:2] if len(sets) > 1 else methods
        searches = {m: Search(rates, lambda rate, m=m: runs(m, rate, seeds[0]), done, RATES if rates[1:] else []) for m in methods}
        best.update({(name, m): search.best for m, search in searches.items() if search.best})
        jobs = [job for search in searches.values() for job in search.jobs]
        return jobs + [job for seed in seeds[1:] for m, search in searches.items() if search.best for job in runs(m, search.best, seed)]

    def steps(self, name, tasks, share=1.0):
        """A task alone gets as many samples as it has of all together; often, in as many steps."""
        if name == "often":
            return max(1, round(STEPS * self.options.scale))
        return max(1, round(STEPS * share * self.options.scale * len(tasks) / len(self.tasks[EXPERIMENTS[name][0]])))

    def arguments(self, name, method, rate, seed, steps):
        linears = EXPERIMENTS[name][1]
        return [
            "--method", method[0], "--rank", method[1], "--alpha", 2 * method[1], "--lr", rate, "--seed", seed, "--steps", steps,
            "--batch", BATCH // 6 if name == "often" else BATCH, "--schedule", "cosine", "--warmup", 0.05, "--save-every", 100000,
            *(["--targets", ",".join(linears)] if linears else [])]

    def trained(self, Job, name, method, rate, seed, tasks):
        place = EXPERIMENTS[name][0]
        steps = self.steps(name, tasks)
        fields = {"experiment": name, "method": method[0], "rank": method[1], "rate": rate, "seed": seed,
                  "tasks": "all" if len(tasks) > 1 else tasks[0], "steps": steps}

        def work(context, key):
            folder = self.folder(place, tasks)
            arguments = self.arguments(name, method, rate, seed, steps) + ["--validation", folder / "held.jsonl"]
            adapter, result = context.train(key, BASE, folder / "train.jsonl", arguments)
            return result if result["loss"] is None else {**result, "answers": self.ask(context, adapter, place, tasks)}
        return Job("demo", fields, steps, work)

    def ask(self, context, adapter, place, tasks):
        """By task: how many answers are exactly right, the end token included, how many were asked, and the loss on them."""
        lines = [json.loads(line) for line in (self.folder(place, tasks) / "test.jsonl").read_text().splitlines()]
        lines = [line for task in tasks for line in [one for one in lines if one["task"] == task][:self.options.limit]]
        prompts = [part for line in lines for part in ("--prompt", line["prompt"])]
        printed = context.run("generate", "--model", BASE, "--adapter", adapter, "--max-tokens", 9, "--json", *prompts)
        given = [json.loads(line) for line in printed.splitlines()]
        if [one["prompt"] for one in given] != [line["prompt"] for line in lines]:
            raise RuntimeError(f"{len(lines)} questions were asked, {len(given)} answered")
        answers = {}
        for task in tasks:
            pairs = [(line, one) for line, one in zip(lines, given) if line["task"] == task]
            loss = context.run(
                "evaluate", "--model", BASE, "--adapter", adapter, "--data", self.folder(place, [task]) / "test.jsonl", "--json")
            answers[task] = {
                "right": sum(one["text"] == line["completion"] and one["stop"] == "end" for line, one in pairs), "asked": len(pairs),
                "loss": float(f"{json.loads(loss)['loss']:.4g}")}
        return answers

    def gradients(self, Job, name, method, rate):
        """Cosines of the tasks' gradients, and where their tokens go, after a quarter of the steps."""
        place = EXPERIMENTS[name][0]
        tasks = self.tasks[place]
        steps = self.steps(name, tasks, 0.25)
        fields = {"experiment": name, "method": method[0], "rank": method[1], "rate": rate, "seed": SEEDS[0], "steps": steps}

        def work(context, key):
            adapter, _ = context.train(
                key, BASE, self.folder(place, tasks) / "train.jsonl", self.arguments(name, method, rate, SEEDS[0], steps))
            held = {task: self.folder(place, [task]) / "held.jsonl" for task in tasks}
            return gradients.measure(context, BASE, adapter, held, context.folder(key + " batches"), mixture=method[0] == "mixlora")
        return Job("gradients", fields, steps + 50, work)
