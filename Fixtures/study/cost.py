"""What a token costs: multiplications by count, and the processor's time of a step by measurement.

Counted is what the engine runs (sharedBase, lesson 7): the frozen products once a token, of the branches A1 and A3 of all E experts as
one product, B1, B3 and A2 of the K that were asked, B2 of all.
"""
import json
import resource
import subprocess
import tempfile
from pathlib import Path

EXPERTS, TOP = 8, 2


def multiplications(config, method, rank, feed_forward_only=False):
    """Of a token in one block, forward: (frozen, added by the adapter)."""
    c, f, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv = c // heads * config["num_key_value_heads"]
    attention = [(c, c), (c, kv), (c, kv), (c, c)]
    frozen = sum(i * o for i, o in attention) + 3 * c * f
    added = 0 if feed_forward_only else rank * sum(i + o for i, o in attention)
    if method == "lora":
        return frozen, added + rank * 3 * (c + f)
    return frozen, added + rank * 3 * (TOP * f + EXPERTS * c) + EXPERTS * c


def parameters(config, method, rank, feed_forward_only=False):
    """Trained numbers of a block."""
    c, f, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv = c // heads * config["num_key_value_heads"]
    attention = 0 if feed_forward_only else rank * (4 * c + 2 * (c + kv))
    return attention + (rank * 3 * (c + f) if method == "lora" else EXPERTS * (rank * 3 * (c + f) + c))


def equal_rank(config, rank, count, feed_forward_only=False):
    """The rank of LoRA, not rounded, that has as much of `count` as MixLoRA of this rank."""
    def of(method, r):
        result = count(config, method, r, feed_forward_only)
        return result[1] if isinstance(result, tuple) else result
    return of("mixlora", rank) / of("lora", 1)


def milliseconds(binary, config, method, rank, batch, length):
    """The processor's time of a training step: what forty steps more take, so that start and floor do not count."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))

        def seconds(steps):
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            shape = ["--batch", str(batch), "--length", str(length), "--method", method, "--rank", str(rank), "--steps", str(steps)]
            command = [binary, "bench", "train", "--random-weights", "--model", folder, "--threads", "1", *shape]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        return (seconds(45) - seconds(5)) / 40 * 1000


def show(options):
    """Prints counts and equal ranks; with --results, measures the demo's steps three times in turns and records the medians."""
    root = Path(__file__).resolve().parents[2]
    small = json.loads((root / "Sources/CEmbedded/Demo/config.json").read_text())
    smollm2 = json.loads((root / "Fixtures/smollm2-shape/config.json").read_text())
    mixtures = [
        ("demo", small, 4, False), ("narrow, shifts, many", small, 1, True), ("wide", small, 16, True), ("SmolLM2", smollm2, 8, False)]
    for name, config, rank, narrow in mixtures:
        frozen, added = multiplications(config, "mixlora", rank, narrow)
        ranks = [equal_rank(config, rank, count, narrow) for count in (multiplications, parameters)]
        print(f"{name}: MixLoRA of rank {rank} adds {added} multiplications to {frozen} a token and block; LoRA of rank "
              f"{ranks[0]:.1f} adds as many, of rank {ranks[1]:.1f} trains as many numbers")
    if not options.results:
        return 0
    methods, times = [("mixlora", 4), ("lora", 11), ("lora", 21), ("lora", 38)], {}
    for _ in range(3):
        for method in methods:
            times.setdefault(method, []).append(milliseconds(options.binary, small, *method, batch=48, length=13))
    with open(options.results, "a") as file:
        for (method, rank), values in times.items():
            line = {"key": f"cost method={method} rank={rank}", "kind": "cost", "method": method, "rank": rank,
                    "milliseconds": [round(value, 2) for value in values]}
            print(line)
            file.write(json.dumps(line) + "\n")
    return 0
