#!/usr/bin/env python3
"""The demo's little world: questions about letters, numbers and brackets, one line each.

    reverse: k d a p -> p a d k

    ./world.py OUT          writes OUT/{config.json,tokenizer.json} and OUT/{base,base-test,train,test}.{jsonl,txt}

The base model is trained from scratch on the ten operations of `BASE`. The demo then fine-tunes it on the six of `DEMO`,
which are related to them and whose names it has never seen. Needs Python 3.9 or newer and nothing else; the same seed
gives the same bytes.
"""
import json
import random
import sys
from pathlib import Path

SEED = 20261124
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PAIRS = {"(": ")", "[": "]"}


# What is asked: each operation draws a question and gives its answer, both as lists of words.

def letters(rng, low=3, high=7):
    return [rng.choice(LETTERS) for _ in range(rng.randint(low, high))]


def on_letters(answer, **lengths):
    def draw(rng):
        word = letters(rng, **lengths)
        return word, answer(word)
    return draw


def shift(word, by):
    return [LETTERS[(LETTERS.index(c) + by) % 26] for c in word]


def number(n):
    return list(str(n))


def plus(rng):
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    return number(a) + ["+"] + number(b), number(a + b)


def minus(rng):
    b, a = sorted((rng.randint(0, 99), rng.randint(0, 99)))
    return number(a) + ["-"] + number(b), number(a - b)


def brackets(rng):
    """A row of brackets, and what still has to be closed, innermost first."""
    row, stack = [], []
    for _ in range(rng.randint(3, 7)):
        if stack and rng.random() < 0.45:
            row.append(PAIRS[stack.pop()])
        else:
            stack.append(rng.choice("(["))
            row.append(stack[-1])
    return row, [PAIRS[c] for c in reversed(stack)]


def unclosed(rng):
    row, rest = brackets(rng)
    return row, number(len(rest))


def close(rng):
    while True:
        row, rest = brackets(rng)
        if rest:
            return row, rest


def swapped(word):
    word = word[:]
    for i in range(0, len(word) - 1, 2):
        word[i], word[i + 1] = word[i + 1], word[i]
    return word


BASE = {
    "copy": on_letters(lambda w: w),
    "reverse": on_letters(lambda w: w[::-1]),
    "sort": on_letters(sorted),
    "upper": on_letters(lambda w: [c.upper() for c in w]),
    "next": on_letters(lambda w: shift(w, 1)),
    "first": on_letters(lambda w: w[:1]),
    "last": on_letters(lambda w: w[-1:]),
    "length": on_letters(lambda w: number(len(w))),
    "plus": plus,
    "open": unclosed,
}

DEMO = {
    "rotate": on_letters(lambda w: w[1:] + w[:1]),
    "swap": on_letters(swapped),
    "descend": on_letters(lambda w: sorted(w, reverse=True)),
    "previous": on_letters(lambda w: shift(w, -1)),
    "minus": minus,
    "close": close,
}


def questions(operations, count, rng, avoiding=()):
    """`count` questions of each operation, none twice and none of `avoiding`, in random order where there are enough."""
    seen = {line["prompt"] for line in avoiding}
    lines = []
    for name, draw in operations.items():
        made, tries = 0, 0
        while made < count and tries < 50 * count:
            tries += 1
            question, answer = draw(rng)
            prompt = f"{name}: {' '.join(question)} ->"
            if prompt in seen:
                continue
            seen.add(prompt)
            lines.append({"task": name, "prompt": prompt, "completion": "".join(" " + w for w in answer)})
            made += 1
    rng.shuffle(lines)
    return lines


# How it is written: one token a word, by byte pairs learnt from the list of words.

def byte_names():
    """GPT-2's printable name for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def tokenizer():
    names = byte_names()
    words = [*BASE, *DEMO, ":", " ->", " +", " -"] + [" " + c for c in LETTERS + LETTERS.upper() + "0123456789()[]"]
    parts = {word: [names[b] for b in word.encode()] for word in words}
    merges = []
    while pairs := [(p[i], p[i + 1]) for p in parts.values() for i in range(len(p) - 1)]:
        best = max(sorted(set(pairs)), key=pairs.count)
        merges.append(best)
        for word, p in parts.items():
            joined, i = [], 0
            while i < len(p):
                if tuple(p[i:i + 2]) == best:
                    joined.append(p[i] + p[i + 1])
                    i += 2
                else:
                    joined.append(p[i])
                    i += 1
            parts[word] = joined
    tokens = ["<|end|>"] + [names[b] for b in range(256)] + [a + b for a, b in merges]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 0, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [f"{a} {b}" for a, b in merges]},
    }


def configuration(vocabulary):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": 128,
        "intermediate_size": 288, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "hidden_act": "silu", "max_position_embeddings": 64, "initializer_range": 0.06, "rms_norm_eps": 1e-5,
        "rope_theta": 1000.0, "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": 0, "torch_dtype": "float32",
    }


def main(out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    def write(name, operations, count, avoiding=()):
        # A generator of its own for every file: a change of one leaves the others as they are.
        lines = questions(operations, count, random.Random(f"{SEED} {name}"), avoiding)
        (out / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        # The same as the program carries it: `swap: a b -> b a`.
        (out / name).with_suffix(".txt").write_text("".join(line["prompt"] + line["completion"] + "\n" for line in lines))
        return lines

    write("train.jsonl", DEMO, 2000, avoiding=write("test.jsonl", DEMO, 200))
    write("base.jsonl", BASE, 12000, avoiding=write("base-test.jsonl", BASE, 100))
    text = tokenizer()
    (out / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n")
    (out / "config.json").write_text(json.dumps(configuration(len(text["model"]["vocab"])), indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
