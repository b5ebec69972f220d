#!/usr/bin/env python3
"""Makes the peer cases in this folder: tiny Llama, Mistral, Qwen2, Gemma and Gemma 2 models, what they must give, and what other programs say about it.

usage: make.py [--check | --force] [CASE...]
  (nothing)  makes what is missing and checks what is there
  --check    writes nothing: recomputes every file from its seed, and runs NumPy, Hugging Face, PEFT and MoE-PEFT beside it
  --force    writes anew. A changed expectation is a changed contract: say why in the commit, never do it to make a test pass
CASE is a name of CASES or PLURAL, `decoding`, `optimizers`, `schedules` or `index`; none means all. Exit 1 if a file is missing or differs from what its seed gives
(inputs: any bit; float64: more than 1e-13; float32: as below), or a program that could run is off by more than its limit.

Pins: Python 3.11, torch 2.5.1, safetensors 0.8.0, numpy 2.4.6, transformers 4.46.3, moe-peft 2.0.2, peft 0.21.2. Programs that cannot be
imported are skipped, and said to be; the float32 files need theirs to be made. With transformers 5.0.0 in front (PYTHONPATH) Hugging Face
reads `rope_parameters` and windows Qwen2 layer by layer, which 4.46.3 does not, and takes Gemma's "gelu" at its word, which is translated. With
transformers 4.57.6 in front it reads yarn, dynamic and longrope, in which 4.46.3 is wrong or another. One thread is used.

Values in the files are float32 (of one model bfloat16) and every float64 computation starts from exactly those; they come from Python's `random`, so inputs are
the same bits on every machine. Routing must be beyond doubt: GAP is the least distance between the K-th and the next router logit,
and of a sum of probabilities from top_p.
"""
import json, math, os, random, sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file, save_file
import check_numpy, programs
from programs import ATTENTION, FFN

HERE = Path(__file__).resolve().parent
GAP, SAME = 1e-3, 1e-13                          # least router margin, largest change of a float64 expectation
EQUAL64 = dict(first=1e-12, curve=1e-12, after=1e-10)                # other float64 programs: relative norm of a tensor
CLOSE32 = dict(first=1e-4, curve=1e-4, after=5e-3)                   # float32 ones; Adam divides tiny gradients, so `after` is loose

# ---- models: config.json as transformers 4.46.3 saves it unless said otherwise, and a seed

COMMON = dict(attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=16, initializer_range=0.02,
              intermediate_size=24, max_position_embeddings=64, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2,
              pad_token_id=0, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="float32",
              transformers_version="4.46.3", use_cache=True, vocab_size=43)
LLAMA = dict(COMMON, architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False, head_dim=4,
             pretraining_tp=1, rope_scaling=None)
MISTRAL = dict(COMMON, architectures=["MistralForCausalLM"], model_type="mistral", head_dim=4, sliding_window=None)
QWEN2 = dict(COMMON, architectures=["Qwen2ForCausalLM"], model_type="qwen2", max_window_layers=28, rms_norm_eps=1e-6, rope_scaling=None,
             rope_theta=1000000.0, sliding_window=None, use_sliding_window=False)
GEMMA = dict(COMMON, architectures=["GemmaForCausalLM"], model_type="gemma", attention_bias=False, bos_token_id=2, eos_token_id=1, head_dim=6, hidden_size=20,
             hidden_act="gelu_pytorch_tanh", hidden_activation=None, num_key_value_heads=1, rms_norm_eps=1e-6)
del GEMMA["tie_word_embeddings"]                 # tied unless it says otherwise; and √20 is no number of any precision
GEMMA2 = dict(GEMMA, architectures=["Gemma2ForCausalLM"], model_type="gemma2", hidden_activation="gelu_pytorch_tanh", num_key_value_heads=2, cache_implementation="hybrid",
              attn_logit_softcapping=5.0, final_logit_softcapping=3.0, query_pre_attn_scalar=11, sliding_window=4096)
