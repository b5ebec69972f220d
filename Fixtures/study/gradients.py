"""Interference: the cosine of two tasks' gradients, and which experts each task's tokens ask."""
import json
import math
import struct
from array import array


def read(path):
    """{name: (shape, numbers)} of a safetensors file of F32 and I64."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    codes = {"F32": "f", "I64": "q", "I32": "i"}
    return {name: (entry["shape"], array(codes[entry["dtype"]], data[slice(*entry["data_offsets"])])) for name, entry in header.items()}


def write(path, tensors):
    """A safetensors file of I64 tensors."""
    header, data = {}, b""
    for name, (shape, numbers) in tensors.items():
        header[name] = {"dtype": "I64", "shape": shape, "data_offsets": [len(data), len(data) + 8 * len(numbers)]}
        data += numbers.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def measure(context, model, adapter, lines, folder, mixture):
    """Cosines of the tasks' gradients, in pairs, of all parameters of the feed-forward's branches; of a mixture, how far apart tasks go."""
    found, shares = {}, {}
    folder.mkdir(parents=True, exist_ok=True)
    for task, file in lines.items():
        dumped, batch, trace = folder / "dumped.st", folder / "batch.st", folder / "trace.st"
        count = len(file.read_text().splitlines())
        context.run(  # one step of all lines of the task, for the ids, mask and labels of its batch
            "train", "--model", model, "--data", file, "--out", folder / f"batch-{task}", "--method", "lora", "--rank", 1,
            "--steps", 1, "--batch", count, "--dump-batches", dumped)
        write(batch, {name.split(".", 2)[2]: tensor for name, tensor in read(dumped).items()})
        context.run(
            "trace", "--model", model, "--adapter", adapter, "--batch", batch, "--out", trace, "--backward",
            *(["--activations", "model.layers.*.mlp.moe_gate.choice"] if mixture else []))
        traced = read(trace)
        names = [name for name in sorted(traced) if name.startswith("grad.") and ".mlp." in name and "lora_" in name]
        found[task] = [number for name in names for number in traced[name][1]]
        if mixture:
            (_, mask), choices = read(batch)["attention_mask"], sorted(name for name in traced if name.endswith("moe_gate.choice"))
            shares[task] = [layer_shares(traced[name], mask) for name in choices]
    tasks = sorted(found)
    cosines = [cosine(found[a], found[b]) for i, a in enumerate(tasks) for b in tasks[i + 1:]]
    result = {
        "pairs": len(cosines), "cosine": round(sum(cosines) / len(cosines), 4), "least": round(min(cosines), 4),
        "largest": round(max(cosines), 4), "negative": sum(value < 0 for value in cosines)}
    return {**result, "apart": [round(apart(layer), 4) for layer in zip(*shares.values())]} if mixture else result


def apart(shares):
    """The mean over the tasks of ½ Σ_e |share_e − mean_e|: 0 where all tasks ask the same experts."""
    mean = [sum(values) / len(shares) for values in zip(*shares)]
    return sum(abs(p - q) / 2 for task in shares for p, q in zip(task, mean)) / len(shares)


def layer_shares(choice, mask):
    """Each expert's share of a layer's choices of real tokens."""
    (_, _, experts_per_token), numbers = choice
    counts = [0] * 8
    for i, expert in enumerate(numbers):
        if mask[i // experts_per_token]:
            counts[int(expert)] += 1
    return [count / sum(counts) for count in counts]


def cosine(a, b):
    if len(a) != len(b) or not a:
        raise RuntimeError(f"gradients of {len(a)} and {len(b)} numbers")
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
