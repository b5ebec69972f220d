#!/usr/bin/env python3
"""Writes digests.json: what tokenizers==0.20.3 makes of 100 000 strings with each tokenizer of this folder, a digest a thousand strings.

usage: make_digests.py [--check] [--write-strings FILE]      (needs transformers==4.46.3, sentencepiece, protobuf)
  --check   writes nothing; exit 1 if the file differs

String i is made of random numbers that depend on i alone (SplitMix64 from state i): i % 10 is its kind. Kind 0 is scalars in order, 64 to a
string, in three contexts; the other kinds pick pieces from "lists" of digests.json. `Tests/CommandLineTests/TokenizerDigestTests.swift` makes
the same strings. A digest is FNV-1a (64 bits) over ids, an id at a time, and FFFFFFFF behind each string; "strings" has those of the
strings themselves, a scalar at a time. Of a tokenizer "text" is without control tokens, "parsed" with them of the strings that spell some.
"""
import json, os, sys
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import tokenizers

HERE = Path(__file__).resolve().parent
COUNT, MASK = 100_000, (1 << 64) - 1
SPELLED = 6  # the kind with control tokens
NAMES = ["gpt2-prefix", "smollm", "llama3", "qwen2", "added", "llama2", "llama2-json", "gemma", "unigram", "unigram-plain"]
# All planes that have characters, and every 257th scalar of the others.
SCALARS = [c for c in range(0x34000) if not 0xD800 <= c < 0xE000] + [*range(0xE0000, 0xE0200), *range(0x34000, 0xE0000, 257), *range(0xE0200, 0x110000, 257)]
CONTEXTS = [("", ""), ("a", " "), (" ", "\u0301")]

# Letters of scripts as ranges of scalars.
SCRIPTS = {
    "Latin": [(0x41, 0x5A), (0x61, 0x7A)], "Latin-1": [(0x61, 0x7A), (0xC0, 0xFF)], "Latin extended": [(0x100, 0x24F)], "IPA": [(0x250, 0x2AF)], "Greek": [(0x391, 0x3C9)], "Greek extended": [(0x1F00, 0x1FFF)],
    "Cyrillic": [(0x410, 0x44F)], "Armenian": [(0x531, 0x587)], "Hebrew": [(0x5D0, 0x5EA), (0x5B0, 0x5BD)], "Arabic": [(0x621, 0x64A), (0x64B, 0x652)], "Syriac": [(0x710, 0x74A)], "Thaana": [(0x780, 0x7B1)],
    "NKo": [(0x7C0, 0x7F5)], "Devanagari": [(0x904, 0x94D), (0x966, 0x96F)], "Bengali": [(0x985, 0x9CD)], "Gurmukhi": [(0xA05, 0xA4D)], "Gujarati": [(0xA85, 0xACD)], "Odia": [(0xB05, 0xB4D)],
    "Tamil": [(0xB85, 0xBCD)], "Telugu": [(0xC05, 0xC4D)], "Kannada": [(0xC85, 0xCCD)], "Malayalam": [(0xD05, 0xD4D)], "Sinhala": [(0xD85, 0xDDF)], "Thai": [(0xE01, 0xE4E)], "Lao": [(0xE81, 0xECD)],
    "Tibetan": [(0xF40, 0xF84)], "Burmese": [(0x1000, 0x1049)], "Georgian": [(0x10D0, 0x10FA)], "Jamo": [(0x1100, 0x11FF)], "Ethiopic": [(0x1200, 0x135A)], "Cherokee": [(0x13A0, 0x13F5)],
    "Canadian syllabics": [(0x1401, 0x166C)], "Ogham": [(0x1681, 0x169A)], "Runes": [(0x16A0, 0x16EA)], "Khmer": [(0x1780, 0x17D3)], "Mongolian": [(0x1820, 0x1878)], "Balinese": [(0x1B05, 0x1B4B)],
    "Hiragana": [(0x3041, 0x3096)], "Katakana": [(0x30A1, 0x30FA), (0xFF66, 0xFF9D)], "Bopomofo": [(0x3105, 0x312F)], "Ideographs": [(0x4E00, 0x9FFF)], "More ideographs": [(0x3400, 0x4DBF), (0x20000, 0x2A6DF)],
    "Yi": [(0xA000, 0xA48C)], "Hangul": [(0xAC00, 0xD7A3)], "Gothic": [(0x10330, 0x1034A)], "Deseret": [(0x10400, 0x1044F)], "Cuneiform": [(0x12000, 0x12399)], "Hieroglyphs": [(0x13000, 0x1342E)],
    "Adlam": [(0x1E900, 0x1E943)],
}
ENGLISH = ("the of and to in is it that for was on are as with be at one have this from or had by but some what there we can out other were all your when use how each "
           "she which do their time if will way about many then them would write like so these her long make thing see him two has look more day could go come did "
           "router expert token layer gradient don't I'm it's we've you'll they'd she's O'Neill rock'n'roll HTTP iPhone e.g. U.S.A. 3rd x86_64").split()
