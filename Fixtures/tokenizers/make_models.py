#!/usr/bin/env python3
"""Trains the small SentencePiece models of this folder and writes what transformers==4.46.3 (tokenizers==0.20.3) makes of strings with them.

usage: make_models.py [--check]      (needs sentencepiece==0.2.3, protobuf, and the text of make.py)
  llama2/    tokenizer.model (BPE, byte fallback) and tokenizer_config.json, read by AutoTokenizer as LlamaTokenizerFast
  llama2-json/  the tokenizer.json of the same, a blank only before the first word (legacy: false), and added tokens
  gemma/     tokenizer.model with Gemma's first tokens, read as GemmaTokenizerFast
  unigram/   tokenizer.json of a unigram model with byte fallback and Metaspace
  unigram-plain/  the same kind without byte fallback: unknown characters become one token
expected.json as in make.py.
folders.json: what AutoTokenizer makes of folders: "base" is the folder whose tokenizer is taken, "files" what lies beside it; "ids" of
"texts" with the tokens that go around them, or "error", the key that must be named where transformers fails too. With "older" the
vocabulary and merges of its tokenizer.json lie there as vocab.json and merges.txt, and no tokenizer.json.
"""
import io, json, os, sys, tempfile
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import sentencepiece, transformers
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from transformers import AutoTokenizer

from make import corpus, expected

HERE = Path(__file__).resolve().parent


def train(size, kind, **settings):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in corpus() if line.strip()]), model_writer=model, vocab_size=size, model_type=kind,
        character_coverage=0.995, num_threads=1, train_extremely_large_corpus=False, minloglevel=2, normalization_rule_name="identity",
        **{"byte_fallback": True, "split_digits": True, "allow_whitespace_only_pieces": True, "remove_extra_whitespaces": False, **settings})
    return model.getvalue()


def load(model, settings):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.model").write_bytes(model)
        Path(folder, "tokenizer_config.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder).backend_tokenizer


def all_models():
    llama = train(700, "bpe", user_defined_symbols=["<user>", "  "])
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "add_bos_token": True, "add_eos_token": False, "legacy": True}
    yield "llama2", {"tokenizer.model": llama, "tokenizer_config.json": settings}, load(llama, settings)
    first = load(llama, {**settings, "legacy": False})
    first.add_special_tokens([AddedToken("<|end|>", rstrip=True, normalized=False)])
    first.add_tokens([AddedToken("word", single_word=True, normalized=True), AddedToken("left", lstrip=True, normalized=True)])
    yield "llama2-json", {"tokenizer.json": first.to_str()}, first
    gemma = train(700, "bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>", user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n\n", "  "], add_dummy_prefix=False)
    settings = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    yield "gemma", {"tokenizer.model": gemma, "tokenizer_config.json": settings}, load(gemma, settings)
    for name, fallback in (("unigram", True), ("unigram-plain", False)):
        unigram = load(train(700, "unigram", byte_fallback=True), {"tokenizer_class": "LlamaTokenizer"})
        value = json.loads(unigram.to_str())
        value["model"]["byte_fallback"] = fallback
        unigram = Tokenizer.from_str(json.dumps(value))
        unigram.normalizer = None
        unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if fallback else "never", split=fallback)
        unigram.decoder = decoders.Metaspace() if not fallback else unigram.decoder
        yield name, {"tokenizer.json": unigram.to_str()}, unigram


TEXTS = ["a b", "Hello <s> world</s>", "  x <new>  y", "<|im_start|>hi<|im_end|>", "[PAD]<x> <pad> <z>"]


def flags(content, **more): return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **more}


