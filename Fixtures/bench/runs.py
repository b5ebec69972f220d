"""One run of one program that is compared, in a process of its own: what `peers.py` starts. Each function is how a peer is driven.

usage: runs.py NAME SETTINGS      SETTINGS: JSON; NAME: moe-peft, moe-peft-recompute, peft, llama-cpp, or model, which writes the random one

Prints one JSON line. Training: AdamW at 2e-4 on one batch of random tokens, in which every column but a row's first is labelled; the
first step is not timed. It is an error if the loss does not fall, if fewer than half of the trained tensors move, or if a number is not finite.
"""
import json
import math
import re
import statistics
import sys
import time

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEARS = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


def moe_peft(s, checkpoint="none"):
    """MoE-PEFT's MixLoRA: its optimised path (W1 x and W3 x once a token, then a loop over experts), with the attention that it has on a CPU."""
    import torch
    import moe_peft
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    model = moe_peft.LLMModel.from_pretrained(s["model"], device=s["device"], load_dtype=torch.float32, attn_impl="eager")
    model.init_adapter(moe_peft.adapter_factory(
        adapter_name="m", bias="none", peft_type="MIXLORA", task_type="CAUSAL_LM", base_model_name_or_path="m", r=s["rank"],
        lora_alpha=2 * s["rank"], lora_dropout=s["dropout"], target_modules=list(LINEARS), routing_strategy="mixlora",
        num_experts=s["experts"], top_k=s["top_k"], act_fn="silu", router_loss=True, router_aux_loss_coef=0.001))
    parameters = list(model.get_adapter_weight_dict("m").values())
    for parameter in parameters:
        parameter.requires_grad_()  # it leaves that to its trainer
    ids = tokens(model.vocab_size_, s).tolist()
    masks = [[1] * s["length"]] * s["batch"]

    def loss():
        given = LLMModelInput(
            batch_configs_=[LLMBatchConfig("m", 0, s["batch"])], batch_tokens_=ids, batch_labels_=ids, batch_masks_=masks,
            gradient_checkpoint_=checkpoint)
        out = model.forward(given)[0]
        return out.loss + out.aux_loss
    return trained(loss, parameters, s)


def peft(s):
    """PEFT's plain LoRA over Transformers' Llama, with fused attention."""
    import torch
    import torch.distributed.tensor  # peft 0.21 looks for it without importing it
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM
    base = LlamaForCausalLM.from_pretrained(s["model"], torch_dtype=torch.float32, attn_implementation="sdpa").to(s["device"])
    model = get_peft_model(base, LoraConfig(
        r=s["rank"], lora_alpha=2 * s["rank"], lora_dropout=s["dropout"], target_modules=list(LINEARS), task_type="CAUSAL_LM")).train()
    model.config.use_cache = False
    ids = tokens(model.config.vocab_size, s).to(s["device"])
    data = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return trained(lambda: model(**data).loss, [p for p in model.parameters() if p.requires_grad], s)


def trained(loss_of, parameters, s):
    """Times steps of forward, backward and AdamW."""
    import torch
    torch.backends.cuda.matmul.allow_tf32 = False
    on_gpu = s["device"].startswith("cuda")
    adamw = torch.optim.AdamW(parameters, lr=2e-4)
    before = [p.detach().cpu().clone() for p in parameters]
    seconds, losses = [], []
    for _ in range(s["steps"] + 1):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        loss = loss_of()
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        losses.append(loss.item())  # waits for a GPU
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    moved = sum(not torch.equal(p.detach().cpu(), q) for p, q in zip(parameters, before))
    if moved * 2 < len(parameters):  # A does not move in the first step, that of an idle expert not at all
        sys.exit(f"{moved} of {len(parameters)} tensors moved")
    return {
        "tokens_per_second": s["batch"] * s["length"] / statistics.median(seconds[1:]),
        "trainable_parameters": sum(p.numel() for p in parameters), "loss_first": losses[0], "loss_last": losses[-1],
        "peak_resident_bytes": torch.cuda.max_memory_allocated() if on_gpu else peak_resident(),
        **({"reserved_bytes": torch.cuda.max_memory_reserved(), "gpu": torch.cuda.get_device_name()} if on_gpu else {})}


def llama_cpp(s):
    """llama.cpp's `llama_decode`, without sampling: a prompt in one batch, then a token a call."""
    import llama_cpp as library
    llama = library.Llama(
        s["gguf"], n_ctx=s["prompt"] + s["tokens"], n_batch=s["prompt"], n_ubatch=s["prompt"], n_threads=s["threads"],
        n_threads_batch=s["threads"], flash_attn=True, verbose=False)
    context, vocabulary = llama.ctx, llama.n_vocab()
    ids = [(7919 * i + 17) % vocabulary for i in range(s["prompt"] + s["tokens"])]

    def seconds(new):
        array = (library.llama_token * len(new))(*new)
        start = time.perf_counter()
        status = library.llama_decode(context, library.llama_batch_get_one(array, len(new)))
        logits = library.llama_get_logits_ith(context, -1)  # waits
        end = time.perf_counter()
        if status or not math.isfinite(logits[0]):
            sys.exit(f"llama_decode of {len(new)} tokens: {status}, logit {logits[0]}")
        return end - start
    reading, writing = [], []
    for number in range(s["repeats"] + 1):
        llama.reset()
        library.llama_memory_clear(library.llama_get_memory(context), True)
        reading.append(seconds(ids[:s["prompt"]]))
    for token in ids[s["prompt"]:]:
        writing.append(seconds([token]))
    return {
        "prompt_tokens_per_second": s["prompt"] / statistics.median(reading[1:]), "tokens_per_second": 1 / statistics.median(writing[1:]),
        "peak_resident_bytes": peak_resident()}


def model(s):
    """Writes a random model of the shape `config`. In a process of its own: the kernel counts a parent's memory into a child's peak."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig.from_pretrained(s["config"])).save_pretrained(s["model"])
    return {"made": s["model"]}


def tokens(vocabulary, s):
    import torch
    return torch.randint(0, vocabulary, (s["batch"], s["length"]), generator=torch.Generator().manual_seed(42))


def peak_resident():
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * 1024


RUNS = {"moe-peft": moe_peft, "moe-peft-recompute": lambda s: moe_peft(s, "recompute"), "peft": peft, "llama-cpp": llama_cpp, "model": model}

if __name__ == "__main__":
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    if name != "llama-cpp":
        import torch
        torch.set_num_threads(settings["threads"])
    print(json.dumps(RUNS[name](settings)))
