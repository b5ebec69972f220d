#!/usr/bin/env python3
"""Makes UnicodeClassData.swift and CanonicalData.swift beside this script.

usage: make_tables.py [--check]
  (nothing)  writes both files
  --check    writes nothing; exit 1 if a file differs from what this script makes

Needs Python whose unicodedata is 14.0.0 (3.11) and tokenizers==0.20.3: the tables are what that release does, found by asking it
about every Unicode scalar, because token ids must equal its ids and its parts follow several versions of Unicode:
  \\p{L}, \\p{N}, \\s     Unicode 14.0 (Oniguruma), equal to unicodedata
  Digits                 a later Unicode: 40 code points more than \\p{N}
  \\w of single_word      a later Unicode
  NFC                    Unicode 9.0: 98 combining classes and one decomposition of unicodedata 14.0.0 are absent
"""
import sys, unicodedata
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers
from tokenizers.pre_tokenizers import Digits, Split

HERE = Path(__file__).resolve().parent
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
LETTER, NUMBER, SPACE, DIGIT, WORD, UNSTABLE = 1, 2, 4, 8, 16, 32


def chunks(size=2000):
    for i in range(0, len(SCALARS), size): yield SCALARS[i:i + size]


def matched(pattern):
    """The scalars that a regular expression matches, each set between two hyphens."""
    split, found = Split(Regex(pattern), "removed", invert=True), set()
    for part in chunks():
        found |= {ord(piece) for piece, _ in split.pre_tokenize_str("".join(chr(c) + "-" for c in part))}
    return found


def digits():
    split, found = Digits(individual_digits=True), set()
    for part in chunks():
        pieces = split.pre_tokenize_str("".join(chr(c) + "-" for c in part))
        found |= {ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "-"}
    return found


def word():
    """The scalars before which a single_word token is not found."""
    tokenizer, found = Tokenizer(models.BPE(vocab={"-": 0}, merges=[])), set()
    tokenizer.add_tokens([AddedToken("XX", single_word=True)])
    for part in chunks():
        encoding = tokenizer.encode("".join("-" + chr(c) + "XX" for c in part))
        hits = {start for (start, _), i in zip(encoding.offsets, encoding.ids) if i == 1}
        found |= {c for i, c in enumerate(part) if 4 * i + 2 not in hits}
    return found


NFC = normalizers.NFC().normalize_str


def combining_classes():
    """unicodedata's, less those that the normaliser does not reorder around a mark of class 1, 202, 220, 230 or 240."""
    classes = {}
    for c in SCALARS:
        value = unicodedata.combining(chr(c))
        if not value: continue
        tests = [(mark, "q" + mark + chr(c) if unicodedata.combining(mark) > value else "q" + chr(c) + mark)
                 for mark in "\u0334\u0327\u0323\u0301\u0345" if unicodedata.combining(mark) != value]
        moved = [NFC(text) != text for _, text in tests]
        assert all(moved) or not any(moved), hex(c)
        # Marks of a greater class that stand before c, or of a lesser one after it, must change places.
        if moved[0]: classes[c] = value
    return classes


def decompositions():
    """Code point → canonical decomposition by one step, and whether the pair is composed again."""
    table = {}
    for c in SCALARS:
        text = unicodedata.decomposition(chr(c))
        if not text or text.startswith("<"): continue
        whole = unicodedata.normalize("NFD", chr(c))
        assert NFC(chr(c)) == unicodedata.normalize("NFC", chr(c)), hex(c)
        if NFC(whole) != unicodedata.normalize("NFC", whole): continue  # U+11938, which Unicode 9.0 does not have
        table[c] = ([int(part, 16) for part in text.split()], NFC(whole) == chr(c))
    return table


def base36(n):
    text = ""
    while n: n, d = divmod(n, 36); text = "0123456789abcdefghijklmnopqrstuvwxyz"[d] + text
    return text or "0"


def literal(name, doc, text):
    """A multi-line string without line breaks in it."""
    lines = [text[i:i + 130] for i in range(0, len(text), 130)]
    return f"  /// {doc}\n  static let {name}: StaticString = \"\"\"\n" + "\\\n".join(f"    {line}" for line in lines) + '\n    """\n'


def head(what):
    return f"// Made by make_tables.py from Unicode 14.0.0 and tokenizers 0.20.3; do not edit.\n\n/// {what}\n"


def files():
    letters, numbers, spaces = matched(r"\p{L}"), matched(r"\p{N}"), matched(r"\s")
    assert letters == {c for c in SCALARS if unicodedata.category(chr(c))[0] == "L"}
    assert numbers == {c for c in SCALARS if unicodedata.category(chr(c))[0] == "N"}
    combining, decomposed = combining_classes(), decompositions()
    seconds = {parts[1] for parts, composes in decomposed.values() if composes and len(parts) == 2}
    unstable = set(combining) | {c for c, (_, composes) in decomposed.items() if not composes} | seconds
    unstable |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # second and third parts of a Hangul syllable
    flags = [0] * 0x110000
    for bit, members in ((LETTER, letters), (NUMBER, numbers), (SPACE, spaces), (DIGIT, digits()), (WORD, word()), (UNSTABLE, unstable)):
        for c in members: flags[c] |= bit
    runs, start = "", 0
    for c in range(1, 0x110001):
        if c == 0x110000 or flags[c] != flags[start]:
            runs += f"{base36(flags[start])}." + base36(c - start) + " "
            start = c
    classes, last = "", 0
    for c in sorted(combining):
        classes += f"{base36(c - last)}.{base36(combining[c])} "
        last = c
    pairs, last = "", 0
    for c in sorted(decomposed):
        parts, composes = decomposed[c]
        pairs += base36(c - last) + "".join("." + base36(p) for p in parts) + ("" if composes else ".") + " "
        last = c
    yield "UnicodeClassData.swift", head("The classes of all code points, in order, as runs of equal ones.") + (
        "enum UnicodeClassData {\n" + literal("runs", "`flags.length `, base 36, from U+0000 to U+10FFFF; the flags are those of `UnicodeClass`.", runs) + "}\n")
    yield "CanonicalData.swift", head("Canonical combining classes and decompositions.") + (
        "enum CanonicalData {\n"
        + literal("combiningClasses", "`distance.class `, base 36, where the class is not 0; the distance is from the code point before.", classes)
        + "\n"
        + literal("decompositions", "`distance.first.second `, base 36, by one step; a last `.` where it is not composed again (as `distance.only. ` never is).", pairs)
        + "}\n")


def main(arguments):
    if arguments not in ([], ["--check"]): sys.exit(__doc__)
    if unicodedata.unidata_version != "14.0.0" or tokenizers.__version__ != "0.20.3":
        sys.exit(f"needs unicodedata 14.0.0 and tokenizers 0.20.3, found {unicodedata.unidata_version} and {tokenizers.__version__}")
    wrong = []
    for name, text in files():
        if not arguments: (HERE / name).write_text(text)
        elif not (HERE / name).exists() or (HERE / name).read_text() != text: wrong.append(name)
        print(name, len(text), "bytes")
    if wrong: sys.exit("differ: " + ", ".join(wrong))


if __name__ == "__main__": main(sys.argv[1:])
