#!/usr/bin/env python3
"""Makes UnicodeClassData, GeneralCategoryData, ScriptData, NormalizationData and LowercaseData.swift beside this script.

usage: make_tables.py [--check]
  (nothing)  writes the files
  --check    writes nothing; exit 1 if a file differs from what this script makes

Needs Python whose unicodedata is 14.0.0 (3.11) and tokenizers==0.20.3: the tables are what that release does, found by asking it
about every Unicode scalar, because token ids must equal its ids and its parts follow several versions of Unicode:
  \\p{…}, \\s, \\d, \\w     Unicode 14.0 (Oniguruma), equal to unicodedata
  Digits                 a later Unicode: 40 code points more than \\p{N}
  \\w of single_word      a later Unicode
  Punctuation, accents   an older Unicode
  Lowercase              a later Unicode
  NFC, NFD, NFKC, NFKD   Unicode 9.0: 98 combining classes and some decompositions of unicodedata 14.0.0 are absent
"""
import sys, unicodedata
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers
from tokenizers.pre_tokenizers import Digits, Punctuation, Split, WhitespaceSplit

HERE = Path(__file__).resolve().parent
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
LETTER, NUMBER, SPACE, DIGIT, WORD, UNSTABLE, ACCENT, PUNCTUATION = 1, 2, 4, 8, 16, 32, 64, 128
ASSIGNED = [c for c in SCALARS if unicodedata.category(chr(c)) not in ("Cn", "Co")]


def chunks(scalars=SCALARS, size=2000):
    for i in range(0, len(scalars), size): yield scalars[i:i + size]


def matched(pattern, scalars=SCALARS):
    """The scalars that a regular expression matches, each set between two line ends."""
    split, found = Split(Regex(pattern), "removed", invert=True), set()
    if len(split.pre_tokenize_str("\n")): pattern = None  # a line end matches too
    for part in chunks(scalars):
        if pattern is None:
            found |= {c for c in part if split.pre_tokenize_str(chr(c))}
            continue
        found |= {ord(piece) for piece, _ in split.pre_tokenize_str("".join(chr(c) + "\n" for c in part))}
    return found


def isolated(split):
    """The scalars that a pre-tokenizer makes pieces of, each set between two letters."""
    found = set()
    for part in chunks():
        pieces = split.pre_tokenize_str("".join("a" + chr(c) for c in part))
        found |= {ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "a"}
    return found


def whitespace():
    """The scalars at which WhitespaceSplit cuts."""
    split, found = WhitespaceSplit(), set()
    for part in chunks():
        kept = {c for piece, _ in split.pre_tokenize_str("".join("a" + chr(c) for c in part)) for c in piece}
        found |= {c for c in part if chr(c) not in kept}
    return found


def accents():
    """The scalars that StripAccents takes away."""
    strip = normalizers.StripAccents().normalize_str
    return {c for c in SCALARS if not strip(chr(c))}


def lowercase():
    """Scalar → what Lowercase makes of it, beyond ASCII."""
    lower = normalizers.Lowercase().normalize_str
    assert all(lower(chr(c)) == chr(c).lower() for c in range(128))
    table = {c: lower(chr(c)) for c in SCALARS[128:]}
    return {c: [ord(d) for d in text] for c, text in table.items() if text != chr(c)}


SCRIPTS = """Adlam Ahom AnatolianHieroglyphs Arabic Armenian Avestan Balinese Bamum BassaVah Batak Bengali Bhaiksuki Bopomofo Brahmi
Braille Buginese Buhid CanadianAboriginal Carian CaucasianAlbanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot
CyproMinoan Cyrillic Deseret Devanagari DivesAkuru Dogra Duployan EgyptianHieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic
Gothic Grantha Greek Gujarati GunjalaGondi Gurmukhi Han Hangul HanifiRohingya Hanunoo Hatran Hebrew Hiragana ImperialAramaic Inherited
InscriptionalPahlavi InscriptionalParthian Javanese Kaithi Kannada Katakana KayahLi Kharoshthi KhitanSmallScript Khmer Khojki Khudawadi
Lao Latin Lepcha Limbu LinearA LinearB Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen MasaramGondi
Medefaidrin MeeteiMayek MendeKikakui MeroiticCursive MeroiticHieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nandinagari
NewTaiLue Newa Nko Nushu NyiakengPuachueHmong Ogham OlChiki OldHungarian OldItalic OldNorthArabian OldPermic OldPersian OldSogdian
OldSouthArabian OldTurkic OldUyghur Oriya Osage Osmanya PahawhHmong Palmyrene PauCinHau PhagsPa Phoenician PsalterPahlavi Rejang Runic
Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian SoraSompeng Soyombo Sundanese SylotiNagri Syriac Tagalog
Tagbanwa TaiLe TaiTham TaiViet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho
WarangCiti Yezidi Yi ZanabazarSquare""".split()


def scripts():
    """Scalar → index of its script in `SCRIPTS`."""
    table = {}
    for index, name in enumerate(SCRIPTS):
        for c in matched("\\p{%s}" % name, ASSIGNED):
            assert c not in table, (name, hex(c))
            table[c] = index
    missing = [c for c in ASSIGNED if c not in table]
    assert not missing, [hex(c) for c in missing[:20]]
    return table


def word():
    """The scalars before which a single_word token is not found."""
    tokenizer, found = Tokenizer(models.BPE(vocab={"-": 0}, merges=[])), set()
    tokenizer.add_tokens([AddedToken("XX", single_word=True)])
    for part in chunks():
        encoding = tokenizer.encode("".join("-" + chr(c) + "XX" for c in part))
        hits = {start for (start, _), i in zip(encoding.offsets, encoding.ids) if i == 1}
        found |= {c for i, c in enumerate(part) if 4 * i + 2 not in hits}
    return found


