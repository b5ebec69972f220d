"""Strings that tokenizers are compared on; the same seed gives the same strings on any Python from 3.8 on (the data folder aside)."""
import json, random, unicodedata
from pathlib import Path

SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
FIXED = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "  a  ", "Hello world", "Hello, world!\n", "I'm you're he's we'll they've I'd don't",
    "I'M YOU'RE HE'S WE'LL THEY'VE I'D DON'T", "it'\u017f '\u017f 'S '\u212a 'ReX 'lL 'vE", "'s's's' ' 's '", "''s", " 's", "x's\u2019s", "'", "'\n's",
    "2 + 2 =", "1234567890", "12 345 6789", "a1b22c333d4444", "\u0661\u0662\u0663\u0664 \u00bd\u00be \u2167\u2168 \u2460\u2461 \u5341\u4e8c", "\U00011f50\U00011f51 \U0001d2c0x\U0001e4f0",
    "caf\u00e9 cafe\u0301 na\u00efve nai\u0308ve", "\u212b \u00c5 A\u030a \u1e69 s\u0323\u0307 s\u0307\u0323", "\uac00\ub098\ub2e4 \u1100\u1161\u11a8 \u1100\u1161", "\u0958 \u0915\u093c \u0dde \u0dd9\u0dcf\u0dca",
    "\u0344 \u0f73 \u0f75 \u0f81 \u2adc \ufb1d \U0001d15e", "q\u0323\u0301\u0334 q\u0334\u0301\u0323 q\u0301\u0301\u0323", "\U00011935\U00011930 \U00011938", "a\u1df6\u0334 a\u0334\u1df6",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f \u0031\ufe0f\u20e3", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u4e2d\u6587\uff0c\u6d4b\u8bd5\uff01", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5", "\u00a0\u00a0x\u2003y\u3000z\u2028w\u2029v\u0085u\u1680t\u202fs\u205fr",
    "\ufeffbom \u200bzero\u200cwidth\u200d \u00adsoft", "a\x00b\x01\x02\x04\x06\x13\x14\x16\x1d\x1f\x7fc", "\ufffd \ufffe \uffff \U0010ffff \ue000", "line1\r\nline2\rline3\n\n\nline4\n \n  \n\tx\n", "  \n  a\n   b \n\n c", "\n\n\n", " \n ", "\t\t x", "x \t\r\n \u3000 y",
    "!!!\n\n???\r\n...", "foo()\n{\n\treturn x->y != 0;\n}\n", "def f(x):\n    return x ** 2  # caf\u00e9\n\n\nprint(f'{f(3)!r}')", "https://example.org/a?b=c&d=%20e#f", "{\"key\": [1, 2.5e-3, null, true], \"\\u00e9\": \"\\n\"}", "<div class=\"a\">&amp;</div><!-- c -->",
    "$\\sum_{i=0}^{n} x_i^2 \\leq 10^{-5}$", "ALLCAPS camelCase snake_case kebab-case SCREAMING_SNAKE", "\u01c5 \u02b0 \u00aa\u00ba \u1d62 \u16ee \u3007", "e\u0301\u0301\u0301\u0301", "\u0301start", "a" * 300, " " * 300, "ab" * 200, "\n" * 100, "7" * 100, "\u00e9" * 100, "e\u0301" * 60, "'" * 50, "!" * 70, "-" * 65 + "\n", "\U0001f600" * 40,
]
CODE = ["for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }", "let x: [UInt8] = Array(text.utf8)", "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;", "fn main() -> Result<(), Box<dyn Error>> {", "@media (max-width: 600px) { .a { color: #fff; } }",
        "#include <stdio.h>\r\n#define N 1024\r\n", "x = lambda *args, **kw: (yield from g(*args))", "\\begin{align}\n  a &= b \\\\\n\\end{align}", "git commit -am 'fix: don\\'t crash' && echo \"$HOME\"", "0x1F 0b1010 1_000_000 1e-9 .5 5. 3.14f"]