del GEMMA2["hidden_act"]
without = lambda c, *keys: {k: v for k, v in c.items() if k not in keys}
FIVE = lambda c, **rope: dict(without(c, "rope_theta", "rope_scaling", "torch_dtype"), dtype="float32", transformers_version="5.0.0", rope_parameters=rope)
LLAMA3 = dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=128, rope_type="llama3")
MODELS = {
    "llama": (1, LLAMA),
    "llama-2023": (2, dict(without(LLAMA, "num_key_value_heads", "head_dim", "rope_theta", "attention_bias", "mlp_bias", "attention_dropout"),
                           tie_word_embeddings=True, rms_norm_eps=1e-6, transformers_version="4.31.0")),         # the keys of that time, defaults for the rest
    "llama-bias": (3, dict(LLAMA, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "llama-head-dim": (4, dict(LLAMA, head_dim=6)),
    "llama-3": (5, dict(LLAMA, num_attention_heads=2, num_key_value_heads=1, head_dim=8, rope_scaling=LLAMA3, max_position_embeddings=1024)),
    "llama-rope-5": (6, FIVE(dict(LLAMA, num_attention_heads=2, head_dim=8, max_position_embeddings=8192),
                             **{**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 256, "rope_theta": 500000.0})),
    "llama-rope-5-default": (7, FIVE(LLAMA, rope_theta=500000.0, rope_type="default")),
    # what a context of 12 of 64 positions becomes; `max_position_embeddings` 8 lets a batch be longer
    "llama-linear": (21, dict(LLAMA, rope_scaling=dict(factor=2.5, rope_type="linear"))),
    "llama-dynamic-rope": (22, dict(LLAMA, head_dim=8, max_position_embeddings=8, rope_scaling=dict(factor=3.0, rope_type="dynamic"))),
    "qwen2-yarn": (23, dict(QWEN2, hidden_size=32, rope_theta=10000.0, tie_word_embeddings=True,
                            rope_scaling=dict(factor=4.0, original_max_position_embeddings=16, rope_type="yarn", type="yarn"))),
    "llama-yarn": (24, dict(LLAMA, head_dim=12, rope_theta=100.0, rope_scaling=dict(beta_fast=4.0, beta_slow=0.5, factor=8.0, mscale=1.5, mscale_all_dim=0.5,
                                                                                    original_max_position_embeddings=32, rope_type="yarn", truncate=False))),
    "mistral-longrope": (25, dict(MISTRAL, head_dim=6, original_max_position_embeddings=10,
                                  rope_scaling=dict(long_factor=[1.5, 3.0, 6.0], rope_type="longrope", short_factor=[1.0, 1.25, 1.75]))),
    "gemma2-longrope": (26, dict(GEMMA2, max_position_embeddings=9, rope_scaling=dict(attention_factor=1.25, factor=2.0, long_factor=[1.5, 3.0, 6.0], rope_type="longrope",
                                                                                       short_factor=[1.0, 1.25, 1.75]))),
    "llama-yarn-5": (27, FIVE(dict(LLAMA, head_dim=8), attention_factor=0.9, factor=4.0, original_max_position_embeddings=16, rope_theta=1000.0, rope_type="yarn")),
    "qwen2-longrope-5": (28, FIVE(QWEN2, factor=2.0, long_factor=[1.5, 3.0], original_max_position_embeddings=8, rope_theta=100.0, rope_type="longrope",
                                  short_factor=[1.0, 1.25])),
    "mistral": (8, MISTRAL),
    "mistral-v0.1": (9, dict(without(MISTRAL, "head_dim"), sliding_window=4096, tie_word_embeddings=True)),       # a window wider than any row
    "mistral-window": (10, dict(MISTRAL, sliding_window=4)),
    "mistral-head-dim": (11, dict(MISTRAL, head_dim=2, rope_theta=1000000.0)),                                    # narrower, as Mistral Nemo has it
    "qwen2": (12, dict(QWEN2, tie_word_embeddings=True, sliding_window=3, max_window_layers=1)),                  # as published: a window, switched off
    "qwen2-untied": (13, QWEN2),
    "qwen2-window": (14, dict(QWEN2, num_hidden_layers=3, sliding_window=3, max_window_layers=1, use_sliding_window=True)),
    "gemma": (15, GEMMA),
    "gemma-2024": (16, dict(without(GEMMA, "hidden_activation"), hidden_act="gelu", rope_scaling=None, transformers_version="4.38.0.dev0")),    # as first published: "gelu" means tanh
    "gemma-bf16": (17, dict(GEMMA, num_key_value_heads=4, torch_dtype="bfloat16")),
    "gemma2": (18, GEMMA2),
    "gemma2-window": (19, dict(GEMMA2, num_hidden_layers=3, num_key_value_heads=1, sliding_window=3, attn_logit_softcapping=4.0, final_logit_softcapping=2.0)),
    "gemma2-uncapped": (20, dict(GEMMA2, attn_logit_softcapping=None, final_logit_softcapping=None, query_pre_attn_scalar=20)),
}


def within(draw, bound, *shape): return torch.tensor([bound * (2 * draw() - 1) for _ in range(math.prod(shape))]).float().reshape(shape)


def shapes(c):
    C, hidden, D = c["hidden_size"], c["intermediate_size"], programs.head_width(c)
    q, kv = D * c["num_attention_heads"], D * programs.key_value_heads(c)
    return dict(q_proj=(q, C), k_proj=(kv, C), v_proj=(kv, C), o_proj=(C, q), gate_proj=(hidden, C), up_proj=(hidden, C), down_proj=(C, hidden))


def model(name):
    """(config.json, tensors)"""
    seed, c = MODELS[name]
    draw, C, V, gemma, four = random.Random(seed).random, c["hidden_size"], c["vocab_size"], programs.is_gemma(c), c["model_type"] == "gemma2"
    norm = lambda: within(draw, 0.4, C) if gemma else 1 + within(draw, 0.2, C)                                    # Gemma's files hold the weight less one
    W = {"model.embed_tokens.weight": within(draw, 0.6 if four else 1, V, C), "model.norm.weight": norm()}
    if not programs.tied(c): W["lm_head.weight"] = within(draw, 0.5, V, C)
    for i in range(c["num_hidden_layers"]):
        for n in ("input", "post_attention", *(("pre_feedforward", "post_feedforward") if four else ())): W[f"model.layers.{i}.{n}_layernorm.weight"] = norm()
        for linear, shape in shapes(c).items():
            name = f"model.layers.{i}.{'self_attn' if linear in ATTENTION else 'mlp'}.{linear}"
            W[name + ".weight"] = within(draw, (0.9 if four else 0.5) if linear in ("q_proj", "k_proj") else 0.35, *shape)
            if (c["model_type"] == "qwen2" and linear[0] in "qkv") or c.get("attention_bias" if linear in ATTENTION else "mlp_bias"):
                W[name + ".bias"] = within(draw, 0.3, shape[0])
    if c.get("torch_dtype") == "bfloat16": W = {k: v.bfloat16() for k, v in W.items()}
    return dict(sorted(c.items())), W


# ---- adapters: adapter_config.json as MoE-PEFT's trainer or PEFT writes it

def mixlora(experts, top_k, targets=ATTENTION + FFN, r=2, alpha=4, rslora=False, expert=None, act="silu", **more):
    """MoE-PEFT's keys in its order; (top_p, temperature) as top_k is mixlora-dynamic. It forgets router_aux_loss_coef and router_loss when it writes; here they stand where they matter."""
    lora = lambda r, alpha, rslora: {**({"use_rslora": True} if rslora else {}), "bias": "none", "peft_type": "MIXLORA", "r": r, "lora_alpha": alpha, "lora_dropout": 0.05}
    return {**lora(r, alpha, rslora), "target_modules": list(targets), **({"expert_lora": without(lora(*expert), "peft_type")} if expert else {}),
            **(dict(routing_strategy="mixlora", num_experts=experts, act_fn=act, top_k=top_k) if isinstance(top_k, int) else
               dict(routing_strategy="mixlora-dynamic", num_experts=experts, act_fn=act, top_p=top_k[0], temperature=top_k[1])), **more}


PEFT = json.loads("""{"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null, "base_model_name_or_path": null,
 "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
 "inference_mode": true, "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
 "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.0, "lora_ga_config": null, "megatron_config": null,
 "megatron_core": "megatron.core", "modules_to_save": null, "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2",
 "qalora_group_size": 16, "r": 8, "rank_pattern": {}, "revision": null, "target_modules": [], "target_parameters": null, "task_type": "CAUSAL_LM",
 "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": false, "velora_config": null}""")
peft = lambda targets, **more: {**PEFT, "target_modules": list(targets), "lora_dropout": 0.05, **more}

# ---- cases. rows: (padding left, padding right) in T columns; ignored: (row, column) with label -100. Labels of padding stay the ids: the mask rules them out.
# float32: whose expected.safetensors; argmax: also perLayerArgmax; base: also base gradients under the adapter; bin: a pickle of Parameters

RIGHT, LEFT, BOTH, FULL, GELU = [(0, 0), (0, 3)], [(4, 0), (0, 0)], [(2, 0), (1, 3)], [(0, 0), (0, 0)], "gelu_pytorch_tanh"
CASES = {
    # MoE-PEFT
    "llama-topk": dict(seed=101, model="llama", adapter=mixlora(4, 2, router_aux_loss_coef=0.01), float32="moe_peft", argmax=True, bin=True,
                       rows=[(0, 0), (0, 3), (0, 6)], ignored=[(0, 1), (0, 2)]),
    "llama-rslora": dict(seed=102, model="llama-2023", adapter=mixlora(6, 3, rslora=True, router_aux_loss_coef=0.01), float32="moe_peft",
                         rows=BOTH, ignored=[(0, 2), (0, 5)]),
    "llama-expert-lora": dict(seed=103, model="llama", adapter=mixlora(5, 2, targets=FFN, expert=(3, 5, False)), float32="moe_peft", bin=True,
                              rows=LEFT, ignored=[(1, 1), (1, 2), (1, 3)]),
    "llama-top1": dict(seed=104, model="llama-2023", adapter=mixlora(4, 1, router_aux_loss_coef=0.02), rows=RIGHT, ignored=[]),
    "mistral-topk": dict(seed=105, model="mistral", adapter=mixlora(4, 2, targets=["q_proj", "v_proj", "gate_proj", "down_proj"], router_aux_loss_coef=0.01),
                         float32="moe_peft", base=True, rows=[(0, 4), (3, 0), (0, 0)], ignored=[(1, 5), (2, 8)]),
    "mistral-all-experts": dict(seed=106, model="mistral-v0.1", adapter=mixlora(3, 3, router_aux_loss_coef=0.01), float32="moe_peft", rows=LEFT, ignored=[(0, 6)]),
    "mistral-ffn": dict(seed=107, model="mistral", adapter=mixlora(4, 3, targets=FFN, rslora=True, expert=(1, 3, True), router_loss=False), float32="moe_peft",
                        bin=True, rows=BOTH, ignored=[]),
    "qwen2-topk": dict(seed=108, model="qwen2", adapter=mixlora(5, 2, router_aux_loss_coef=0.01), float32="moe_peft", argmax=True,
                       rows=[(5, 0), (0, 2), (1, 1)], ignored=[(1, 1), (1, 2), (2, 4)]),
    "qwen2-ffn": dict(seed=109, model="qwen2-untied", adapter=mixlora(4, 2, targets=["gate_proj", "up_proj"], expert=(2, 3, True)),
                      float32="moe_peft", base=True, bin=True, rows=RIGHT, ignored=[(0, 3)]),
    "qwen2-top1": dict(seed=110, model="qwen2", adapter=mixlora(3, 1, rslora=True, router_aux_loss_coef=0.01), rows=LEFT, ignored=[]),
    "qwen2-all-experts": dict(seed=111, model="qwen2-untied", adapter=mixlora(2, 2, rslora=True, expert=(3, 4, True), router_aux_loss_coef=0.01), float32="moe_peft",
                              rows=BOTH, ignored=[(1, 3)]),
    # Hugging Face in float64
    "mistral-window": dict(seed=121, model="mistral-window", adapter=mixlora(4, 2, router_aux_loss_coef=0.01), T=12, rows=[(0, 0), (5, 0), (0, 4)], ignored=[(1, 7)]),
    "mistral-window-base": dict(seed=122, model="mistral-window", T=11, rows=[(5, 0), (1, 2)], ignored=[]),
    "qwen2-window": dict(seed=123, model="qwen2-window", adapter=mixlora(3, 2, targets=ATTENTION + ["down_proj"], router_aux_loss_coef=0.01), T=10, rows=BOTH, ignored=[(0, 4)]),
    "qwen2-window-base": dict(seed=124, model="qwen2-window", T=10, rows=[(3, 0), (0, 2)], ignored=[]),
    "llama-head-dim": dict(seed=125, model="llama-head-dim", adapter=mixlora(3, 2, router_aux_loss_coef=0.01), rows=RIGHT, ignored=[]),
    "llama-head-dim-base": dict(seed=126, model="llama-head-dim", rows=LEFT, ignored=[]),
    "mistral-head-dim": dict(seed=127, model="mistral-head-dim", adapter=mixlora(3, 2, router_aux_loss_coef=0.01), rows=LEFT, ignored=[]),
    "mistral-head-dim-base": dict(seed=128, model="mistral-head-dim", rows=RIGHT, ignored=[]),
    "llama-3": dict(seed=129, model="llama-3", adapter=mixlora(3, 2, router_aux_loss_coef=0.01), T=14, rows=[(6, 0), (0, 0)], ignored=[]),
    "llama-3-base": dict(seed=130, model="llama-3", T=14, rows=[(0, 0), (0, 0)], mask=False, ignored=[(0, 1)]),
    "llama-rope-5": dict(seed=1131, model="llama-rope-5", adapter=mixlora(3, 2, targets=["q_proj", "k_proj", "up_proj"], router_aux_loss_coef=0.01), T=14,
                         rows=[(0, 0), (2, 3)], ignored=[]),
    "llama-rope-5-default-base": dict(seed=132, model="llama-rope-5-default", rows=BOTH, ignored=[]),
    "llama-bias": dict(seed=133, model="llama-bias", adapter=mixlora(4, 2, router_aux_loss_coef=0.01), base=True, rows=RIGHT, ignored=[(0, 2)]),
    "llama-bias-base": dict(seed=134, model="llama-bias", rows=[(0, 0), (3, 1)], ignored=[(0, 2)]),
    "qwen2-base": dict(seed=135, model="qwen2-untied", rows=RIGHT, ignored=[(1, 3)]),
    "mistral-base": dict(seed=136, model="mistral", rows=LEFT, ignored=[]),
    # scaled rotation; the columns of padding count
    "llama-linear": dict(seed=171, model="llama-linear", adapter=mixlora(3, 2, router_aux_loss_coef=0.01), T=12, rows=[(0, 0), (2, 3)], ignored=[]),
    "llama-dynamic-rope-short-base": dict(seed=172, model="llama-dynamic-rope", T=8, rows=[(0, 0), (0, 2)], ignored=[(0, 3)]),
    "llama-dynamic-rope": dict(seed=173, model="llama-dynamic-rope", adapter=mixlora(3, 2, targets=["q_proj", "k_proj", "down_proj"], router_aux_loss_coef=0.01), T=13,
                               rows=[(0, 2), (1, 5)], ignored=[]),
    "qwen2-yarn-base": dict(seed=174, model="qwen2-yarn", T=12, rows=[(0, 0), (3, 0)], ignored=[]),
    "llama-yarn": dict(seed=2175, model="llama-yarn", adapter=mixlora(3, 2, router_aux_loss_coef=0.01), base=True, T=12, rows=[(0, 1), (2, 0)], ignored=[(0, 4)]),
    "mistral-longrope-short-base": dict(seed=176, model="mistral-longrope", T=10, rows=[(0, 0), (3, 2)], ignored=[]),
    "mistral-longrope": dict(seed=177, model="mistral-longrope", adapter=mixlora(3, 2, targets=ATTENTION, router_aux_loss_coef=0.01), T=12, rows=[(0, 2), (0, 5)], ignored=[]),
    "gemma2-longrope-base": dict(seed=178, model="gemma2-longrope", T=12, rows=[(0, 0), (2, 2)], ignored=[]),
    "llama-yarn-5-base": dict(seed=179, model="llama-yarn-5", T=12, rows=[(0, 0), (2, 2)], ignored=[]),
    "qwen2-longrope-5-base": dict(seed=2180, model="qwen2-longrope-5", T=10, rows=[(0, 0), (2, 2)], ignored=[]),
    # PEFT
    "lora-llama": dict(seed=141, model="llama", adapter=peft(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], r=3, lora_alpha=6),
                       float32="peft", rows=[(0, 0), (0, 3), (4, 0)], ignored=[(0, 1), (0, 2)]),
    "lora-llama-subset": dict(seed=142, model="llama-3", adapter=peft(["v_proj", "down_proj", "q_proj"], r=2, lora_alpha=3), float32="peft", rows=BOTH, ignored=[]),
    "lora-qwen2-rslora": dict(seed=143, model="qwen2", adapter=peft(["up_proj", "q_proj", "o_proj", "k_proj", "down_proj", "v_proj", "gate_proj"], r=4, lora_alpha=5,
                                                                    use_rslora=True), float32="peft", rows=LEFT, ignored=[(1, 6)]),
    # Gemma and Gemma 2
    "gemma-base": dict(seed=151, model="gemma", rows=BOTH, ignored=[(0, 4)]),
    "gemma-2024-base": dict(seed=159, model="gemma-2024", rows=RIGHT, ignored=[]),
    "gemma-topk": dict(seed=152, model="gemma", adapter=mixlora(4, 2, act=GELU, router_aux_loss_coef=0.01), float32="moe_peft", rows=RIGHT, ignored=[(0, 2)]),
    "lora-gemma": dict(seed=153, model="gemma-bf16", adapter=peft(["q_proj", "v_proj", "gate_proj", "down_proj"], r=3, lora_alpha=5), float32="peft", rows=LEFT, ignored=[]),
    "gemma2-base": dict(seed=154, model="gemma2", rows=LEFT, ignored=[(1, 3)]),
    "gemma2-topk": dict(seed=155, model="gemma2", adapter=mixlora(4, 2, act=GELU, router_aux_loss_coef=0.01), float32="moe_peft", base=True, rows=BOTH, ignored=[(0, 5)]),
    "gemma2-window": dict(seed=2156, model="gemma2-window", adapter=mixlora(3, 2, targets=ATTENTION + ["up_proj", "down_proj"], act=GELU, router_aux_loss_coef=0.01), T=11,
                          rows=[(0, 0), (4, 0), (1, 3)], ignored=[]),
    "gemma2-window-base": dict(seed=157, model="gemma2-window", T=10, rows=[(3, 0), (0, 2)], ignored=[]),
    "lora-gemma2": dict(seed=158, model="gemma2-uncapped", adapter=peft(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], r=2, lora_alpha=5),
                        float32="peft", rows=RIGHT, ignored=[]),
    # mixlora-dynamic. MoE-PEFT counts padding in its balance loss, so its files are of rows without any
    "llama-dynamic": dict(seed=2161, model="llama", adapter=mixlora(5, (0.8, 0.0), router_aux_loss_coef=0.01), float32="moe_peft", bin=True, rows=FULL, ignored=[(0, 1), (1, 5)]),
    "llama-dynamic-temperature": dict(seed=2162, model="llama-2023", adapter=mixlora(4, (0.9, 0.8), rslora=True, router_aux_loss_coef=0.01), rows=BOTH, ignored=[(0, 3)]),
    "llama-dynamic-bias": dict(seed=1163, model="llama-bias", adapter=mixlora(4, (0.85, 0.0), router_aux_loss_coef=0.01), base=True, rows=RIGHT, ignored=[]),
    "qwen2-dynamic": dict(seed=164, model="qwen2", adapter=mixlora(4, (0.75, 1.25), targets=["q_proj", "k_proj", "up_proj"], expert=(3, 5, False), router_aux_loss_coef=0.01),
                          float32="moe_peft", rows=FULL, ignored=[]),
    "qwen2-dynamic-all-experts": dict(seed=165, model="qwen2-untied", adapter=mixlora(3, (0.9, 1.25), targets=FFN, router_aux_loss_coef=0.02), float32="moe_peft",
                                      rows=FULL, ignored=[(1, 2)]),
    "gemma2-dynamic": dict(seed=5166, model="gemma2", adapter=mixlora(3, (0.8, 0.0), targets=["v_proj"] + FFN, act=GELU, router_aux_loss_coef=0.01), rows=LEFT, ignored=[]),
}


