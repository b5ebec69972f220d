#!/usr/bin/env python3
"""Writes steps.json: what single normalizers and pre-tokenizers of tokenizers==0.20.3 make of many strings.

usage: make_steps.py [--check]
  (nothing)  writes steps.json
  --check    writes nothing; exit 1 if the file is missing or differs

Needs Python whose unicodedata is 14.0.0 (3.11), and sentencepiece==0.2.3 for a small table of normalization.
steps.json: "texts", strings; "steps", a list of {"normalizer" or "pre_tokenizer": an object of tokenizer.json, "count": how many of the
texts were given to it, "digests": one for each hundred of them, "scalars": two more where every assigned scalar was given to it, 64 to a
string, bare ("{}") and between others ("a{} ")}. A digest is FNV-1a (64 bits) over the pieces' UTF-8, 0xFF behind each piece, 0xFE
behind each text. "refused", expressions that Oniguruma runs and that have no place here.
"""
import base64, io, json, random, sys, unicodedata
from pathlib import Path

import sentencepiece, tokenizers
from tokenizers import Tokenizer, models

from strings import CODE, FIXED, SCALARS, marks, scalar

HERE = Path(__file__).resolve().parent
ASSIGNED = [c for c in SCALARS if unicodedata.category(chr(c)) not in ("Cn", "Co")]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER, TAIL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PUBLISHED = {
    "llama3": LLAMA3,
    "qwen2": LLAMA3.replace("{1,3}", ""),
    "qwen35": LLAMA3.replace("{1,3}", "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{TAIL}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{TAIL}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek3": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    "kimi": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+" + TAIL + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "bloom": " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
}
OTHERS = [
    r"\d{1,3}(?=(?:\d{3})*\b)", r"(?=(\d{3})+(?!\d))", r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"\s+$", r"[^\n]+|[\n]+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\s{4}(?!\S)|\s{1,2}(?!\S)|\s", r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|\s+(?!\S)|\s+",
    r"^", r"$", r"\b", r"\B", r"\A.", r".\z", r".\Z", r"(?<=a)b?", r"(?<!\s)\s", r"a*?b", r"(?:ab|a)(?:c|bcd)?", r"(?>ab?|b)c?", r"x{2}", r"x{,2}y", r"{", r"a{2,1x", r"(a|ab)(c|bcd)(d*)",
    r"[a-c&&b-z]+", r"[^a-c&&b-z]+", r"[\w&&[^\d_]]+", r"\h+", r"\W+", r"\w+", r"\D", r"[^\W]", r"(?i)he+|LL", r"(?i:[a-f]+)", r"(?i:[^a-f]+)", r"\P{L}+", r"\p{^L}", r"\x41|\u0042|\x{43}", r"(?:a|b)*c", r"(?:a|b)*?c",
    r"(?:ab){2,3}", r"(?:ab){2,3}?", r"a+?", r"a??b", r"[\]\-a]", r"[a\-z]+", r"[+--]", r"\p{Lu}\p{Ll}*", r"\p{Hiragana}+|\p{Katakana}+|\p{Cyrillic}+|\p{Greek}|\p{Latin}", r"(?!a)\w+", r"e(?=l)", r"(?<=[a-z]{2})\d",
    r"(?<=ab|c)x?", r"(?<!ab|c)x", r"a|", r"", r"()", r"[[a-c][x-z]]+", r"(?i:k)", r"(?i:s)", r"a{2}{3}", r"a{1,2}+a", r"\s+\S", r"[^\S\n]+", r"\d+(?:\.\d+)?", r"[ab\p{Punctuation}]++", r"(?-i:A)(?i)b|c",
]
REFUSED = [r"\R", r"\X", r"(a)\1", r"(?m:.)", "(?i:\u00e5)", r"(?i:ss)", r"[[:alpha:]]", r"\p{Alphabetic}", r"(?:a*)*", r"(?>a+|b)", r"(?:a+b)*+", r"\K", r"(?<n>a)", r"a{2}?", r"(?i:\p{Lu})", r"(?~ab)", r"a{1001}"]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def split(pattern, behavior="Isolated", invert=False, kind="Regex"): return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}
def replace(pattern, content, kind="Regex"): return {"type": "Replace", "pattern": {kind: pattern}, "content": content}
def sequence(*steps): return {"type": "Sequence", "pretokenizers": list(steps)}
def byte_level(prefix, regex=True): return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
def metaspace(scheme, splits): return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": splits}
def digits(each): return {"type": "Digits", "individual_digits": each}


def character_map():
    """A table of normalization as SentencePiece writes it, found in a model trained with these rules."""
    rules = [("\uff21", "A"), ("\uff42", "b"), ("\u00e9", "e"), ("e\u0301", "\u00e9"), ("\u3000", " "), ("\t", " "), ("\u00ad", ""), ("\u2460", "1"), ("\ufb01", "fi"), ("\u1100\u1161", "\uac00"), ("\u304b\u3099", "\u304c"),
             ("\u0958", "\u0915\u093c"), ("\u200b", " "), ("\r", " "), ("\U0001f600", ":)"), ("i\u0307", "i")]
    model = io.BytesIO()
    path = HERE / "rules.tsv"
    path.write_text("".join("%s\t%s\n" % tuple(" ".join("%X" % ord(c) for c in text) for text in rule) for rule in rules))
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CODE * 10), model_writer=model, vocab_size=80, model_type="unigram", normalization_rule_tsv=str(path), minloglevel=2, hard_vocab_limit=False)
    finally: path.unlink()
    return field(field(model.getvalue(), 3), 2)