def words(rng):
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    return "".join(letters[min(25, int(rng.expovariate(0.15)))] for _ in range(rng.randint(1, 9)))


def scalar(rng):
    kind = rng.random()
    if kind < 0.3: return rng.choice(" '\t\n\r.,!?-_/\\\"()0123456789")
    if kind < 0.6: return chr(rng.randint(0x20, 0x7E))
    if kind < 0.7: return chr(rng.randint(0xA0, 0x24F))
    if kind < 0.8: return chr(rng.choice([0x300, 0x301, 0x308, 0x323, 0x327, 0x334, 0x345, 0x5B0, 0x64B, 0x93C, 0x94D, 0x3099, 0x1161, 0x11A8, 0x200D, 0xFE0F]))
    if kind < 0.9: return chr(rng.choice([0xA0, 0x2003, 0x3000, 0x2028, 0x85, 0x17F, 0x212A, 0x660, 0xBD, 0x2167, 0x4E00, 0xAC00, 0x1100, 0x1F600, 0x1F468]))
    return chr(rng.choice(SCALARS))


def every_scalar(rng, size=64):
    """Every Unicode scalar once, in contexts that change from scalar to scalar."""
    contexts = ["{}", "{} ", " {}", "a{}", "{}b", "1{}2", "'{}", "{}\n", "{}\u0301", "!{}"]
    order = SCALARS[:]
    rng.shuffle(order)
    for i in range(0, len(order), size): yield "".join(rng.choice(contexts).format(chr(c)) for c in order[i:i + size])


def marks(rng, count):
    combining = [c for c in SCALARS if unicodedata.combining(chr(c))]
    decomposed = [c for c in SCALARS if unicodedata.decomposition(chr(c)) and not unicodedata.decomposition(chr(c)).startswith("<")]
    for _ in range(count):
        text = ""
        for _ in range(rng.randint(1, 6)):
            base = chr(rng.choice(decomposed)) if rng.random() < 0.5 else rng.choice("aeioqs \u1100\uac00\u0915")
            if rng.random() < 0.5: base = unicodedata.normalize("NFD", base)
            tail = [chr(rng.choice(combining)) if rng.random() < 0.4 else rng.choice("\u0301\u0308\u0323\u0307\u0327\u0334\u0345\u1161\u11a8\u3099") for _ in range(rng.randint(0, 5))]
            text += base + "".join(tail)
        yield text


def with_controls(rng, controls, count):
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.5 and controls: parts.append(rng.choice(controls))
            elif kind < 0.6 and controls: parts.append(rng.choice(controls)[:-1])
            elif kind < 0.8: parts.append(rng.choice([" ", "\n", "", "  ", "x", "\u00e9", "_", "\t"]))
            else: parts.append(words(rng))
        yield "".join(parts)


def task_lines(folder):
    for path in sorted(Path(folder).glob("*/*.jsonl")):
        for line in path.read_text().splitlines():
            yield line
            value = json.loads(line)
            yield " ".join(v for v in value.values() if isinstance(v, str))


def strings(seed, controls, size, data=None):
    """About `size` strings, and with `data` as many task lines, and every scalar twice."""
    rng = random.Random(seed)
    yield from FIXED + CODE
    yield from with_controls(rng, controls, size // 5)
    yield from marks(rng, size // 5)
    for _ in range(size // 5): yield " ".join(words(rng) + rng.choice(["", "", "", ",", ".", "'s", "\n", " 12", "\r\n"]) for _ in range(rng.randint(1, 20)))
    for _ in range(2 * size // 5): yield "".join(scalar(rng) for _ in range(rng.randint(1, 24)))
    if data:
        lines = list(task_lines(data))
        rng.shuffle(lines)
        yield from lines[:size]
        for _ in range(2): yield from every_scalar(rng)
        for character in " a\n'1\u00e9\u4e2d\U0001f600=-": yield from (character * n for n in (1000, 4097))
        yield from ("".join(lines[:200]), unicodedata.normalize("NFD", "".join(CODE + FIXED)), "\r\n".join(lines[200:260]))