CODE = ["for", "if", "(", ")", "{", "}", "[", "]", ";", ":", ",", ".", "->", "=>", "==", "!=", "<=", "+=", "**", "//", "# ", "/* ", " */", "\"", "'", "\\n", "\\", "&&", "||", "$", "@", "_", "self", "return", "def ", "let ",
        "fn ", "int ", "x", "i", "foo_bar", "fooBar", "0x1F", "1e-9", "1_000", "\n", "\n    ", "\n\t", "    ", "  ", " ", "<div>", "</div>", "&amp;", "%s", "`", "~", "^", "SELECT * FROM", "std::vector<int>"]
SPACE = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", "\0", "\u00a0", "\u3000", "\u2003", "\u2028", "\u0085", "\u200b", "\ufeff", "a", "b ", " c", "\u00e9", "\u4e2d", ".", "!", "1", "'s", " 's"]
CONTROLS = ["<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<user>", "<start_of_turn>", "<end_of_turn>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>",
            "word", "left", "<0x0A>", "<0xE4>", "\u2581", "\u0120", "<", "|>", "<|", "im_start", "<|im_end|", "s>"]
PUNCTUATION = ["!", "?", ".", ",", "...", "-", "--", "\u2014", "\u2026", "\u201c", "\u201d", "\u00ab", "(", ")", "\u3001", "\u3002", "\uff01", "*", "#", "/", "=====", "%", "\u20ac", "\u00b0", "\u00bd", "\u2167", "\u2460", "7", "42", "123", "1984", "12345", "\u0663", "\u0967", "3.14", " ", "\n", "a"]
EMOJI = ["\U0001f600", "\U0001f44d", "\U0001f3fd", "\u200d", "\ufe0f", "\U0001f468", "\U0001f469", "\U0001f467", "\u2764", "\U0001f1e9", "\U0001f1ea", "1\ufe0f\u20e3", "\U0001f9d1\u200d\U0001f680", [0x1F300, 0x1F6FF], [0x2600, 0x27BF], " ", "x"]
MARKS = [[0x300, 0x36F], [0x300, 0x36F], "\u0301", "\u0323", "\u0334", "\u0345", "\u1161", "\u11a8", "\u3099", "\u093c", "\u05b0", "\u064b", "\u1df6"]
BASES = ["a", "e", "o", "q", "s", "\u1100", "\uac00", "\u0915", "\u00e9", "\u1e69", "\u212b", "\u0344", "\u0958", "\u30ab", " ", [0xC0, 0x17F], [0x1E00, 0x1EFF], [0xF900, 0xFAFF], [0xAC00, 0xD7A3]]