# several adapters over one base: of says whose each row is, -1 nobody's
PLURAL = {
    "llama-plural": dict(seed=2171, model="llama", adapters=[peft(["q_proj", "v_proj", "up_proj", "down_proj"], r=3, lora_alpha=6), mixlora(4, 2, router_aux_loss_coef=0.01),
                                                            mixlora(6, 3, targets=["q_proj", "o_proj"] + FFN, r=1, alpha=3, rslora=True, router_aux_loss_coef=0.02)],
                         moe_peft=True, of=[1, -1, 0, 2, 1, 0, -1, 2], rows=[(0, 0), (2, 0), (0, 3), (1, 2), (4, 0), (0, 0), (0, 5), (0, 0)], ignored=[(0, 3), (4, 6), (5, 1)]),
    "gemma2-plural": dict(seed=5172, model="gemma2-window", adapters=[mixlora(3, (0.8, 0.0), targets=["v_proj", "up_proj"], act=GELU, router_aux_loss_coef=0.01),
                                                                     mixlora(4, 2, targets=["gate_proj", "down_proj"], r=3, act=GELU, router_loss=False),
                                                                     peft(["q_proj", "o_proj"], r=2, lora_alpha=3)],
                          of=[2, 0, 1, 0, -1], rows=[(0, 0), (3, 0), (0, 2), (1, 1), (0, 0)], ignored=[(1, 6)]),
}


