#!/usr/bin/env python3
"""Makes the GGUF files in this folder with llama.cpp's own writer, and what they must give.

usage: make.py [--check]     (--check writes nothing; exit 1 if anything differs)

  blocks.gguf        random bytes in each format         blocks.safetensors       gguf.dequantize of them, float32
  llama.gguf         tied, all six formats, a divisor    llama.safetensors        logits of batch.safetensors, float64
                     for each rotary frequency
  qwen2.gguf         untied, biases                      qwen2.safetensors        the same
  k-quants.gguf      untied, 256 channels, the formats   k-quants.safetensors     the same
                     that gguf cannot write: random bits
  talks.gguf         a llama with a tokenizer (pieces with scores, bytes) and a chat template, random; nothing is expected of it but that
                     the folder a training run makes of it is the same model

The logits come from `logits64` below, NumPy in float64, which never leaves the file's own order of rows: it rotates the pairs that
llama.cpp rotates, (2j, 2j + 1) for llama and (j, j + D/2) for qwen2. Beside it Transformers runs the un-permuted weights in float32
(peer.py, without divisors), which must agree to 2e-5. Needs numpy, gguf 0.19.0, safetensors; torch and transformers for the second.
"""
import sys, tempfile
from pathlib import Path

import gguf, numpy
from gguf import GGMLQuantizationType as T
from safetensors.numpy import load_file, save_file

import peer

HERE = Path(__file__).resolve().parent
V, C, F, H, G, D, LAYERS, THETA, EPSILON = 40, 32, 64, 4, 2, 8, 2, 10000.0, 1e-5
FORMATS = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1]
# Where the halves of a block stand, and what they are for numbers in ±1/2 or so: a scale, and a minimum that puts the mean near 0.
HALVES = {T.Q5_0: {0: 1 / 31}, T.Q5_1: {0: 1 / 31, 2: -0.5}, T.Q2_K: {80: 1 / 45, 82: 1 / 30}, T.Q3_K: {108: 1 / 128},
          T.Q4_K: {0: 1 / (63 * 15), 2: 1 / 126}, T.Q5_K: {0: 1 / (63 * 31), 2: 1 / 126}, T.Q6_K: {208: 1 / (128 * 32)}}
IDS = numpy.array([[1, 5, 39, 0, 7, 12], [22, 3, 3, 31, 18, 9]], dtype=numpy.int64)


def put(writer, name, values, kind):
    if kind in (T.F32, T.F16): return writer.add_tensor(name, values.astype(numpy.float32 if kind == T.F32 else numpy.float16))
    writer.add_tensor(name, gguf.quantize(values.astype(numpy.float32), kind), raw_dtype=kind)


def begin(path, kind, channels, width, tokens=[f"token {n}" for n in range(V)]):
    writer = gguf.GGUFWriter(path, kind)
    for call, value in [(writer.add_block_count, LAYERS), (writer.add_context_length, 128), (writer.add_embedding_length, channels), (writer.add_feed_forward_length, width),
                        (writer.add_head_count, H), (writer.add_head_count_kv, G), (writer.add_layer_norm_rms_eps, EPSILON), (writer.add_rope_freq_base, THETA)]: call(value)
    if kind == "llama": writer.add_rope_dimension_count(D)
    writer.add_token_list(tokens)
    return writer


def end(writer): writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()


