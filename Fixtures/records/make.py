#!/usr/bin/env python3
"""Writes small files of records, what datasets==5.0.1 reads of them, and how MoE-PEFT (moe-peft==2.0.2) cuts what is too long.

usage: make.py [--check]
  (nothing)  writes the files and expected.json
  --check    writes nothing; exit 1 if a file is missing or differs

expected.json: "files", by name the records as `load_dataset("json")` gives them, keys without a value left out, or null where it
refuses; "cut", a list of {"text", "length", "ids"}: the tokens that MoE-PEFT's TrainTask keeps (`tokens[:cutoff_len]`) under the
tokenizer of `model`, a tiny Llama whose vocabulary of 300 was trained on a page of text.
"""
import json, os, sys, tempfile
from pathlib import Path

os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
here = Path(__file__).parent
BOM = b"\xef\xbb\xbf"
A, B = {"prompt": "a b", "completion": " c"}, {"prompt": "the", "completion": " boat\n"}
line = lambda record: json.dumps(record, ensure_ascii=False).encode()

FILES = {
    "byte-order-mark.jsonl": BOM + line(A) + b"\n" + line(B) + b"\n",
    "byte-order-mark-array.json": BOM + line([A, B]),
    "carriage-returns.jsonl": line(A) + b"\r\n" + line(B) + b"\r\n",
    "empty-lines.jsonl": b"\n" + line(A) + b"\n\n  \n" + line(B) + b"\n\n",
    "no-last-line-end.jsonl": line(A) + b"\n" + line(B),
    "array.json": json.dumps([A, B], indent=2).encode() + b"\n",
    "array.jsonl": line([A, B]) + b"\n",
    "one-object.json": json.dumps(A, indent=2).encode() + b"\n",
    "null-input.jsonl": line({"instruction": "Say a.", "input": None, "output": "a"}) + b"\n"
                        + line({"instruction": "Say it.", "input": "b", "output": "b"}) + b"\n",
    "mixed-kinds.jsonl": line(A) + b"\n" + line({"text": "the boat"}) + b"\n"
                         + line({"prompt": None, "completion": None, "text": "the river"}) + b"\n",
    "tab-separated.tsv": b"prompt\tcompletion\na b\t c\n",
    "comma-separated.csv": b"prompt,completion\na b, c\n",
    "cut-off.jsonl": line(A) + b"\n" + line(B)[:-4],
    "twice.jsonl": b'{"prompt": "a", "prompt": "b", "completion": "c"}\n',
}
QUESTION = "question: what colour is grass? answer: green and the small boat crosses the wide river at dawn"
CUTS = [(QUESTION, 2), (QUESTION, 30), (QUESTION, 57), (QUESTION, 512), (" ".join(["the small boat crosses the wide river"] * 30), 64)]


def records(path):
    import datasets
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            rows = datasets.load_dataset("json", data_files=str(path), cache_dir=cache)["train"].to_list()
    except Exception:
        return None
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def kept(text, length):
    import torch.distributed.tensor
    from moe_peft.common import InputData
    from moe_peft.dispatcher import TrainTask
    from moe_peft.tokenizer import Tokenizer
    load = lambda tokenizer: [InputData(inputs=text, tokens=tokenizer.encode(text))]
    task = TrainTask(Tokenizer(str(here / "model")), "a", load, 1, 1, 1, length, False)
    task.load_data()
    return task.train_token_data_[0].tokens


def main(check):
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, data in FILES.items():
            path = Path(folder) / name
            path.write_bytes(data)
            files[name] = records(path)
    cut = [{"text": text, "length": length, "ids": kept(text, length)} for text, length in CUTS]
    rows = lambda items: ",\n".join("    " + item for item in items)
    pairs = rows(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in files.items())
    expected = f'{{\n  "files": {{\n{pairs}\n  }},\n  "cut": [\n{rows(map(json.dumps, cut))}\n  ]\n}}\n'.encode()
    differ = []
    for name, data in {**FILES, "expected.json": expected}.items():
        path = here / name
        if check and (not path.exists() or path.read_bytes() != data):
            differ.append(name)
        elif not check:
            path.write_bytes(data)
    if differ:
        sys.exit("differ: " + ", ".join(differ))


main("--check" in sys.argv[1:])