# one token after the other behind a prompt, where angles depend on the length: (seed, tokens of the prompt, tokens in all)
DECODING = {"llama-dynamic-rope": (191, 6, 14), "mistral-longrope": (192, 7, 14)}


def adapter(draw, c, a, base):
    """(adapter_config.json, tensors)"""
    P, a = {}, {**a, "base_model_name_or_path": base, "task_type": "CAUSAL_LM"}

    def lora(name, linear, r):
        out, into = shapes(c)[linear]
        P[name + ".lora_A.weight"], P[name + ".lora_B.weight"] = within(draw, into ** -0.5, r, into), within(draw, 0.5, out, r)
    routed, root = "num_experts" in a, "mixlora" if "num_experts" in a else "base_model.model.model"
    for i in range(c["num_hidden_layers"]):
        if routed: P[f"mixlora.layers.{i}.mlp.moe_gate.weight"] = within(draw, 1, a["num_experts"], c["hidden_size"])
        for linear in (n for n in ATTENTION + FFN if n in a["target_modules"]):
            name = f"{root}.layers.{i}.{'self_attn' if linear in ATTENTION else 'mlp'}.{linear}"
            if routed and linear in FFN:
                for e in range(a["num_experts"]): lora(f"{name}.experts.{e}", linear, a.get("expert_lora", a)["r"])
            else: lora(name, linear, a["r"])
    return a, P


