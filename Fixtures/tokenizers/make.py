#!/usr/bin/env python3
"""Trains the small tokenizers of this folder and writes what tokenizers==0.20.3 makes of many strings with each of them.

usage: make.py [--check]
  (nothing)  writes NAME/tokenizer.json, NAME/expected.json and unicode.json
  --check    writes nothing; exit 1 if a file is missing or differs

Trained on the text below and words drawn with a fixed seed, so no licence needs naming; the same bytes every time.
expected.json: a list of {"text", "ids" (control tokens stay text), "parsed" (they become tokens; absent where equal)}, and
"decoded": a list of {"ids", "text"} of ids in any order, broken UTF-8 included.
unicode.json: "nfc", pairs of a text and its normal form; "nfc_of_all", FNV-1a (64 bits) of the normal form of "a", the scalar, U+0334
and a line end, for every scalar in order, each normalised by itself.
"""
import json, random, sys
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from strings import CODE, FIXED, SCALARS, marks, strings, words

HERE = Path(__file__).resolve().parent
SEED = 20240415
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
TEXT = """The router looks at each token and chooses two of eight experts; what the others would have said is never computed.
A low-rank branch adds B A x to W x, and its rank is small. It's what they've written, isn't it? We'll see, I'm sure you're right.
Please choose the correct answer to the question: Which of these is a planet? (A) the Moon (B) Mars (C) the Sun\nAnswer: B
Le café naïve était déjà fermé à l'été. Größe, Straße, über. Привет, мир! Как дела? 日本語の文章です。中文也可以。한국어 문장입니다.
def forward(self, x):\n    return self.base(x) + self.scale * (x @ self.a.T) @ self.b.T\n\n\nfor i in range(100):\n    print(i, end='\\r\\n')
1984 2024 3.14159 1,000,000 12:34:56 http://example.org/index.html?q=1&r=2 😀 👍 — “quoted” … ½
"""


def corpus():
    rng = random.Random(SEED)
    yield from TEXT.split("\n") * 20
    yield from CODE * 10
    for _ in range(400): yield " ".join(words(rng) for _ in range(12))


def byte_level(**settings): return pre_tokenizers.ByteLevel(**settings)


def split(regex): return [pre_tokenizers.Split(Regex(regex), "isolated"), byte_level(add_prefix_space=False, use_regex=False)]


def train(size, steps, controls, normalizer=None, whole_alphabet=True, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer: tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if whole_alphabet else []
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, special_tokens=controls, initial_alphabet=sorted(alphabet), show_progress=False))
    return tokenizer


def all_tokenizers():
    chatml = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    gpt2 = train(900, [byte_level(add_prefix_space=True)], ["<|endoftext|>"])
    gpt2.post_processor = processors.ByteLevel(trim_offsets=True)
    yield "gpt2-prefix", gpt2
    # Not all bytes, as in SmolLM2's own vocabulary: what is missing is dropped.
    yield "smollm", train(900, [pre_tokenizers.Digits(individual_digits=True), byte_level(add_prefix_space=False)], chatml, whole_alphabet=False)
    llama = train(900, split(LLAMA3), [])
    settings = json.loads(llama.to_str())
    settings["model"]["ignore_merges"] = True
    settings["model"]["merges"] = [" ".join(pair) for pair in settings["model"]["merges"]]  # the older form
    # Words that no merge makes: only ignore_merges finds them.
    for word in ("\u0120router", "\u0120zzz", "Answer", "\u00e6\u0139\u00a5\u00e6\u013e\u00ac"):
        if word not in settings["model"]["vocab"]: settings["model"]["vocab"][word] = len(settings["model"]["vocab"])
    llama = Tokenizer.from_str(json.dumps(settings))
    llama.add_special_tokens([AddedToken(token, normalized=False) for token in ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")])
    begin = llama.token_to_id("<|begin_of_text|>")
    llama.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", begin)])])
    yield "llama3", llama
    qwen = train(900, split(QWEN2), [], normalizers.NFC())
    qwen.add_special_tokens([AddedToken(token, normalized=False) for token in chatml])
    yield "qwen2", qwen
    # Added tokens of every kind, an unknown token, and a prefix after digits: once for each piece.
    odd = train(700, [pre_tokenizers.Digits(individual_digits=True), byte_level(add_prefix_space=True)], ["<unk>"], normalizers.NFC(), whole_alphabet=False, unk_token="<unk>", fuse_unk=True)
    odd.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("<sep>", rstrip=True, lstrip=True, normalized=False), AddedToken("<mas", normalized=False)])
    odd.add_tokens([AddedToken("token", single_word=True), AddedToken("tok", single_word=True, normalized=False), AddedToken("e\u0301te\u0301", normalized=True), AddedToken("\u00e5ngstrom", normalized=False),
                    AddedToken("  ", normalized=False), AddedToken("right", rstrip=True), AddedToken("\u4e2d\u6587", single_word=True), AddedToken("k> x", normalized=False)])
    yield "added", odd