NFC, NFD, NFKD = (form().normalize_str for form in (normalizers.NFC, normalizers.NFD, normalizers.NFKD))


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


def compatible():
    """Code point → compatibility decomposition by one step."""
    table = {}
    for c in SCALARS:
        text = unicodedata.decomposition(chr(c))
        whole = unicodedata.normalize("NFKD", chr(c))
        if not text.startswith("<") or NFKD(chr(c)) == chr(c): continue  # none, or one that Unicode 9.0 does not have
        assert NFKD(chr(c)) == whole, hex(c)
        table[c] = [int(part, 16) for part in text.split()[1:]]
    for c in SCALARS:
        if c not in table and unicodedata.decomposition(chr(c)).startswith("<"): assert NFKD(chr(c)) == chr(c) == NFD(chr(c)), hex(c)
    return table


def base36(n):
    text = ""
    while n: n, d = divmod(n, 36); text = "0123456789abcdefghijklmnopqrstuvwxyz"[d] + text
    return text or "0"


def run_lengths(values):
    """`value.length ` for each run of equal values."""
    runs, start = "", 0
    for c in range(1, len(values) + 1):
        if c == len(values) or values[c] != values[start]:
            runs += f"{base36(values[start])}.{base36(c - start)} "
            start = c
    return runs


def distances(table):
    """`distance.value.value… ` for each code point of a table."""
    text, last = "", 0
    for c in sorted(table):
        text += ".".join(base36(n) for n in [c - last] + table[c]) + " "
        last = c
    return text


def words_literal(name, doc, words):
    return literal(name, doc, " ".join(words))


def literal(name, doc, text):
    """A multi-line string without line breaks in it."""
    lines = [text[i:i + 130] for i in range(0, len(text), 130)]
    return f"  /// {doc}\n  static let {name}: StaticString = \"\"\"\n" + "\\\n".join(f"    {line}" for line in lines) + '\n    """\n'


def head(what):
    return f"// Made by make_tables.py from Unicode 14.0.0 and tokenizers 0.20.3; do not edit.\n\n/// {what}\n"


def files():
    category = [unicodedata.category(chr(c)) for c in range(0x110000)]
    names = sorted(set(category))
    for name in names:
        if name not in ("Cn", "Co", "Cs"): assert matched("\\p{%s}" % name, ASSIGNED) == {c for c in ASSIGNED if category[c] == name}, name
    letters, numbers, spaces = matched(r"\p{L}"), matched(r"\p{N}"), matched(r"\s")
    assert letters == {c for c in SCALARS if category[c][0] == "L"}
    assert numbers == {c for c in SCALARS if category[c][0] == "N"}
    assert spaces == whitespace() == {c for c in SCALARS if normalizers.Strip().normalize_str(chr(c)) == ""}
    assert matched(r"\d", ASSIGNED) == {c for c in ASSIGNED if category[c] == "Nd"}
    # Letters in circles and squares are words there; so are superscripts and fractions of Latin-1, if \w does not stand in brackets.
    latin = {0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE}
    others = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)}
    others |= {c for c in ASSIGNED if category[c][0] in "LM" or category[c] in ("Nd", "Nl", "Pc")}
    assert matched(r"[\w]") == others and matched(r"\w") == others | latin
    combining, decomposed = combining_classes(), decompositions()
    seconds = {parts[1] for parts, composes in decomposed.values() if composes and len(parts) == 2}
    unstable = set(combining) | {c for c, (_, composes) in decomposed.items() if not composes} | seconds
    unstable |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # second and third parts of a Hangul syllable
    flags = [0] * 0x110000
    for bit, members in ((LETTER, letters), (NUMBER, numbers), (SPACE, spaces), (DIGIT, isolated(Digits(individual_digits=True))), (WORD, word()), (UNSTABLE, unstable),
                         (ACCENT, accents()), (PUNCTUATION, isolated(Punctuation()))):
        for c in members: flags[c] |= bit
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
        "enum UnicodeClassData {\n" + literal("runs", "`flags.length `, base 36, from U+0000 to U+10FFFF; the flags are those of `UnicodeClass`.", run_lengths(flags)) + "}\n")
    yield "GeneralCategoryData.swift", head("The general categories of all code points.") + (
        "enum GeneralCategoryData {\n" + words_literal("names", "The categories.", names) + "\n"
        + literal("runs", "`category.length `, base 36, from U+0000 to U+10FFFF; a category is its index in `names`.", run_lengths([names.index(name) for name in category])) + "}\n")
    script = scripts()
    yield "ScriptData.swift", head("The scripts of all code points.") + (
        "enum ScriptData {\n" + words_literal("names", "The scripts, in small letters.", [name.lower() for name in SCRIPTS]) + "\n"
        + literal("runs", "`script.length `, base 36, from U+0000 to U+10FFFF; a script is its index in `names`, or one more than the last.", run_lengths([script.get(c, len(SCRIPTS)) for c in range(0x110000)])) + "}\n")
    yield "LowercaseData.swift", head("The small forms of letters beyond ASCII.") + (
        "enum LowercaseData {\n" + literal("letters", "`distance.part.part… `, base 36; the distance is from the code point before.", distances(lowercase())) + "}\n")
    yield "NormalizationData.swift", head("Combining classes and decompositions.") + (
        "enum NormalizationData {\n"
        + literal("combiningClasses", "`distance.class `, base 36, where the class is not 0; the distance is from the code point before.", classes)
        + "\n"
        + literal("decompositions", "`distance.first.second `, base 36, by one step; a last `.` where it is not composed again (as `distance.only. ` never is).", pairs)
        + "\n"
        + literal("compatible", "`distance.part.part… `, base 36: compatibility decompositions by one step.", distances(compatible()))
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