def batch_of(draw, c, s):
    T = s.get("T", 9)
    ids = torch.tensor([[3 + int(draw() * (c["vocab_size"] - 3)) for _ in range(T)] for _ in s["rows"]])
    mask = torch.ones_like(ids)
    for b, (left, right) in enumerate(s["rows"]): mask[b, :left] = 0; mask[b, T - right:] = 0
    ids = ids * mask                             # padding is token 0
    labels = ids.clone()
    for b, t in s["ignored"]: labels[b, t] = -100
    return {"input_ids": ids, **({"attention_mask": mask} if s.get("mask", True) else {}), "labels": labels, **({"adapter": torch.tensor(s["of"])} if "of" in s else {})}


def inputs(case):
    """(config.json, model tensors, adapter_config.json or None, adapter tensors, batch)"""
    s = CASES[case]
    c, W = model(s["model"])
    draw = random.Random(s["seed"]).random
    a, P = adapter(draw, c, s["adapter"], f"../../../models/{s['model']}") if "adapter" in s else (None, {})
    return c, W, a, P, batch_of(draw, c, s)


def plural_inputs(case):
    """(config.json, model tensors, [(adapter_config.json, tensors)], batch)"""
    s = PLURAL[case]
    c, W = model(s["model"])
    draw = random.Random(s["seed"]).random
    return c, W, [adapter(draw, c, a, f"../../../../models/{s['model']}") for a in s["adapters"]], batch_of(draw, c, s)


# ---- expectations, and the other programs' word on them

def off(found, wanted):
    """Largest relative error of a tensor, by kind; inf for another set of names or shapes. Zero is compared with zero."""
    if set(found) != set(wanted): return dict(first=math.inf)
    worst = {}
    for k, y in wanted.items():
        kind = "curve" if k == "loss_curve" else "after" if "after." in k else "first"
        if found[k].shape != y.shape: return dict(first=math.inf)
        d = (found[k].double() - y.double()).norm().item()
        worst[kind] = max(worst.get(kind, 0.0), 0.0 if d == 0 else d / max(y.double().norm().item(), 1e-12) if math.isfinite(d) else math.inf)
    return worst