def folders():
    llama = {"tokenizer_class": "LlamaTokenizer"}
    plain = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config = {"tokenizer_config.json": plain}
    for base in ("llama2-json", "llama2"):
        for settings in (llama, {**llama, "add_eos_token": True}, {**llama, "add_bos_token": False, "add_eos_token": True}, {**llama, "add_bos_token": False, "bos_token": None}, {**llama, "legacy": False},
                         {**llama, "pad_token": "[PAD]", "additional_special_tokens": ["<x>"]}, {**llama, "split_special_tokens": True},
                         {**llama, "added_tokens_decoder": {"1": flags("<s>", lstrip=True), "7": flags("<new>", rstrip=True), "900": flags("y", special=False, normalized=True)}},
                         {**llama, "unk_token": "<none>"}):
            yield base, {"tokenizer_config.json": settings}
        yield base, {"config.json": {"model_type": "mistral"}}
    yield "llama2", {"tokenizer_config.json": {**llama, "add_prefix_space": False}}
    yield "llama2", {"tokenizer_config.json": {**llama, "add_prefix_space": True, "legacy": False}}
    yield "llama2", {"tokenizer_config.json": {**llama, "add_prefix_space": False, "legacy": False}}
    yield "llama2-json", {"tokenizer_config.json": plain}
    yield "llama2-json", {"tokenizer_config.json": plain, "special_tokens_map.json": {"bos_token": "<s>", "pad_token": flags("[PAD]", normalized=True), "additional_special_tokens": ["<x>"]}, "added_tokens.json": {"<z>": 703, "<new>": 702}}
    yield "llama2-json", {"tokenizer_config.json": {**plain, "added_tokens_decoder": {}}, "special_tokens_map.json": {"pad_token": "[PAD]"}, "added_tokens.json": {"<z>": 702}}
    yield "llama2-json", {"tokenizer_config.json": {**plain, "eos_token": "</s>", "pad_token": "[PAD]", "add_bos_token": True}}
    yield "gemma", {"tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer", "add_eos_token": True}}
    yield "gemma", {"config.json": {"model_type": "gemma2"}}
    for settings in ({}, {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}, {"add_bos_token": True, "bos_token": "<|im_start|>"}, {"additional_special_tokens": ["<x>", "<z>"]}):
        yield "qwen2", {"tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", **settings}}
    yield "qwen2", {"tokenizer_config.json": {**llama, "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": None}}
    for kind in ("GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "BloomTokenizer", "CohereTokenizer", "PreTrainedTokenizerFast"):
        for settings in ({}, {"add_prefix_space": True}, {"add_prefix_space": False}):
            yield "gpt2-prefix", {"tokenizer_config.json": {"tokenizer_class": kind, **settings}}
    yield "gpt2-prefix", {"tokenizer_config.json": {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True, "add_eos_token": True}}
    yield "qwen2", {"tokenizer_config.json": {"tokenizer_class": "CohereTokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": None, "add_prefix_space": True}}
    yield "llama2-json", {"tokenizer_config.json": {**llama, "bos_token": None}}, "add_bos_token"
    yield "llama2-json", {"tokenizer_config.json": {**llama, "add_eos_token": True, "eos_token": None}}, "add_eos_token"
    yield "llama2-json", {"tokenizer_config.json": {**llama, "add_prefix_space": True}}, "add_prefix_space"
    yield "llama2-json", {"tokenizer_config.json": {"tokenizer_class": "NobodysTokenizer"}}, "tokenizer_class"


def older_folders():
    tokens = {"added_tokens_decoder": {str(900 + n): flags(token) for n, token in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))}}
    yield "qwen2", {"config.json": {"model_type": "qwen2"}}
    yield "qwen2", {"tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", **tokens, "eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}}
    yield "qwen2", {"tokenizer_config.json": {"tokenizer_class": "Qwen2TokenizerFast", "add_prefix_space": False, "bos_token": "<s>"}, "added_tokens.json": {"<new>": 903, "<|im_end|>": 900}}
    yield "qwen2", {"tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}}, "add_prefix_space"
    for kind in ("GPT2Tokenizer", "CodeGenTokenizer"):
        for settings in ({}, {"add_prefix_space": True}, {"pad_token": "[PAD]", "bos_token": "<s>", "eos_token": "</s>", "unk_token": {"__type": "AddedToken", **flags("<x>", lstrip=True)}}):
            yield "gpt2-prefix", {"tokenizer_config.json": {"tokenizer_class": kind, **settings}}
    yield "gpt2-prefix", {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "<s>"}}
    yield "gpt2-prefix", {"config.json": {"model_type": "gpt2"}}
    yield "gpt2-prefix", {"tokenizer_config.json": {"tokenizer_class": "CodeGenTokenizer", "add_bos_token": True}}, "add_bos_token"
    yield "gpt2-prefix", {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": None}}, "add_bos_token"


def write_older(folder, tokenizer):
    model = json.loads(tokenizer.read_text())["model"]
    Path(folder, "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def folder_cases():
    cases = []
    for older, base, files, *error in [(False, *each) for each in folders()] + [(True, *each) for each in older_folders()]:
        case = {"base": base, **({"older": True} if older else {}), "files": files}
        with tempfile.TemporaryDirectory() as folder:
            if older: write_older(folder, HERE / base / "tokenizer.json")
            for name in ("tokenizer.json", "tokenizer.model"):
                if not older and (HERE / base / name).exists(): Path(folder, name).write_bytes((HERE / base / name).read_bytes())
            for name, value in files.items(): Path(folder, name).write_text(json.dumps(value))
            try: tokenizer = AutoTokenizer.from_pretrained(folder)
            except Exception as failure:
                if not error: raise
                case["error"] = error[0]
            else:
                if error: sys.exit(f"no error: {files}")
                case["ids"] = [tokenizer(text).input_ids for text in TEXTS]
        cases.append(case)
    return '{"texts":%s,\n"cases":[%s]}\n' % (json.dumps(TEXTS), ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases))


def main(arguments):
    if arguments not in ([], ["--check"]): sys.exit(__doc__)
    if transformers.__version__ != "4.46.3": sys.exit(f"needs transformers 4.46.3, found {transformers.__version__}")
    wrong = []
    for name, files, tokenizer in all_models():
        results = expected(tokenizer)
        lines = ["[" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in results[key]) + "]" for key in ("strings", "decoded")]
        files["expected.json"] = '{"strings":%s,\n"decoded":%s}\n' % tuple(lines)
        for file, value in files.items():
            data = value if isinstance(value, bytes) else (json.dumps(value, indent=1) if isinstance(value, dict) else value).rstrip().encode() + b"\n"
            path = HERE / name / file
            if not arguments:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            elif not path.exists() or path.read_bytes() != data: wrong.append(f"{name}/{file}")
            print(f"{name}/{file}: {len(data)} bytes")
    data = folder_cases()
    if not arguments: (HERE / "folders.json").write_text(data)
    elif not (HERE / "folders.json").exists() or (HERE / "folders.json").read_text() != data: wrong.append("folders.json")
    print(f"folders.json: {len(data)} bytes")
    if wrong: sys.exit("differ: " + ", ".join(wrong))


if __name__ == "__main__": main(sys.argv[1:])