def field(message, wanted):
    """The last bytes of a field of a protobuf message."""
    place, found = 0, None
    def number():
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]; place += 1
            value |= (byte & 0x7F) << shift; shift += 7
            if byte < 0x80: return value
    while place < len(message):
        key = number()
        if key & 7 == 0: number()
        elif key & 7 == 5: place += 4
        else:
            size = number()
            if key >> 3 == wanted: found = message[place:place + size]
            place += size
    return found


def steps():
    """(step, how many texts, whether every scalar)."""
    for pattern in PUBLISHED.values(): yield {"pre_tokenizer": split(pattern)}, 1200, True
    for pattern in OTHERS: yield {"pre_tokenizer": split(pattern)}, 300, False
    for behavior in BEHAVIORS:
        for pattern in (r"\s", r"[aeo]+", r"\b", LLAMA3):
            for invert in (False, True): yield {"pre_tokenizer": split(pattern, behavior, invert)}, 300, False
        yield {"pre_tokenizer": {"type": "Punctuation", "behavior": behavior}}, 400, behavior == "Isolated"
        yield {"pre_tokenizer": split(" .", behavior, kind="String")}, 200, False
    yield {"pre_tokenizer": split("", kind="String")}, 200, False
    for step in (byte_level(True), byte_level(False), digits(True), {"type": "Whitespace"}): yield {"pre_tokenizer": step}, 800, True
    for step in (digits(False), {"type": "WhitespaceSplit"}, {"type": "CharDelimiterSplit", "delimiter": "\u00e9"}, {"type": "CharDelimiterSplit", "delimiter": " "}, byte_level(True, False),
                 sequence({"type": "Punctuation", "behavior": "Contiguous"}, byte_level(False), digits(False), split("[0-9][0-9][0-9]")), sequence({"type": "WhitespaceSplit"}, metaspace("first", True)),
                 sequence(split("\\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(PUBLISHED["deepseek3"]), byte_level(False, False)), sequence(digits(True), byte_level(True))):
        yield {"pre_tokenizer": step}, 600, False
    for scheme in ("always", "first", "never"):
        for splits in (True, False): yield {"pre_tokenizer": metaspace(scheme, splits)}, 400, False
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"): yield {"normalizer": {"type": name}}, 1000, True
    for step in ({"type": "Prepend", "prepend": "\u2581"}, replace(" ", "\u2581", "String"), replace(r"\s+", " "), replace("a*", "-"), replace("", "-", "String"), replace(r" {2,}", "\u2581"),
                 *({"type": "Strip", "strip_left": left, "strip_right": right} for left, right in ((True, True), (False, True), (True, False))),
                 {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace(" ", "\u2581", "String")]},
                 {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}): yield {"normalizer": step}, 500, False
    yield {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(character_map()).decode()}}, 1200, True


def texts():
    rng = random.Random(20240415)
    table = ["\uff21\uff42 \u00e9 e\u0301 e\u0301\u0323 \u2460\ufb01x", "\u1100\u1161 \u1100\u1161\u11a8 \u304b\u3099\u304b", "i\u0307 i\u0307\u0307 \U0001f600\U0001f600\u200d a\u0301 \r\n\ta\u00adb"]
    some = table + [text for text in FIXED + CODE if len(text) < 400] + list(marks(rng, 150)) + ["".join(scalar(rng) for _ in range(rng.randint(1, 24))) for _ in range(1100)]
    return [text for text in some if text][:1200]


def tokenizer(step):
    settings = json.loads(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).to_str())
    return Tokenizer.from_str(json.dumps(dict(settings, **step)))


def digest(tokenizer, texts):
    value = 0xCBF29CE484222325
    for text in texts:
        if tokenizer.normalizer is not None: pieces = [tokenizer.normalizer.normalize_str(text)]
        else: pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        for byte in b"".join(piece.encode() + b"\xff" for piece in pieces if piece) + b"\xfe": value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%016x" % value


def scalars(context): return ["".join(context.format(chr(c)) for c in ASSIGNED[i:i + 64]) for i in range(0, len(ASSIGNED), 64)]


def main(arguments):
    if arguments not in ([], ["--check"]): sys.exit(__doc__)
    versions = (tokenizers.__version__, sentencepiece.__version__, unicodedata.unidata_version)
    if versions != ("0.20.3", "0.2.3", "14.0.0"): sys.exit(f"needs tokenizers 0.20.3, sentencepiece 0.2.3 and unicodedata 14.0.0, found {versions}")
    some, every, lines = texts(), [scalars("{}"), scalars("a{} ")], []
    for step, count, whole in steps():
        made = tokenizer(step)
        case = dict(step, count=count, digests=[digest(made, some[i:min(i + 100, count)]) for i in range(0, min(count, len(some)), 100)])
        if whole: case["scalars"] = [digest(made, each) for each in every]
        lines.append(json.dumps(case, separators=(",", ":")))
    for pattern in REFUSED: tokenizer({"pre_tokenizer": split(pattern)})
    text = '{"texts":[%s],\n"steps":[%s],\n"refused":%s}\n' % (",\n".join(map(json.dumps, some)), ",\n".join(lines), json.dumps(REFUSED))
    path = HERE / "steps.json"
    if not arguments: path.write_text(text)
    print(f"steps.json: {len(text)} bytes, {len(lines)} steps")
    if arguments and (not path.exists() or path.read_text() != text): sys.exit("differs: steps.json")


if __name__ == "__main__": main(sys.argv[1:])