def expected(tokenizer):
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    extra = ["tokens token, token_ (token) atoken \u00e9token token\u0301 tok-tok tok", "\u00e9t\u00e9 e\u0301te\u0301 \u212bngstrom \u00e5ngstrom a\u030angstrom", "a \n <mask> \u3000 b <sep> \t c<sep>", "right  left right\n\nright",
             "<mask> x", "<mas> <mask", "\u4e2d\u6587 \u4e2d\u6587\u4e2d", "<|im_start|>user\nHi<|im_end|>\n", "<|begin_of_text|><|eot_id|>", "Answer router zzz Answering \u65e5\u672c"]
    cases = []
    for text in extra + list(strings(SEED, added, 250)):
        case = {"text": text}
        for name, keeps in (("ids", True), ("parsed", False)):
            tokenizer.encode_special_tokens = keeps
            case[name] = tokenizer.encode(text, add_special_tokens=False).ids
        if case["parsed"] == case["ids"]: del case["parsed"]
        cases.append(case)
    rng = random.Random(SEED)
    known = [i for i in sorted(tokenizer.get_vocab().values()) if tokenizer.id_to_token(i) not in added]
    lists = [[rng.choice(known) if rng.random() < 0.3 else rng.choice(known[:260]) for _ in range(rng.randint(1, 10))] for _ in range(100)]
    return {"strings": cases, "decoded": [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False)} for ids in lists]}


def unicode():
    normalize = normalizers.NFC().normalize_str
    value = 0xCBF29CE484222325
    for c in SCALARS:
        for byte in normalize("a" + chr(c) + "\u0334\n").encode(): value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    pairs = [[text, normalize(text)] for text in marks(random.Random(SEED), 600)]
    return '{"nfc_of_all":"%016x",\n"nfc":[%s]}\n' % (value, ",\n".join(json.dumps(pair, separators=(",", ":")) for pair in pairs))


def main(arguments):
    if arguments not in ([], ["--check"]): sys.exit(__doc__)
    if tokenizers.__version__ != "0.20.3": sys.exit(f"needs tokenizers 0.20.3, found {tokenizers.__version__}")
    wrong = []
    files = {"unicode.json": unicode()}
    for name, tokenizer in all_tokenizers():
        results = expected(tokenizer)
        lines = ["[" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in results[key]) + "]" for key in ("strings", "decoded")]
        files[f"{name}/tokenizer.json"] = tokenizer.to_str() + "\n"
        files[f"{name}/expected.json"] = '{"strings":%s,\n"decoded":%s}\n' % tuple(lines)
    for file, text in files.items():
        path = HERE / file
        if not arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text: wrong.append(file)
        print(f"{file}: {len(text.encode())} bytes")
    if wrong: sys.exit("differ: " + ", ".join(wrong))


if __name__ == "__main__": main(sys.argv[1:])