def bits(random, kind, rows, columns, size):
    """Random blocks of numbers in about ±size / 2."""
    count, width = gguf.GGML_QUANT_SIZES[kind]
    raw = random.randint(0, 256, (rows, columns // count, width)).astype(numpy.uint8)
    for place, scale in HALVES[kind].items():
        raw[:, :, place:place + 2] = (scale * size * random.uniform(0.5, 1.5, raw.shape[:2])).astype(numpy.float16)[..., None].view(numpy.uint8)
    return raw.reshape(rows, -1)


def write_k_quants(path):
    """A llama of 256 channels, heads of D, in the formats that gguf reads and does not write."""
    random, wide = numpy.random.RandomState(6), 256
    writer = begin(path, "llama", wide, wide)
    writer.add_key_length(D), writer.add_value_length(D)
    kinds = dict(attn_q=(T.Q4_K, H * D, wide), attn_k=(T.Q3_K, G * D, wide), attn_v=(T.Q2_K, G * D, wide), attn_output=(T.Q5_0, wide, H * D),
                 ffn_gate=(T.Q4_K, wide, wide), ffn_up=(T.Q5_K, wide, wide), ffn_down=(T.Q6_K, wide, wide))
    put_bits = lambda name, kind, rows, columns, size: writer.add_tensor(name, bits(random, kind, rows, columns, size), raw_dtype=kind)
    put_bits("token_embd.weight", T.Q6_K, V, wide, 2)
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"): put(writer, f"blk.{layer}.{norm}.weight", random.normal(1, 0.1, wide), T.F32)
        for name, (kind, rows, columns) in kinds.items():
            put_bits(f"blk.{layer}.{name}.weight", T.Q5_1 if layer and kind == T.Q5_0 else kind, rows, columns, 4 / columns ** 0.5)
    put(writer, "output_norm.weight", random.normal(1, 0.1, wide), T.F32)
    put_bits("output.weight", T.Q4_K, V, wide, 0.2)
    end(writer)


def write_talking(path):
    """A llama that can be talked to: letters, some pairs of them, bytes, and a template of its own."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<turn>", 0.0, 3), *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256))]
    pairs = ["he", "th", "in", "er", "an", "\u2581t", "\u2581a", "\u2581the", "\u2581s"]
    pieces += [(text, -float(n), 1) for n, text in enumerate([*pairs, "\u2581", *"etaoinshrdlucmfwypvbgkjqxz.,?"])]
    writer = begin(path, "llama", C, F, [text for text, _, _ in pieces])
    writer.add_tokenizer_model("llama"), writer.add_tokenizer_pre("default"), writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces]), writer.add_bos_token_id(1), writer.add_eos_token_id(2), writer.add_add_bos_token(True)
    writer.add_chat_template("{% for message in messages %}{{ '<turn>' + message.role + ':' + message.content + '</s>' }}{% endfor %}{% if add_generation_prompt %}<turn>assistant:{% endif %}")
    fill(writer, numpy.random.RandomState(7), "llama", [T.F16, T.Q8_0], len(pieces))
    end(writer)


def write(path, kind, divisors):
    """A random model; the i-th matrix is stored in the i-th format, counted round."""
    random = numpy.random.RandomState(dict(llama=3, qwen2=4)[kind])
    writer = begin(path, kind, C, F)
    fill(writer, random, kind, FORMATS, V)
    if divisors is not None: writer.add_tensor("rope_freqs.weight", divisors)
    end(writer)


def fill(writer, random, kind, formats, vocabulary):
    sizes = dict(attn_q=(H * D, C), attn_k=(G * D, C), attn_v=(G * D, C), attn_output=(C, H * D), ffn_gate=(F, C), ffn_up=(F, C), ffn_down=(C, F))
    put(writer, "token_embd.weight", random.normal(0, 1, (vocabulary, C)), T.Q8_0)
    count = 0
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"): put(writer, f"blk.{layer}.{norm}.weight", random.normal(1, 0.1, C), T.F32)
        for name, (o, i) in sizes.items():
            put(writer, f"blk.{layer}.{name}.weight", random.normal(0, 1.5 / i ** 0.5, (o, i)), formats[count % len(formats)])
            if kind == "qwen2" and name in ("attn_q", "attn_k", "attn_v"): put(writer, f"blk.{layer}.{name}.bias", random.normal(0, 0.5, o), T.F32)
            count += 1
    put(writer, "output_norm.weight", random.normal(1, 0.1, C), T.F32)
    if kind == "qwen2": put(writer, "output.weight", random.normal(0, 1 / C ** 0.5, (vocabulary, C)), T.Q4_1)


def logits64(path, ids):
    """The model in float64, straight from the file."""
    reader = gguf.GGUFReader(path)
    kind = reader.fields["general.architecture"].contents()
    w = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(numpy.float64).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors}
    norm = lambda x, name: x / numpy.sqrt((x * x).mean(-1, keepdims=True) + float(numpy.float32(EPSILON))) * w[name + ".weight"]
    linear = lambda x, name: x @ w[name + ".weight"].T + w.get(name + ".bias", 0)
    angles = numpy.arange(ids.shape[1])[:, None] * (THETA ** (-2 * numpy.arange(D // 2) / D) / w.get("rope_freqs.weight", 1))
    cos, sin = numpy.cos(angles)[:, None], numpy.sin(angles)[:, None]

    def rotate(x, heads):
        x = x.reshape(*x.shape[:-1], heads, D)
        first, second = (slice(0, D, 2), slice(1, D, 2)) if kind == "llama" else (slice(0, D // 2), slice(D // 2, D))
        y = numpy.empty_like(x)
        y[..., first], y[..., second] = x[..., first] * cos - x[..., second] * sin, x[..., first] * sin + x[..., second] * cos
        return y

    x = w["token_embd.weight"][ids]
    for layer in range(LAYERS):
        b = f"blk.{layer}."
        n = norm(x, b + "attn_norm")
        q, k = rotate(linear(n, b + "attn_q"), H), rotate(linear(n, b + "attn_k"), G).repeat(H // G, axis=-2)
        v = linear(n, b + "attn_v").reshape(*n.shape[:-1], G, D).repeat(H // G, axis=-2)
        scores = numpy.einsum("bthd,bshd->bhts", q, k) / D ** 0.5 + numpy.triu(numpy.full((ids.shape[1],) * 2, -numpy.inf), 1)
        p = numpy.exp(scores - scores.max(-1, keepdims=True))
        mixed = numpy.einsum("bhts,bshd->bthd", p / p.sum(-1, keepdims=True), v).reshape(*n.shape[:-1], H * D)
        x = x + linear(mixed, b + "attn_output")
        n = norm(x, b + "ffn_norm")
        a = linear(n, b + "ffn_gate")
        x = x + linear(a / (1 + numpy.exp(-a)) * linear(n, b + "ffn_up"), b + "ffn_down")
    return norm(x, "output_norm") @ w.get("output.weight", w["token_embd.weight"]).T


def blocks(path):
    """Random bytes, so every class of scale and number occurs; returns what they decode to."""
    random, expected = numpy.random.RandomState(5), {}
    writer = gguf.GGUFWriter(path, "blocks")
    for kind in FORMATS + [*HALVES]:
        count, size = gguf.GGML_QUANT_SIZES[kind]
        width = 256 if kind in HALVES else 128
        raw = random.randint(0, 256, (8, width // count * size)).astype(numpy.uint8)
        data = raw.view({T.F32: numpy.float32, T.F16: numpy.float16}.get(kind, numpy.uint8))
        writer.add_tensor(kind.name, data, raw_dtype=None if kind in (T.F32, T.F16) else kind)
        with numpy.errstate(all="ignore"): expected[kind.name] = numpy.array(gguf.dequantize(data, kind), dtype=numpy.float32).reshape(8, width)
    end(writer)
    return expected


def main(arguments):
    if arguments not in ([], ["--check"]): sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        save_file(blocks(out / "blocks.gguf"), out / "blocks.safetensors")
        save_file({"input_ids": IDS}, out / "batch.safetensors")
        write_talking(out / "talks.gguf")
        for kind, divisors in [("llama", numpy.array([1, 1.5, 4, 8], dtype=numpy.float32)), ("qwen2", None), ("k-quants", None)]:
            make = (lambda path, _: write_k_quants(path)) if kind == "k-quants" else lambda path, divisors: write(path, kind, divisors)
            make(out / f"{kind}.gguf", divisors)
            save_file({"logits": logits64(out / f"{kind}.gguf", IDS)}, out / f"{kind}.safetensors")
            plain = out / "plain.gguf"
            make(plain, None)
            peer.main([str(plain), str(out / "hugging-face")])
            ours, theirs = logits64(plain, IDS), peer.logits(out / "hugging-face", IDS.tolist())
            error = numpy.linalg.norm(ours - theirs) / numpy.linalg.norm(ours)
            print(f"{kind}: Transformers' float32 is off by {error:.1e}")
            if not error <= 2e-5: sys.exit("the definition and Transformers disagree")
            plain.unlink()
        made = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    differ = []
    for name, content in made.items():
        if arguments and name.endswith(".safetensors") and (HERE / name).exists():  # sums may differ in their last bits elsewhere
            (HERE / "check.tmp").write_bytes(content)
            a, b = load_file(HERE / "check.tmp"), load_file(HERE / name)
            (HERE / "check.tmp").unlink()
            if a.keys() != b.keys() or not all(numpy.allclose(a[k], b[k], rtol=1e-12, atol=1e-12, equal_nan=True) for k in a): differ.append(name)
        elif arguments:
            if not (HERE / name).exists() or (HERE / name).read_bytes() != content: differ.append(name)
        else: (HERE / name).write_bytes(content)
    if differ: sys.exit("differ: " + ", ".join(differ))
    print(", ".join(f"{name} {len(content)}" for name, content in sorted(made.items())))


if __name__ == "__main__": main(sys.argv[1:])