def expectations(case, data):
    """{file: tensors} of our own, and the margins"""
    s, (c, W, a, P, batch) = CASES[case], data
    out, gaps = programs.definition(c, W, a, P, batch)
    files = {"expected64": out}
    if s.get("argmax"):
        x, more = programs.definition(c, W, a, P, batch, "perLayerArgmax")
        files["expected64-perLayerArgmax"] = {k: v for k, v in x.items() if k == "aux_loss" or k.startswith("grad.")}
        gaps = gaps + more[:1]                   # the gradient is taken once, before any step
    if s.get("base"): files["expected64-base-gradients"] = programs.base_gradients(c, W, a, P, batch)
    if min(gaps) < GAP: raise SystemExit(f"{case}: a router margin of {min(gaps):.1e} is below {GAP}: choose another seed")
    if a and "top_p" in a: print(f"{case}: experts of a token {programs.experts_chosen(a, batch, out)}")
    return files, gaps


def in_float32(case, folder, data):
    c, W, a, P, batch = data
    who = CASES[case].get("float32")
    if who == "moe_peft": return programs.moe_peft(HERE / "models" / CASES[case]["model"], c, a, P, batch)
    if who == "peft": return programs.peft(HERE / "models" / CASES[case]["model"], folder / "adapter", c, P, batch)


def numpy_of(t): return {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in t.items()}


def second_opinions(case, folder, data, files):
    """(program, errors by kind, limits). ImportError: the program is not here."""
    c, W, a, P, batch = data
    s, place, arrays = CASES[case], HERE / "models" / CASES[case]["model"], [c, numpy_of(W), a, numpy_of(P), numpy_of(batch)]
    for name, tensors in files.items():
        yield f"numpy {name}", check_numpy.check(*arrays, numpy_of(tensors), "perLayerArgmax" if "perLayer" in name else "pooledTopK"), dict(forward=check_numpy.FORWARD, gradient=check_numpy.GRADIENT)

    def transformers():
        found, really = programs.hugging_face(place, c, W, a, P, batch)
        return off(found, files["expected64"] if really == c else programs.definition(really, W, a, P, batch)[0])

    def transformers_per_layer():
        found, wanted = programs.hugging_face(place, c, W, a, P, batch, "perLayerArgmax")[0], files["expected64-perLayerArgmax"]
        return off({k: found[k] for k in wanted}, wanted)
    yield "transformers" + (" (window on all layers, and so judged)" if all_windowed(c) else ""), transformers, EQUAL64
    if "expected64-perLayerArgmax" in files: yield "transformers perLayerArgmax", transformers_per_layer, EQUAL64
    if s.get("float32") == "peft":
        yield "peft float64", lambda: off(programs.peft(place, folder / "adapter", c, P, batch, torch.float64), files["expected64"]), EQUAL64
        yield "peft's configuration", lambda: dict(first=0.0 if without(programs.peft_config(a), "peft_version", "target_modules") ==
                                                   without(a, "peft_version", "target_modules") else math.inf), EQUAL64
    if s.get("float32"): yield s["float32"] + " float32, the file", off(load_file(folder / "expected.safetensors"), files["expected64"]), CLOSE32
    elif a and "top_p" in a: # padding: all of it but the balance loss
        def unbalanced():
            alone = {**a, "router_loss": False}
            return off(programs.moe_peft(place, c, alone, P, batch), programs.definition(c, W, alone, P, batch)[0])
        yield "moe_peft float32, without the balance loss", unbalanced, CLOSE32
    elif a and a.get("top_k") == 1:                  # MoE-PEFT's gate gradient is noise at K = 1, so only what is before Adam, without the gate
        def before_adam():
            keep = lambda t: {k: v for k, v in t.items() if k != "loss_curve" and not k.startswith("after.") and not (k.startswith("grad.") and "moe_gate" in k)}
            return off(keep(programs.moe_peft(place, c, a, P, batch)), keep(files["expected64"]))
        yield "moe_peft float32, without the gate", before_adam, CLOSE32


def all_windowed(c):
    if not c.get("use_sliding_window"): return False
    try: import transformers
    except ImportError: return False
    return transformers.__version__ < "5"


# ---- files

def same(x, y): return set(x) == set(y) and all(torch.equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in y)


def text(value, indent): return json.dumps(value, indent=indent) + "\n"


class Files:
    """Writes what is missing (or, forced, everything), compares the rest, and keeps what it found wrong."""

    def __init__(self, check, force): self.check, self.force, self.bad, self.bytes = check, force, [], 0

    def keep(self, path, write, differs):
        """`differs` says what is wrong with the file that is there, or ''"""
        short = str(path.relative_to(HERE))
        if (self.force or not path.exists()) and not self.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        try: wrong = differs(path)
        except (OSError, ValueError) as e: wrong = str(e)
        if wrong: self.bad.append(f"{short}: {wrong}")
        elif path.exists(): self.bytes += path.stat().st_size

    def json(self, path, value, indent=2):
        self.keep(path, lambda p: p.write_text(text(value, indent)), lambda p: "" if p.read_text() == text(value, indent) else "is not what the seed gives")

    def tensors(self, path, value, limits=None, pickle=False):
        """Inputs must be equal bit by bit, expectations within `limits`."""
        read = lambda p: {k: v.detach() for k, v in torch.load(p, weights_only=True).items()} if pickle else load_file(p)
        write = lambda p: torch.save({k: torch.nn.Parameter(v) for k, v in value.items()}, p) if pickle else save_file(value, p, metadata=dict(format="pt"))

        def differs(p):
            there = read(p)
            if limits is None: return "" if same(there, value) else "is not what the seed gives"
            e = off(there, value)
            return "" if fits(e, limits) else f"is off by {said(e)}"
        self.keep(path, write, differs)


def fits(errors, limits): return all(e <= limits[k] for k, e in errors.items())


def said(errors): return " ".join(f"{k} {e:.1e}" for k, e in errors.items())


