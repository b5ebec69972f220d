"""SmolLM2-135M-Instruct on arc-e, boolq and obqa: 300 steps of batch 8, three seeds, learning rates from a search on the first.

The search goes by the loss of the last hundred steps: 2400 samples are less than one pass over the lines to learn from, so each was
new to the run, and no question of the test is asked before the rates are fixed.
"""
import json

from search import Search

SEEDS = [1, 2, 3]
RATES = [1e-4, 3e-4, 1e-3]
TASKS = {"arc-e": 2251, "boolq": 9427, "obqa": 4957}  # lines to learn from
STEPS = 300
# (method, rank). A token of MixLoRA of rank 8 costs what one of LoRA of rank 22 does (`study.py cost`); rank 43 trains as many numbers.
METHODS = [("mixlora", 8), ("lora", 43), ("lora", 22)]


class Plan:
    def __init__(self, options):
        self.options = options

    def prepare(self, context):
        pass

    def __call__(self, done, Job):
        """The runs, the most valuable first: all tasks together, search, then seeds; the base model; each task alone."""
        together = list(TASKS)
        searches = {m: Search(RATES, lambda rate, m=m: [self.searched(Job, m, rate)], done) for m in METHODS}
        jobs = [job for search in searches.values() for job in search.jobs]
        best = {m: search.best for m, search in searches.items() if search.best}
        for seed in SEEDS:
            jobs += [self.evaluated(done, Job, m, rate, seed, together) for m, rate in best.items()]
        base = {"limit": self.options.limit}
        jobs.append(Job("smollm2-base", base, 40, lambda context, key: {"answers": self.ask(context, None, together)}))
        for seed in SEEDS:
            jobs += [self.evaluated(done, Job, m, rate, seed, [task]) for task in TASKS for m, rate in best.items()]
        return jobs

    def steps(self, tasks):
        """A task alone gets as many samples as it has of all together."""
        share = sum(TASKS[task] for task in tasks) / sum(TASKS.values())
        return max(1, round(STEPS * share * self.options.scale))

    def fields(self, method, rate, seed, tasks):
        return {"method": method[0], "rank": method[1], "rate": rate, "seed": seed, "tasks": "+".join(tasks), "steps": self.steps(tasks)}

    def train(self, context, key, fields):
        options = self.options
        return context.train(key, options.model, options.data, [
            "--task", fields["tasks"].replace("+", ";"), "--method", fields["method"], "--rank", fields["rank"],
            "--alpha", 2 * fields["rank"], "--lr", fields["rate"], "--seed", fields["seed"], "--steps", fields["steps"], "--batch", 8,
            "--save-every", 100000])

    def searched(self, Job, method, rate):
        fields = self.fields(method, rate, SEEDS[0], list(TASKS))
        return Job("smollm2-search", fields, fields["steps"], lambda context, key: self.train(context, key, fields)[1])

    def evaluated(self, done, Job, method, rate, seed, tasks):
        """Trains, or takes what the search has trained, and asks."""
        fields = self.fields(method, rate, seed, tasks)
        search = Job("smollm2-search", fields, 0, None).key
        known = done.get(search, {})

        def work(context, key):
            kept = ["parameters", "train_seconds", "tokens", "loss", "busy"]
            adapter, result = context.folder(search), {name: known[name] for name in kept if name in known}
            if not (adapter / "adapter_model.safetensors").exists():
                adapter, result = self.train(context, key, fields)
            return {**result, "answers": self.ask(context, adapter, tasks)}
        trained = seed == SEEDS[0] and len(tasks) == len(TASKS)  # by the search
        return Job("smollm2", fields, (0 if trained else fields["steps"]) + 40 * len(tasks), work)

    def ask(self, context, adapter, tasks):
        """By task: how many are right by each scoring, how many were asked, and what always giving the commonest answer would reach."""
        printed = context.run(
            "evaluate", "--model", self.options.model, "--data", self.options.data, "--task", ";".join(tasks),
            "--limit", self.options.limit, *(["--adapter", adapter] if adapter else []), "--json")
        answers = {}
        for line in map(json.loads, printed.splitlines()):
            right = {name: round(line["accuracy_" + name] * line["count"]) for name in ["label", "likelihood", "likelihood_per_byte"]}
            answers[line["task"]] = {**right, "asked": line["count"], "majority": line["majority_baseline"]}
        if set(answers) != set(tasks):
            raise RuntimeError(f"asked {tasks}, got {sorted(answers)}")
        return answers
