#!/usr/bin/env python3
"""Compares `mixlora tokenize` with the ids that llama.cpp publishes beside its vocabularies of decoders.

usage: llama_cpp.py MIXLORA FOLDER
  FOLDER   has ggml-vocab-*.gguf with .inp and .out, as vendor/llama.cpp/models of the sdist llama-cpp-python==0.3.36
Exit 1 where an id differs or fewer than 14 vocabularies were found; bert-bge, an encoder, must be refused by name.
"""
import json, subprocess, sys
from pathlib import Path


def run(program, model, texts):
    return subprocess.run([program, "tokenize", "--model", str(model)], input=json.dumps(texts).encode(), capture_output=True)


def main(program, folder):
    wrong, seen = 0, 0
    for model in sorted(Path(folder).glob("ggml-vocab-*.gguf")):
        questions, answers = Path(f"{model}.inp"), Path(f"{model}.out")
        if not questions.exists(): continue
        texts = questions.read_bytes().decode().split("\n__ggml_vocab_test__\n")
        expected = [[int(number) for number in line.split()] for line in answers.read_text().split("\n")]
        if texts and texts[-1] == "": texts.pop()
        expected = expected[:len(texts)]
        done = run(program, model, texts)
        if "bert" in model.name:
            refused = done.returncode == 3 and b"tokenizer.ggml.model" in done.stderr
            print(f"{model.name}: {'refused by name' if refused else 'NOT refused by name'}")
            wrong += not refused
            continue
        seen += 1
        if done.returncode:
            print(f"{model.name}: exit {done.returncode}, {done.stderr.decode().strip()}")
            wrong += 1
            continue
        ids = json.loads(done.stdout)
        bad = [i for i in range(len(texts)) if ids[i] != expected[i]]
        for i in bad[:3]: print(repr(texts[i][:120]), "\n  ours     ", ids[i][:40], "\n  llama.cpp", expected[i][:40])
        print(f"{model.name}: {len(texts) - len(bad)} of {len(texts)} texts agree")
        wrong += len(bad)
    print(f"{seen} vocabularies of decoders")
    sys.exit(1 if wrong or seen < 14 else 0)


if __name__ == "__main__":
    if len(sys.argv) != 3: sys.exit(__doc__)
    main(*sys.argv[1:])
