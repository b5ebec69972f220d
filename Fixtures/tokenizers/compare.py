#!/usr/bin/env python3
"""Compares `mixlora tokenize` with tokenizers==0.20.3 on many strings, both with and without control tokens, and decodes back.

usage: compare.py MIXLORA FOLDER [--model PATH] [--data DIR] [--size N] [--seed N]
  MIXLORA   the program
  FOLDER    holds tokenizer.json, or tokenizer.model with the files that transformers==4.46.3 needs to make a tokenizer of it
  --model   what the program opens, if it is not FOLDER: the GGUF file that FOLDER was made of
  --data    task lines (TASK/*.jsonl); with it every Unicode scalar is in two strings; --size 33000 makes 100 000 strings
Exit 1 where anything differs. `--make-gguf FILE FOLDER` in place of all that writes FOLDER/tokenizer.json from a GGUF file
(needs gguf==0.19.0), of one with scores FOLDER/tokenizer.model and tokenizer_config.json (needs sentencepiece==0.2.3, protobuf).
"""
import argparse, json, random, subprocess, sys, time
from pathlib import Path

import tokenizers
from strings import strings


def make_gguf(path, folder):
    import gguf
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    fields = gguf.GGUFReader(path).fields
    read = lambda key: fields["tokenizer.ggml." + key].contents()
    tokens, types = read("tokens"), read("token_type")
    Path(folder).mkdir(parents=True, exist_ok=True)
    if read("model") == "llama": return make_sentencepiece(tokens, types, read("scores"), Path(folder))
    pre = read("pre")
    llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = lambda regex: [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(True), byte_level]
    steps = {"smollm": digits, "starcoder": digits, "refact": digits, "command-r": digits, "gpt-2": [byte_level], "mpt": [byte_level], "llama-bpe": split(llama), "qwen2": split(llama.replace("{1,3}", "")),
             "falcon": [pre_tokenizers.Punctuation("contiguous"), byte_level, pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]}[pre]
    tokenizer = Tokenizer(models.BPE(
        vocab={token: i for i, (token, kind) in enumerate(zip(tokens, types)) if kind == 1 or pre == "smollm"},
        merges=[tuple(merge.split(" ")) for merge in read("merges")], ignore_merges=pre == "llama-bpe"))
    if pre in ("qwen2", "command-r", "mpt"): tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, types) if kind == 3])
    tokenizer.save(f"{folder}/tokenizer.json")


def make_sentencepiece(tokens, types, scores, folder):
    from sentencepiece import sentencepiece_model_pb2
    model = sentencepiece_model_pb2.ModelProto()
    for token, kind, score in zip(tokens, types, scores): model.pieces.add(piece=token, score=score, type=kind)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    names = {"bos_token": tokens[1], "eos_token": tokens[2], "unk_token": tokens[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **names}))


def run(program, folder, values, *flags):
    started = time.time()
    done = subprocess.run([program, "tokenize", "--model", folder, *flags], input=json.dumps(values).encode(), capture_output=True)
    if done.returncode: sys.exit(f"exit {done.returncode}: {done.stderr.decode()}")
    return json.loads(done.stdout), time.time() - started


def main():
    if sys.argv[1:2] == ["--make-gguf"]: return make_gguf(*sys.argv[2:])
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program"); parser.add_argument("folder"); parser.add_argument("--data"); parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=5000); parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if tokenizers.__version__ != "0.20.3": sys.exit(f"needs tokenizers 0.20.3, found {tokenizers.__version__}")
    if Path(arguments.folder, "tokenizer_config.json").exists() or not Path(arguments.folder, "tokenizer.json").exists():
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(arguments.folder).backend_tokenizer
    else: tokenizer = tokenizers.Tokenizer.from_file(f"{arguments.folder}/tokenizer.json")
    # Their decoder reads an added token in the byte alphabet and breaks one such as "n\u00e9"; ours gives it as it is spelled.
    is_byte_level = "ByteLevel" in repr(tokenizer.decoder)
    broken = {i for i, token in tokenizer.get_added_tokens_decoder().items() if is_byte_level and any("\xa1" <= c <= "\u0143" for c in token.content)}
    controls = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    model = arguments.model or arguments.folder
    texts = list(strings(arguments.seed, controls, arguments.size, arguments.data))
    wrong = 0
    for parses in (True, False):
        tokenizer.encode_special_tokens = not parses
        started = time.time()
        expected = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        theirs = time.time() - started
        ids, seconds = run(arguments.program, model, texts, *(["--parse-special"] if parses else []))
        assert len(ids) == len(expected)
        bad = [i for i in range(len(texts)) if ids[i] != expected[i]]
        for i in bad[:5]: print(repr(texts[i][:200]), "\n  ours  ", ids[i][:40], "\n  theirs", expected[i][:40])
        wrong += len(bad)
        count = sum(map(len, expected))
        print(f"{model} parse_special={parses}: {len(texts) - len(bad)} of {len(texts)} strings agree, {count} tokens, ours {seconds:.2f} s (a process), theirs {theirs:.2f} s")
        texts_back, _ = run(arguments.program, model, expected, "--decode")
        theirs_back = [tokenizer.decode(each, skip_special_tokens=False) for each in expected]
        differ = [i for i in range(len(texts)) if texts_back[i] != theirs_back[i] and not broken & set(expected[i])]
        for i in differ[:5]: print("decode", repr(texts_back[i][:200]), repr(theirs_back[i][:200]))
        print(f"  decoded: {len(texts) - len(differ)} agree; {sum(a == b for a, b in zip(texts_back, texts))} are the text again")
        wrong += len(differ)
    # Ids in any order: broken UTF-8.
    rng = random.Random(arguments.seed)
    known = sorted(set(tokenizer.get_vocab().values()))
    lists = [[rng.choice(known) if rng.random() < 0.5 else rng.choice(known[:400]) for _ in range(rng.randint(1, 12))] for _ in range(3000)]
    ours, _ = run(arguments.program, model, lists, "--decode")
    differ = [i for i, ids in enumerate(lists) if ours[i] != tokenizer.decode(ids, skip_special_tokens=False) and not broken & set(ids)]
    for i in differ[:5]: print("decode", lists[i], repr(ours[i]), repr(tokenizer.decode(lists[i], skip_special_tokens=False)))
    print(f"  random ids decoded: {len(lists) - len(differ)} of {len(lists)} agree")
    sys.exit(1 if wrong or differ else 0)


if __name__ == "__main__": main()