def keep_model(name, c, W, files):
    """Its size, whether written now or not."""
    start = files.bytes
    files.json(HERE / "models" / name / "config.json", c)
    files.tensors(HERE / "models" / name / "model.safetensors", W)
    return files.bytes - start


def keep_adapter(folder, a, P, files, pickle=False):
    files.json(folder / "adapter_config.json", a, 2 if a["peft_type"] == "LORA" else 4)
    files.tensors(folder / ("adapter_model.bin" if pickle else "adapter_model.safetensors"), P, pickle=pickle)


def judged(opinions):
    """Prints them; whether all that could run are within their limits."""
    good = True
    for who, errors, limits in opinions:
        try: e = errors() if callable(errors) else errors
        except ImportError as x: print(f"  {who}: not run, {x}"); continue
        print(f"  {who}: {said(e)}" + ("" if fits(e, limits) else f"  OVER THE LIMIT {said(limits)}"))
        good = good and fits(e, limits)
    return good


def shown(gaps): return "-" if gaps[0] == math.inf else " ".join(f"{g:.1e}" for g in gaps)


def run(case, files):
    folder, s, data = HERE / "cases" / case, CASES[case], inputs(case)
    c, W, a, P, batch = data
    ours, gaps = expectations(case, data)        # first, because it may refuse the seed
    of_model = keep_model(s["model"], c, W, files)
    if a: keep_adapter(folder / "adapter", a, P, files, s.get("bin", False))
    files.tensors(folder / "batch.safetensors", batch)
    for name, tensors in ours.items(): files.tensors(folder / f"{name}.safetensors", tensors, dict(first=SAME, curve=SAME, after=SAME))
    if s.get("float32"):
        path = folder / "expected.safetensors"
        try: files.tensors(path, in_float32(case, folder, data), CLOSE32)
        except ImportError as e:
            print(f"  {s['float32']} cannot be imported ({e}): {path.name} " + ("left as it is" if path.exists() else "not made"))
            if not path.exists(): files.bad.append(f"{case}/{path.name} is missing")
    if files.bad: return False
    print(f"{case}: {len(ours)} + {int('float32' in s)} expectations, {(files.bytes - of_model) / 1000:.0f} kB and the model {of_model / 1000:.0f} kB; router margins {shown(gaps)}")
    return judged(second_opinions(case, folder, data, ours))


def run_plural(case, files):
    folder, s, (c, W, adapters, batch) = HERE / "plural" / case, PLURAL[case], plural_inputs(case)
    place, (ours, gaps) = HERE / "models" / s["model"], programs.plural(c, W, adapters, batch)
    if min(gaps) < GAP: raise SystemExit(f"{case}: a router margin of {min(gaps):.1e} is below {GAP}: choose another seed")
    of_model = keep_model(s["model"], c, W, files)
    for i, (a, P) in enumerate(adapters): keep_adapter(folder / f"adapters/{i}", a, P, files)
    files.tensors(folder / "batch.safetensors", batch)
    files.tensors(folder / "expected64.safetensors", ours, dict(first=SAME, curve=SAME, after=SAME))
    if files.bad: return False
    print(f"{case}: {len(adapters)} adapters, {(files.bytes - of_model) / 1000:.0f} kB and the model {of_model / 1000:.0f} kB; router margins {shown(gaps)}")

    def opinions():                              # of each adapter alone on its rows, by programs that know of no other
        for i, (a, P) in [*enumerate(adapters), (-1, (None, {}))]:
            rows, wanted, whose = programs.rows_of(batch, i), programs.alone(ours, batch, i), f"adapter {i}" if a else "no adapter"
            yield f"numpy {whose}", check_numpy.check(c, numpy_of(W), a, numpy_of(P), numpy_of(rows), numpy_of(wanted)), dict(forward=check_numpy.FORWARD, gradient=check_numpy.GRADIENT)
            found = programs.definition(c, W, a, P, rows)[0]
            yield f"the definition {whose}", off(found if a else {"logits": found["logits"]}, wanted), dict(first=SAME, curve=SAME, after=SAME)
            yield f"transformers {whose}", lambda: off(programs.hugging_face(place, c, W, a, P, rows)[0] if a else {"logits": programs.hugging_face_logits(place, c, rows)}, wanted), EQUAL64
        if s.get("moe_peft"): yield "moe_peft float32, all in one batch", lambda: off(programs.moe_peft_plural(place, c, adapters, batch), ours), CLOSE32
    return judged(opinions())


def decoding(files):
    for name, (seed, prompt, length) in DECODING.items():
        (c, W), draw = model(name), random.Random(seed).random
        ids = torch.tensor([3 + int(draw() * (c["vocab_size"] - 3)) for _ in range(length)])
        logits = programs.decoded(c, W, ids, prompt)
        files.tensors(HERE / "decoding" / f"{name}.safetensors", dict(ids=ids, prompt=torch.tensor([prompt]), logits=logits), dict(first=SAME))
        print(f"decoding {name}: {prompt} and {length - prompt} tokens")
        if not judged([("transformers", lambda: off(dict(logits=programs.hugging_face_decoded(HERE / "models" / name, c, ids, prompt)), dict(logits=logits)), EQUAL64)]): return False
    return not files.bad


# ---- optimisers, schedules, and the list of it all