def kinds():
    """Each kind: lists of pieces (texts, or the first and last of a range of scalars), how many are picked, and whether from one list alone."""
    letters = [[list(each) for each in ranges] * (6 // len(ranges)) + [" "] + ([",", "1"] if n % 3 == 0 else []) for n, ranges in enumerate(SCRIPTS.values())]
    words = [ENGLISH, [" "], [" "], [", ", ". ", "; ", "? ", " - ", "\n", "\r\n", ": "]]
    return [
        {"most": 40, "one": True, "lists": letters}, {"most": 12, "one": False, "lists": letters}, {"most": 40, "one": False, "lists": words},
        {"most": 30, "one": False, "lists": [CODE]}, {"most": 16, "one": False, "lists": [SPACE]}, {"most": 10, "one": False, "lists": [CONTROLS, CONTROLS, SPACE, ENGLISH]},
        {"most": 20, "one": False, "lists": [BASES, MARKS, MARKS]}, {"most": 24, "one": False, "lists": [PUNCTUATION, PUNCTUATION, EMOJI]},
        {"most": 40, "one": False, "lists": [SPACE, PUNCTUATION, CODE, ENGLISH, EMOJI, MARKS, [[0x20, 0x7E]], [[0xA0, 0x24F]], [[0, 0xD7FF]], [[0xE000, 0x1FFFF]]]},
    ]


class Numbers:
    def __init__(self, state): self.state = state

    def below(self, count):
        self.state = self.state + 0x9E3779B97F4A7C15 & MASK
        value = self.state
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
        return (value ^ value >> 31) % count


def string(index, kinds):
    if index % 10 == 0:
        blocks = (len(SCALARS) + 63) // 64
        place = index // 10
        before, after = CONTEXTS[place // blocks % len(CONTEXTS)]
        return "".join(before + chr(c) + after for c in SCALARS[place % blocks * 64:][:64])
    kind, numbers, parts = kinds[index % 10 - 1], Numbers(index), []
    lists = kind["lists"]
    only = lists[numbers.below(len(lists))]
    for _ in range(1 + numbers.below(kind["most"])):
        pieces = only if kind["one"] else lists[numbers.below(len(lists))]
        piece = pieces[numbers.below(len(pieces))]
        parts.append(piece if isinstance(piece, str) else chr(piece[0] + numbers.below(piece[1] - piece[0] + 1)))
    # Every fiftieth of its kind is one piece many times.
    return parts[0] * (100 + numbers.below(400)) if index // 10 % 50 == 0 else "".join(parts)


def digests(lists):
    result, value = [], 0
    for index, numbers in enumerate(lists):
        if index % 1000 == 0: value = 0xCBF29CE484222325
        for number in numbers: value = (value ^ number) * 0x100000001B3 & MASK
        value = (value ^ 0xFFFFFFFF) * 0x100000001B3 & MASK
        if index % 1000 == 999: result.append("%016x" % value)
    return result


def load(name):
    if (HERE / name / "tokenizer.json").exists(): return tokenizers.Tokenizer.from_file(str(HERE / name / "tokenizer.json"))
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(str(HERE / name)).backend_tokenizer


def main():
    if tokenizers.__version__ != "0.20.3": sys.exit(f"needs tokenizers 0.20.3, found {tokenizers.__version__}")
    pieces = kinds()
    texts = [string(index, pieces) for index in range(COUNT)]
    if "--write-strings" in sys.argv: Path(sys.argv[sys.argv.index("--write-strings") + 1]).write_text(json.dumps(texts))
    result = {"kinds": pieces, "strings": digests(map(ord, text) for text in texts), "tokenizers": {}}
    for name in NAMES:
        tokenizer = load(name)
        entry = result["tokenizers"][name] = {}
        for key, chosen in (("text", texts), ("parsed", texts[SPELLED::10])):
            tokenizer.encode_special_tokens = key == "text"
            entry[key] = digests(encoding.ids for encoding in tokenizer.encode_batch(chosen, add_special_tokens=False))
        print(name, file=sys.stderr)
    text = json.dumps(result, separators=(",", ":")) + "\n"
    path = HERE / "digests.json"
    if "--check" in sys.argv: sys.exit(0 if path.exists() and path.read_text() == text else f"{path} differs")
    path.write_text(text)


if __name__ == "__main__": main()
