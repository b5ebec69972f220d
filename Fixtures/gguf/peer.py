#!/usr/bin/env python3
"""A GGUF model as PyTorch sees it: dequantised into a Hugging Face folder (F32), and its logits there.

usage: peer.py MODEL.gguf FOLDER [TOKENS …]
  writes FOLDER/config.json and model.safetensors; with TOKENS (one sequence each, ids separated by commas, all of one length)
  also batch.safetensors for `mixlora trace` and logits.safetensors, Transformers' float32 logits

q and k of architecture llama are un-permuted, an absent output.weight ties the head. (`from_pretrained(gguf_file=…)` leaves a
random untied head.) Needs torch 2.5.1, transformers 4.46.3, gguf 0.19.0, safetensors; nothing of the model is kept in the repository.
"""
import json, re, sys
from pathlib import Path

import gguf, numpy
from safetensors.numpy import save_file

MODULES = dict(attn_norm="input_layernorm", attn_q="self_attn.q_proj", attn_k="self_attn.k_proj", attn_v="self_attn.v_proj",
               attn_output="self_attn.o_proj", ffn_norm="post_attention_layernorm", ffn_gate="mlp.gate_proj", ffn_up="mlp.up_proj",
               ffn_down="mlp.down_proj")
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}


def read(path):
    """Configuration by Hugging Face's keys, and name → float32 array in Hugging Face's order of rows."""
    reader = gguf.GGUFReader(path)
    field = lambda key, default=None: reader.fields[key].contents() if key in reader.fields else default
    kind = field("general.architecture")
    of = lambda key, default=None: field(f"{kind}.{key}", default)
    heads, tensors = of("attention.head_count"), {}
    groups = of("attention.head_count_kv", heads)
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight": continue
        values = numpy.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=numpy.float32)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        part = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", tensor.name)
        if kind == "llama" and part and part[2] in ("attn_q", "attn_k"):
            n = heads if part[2] == "attn_q" else groups  # undo reshape(n, 2, d/2, …).swapaxes(1, 2)
            values = values.reshape(n, values.shape[0] // n // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        tensors[f"model.layers.{part[1]}.{MODULES[part[2]]}.{part[3]}" if part else WHOLE[tensor.name]] = numpy.ascontiguousarray(values)
    channels = of("embedding_length")
    config = dict(
        model_type=kind, architectures=[dict(llama="LlamaForCausalLM", qwen2="Qwen2ForCausalLM")[kind]], hidden_act="silu", hidden_size=channels,
        intermediate_size=of("feed_forward_length"), num_hidden_layers=of("block_count"), num_attention_heads=heads, num_key_value_heads=groups,
        head_dim=of("attention.key_length", channels // heads),
        vocab_size=tensors["model.embed_tokens.weight"].shape[0], rms_norm_eps=of("attention.layer_norm_rms_epsilon"),
        rope_theta=of("rope.freq_base", 10000.0), tie_word_embeddings="lm_head.weight" not in tensors, max_position_embeddings=of("context_length", 2048))
    return config, tensors


def logits(folder, ids):
    """Transformers' logits in float32."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad(): return model(torch.tensor(ids)).logits.numpy()


def main(arguments):
    if len(arguments) < 2: sys.exit(__doc__)
    config, tensors = read(arguments[0])
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    print(f"{len(tensors)} tensors, {sum(t.size for t in tensors.values())} parameters in {folder}")
    if len(arguments) == 2: return
    ids = [[int(n) for n in part.split(",")] for part in arguments[2:]]
    save_file({"input_ids": numpy.array(ids, dtype=numpy.int64)}, folder / "batch.safetensors")
    save_file({"logits": logits(folder, ids)}, folder / "logits.safetensors")


if __name__ == "__main__": main(sys.argv[1:])