def optimizers(files):
    draw, names = random.Random(7).random, {"layer.lora_A.weight": (2, 6), "layer.lora_B.weight": (5, 2), "layer.moe_gate.weight": (3, 6), "idle.lora_B.weight": (3, 2)}
    start = {k: within(draw, 1, *shape) for k, shape in names.items()}
    scale = (1, 4, 0.05, 0.5, 2)                 # step 3 lies below the clipping norm; the idle expert has no gradient at all and still decays
    gradients = {k: torch.stack([within(draw, x if "idle" not in k else 0, *shape) for x in scale]) for k, shape in names.items()}
    gradients["idle.lora_B.weight"].zero_()
    found, worst = {}, 0.0
    for name, r in programs.RUNS.items():
        for dtype in (torch.float64, torch.float32):
            for k, v in programs.optimize(r, start, gradients, dtype).items(): found[f"{name}.{str(dtype)[6:]}.{k}"] = v
        ours = check_numpy.optimize(r, *({k: v.double().numpy() for k, v in t.items()} for t in (start, gradients)))
        for precision, limit in (("float64", 1e-14), ("float32", 1e-6)):
            e = max(np.abs(found[f"{name}.{precision}.{k}"].double().numpy() - v).max() / np.abs(v).max() for k, v in ours.items())
            if not e <= limit: files.bad.append(f"optimizers: {name} in {precision} is off NumPy's by {e:.1e}")
            worst = max(worst, e) if precision == "float64" else worst
    path, given = HERE / "optimizers.safetensors", {**{f"start.{k}": v for k, v in start.items()}, **{f"gradient.{k}": v for k, v in gradients.items()}}
    files.tensors(path, {**given, **found}, dict(first=1e-6))                                     # the float32 half; more strictly:
    if not files.bad:
        there, exact = load_file(path), {k: v for k, v in found.items() if v.dtype == torch.float64}
        if not (same({k: there[k] for k in given}, given) and fits(off({k: there[k] for k in exact}, exact), dict(first=SAME))):
            files.bad.append("optimizers.safetensors: is not what the seed gives")
    about = {"tensors": {"start.<parameter>": "float32", "gradient.<parameter>": "(steps, …) float32", "<run>.<precision>.<parameter>": "(steps, …) after each step",
                         "<run>.<precision>.norm": "(steps) norm of all gradients before clipping"},
             "steps": len(scale), "parameters": list(names), "precisions": ["float64", "float32"],
             "runs": {k: {**v, **(dict(betas=[0.9, 0.999], eps=1e-8) if v["optimizer"] == "adamw" else {})} for k, v in programs.RUNS.items()}}
    files.json(HERE / "optimizers.json", about)
    if not files.bad: print(f"optimizers: {len(programs.RUNS)} runs, {files.bytes / 1000:.0f} kB; numpy float64: off by at most {worst:.1e}")
    return not files.bad


def schedules(files):
    path = HERE / "schedules.json"
    try: found = programs.schedules()
    except ImportError as e:
        print(f"schedules: transformers cannot be imported ({e})")
        if not path.exists(): return False
        found = json.loads(path.read_text())["runs"]
    worst = max(abs(x - y) / programs.SCHEDULE_LR for r in found for x, y in zip(r["lr"], check_numpy.schedule(r["schedule"], r["steps"], r["warmup"], programs.SCHEDULE_LR), strict=True))
    if not worst <= 1e-14: files.bad.append(f"schedules: off the closed forms by {worst:.1e}")
    value = {"lr": programs.SCHEDULE_LR, "runs": found}
    compact = lambda: "{\"lr\": 0.0002, \"runs\": [\n" + ",\n".join(json.dumps(r) for r in value["runs"]) + "\n]}\n"

    def differs(p):
        there = json.loads(p.read_text())
        keys = lambda v: [{k: x for k, x in r.items() if k != "lr"} for r in v["runs"]]
        if keys(there) != keys(value): return "has other runs"
        return "" if all(abs(x - y) <= 1e-18 for r, q in zip(there["runs"], found) for x, y in zip(r["lr"], q["lr"], strict=True)) else "is off"
    files.keep(path, lambda p: p.write_text(compact()), differs)
    if not files.bad: print(f"schedules: {len(found)} runs, {files.bytes / 1000:.0f} kB; closed forms: off by at most {worst:.1e} of lr")
    return not files.bad


def index(files):
    """cases.json and plural.json: where each case has its files."""
    lines = []
    for case, s in CASES.items():
        a, here = s.get("adapter"), f"cases/{case}"
        lines.append(json.dumps({"name": case, "model": f"models/{s['model']}", "adapter": f"{here}/adapter" if a else None, "batch": f"{here}/batch.safetensors",
                                 "float64": f"{here}/expected64.safetensors", "float32": f"{here}/expected.safetensors" if s.get("float32") else None,
                                 "float32_by": s.get("float32"), "perLayerArgmax": f"{here}/expected64-perLayerArgmax.safetensors" if s.get("argmax") else None,
                                 "base_gradients": f"{here}/expected64-base-gradients.safetensors" if s.get("base") else None}))
    several = [json.dumps({"name": case, "model": f"models/{s['model']}", "adapters": [f"plural/{case}/adapters/{i}" for i in range(len(s["adapters"]))],
                           "batch": f"plural/{case}/batch.safetensors", "float64": f"plural/{case}/expected64.safetensors"}) for case, s in PLURAL.items()]
    for name, entries in (("cases.json", lines), ("plural.json", several)):
        whole = "[\n" + ",\n".join(entries) + "\n]\n"
        files.keep(HERE / name, lambda p: p.write_text(whole), lambda p: "" if p.read_text() == whole else "is not what the lists say")
    return not files.bad


if __name__ == "__main__":
    flags, names = [x for x in sys.argv[1:] if x.startswith("-")], [x for x in sys.argv[1:] if not x.startswith("-")]
    if set(flags) - {"--check", "--force"} or len(flags) > 1 or set(names) - set(CASES) - set(PLURAL) - {"decoding", "optimizers", "schedules", "index"}: sys.exit(__doc__)
    torch.set_num_threads(1)
    import logging, warnings
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    good = True
    for name in names or [*CASES, *PLURAL, "decoding", "optimizers", "schedules", "index"]:
        files = Files("--check" in flags, "--force" in flags)
        good = {"decoding": decoding, "optimizers": optimizers, "schedules": schedules, "index": index}.get(name, lambda f: (run_plural if name in PLURAL else run)(name, f))(files) and good
        for b in files.bad: print(b)
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    print(f"{size / 1e6:.2f} MB in all; " + ("good" if good else "NOT GOOD"))
    sys.exit(0 if good else 1)
