#!/usr/bin/env python3
"""Makes the hostile files in this folder, and cases.json, which says what each of them must give.

usage: make.py [--check]
  (nothing)  writes every file anew and removes what no case names
  --check    writes nothing; exit 1 if a file is missing, differs from what this script makes, or is not made by it

Standard library only, and no random numbers: every byte is written out below, so any Python from 3.8 on makes the same files.
A case is `path`; `opens`, the reader it is for; and what must come of it. Either `tensors`, the names that are read (or `valid`
for a configuration), or an error: `exit` (3 the input, 5 the system), `in` the file it names (the case's own path if absent),
`place` (tensor, key, member or byte; absent: the file as a whole) and `says`, parts of the message with the offending numbers.

  safetensors    one file                              pytorch         one zip file of torch.save
  gguf           one GGUF file                         gguf-model      one GGUF file, loaded as a model
  index          a folder, model.safetensors[.index]   config          config.json
  adapter-config adapter_config.json                   model, adapter  a folder, loaded with the other kind's `good`
  tokenizer      tokenizer.json
"""
import json, struct, sys, zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES, CASES = {}, []
NAN = struct.pack("<I", 0x7FC00000)


def u16(n): return struct.pack("<H", n)
def u32(n): return struct.pack("<I", n)
def u64(n): return struct.pack("<Q", n)


def text(value): return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def add(opens, path, files, says=None, place=None, inside=None, tensors=None, exit=3):
    """Notes a case. `files` is the content of the file `path`, or a dict of a folder's files, or None for a file that is not there."""
    if isinstance(files, dict):
        for name, content in files.items(): FILES[path + "/" + name] = text(content)
    elif files is not None: FILES[path] = text(files)
    case = {"path": path, "opens": opens}
    if says is None:
        if tensors is None: case["valid"] = True
        else: case["tensors"] = tensors
    else:
        case["exit"] = exit
        if inside: case["in"] = inside
        if place: case["place"] = place
        case["says"] = [says] if isinstance(says, str) else list(says)
    assert all(other["path"] != path for other in CASES), path
    CASES.append(case)


def tensor(name): return {"tensor": name}
def key(name): return {"key": name}
def byte(offset): return {"byte": offset}
def member(name, offset=None): return {"member": name} if offset is None else {"member": name, "byte": offset}


# ---- safetensors

def safetensors(header, data=b"", length=None):
    header = text(header)
    return u64(len(header) if length is None else length) + header + data


def entry(dtype, shape, begin, end):
    """An entry; a str stands as it is, so that it need not be JSON's own spelling."""
    as_text = lambda value: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return '{"dtype":%s,"shape":%s,"data_offsets":[%s,%s]}' % (json.dumps(dtype), as_text(shape), as_text(begin), as_text(end))


def one(dtype, shape, begin, end, data=b"\0" * 4): return safetensors('{"x":%s}' % entry(dtype, shape, begin, end), data)


def two(a, b, data):
    return safetensors('{"a":%s,"b":%s}' % tuple(entry("U8", [max(0, end - begin)], begin, end) for begin, end in (a, b)), data)


FLOATS = struct.pack("<6f", 1.5, -2, 0, 0.25, 3, 4)
GOOD_HEADER = '{"__metadata__":{"format":"pt"},"ids":%s,"w":%s,"flag":%s}' % (
    entry("I64", [2], 0, 16), entry("F32", [2, 3], 16, 40), entry("BOOL", [], 40, 41))
GOOD_DATA = struct.pack("<2q", 7, -1) + FLOATS + b"\1"
GOOD = safetensors(GOOD_HEADER, GOOD_DATA)


def safetensors_cases():
    def ok(name, content, tensors): add("safetensors", f"safetensors/{name}.safetensors", content, tensors=tensors)
    def bad(name, content, says, place=None): add("safetensors", f"safetensors/{name}.safetensors", content, says, place)
    n, size = len(GOOD_HEADER), len(GOOD)

    ok("good", GOOD, ["ids", "w", "flag"])
    ok("no-tensors", safetensors("{}"), [])
    ok("padded-header", safetensors('{"x":%s}      ' % entry("U8", [4], 0, 4), b"abcd"), ["x"])
    ok("metadata-alone", safetensors('{"__metadata__":{"a":"b"}}'), [])
    ok("nan-infinity", one("F32", [3], 0, 12, NAN + struct.pack("<2f", float("inf"), float("-inf"))), ["x"])
    ok("unaligned-data", safetensors('{"x":%s}' % entry("F64", [1], 0, 8) + " " * 3, struct.pack("<d", 1.5)), ["x"])
    ok("canonically-equal-names", safetensors('{"\u00e9":%s,"e\u0301":%s}' % (entry("U8", [1], 0, 1), entry("U8", [1], 1, 2)), b"\1\2"),
       ["\u00e9", "e\u0301"])
    ok("empty-name", safetensors('{"":%s}' % entry("U8", [1], 0, 1), b"\1"), [""])
    ok("empty-tensors-between", safetensors('{"a":%s,"none":%s,"b":%s}' % (
        entry("U8", [2], 0, 2), entry("F32", [0, 9], 2, 2), entry("U8", [1], 2, 3)), b"abc"), ["a", "none", "b"])
    ok("zero-before-overflow", one("U8", [0, 1 << 62, 4], 0, 0, b""), ["x"])
    ok("64-axes", one("U8", [1] * 64, 0, 1, b"\1"), ["x"])

    # Cut off at every field of the file, and of its header under a length that says so.
    bad("cut-empty", b"", ["0 bytes", "at least the 8 bytes"])
    bad("cut-in-length", GOOD[:7], ["7 bytes", "at least the 8 bytes"])
    bad("cut-after-length", GOOD[:8], [f"a header length of {n} in a file of 8 bytes", "cut off"], byte(0))
    bad("cut-in-header", GOOD[:60], [f"a header length of {n} in a file of 60 bytes", "at most 52"], byte(0))
    bad("cut-before-header-end", GOOD[:8 + n - 1], [f"a header length of {n} in a file of {8 + n - 1} bytes"], byte(0))
    bad("cut-before-data", GOOD[:8 + n], [f"{8 + n} bytes", f"{size} bytes: {8 + n} of header and 41 of data; the file is cut off"])
    bad("cut-in-data", GOOD[:8 + n + 20], [f"{8 + n + 20} bytes", f"{size} bytes"])
    bad("cut-in-last-tensor", GOOD[:-1], [f"{size - 1} bytes", f"{size} bytes", "cut off"])
    for name, until, expected in [
            ("brace", '{', "a key in quotes"), ("name", '{"x', "the rest of a string"), ("colon", '{"x":', "a JSON value"),
            ("dtype", '{"x":{"dtype":"F3', "the rest of a string"), ("shape", '{"x":{"dtype":"F32","shape":[2,', "a JSON value"),
            ("offsets", '{"x":{"dtype":"F32","shape":[],"data_offsets":[0', '"," or "]"'),
            ("entry", '{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]', '"," or "}"'),
            ("end", '{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]}', '"," or "}"')]:
        bad("header-cut-in-" + name, safetensors(until), ["found the end of the text", expected], byte(8 + len(until)))
    bad("trailing-byte", GOOD + b"\0", [f"{size + 1} bytes", f"{size} bytes: {8 + n} of header and 41 of data"])
    bad("trailing-zip", GOOD + b"PK\5\6" + bytes(18), [f"{size + 22} bytes", f"{size} bytes"])

    # The length.
    bad("length-0", safetensors(""), ["an empty header"], byte(8))
    bad("length-over-cap", u64(100_000_001) + b"{}", ["100000001", "at most 100000000"], byte(0))
    bad("length-at-cap", u64(100_000_000) + b"{}", ["100000000 in a file of 10 bytes", "at most 2"], byte(0))
    bad("length-2-63", u64(1 << 63) + b"{}", ["9223372036854775808", "at most 100000000"], byte(0))
    bad("length-2-64", u64((1 << 64) - 1) + b"{}", ["18446744073709551615", "at most 100000000"], byte(0))
    bad("length-big-endian", struct.pack(">Q", n) + GOOD[8:], [str(int.from_bytes(struct.pack(">Q", n), "little"))], byte(0))
    bad("length-one-short", safetensors(GOOD_HEADER, GOOD_DATA, n - 1), ["the end of the text", '"," or "}"'], byte(8 + n - 1))
    bad("length-into-data", safetensors(GOOD_HEADER, GOOD_DATA, n + 3), ["byte 0x7", "the end of the text"], byte(8 + n))
    bad("web-page", "<!DOCTYPE html>\n<html>Not found</html>\n", ["a header length of", "is this a safetensors file?"], byte(0))

    # The header as text.
    bad("header-space-first", safetensors(" {}"), ["byte 0x20", 'begins with "{"'], byte(8))
    bad("header-array", safetensors("[]"), ["byte 0x5B"], byte(8))
    bad("header-byte-order-mark", safetensors(b"\xef\xbb\xbf{}"), ["byte 0xEF"], byte(8))
    bad("header-not-utf-8", safetensors(b'{"\xff":0}'), ["byte 0xFF", "UTF-8"], byte(10))
    bad("header-overlong-utf-8", safetensors(b'{"\xc0\xae":0}'), ["byte 0xC0", "UTF-8"], byte(10))
    bad("header-surrogate-utf-8", safetensors(b'{"\xed\xa0\x80":0}'), ["byte 0xED", "UTF-8"], byte(10))
    bad("header-lone-surrogate", safetensors('{"\\ud800":0}'), ["a lone surrogate \\uD800"], byte(10))
    bad("header-bad-escape", safetensors('{"\\x41":0}'), ['"x"', "after \\"], byte(11))
    bad("header-raw-control", safetensors('{"a\nb":0}'), ["byte 0xA", "control characters must be escaped"], byte(11))
    bad("header-nul-padding", safetensors("{}\0\0\0"), ["byte 0x0", "the end of the text"], byte(10))
    bad("header-twice", safetensors("{}{}"), ['"{"', "the end of the text"], byte(10))
    bad("header-comma-last", safetensors('{"__metadata__":{},}'), ['"}"', "a key in quotes"], byte(8 + 19))
    bad("header-nested-1000", safetensors('{"__metadata__":' + "[" * 1000), ["nesting 129 deep", "at most 128"], byte(8 + 16 + 127))
    bad("header-nan", safetensors('{"__metadata__":{"a":NaN}}'), ['"N"', "a JSON value"], byte(8 + 21))
    bad("header-huge-number", safetensors('{"__metadata__":{"a":1e999}}'), ["1e999", "within the range of Double"], byte(8 + 21))
    bad("header-leading-zero", one("U8", "[04]", 0, 4), ['"4"', '"," or "]"'], byte(8 + 29))

    # Names.
    x = entry("U8", [1], 0, 1)
    bad("name-twice", safetensors('{"x":%s,"x":%s}' % (x, entry("U8", [1], 1, 2)), b"ab"), ["a second time at byte 61"], key("x"))
    bad("name-twice-escaped", safetensors('{"x":%s,"\\u0078":%s}' % (x, x), b"a"), ["a second time at byte 61"], key("x"))
    bad("metadata-twice", safetensors('{"__metadata__":{},"__metadata__":{}}'), ["a second time at byte 27"], key("__metadata__"))
    bad("metadata-key-twice", safetensors('{"__metadata__":{"a":"1","a":"2"}}'), ["a second time at byte 33"], key("a"))
    bad("metadata-number", safetensors('{"__metadata__":{"a":1}}'), ["found 1", "a string"], key("__metadata__.a"))
    ok("metadata-null", safetensors('{"__metadata__":null}'), [])
    bad("metadata-array", safetensors('{"__metadata__":["a"]}'), ["an array of 1"], key("__metadata__"))
    long = "\x1b[2J\u202e" + "n" * 500
    bad("name-for-a-terminal", safetensors('{%s:0}' % json.dumps(long)), ['tensor "\\u{1B}[2J\\u{202E}nnn', 'n…": found 0'], tensor(long))

    # The entry.
    bad("entry-number", safetensors('{"x":7}'), ["found 7", "an object with dtype"], tensor("x"))
    bad("entry-null", safetensors('{"x":null}'), ["found null"], tensor("x"))
    bad("entry-without-dtype", safetensors('{"x":{"shape":[],"data_offsets":[0,1]}}', b"a"), ["no dtype"], tensor("x"))
    bad("entry-without-shape", safetensors('{"x":{"dtype":"U8","data_offsets":[0,1]}}', b"a"), ["no shape"], tensor("x"))
    bad("entry-without-offsets", safetensors('{"x":{"dtype":"U8","shape":[]}}', b"a"), ["no data_offsets"], tensor("x"))
    bad("entry-surplus-key", safetensors('{"x":%s}' % x.replace("}", ',"strides":[1]}'), b"a"), ['the key "strides"'], tensor("x"))
    bad("entry-key-twice", safetensors('{"x":%s}' % x.replace("}", ',"dtype":"I8"}'), b"a"), ["a second time at byte 60"], key("dtype"))
    bad("dtype-unknown", one("Q4_0", [4], 0, 4), ['dtype the string "Q4_0"', "BOOL F4 F6_E2M3"], tensor("x"))
    bad("dtype-lower-case", one("f32", [1], 0, 4), ['"f32"', "F32"], tensor("x"))
    bad("dtype-empty", one("", [1], 0, 4), ['dtype the string ""'], tensor("x"))
    bad("dtype-number", one(32, [1], 0, 4), ["dtype 32"], tensor("x"))
    bad("dtype-null", one(None, [1], 0, 4), ["dtype null"], tensor("x"))
    bad("dtype-wider-than-data", one("F64", [1], 0, 4), ["[0, 4], that is 4 bytes", "8 bytes for F64 of shape [1]"], tensor("x"))
    bad("dtype-narrower-than-data", one("BF16", [1], 0, 4), ["that is 4 bytes", "2 bytes for BF16 of shape [1]"], tensor("x"))
    bad("dtype-inside-a-byte", one("F4", [7], 0, 4), ["28 bits are no whole number of bytes"], tensor("x"))
    bad("shape-number", one("U8", "4", 0, 4), ["shape 4", "an array of integers"], tensor("x"))
    bad("shape-string", one("U8", '["4"]', 0, 4), ['the string "4" in shape'], tensor("x"))
    bad("shape-negative", one("U8", [-4, -1], 0, 4), ["-4 in shape", "an integer from 0 to"], tensor("x"))
    bad("shape-float", one("U8", "[4.0]", 0, 4), ["4.0 in shape"], tensor("x"))
    bad("shape-2-63", one("U8", [1 << 63], 0, 4), ["9223372036854775808 in shape"], tensor("x"))
    bad("shape-one-short", one("U8", [3], 0, 4), ["that is 4 bytes", "3 bytes for U8 of shape [3]"], tensor("x"))
    bad("shape-one-long", one("U8", [5], 0, 4), ["that is 4 bytes", "5 bytes"], tensor("x"))
    bad("shape-product-wraps-to-4", one("U8", [(1 << 62) + 1, 4], 0, 4), ["[4611686018427387905, 4]", "beyond 2^63"], tensor("x"))
    bad("shape-bits-wrap", one("F64", [1 << 58], 0, 4), ["[288230376151711744] of F64", "beyond 2^63 bits"], tensor("x"))
    bad("shape-overflow-before-zero", one("U8", [1 << 62, 4, 0], 0, 0, b""), ["beyond 2^63"], tensor("x"))
    bad("shape-1000-axes", one("U8", [1] * 1000, 0, 1, b"\1"), ["a shape of 1000 axes, more than 64"], tensor("x"))

    # The offsets.
    bad("offsets-hole-first", one("U8", [3], 1, 4), ["[1, 4] after a hole of 1 bytes", "begins at 0"], tensor("x"))
    bad("offsets-hole-between", two((0, 2), (3, 4), b"abcd"), ["[3, 4] after a hole of 1 bytes", "begins at 2"], tensor("b"))
    bad("offsets-overlap", two((0, 2), (1, 3), b"abc"), ["[1, 3], an overlap of 1 bytes"], tensor("b"))
    bad("offsets-alias", two((0, 4), (0, 4), b"abcd"), ["[0, 4], an overlap of 4 bytes"], tensor("b"))
    bad("offsets-inside-another", two((0, 4), (1, 2), b"abcd"), ["[1, 2], an overlap of 3 bytes"], tensor("b"))
    bad("offsets-empty-inside-another", safetensors('{"a":%s,"b":%s}' % (entry("U8", [4], 0, 4), entry("U8", [0], 2, 2)), b"abcd"),
        ["[2, 2], an overlap of 2 bytes"], tensor("b"))
    bad("offsets-backwards", two((0, 2), (2, 1), b"ab"), ["[2, 1], which end before they begin"], tensor("b"))
    bad("offsets-one", safetensors('{"x":{"dtype":"U8","shape":[4],"data_offsets":[4]}}', b"abcd"), ["1 data_offsets", "two"], tensor("x"))
    bad("offsets-three", safetensors('{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,2,4]}}', b"abcd"), ["3 data_offsets"], tensor("x"))
    bad("offsets-object", safetensors('{"x":{"dtype":"U8","shape":[4],"data_offsets":{"begin":0}}}', b"abcd"), ["data_offsets an object of 1"], tensor("x"))
    bad("offsets-negative", one("U8", [4], -4, 0), ["-4 in data_offsets"], tensor("x"))
    bad("offsets-float", one("U8", [4], "0.0", 4), ["0.0 in data_offsets"], tensor("x"))
    bad("offsets-exponent", one("U8", [4], 0, "4e0"), ["4e0 in data_offsets"], tensor("x"))
    bad("offsets-string", one("U8", [4], '"0"', 4), ['the string "0" in data_offsets'], tensor("x"))
    bad("offsets-2-64", one("U8", [4], 0, 1 << 64), ["18446744073709551616 in data_offsets"], tensor("x"))
    bad("offsets-beyond-file", one("U8", [5], 0, 5), ["5 of data; the file is cut off"])
    bad("offsets-2-59", one("U8", [1 << 59], 0, 1 << 59), [f"{1 << 59} of data; the file is cut off"])
    part = (1 << 60) - 1
    bad("offsets-end-wraps", safetensors("{%s}" % ",".join(f'"{i}":' + entry("U8", [part], i * part, (i + 1) * part) for i in range(8)), b"a"),
        [str(8 * part), "offsets within the 1 bytes of data"], tensor("7"))
    add("safetensors", "safetensors/folder.safetensors", {"keep": "A folder stands where a file should.\n"}, ["a directory", "a regular file"])
    add("safetensors", "safetensors/not-there.safetensors", None, ["errno 2 of stat", "a file"])


# ---- PyTorch

class Member:
    """A member of a zip archive, by the letter unless a field says otherwise."""
    def __init__(self, name, data, **changes):
        self.name, self.data, self.flags, self.method, self.extra, self.gap = text(name), text(data), 0, 0, b"", b""
        self.local_name = self.local_checksum = self.local_size = self.checksum = self.stored = self.size = self.offset = None
        self.directory_extra = b""
        self.__dict__.update(changes)


def archive(members, comment=b"", count=None, size=None, offset=None, disk=0, before_end=b"", trailing=b"", front=b""):
    file, directory = front, b""
    given = lambda value, default: default if value is None else value
    for m in members:
        checksum = given(m.checksum, zlib.crc32(m.data))
        at = given(m.offset, len(file))
        open_sizes = m.flags & 8 != 0
        local_name = given(m.local_name, m.name)
        local_size = u32(given(m.local_size, 0 if open_sizes else len(m.data)))
        file += b"PK\3\4" + u16(0) + u16(m.flags) + u16(m.method) + bytes(4) + u32(given(m.local_checksum, 0 if open_sizes else checksum))
        file += local_size * 2 + u16(len(local_name)) + u16(len(m.extra)) + local_name + m.extra + m.data
        if open_sizes: file += b"PK\7\x08" + u32(checksum) + u32(len(m.data)) * 2
        file += m.gap
        directory += b"PK\1\2" + bytes(4) + u16(m.flags) + u16(m.method) + bytes(4) + u32(checksum)
        directory += u32(given(m.stored, len(m.data))) + u32(given(m.size, len(m.data)))
        directory += u16(len(m.name)) + u16(len(m.directory_extra)) + bytes(10) + u32(at) + m.name + m.directory_extra
    start = len(file)
    count = given(count, len(members))
    end = b"PK\5\6" + u16(disk) + u16(0) + u16(count) * 2 + u32(given(size, len(directory))) + u32(given(offset, start))
    return file + directory + before_end + end + u16(len(comment)) + comment + trailing


def p_string(s): return b"X" + u32(len(text(s))) + text(s)
def p_global(module, name): return f"c{module}\n{name}\n".encode()
def p_tuple(*parts): return b"(" + b"".join(parts) + b"t"
def p_integers(values): return p_tuple(*map(p_integer, values))
def p_dict(*items): return b"}(" + b"".join(items) + b"u"


def p_integer(n):
    if 0 <= n < 256: return b"K" + bytes([n])
    if -(1 << 31) <= n < 1 << 31: return b"J" + struct.pack("<i", n)
    return b"\x8a\x08" + struct.pack("<q", n)


ORDERED_DICT = p_global("collections", "OrderedDict") + b")R"
FALSE, TRUE, NONE = b"\x89", b"\x88", b"N"


def p_storage(k="0", type="FloatStorage", count=6, module="torch"):
    return p_tuple(p_string("storage"), p_global(module, type), p_string(k), p_string("cpu"), p_integer(count)) + b"Q"


def p_tensor(storage=None, offset=0, shape=(2, 3), strides=(3, 1), hooks=ORDERED_DICT, more=b""):
    return p_global("torch._utils", "_rebuild_tensor_v2") + p_tuple(
        p_storage() if storage is None else storage, p_integer(offset), p_integers(shape), p_integers(strides), FALSE, hooks, more) + b"R"


def p_tensor_v3(storage, shape, strides, dtype):
    return p_global("torch._utils", "_rebuild_tensor_v3") + p_tuple(
        storage, p_integer(0), p_integers(shape), p_integers(strides), FALSE, ORDERED_DICT, dtype) + b"R"


def p_parameter(tensor, hooks=ORDERED_DICT):
    return p_global("torch._utils", "_rebuild_parameter") + p_tuple(tensor, TRUE, hooks) + b"R"


def pickle(value, protocol=2): return b"\x80" + bytes([protocol]) + value + b"."


STATE = p_dict(p_string("w"), p_parameter(p_tensor()), p_string("ids"), p_tensor(p_storage("1", "LongStorage", 2), shape=(2,), strides=(1,)))


def members(state=None, storages=(("0", FLOATS), ("1", struct.pack("<2q", 7, -1))), root="archive"):
    return [Member(root + "/data.pkl", pickle(STATE) if state is None else state), Member(root + "/byteorder", "little")] + [
        Member(f"{root}/data/{k}", data) for k, data in storages] + [Member(root + "/version", "3\n")]


def pytorch_cases():
    def ok(name, content, tensors): add("pytorch", f"pytorch/{name}.bin", content, tensors=tensors)
    def bad(name, content, says, place=None): add("pytorch", f"pytorch/{name}.bin", content, says, place)
    def change(index, **changes):
        list_of = members()
        list_of[index].__dict__.update(changes)
        return archive(list_of)
    def state(value, storages=(("0", FLOATS),)): return archive(members(pickle(value), storages))
    def w(tensor): return state(p_dict(p_string("w"), tensor))
    PKL, DATA = "archive/data.pkl", "archive/data/0"
    good = archive(members())
    directory = good.index(b"PK\1\2")

    ok("good", good, ["w", "ids"])
    ok("nan", state(p_dict(p_string("w"), p_tensor()), [("0", NAN * 6)]), ["w"])
    ok("comment-like-an-end", archive(members(), comment=b"PK\5\6 comment"), ["w", "ids"])
    ok("tied-and-transposed", state(p_dict(p_string("a"), p_tensor(), p_string("b"), p_tensor(shape=(3, 2), strides=(1, 3)))), ["a", "b"])
    ok("canonically-equal-names-and-storages", state(
        p_dict(p_string("\u00e9"), p_tensor(p_storage("\u00e9")), p_string("e\u0301"), p_tensor(p_storage("e\u0301"))),
        [("\u00e9", FLOATS), ("e\u0301", NAN * 6)]), ["\u00e9", "e\u0301"])
    ok("untyped-storage", w(p_tensor_v3(p_storage("0", "UntypedStorage", 24, "torch.storage"), (12,), (1,), p_global("torch", "bfloat16"))), ["w"])
    ok("empty-view-at-the-end", w(p_tensor(offset=6, shape=(0, 3))), ["w"])
    ok("one-row-with-any-stride", w(p_tensor(shape=(1, 3), strides=((1 << 63) - 1, 1))), ["w"])
    ok("module-versions", state(ORDERED_DICT + b"(" + p_string("w") + p_tensor() + b"u" + p_dict(p_string("_metadata"), b"}") + b"b"), ["w"])

    # Cut off at every part of the archive.
    data_at = good.index(FLOATS)
    for name, length in [("in-header", 20), ("in-pickle", 90), ("before-storage", data_at), ("in-storage", data_at + 10),
                         ("before-directory", directory), ("in-directory", directory + 60), ("in-directory-name", directory + 50),
                         ("before-end", len(good) - 22), ("in-end", len(good) - 21), ("before-comment-length", len(good) - 2),
                         ("last-byte", len(good) - 1)]:
        bad("cut-" + name, good[:length], [f"no zip end record in {length} bytes", "cut off"])
    bad("cut-empty", b"", ["an empty file"], byte(0))
    bad("cut-in-signature", good[:3], ["the bytes [80, 75, 3]"], byte(0))
    bad("cut-in-comment", archive(members(), comment=b"six bytes")[:-3], ["no zip end record"])
    bad("trailing-byte", good + b"\0", ["no zip end record", "the file may be cut off"])
    bad("leading-zip-header", b"PK\3\4" + good, [f"a zip directory of {len(good) - 22 - directory} bytes at byte {directory}", "end at byte"], byte(4 + len(good) - 22))
    bad("before-version-1.6", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", ["the bytes [128, 2, 138, 10]", "save it again"], byte(0))
    bad("plain-pickle", pickle(b"}"), ["[128, 2, 125, 46]", "since version 1.6"], byte(0))
    bad("safetensors-inside", GOOD, [f"the bytes [{len(GOOD_HEADER)}, 0, 0, 0]", "a zip archive"], byte(0))
    bad("no-members", archive([], front=b"PK\3\4" + bytes(26)), ["the zip directory at byte 30", "at byte 0"])

    # Members.
    bad("member-deflated", change(2, method=8), ["compression method 8", "0, stored"], member(DATA))
    bad("member-encrypted", change(2, flags=1), ["encryption (flags 1)"], member(DATA))
    bad("member-strongly-encrypted", change(2, flags=1 << 6), ["encryption (flags 64)"], member(DATA))
    bad("member-patch-flag", change(2, flags=1 << 5), ["flags 32", "none but 8"], member(DATA))
    bad("member-other-name-in-header", change(2, local_name=b"archive/data/9"), ['the name "archive/data/9" in its header'], member(DATA))
    bad("member-other-size-in-header", change(2, local_size=23), ["23 bytes, 23 stored", "24, 24 and"], member(DATA))
    bad("member-other-check-value-in-header", change(2, local_checksum=5), ["check value 5 in its header"], member(DATA))
    bad("member-wrong-check-value", change(2, checksum=7), ["data with the check value", "7; the file is damaged"], member(DATA))
    bad("member-stored-size-differs", change(2, stored=23), ["23 stored bytes", "24, the size of the member"], member(DATA))
    bad("member-size-huge", change(2, stored=0xFFFFFFFE, size=0xFFFFFFFE), ["4294967294 bytes at byte", "them within the"], member(DATA))
    bad("member-offset-huge", change(2, offset=0xFFFFFFFE), ["at byte 4294967294"], member(DATA))
    bad("member-overlaps", change(3, offset=0), ["its header at byte 0", "where the member before it ends"], member("archive/data/1"))
    bad("member-gap", change(2, gap=b"hidden"), ["its header at byte", "expected it at byte"], member("archive/data/1"))
    bad("member-gap-last", change(4, gap=b"hidden"), ["the zip directory at byte", "expected it at byte"])
    bad("member-twice", archive(members() + [Member(DATA, FLOATS)]), ["it twice", "each member once"], member(DATA))
    bad("member-without-name", change(2, name=b"", local_name=b""), ["an empty member name"], byte(directory - len(DATA) + 46 + len(PKL) + 46 + len("archive/byteorder") + 46))
    bad("member-name-not-utf-8", change(4, name=b"archive/\xff"), ["a member name that is not UTF-8"],
        byte(directory + sum(46 + len(m.name) for m in members()[:4]) + 46 - (len(b"archive/version") - len(b"archive/\xff"))))
    bad("member-zip64-number-missing", change(2, size=0xFFFFFFFF, stored=0xFFFFFFFF), ["no zip64 number for a field of FFFFFFFF"], member(DATA))
    bad("member-zip64-size-2-63", change(2, size=0xFFFFFFFF, stored=0xFFFFFFFF, directory_extra=u16(1) + u16(16) + u64(1 << 63) * 2),
        ["9223372036854775808 bytes at byte"], member(DATA))
    bad("member-zip64-field-cut", change(2, size=0xFFFFFFFF, stored=0xFFFFFFFF, directory_extra=u16(1) + u16(4) + u32(24)),
        ["no zip64 number"], member(DATA))
    bad("member-zip64-field-twice", change(2, directory_extra=(u16(1) + u16(8) + u64(24)) * 2), ["two zip64 fields"], member(DATA))
    bad("member-extra-leaves-header", change(2, directory_extra=u16(0x4246) + u16(99)), ["a zip extra field at byte", "leaves its header"], member(DATA))
    bad("member-descriptor-missing", change(4, flags=8).replace(b"PK\7\x08", b"PK\7\x09"), ["no matching descriptor", "size 2 behind the data"],
        member("archive/version"))
    bad("member-outside-root", archive(members() + [Member("../escape", "x")]), ['it outside "archive"'], member("../escape"))
    bad("member-dots", archive(members() + [Member("archive/../escape", "x")]), ["an unknown member"], member("archive/../escape"))
    bad("member-absolute", archive([Member("/etc/passwd", "x")] + members()), ["an unknown member"], member("/etc/passwd"))
    bad("member-torchscript", archive(members() + [Member("archive/code/__torch__.py", "x")]), ["a TorchScript program"], member("archive/code/__torch__.py"))
    bad("member-unknown", archive(members() + [Member("archive/extra/x", "x")]), ["an unknown member"], member("archive/extra/x"))
    bad("no-pickle", archive(members()[1:]), ['no member "archive/data.pkl"'])
    bad("no-version", archive(members()[:-1]), ['no member "archive/version"'])
    bad("version-4", change(4, data=b"4\n"), ['found "4\\u{A}"', 'expected "3"'], member("archive/version"))
    bad("version-huge", change(4, data=b"3" * 500), ['expected "3"'], member("archive/version"))
    bad("big-endian", change(1, data=b"big"), ['found "big"', 'expected "little"'], member("archive/byteorder"))

    # The directory and its end.
    size = len(good) - 22 - directory
    bad("directory-count-high", archive(members(), count=6), ["no zip directory record", "at least 46 bytes"], byte(len(good) - 22))
    bad("directory-count-low", archive(members(), count=4), ["61 more bytes in the zip directory", "after 4 members"], byte(len(good) - 22 - 61))
    bad("directory-offset-huge", archive(members(), offset=0xFFFFFFFE), [f"a zip directory of {size} bytes at byte 4294967294"], byte(len(good) - 22))
    bad("directory-size-huge", archive(members(), size=0xFFFFFFFE), ["a zip directory of 4294967294 bytes"], byte(len(good) - 22))
    bad("directory-split", archive(members(), disk=1), ["in several parts"], byte(len(good) - 22))
    record = lambda count, size, offset: b"PK\6\6" + u64(44) + bytes(4) + bytes(8) + u64(count) * 2 + u64(size) + u64(offset)
    locator = lambda at: b"PK\6\7" + bytes(4) + u64(at) + u32(1)
    end = len(good) - 22
    bad("zip64-locator-nowhere", archive(members(), before_end=locator(1 << 63)), ["a zip64 record at byte 9223372036854775808"], byte(end))
    bad("zip64-count-2-63", archive(members(), count=0xFFFF, before_end=record(1 << 63, size, directory) + locator(end)), ["9223372036854775807 zip members", "at most 1000000"])
    bad("zip64-offset-2-64", archive(members(), offset=0xFFFFFFFF, before_end=record(5, size, (1 << 64) - 1) + locator(end)),
        ["at byte 18446744073709551615"], byte(end + 76))
    bad("zip64-disagrees", archive(members(), before_end=record(4, size, directory) + locator(end)), ["4 members", "expected 5"], byte(end))

    # The pickle as a program.
    P = lambda offset: member(PKL, offset)
    def program(name, body, says, at): bad("pickle-" + name, archive(members(body)), says, P(at))
    program("empty", b"", ["the end of the pickle"], 0)
    program("protocol-4", pickle(STATE, 4), ["the bytes 128 4", "protocol 2"], 0)
    program("cut-in-string", b"\x80\2X" + u32(9) + b"abc", ["a string of 9 bytes", "the 3 that are left"], 2)
    program("cut-in-integer", b"\x80\2J\1\2", ["the end of the pickle"], 2)
    program("cut-in-double", b"\x80\2G" + bytes(7), ["the end of the pickle"], 2)
    program("cut-in-global", b"\x80\2ctorch\nSi", ["a global name without an end"], 2)
    program("without-stop", b"\x80\2}", ["the end of the pickle"], 3)
    program("bytes-after-stop", pickle(STATE) + b"cos\nsystem\n", ["STOP with 1 values, 0 marks and 11 more bytes"], 2 + len(STATE))
    program("stop-on-empty-stack", pickle(b""), ["STOP with 0 values"], 2)
    program("stop-on-two-values", pickle(b"}}"), ["STOP with 2 values"], 4)
    program("stop-in-mark", pickle(b"(}"), ["1 marks"], 4)
    program("string-2-32", b"\x80\2X" + u32(0xFFFFFFFF) + b"a", ["a string of 4294967295 bytes", "at most 65536"], 2)
    program("string-not-utf-8", b"\x80\2U\1\xff.", ["a string that is not UTF-8"], 2)
    program("integer-of-9-bytes", b"\x80\2\x8a\x09" + bytes(9) + b".", ["an integer of 9 bytes", "at most 8"], 2)
    program("stack-underflow", pickle(b"\x87"), ["0 values on the stack", "3 for opcode"], 2)
    program("pop-below-mark", pickle(b"}(s"), ["0 values on the stack", "2 for opcode"], 4)
    program("no-mark", pickle(b"}u"), ["no mark on the stack"], 3)
    program("memo-unset", pickle(b"j" + u32(0xFFFFFFFF)), ["memo 4294967295, which is not set"], 2)
    program("put-on-empty-stack", pickle(b"q\0"), ["an empty stack"], 2)
    program("odd-items", pickle(b"}(Nu"), ["1 keys and values"], 5)
    program("items-into-list", pickle(b"](NNu"), ["a list under SETITEM"], 6)
    program("append-to-dictionary", pickle(b"}Na"), ["a dictionary under APPEND"], 4)
    program("stack-global", pickle(p_string("os") + p_string("system") + b"\x93"), ["opcode 0x93"], 2 + 7 + 11)
    program("inst", pickle(b"(ios\nsystem\n"), ["opcode 0x69"], 3)
    program("newobj", pickle(p_global("torch", "Size") + b")\x81"), ["opcode 0x81"], 2 + 13)
    program("extension", pickle(b"\x82\1"), ["opcode 0x82"], 2)
    program("os-system", pickle(p_global("os", "system") + p_tuple(p_string("true")) + b"R"), ['the global "os.system"', "it is not imported"], 2)
    program("eval", pickle(p_global("builtins", "eval") + p_tuple(p_string("1")) + b"R"), ['"builtins.eval"'], 2)
    program("module-split-elsewhere", pickle(p_global("torch", "_utils._rebuild_tensor_v2")), ['"torch._utils._rebuild_tensor_v2"', "not imported"], 2)
    program("terminal-escape", pickle(p_global("\x1b[2J", "x")), ['"\\u{1B}[2J.x"'], 2)
    program("call-of-a-string", pickle(p_string("os.system") + b")R"), ['REDUCE of the string "os.system"'], 2 + 14 + 1)
    program("call-of-a-storage-type", pickle(p_global("torch", "FloatStorage") + b")R"), ["torch.FloatStorage with 0 arguments"], 2 + 20 + 1)
    program("build-on-dictionary", pickle(b"}}b"), ["BUILD of a dictionary from a dictionary"], 4)
    program("build-state", pickle(ORDERED_DICT + p_dict(p_string("__class__"), NONE) + b"b"), ["BUILD of a dictionary"], 2 + len(ORDERED_DICT) + 18)
    program("persistent-id-string", pickle(p_string("0") + b"Q"), ["another persistent id"], 2 + 6)
    program("persistent-id-of-6", pickle(p_tuple(p_string("storage"), p_global("torch", "FloatStorage"), p_string("0"), p_string("cpu"), p_integer(6), NONE) + b"Q"),
            ["another persistent id"], 2 + len(p_storage()))
    program("storage-of-no-type", pickle(p_storage(type="Size")), ["a storage of type torch.Size"], 2 + len(p_storage(type="Size")) - 1)
    program("storage-negative", pickle(p_storage(count=-1)), ['storage "0" of -1 elements'], 2 + len(p_storage(count=-1)) - 1)
    program("tensor-without-strides", pickle(p_global("torch._utils", "_rebuild_tensor_v2") + p_tuple(p_storage(), p_integer(0), p_integers([2])) + b"R"),
            ["torch._utils._rebuild_tensor_v2 with 3 arguments"], 2 + len(p_global("torch._utils", "_rebuild_tensor_v2") + p_tuple(p_storage(), p_integer(0), p_integers([2]))))
    hooked = p_tensor(hooks=p_dict(p_string("h"), NONE))
    program("tensor-with-hooks", pickle(hooked), ["hooks a dictionary with a tensor"], 2 + len(hooked) - 1)
    negated = p_tensor(more=p_dict(p_string("neg"), TRUE))
    program("tensor-negated", pickle(negated), ["metadata a dictionary with a tensor"], 2 + len(negated) - 1)
    mixed = p_tensor_v3(p_storage(), (6,), (1,), p_global("torch", "int32"))
    program("tensor-of-two-types", pickle(mixed), ["dtype I32 over a storage of F32"], 2 + len(mixed) - 1)
    untyped = p_tensor(p_storage("0", "UntypedStorage", 24, "torch.storage"))
    program("tensor-of-no-type", pickle(untyped), ["dtype none over a storage of bytes"], 2 + len(untyped) - 1)
    floating = p_global("torch._utils", "_rebuild_tensor_v2") + p_tuple(p_storage(), p_integer(0), p_tuple(b"G" + bytes(8)), p_integers([1]), FALSE, ORDERED_DICT)
    program("tensor-with-float-shape", pickle(floating + b"R"), ["a tensor of (a storage, the integer 0, a tuple, a tuple, False)"], 2 + len(floating))

    # What the pickle holds.
    bad("root-tuple", state(b")", []), ["found a tuple", "a dictionary of tensors"], member(PKL))
    bad("root-deep", state(b")" + b"\x85" * 2000, []), ["found a tuple"], member(PKL))
    bad("root-doubling", state(b"]" + b"q\0(" + b"h\0" * 2 + b"e" + b"(h\0h\0e" * 40, []), ["found a list"], member(PKL))
    bad("root-holds-itself", state(b"}q\0" + p_string("me") + b"h\0s", []), ["a dictionary", "a tensor"], key("me"))
    bad("nested-checkpoint", state(p_dict(p_string("model"), p_dict(p_string("w"), p_tensor()))), ["a dictionary", "save the state dict alone"], key("model"))
    bad("step-number", state(p_dict(p_string("w"), p_tensor(), p_string("step"), p_integer(3))), ["the integer 3"], key("step"))
    bad("name-number", state(p_dict(p_integer(1), p_tensor())), ["the integer 1 as a key"], member(PKL))
    bad("name-twice", state(p_dict(p_string("w"), p_tensor(), p_string("w"), p_tensor())), ["the name twice"], tensor("w"))
    bad("storage-missing", state(p_dict(p_string("w"), p_tensor()), []), ['no member for its storage "0"', '"archive/data/0"'], tensor("w"))
    bad("storage-path-escape", state(p_dict(p_string("w"), p_tensor(p_storage("../../x")))), ['its storage "../../x"'], tensor("w"))
    bad("storage-surplus", archive(members(storages=(("0", FLOATS), ("1", bytes(16)), ("2", b"x")))), ["a storage that no tensor reads"], member("archive/data/2"))
    bad("storage-short", w(p_tensor(p_storage(count=7))), ['storage "0" of 7 F32 in 24 bytes', "28 bytes"], tensor("w"))
    bad("storage-long", w(p_tensor(p_storage(count=5), shape=(5,), strides=(1,))), ['storage "0" of 5 F32 in 24 bytes', "20 bytes"], tensor("w"))
    bad("storage-wrong-type", w(p_tensor(p_storage(type="DoubleStorage"))), ['storage "0" of 6 F64 in 24 bytes', "48 bytes"], tensor("w"))
    bad("storage-2-62", w(p_tensor(p_storage(count=1 << 62))), ["of 4611686018427387904 F32", "within 2^63"], tensor("w"))
    bad("storage-of-two-types", state(p_dict(p_string("a"), p_tensor(), p_string("b"), p_tensor(p_storage(type="IntStorage")))), ["another type or size than before"], tensor("b"))
    for name, offset, shape, strides, says in [
            ("one-too-far", 1, (2, 3), (3, 1), "offset 1, shape [2, 3], strides [3, 1]"), ("offset-negative", -1, (1,), (1,), "offset -1"),
            ("offset-2-63", (1 << 63) - 1, (1,), (1,), "offset 9223372036854775807"), ("stride-negative", 5, (2,), (-1,), "strides [-1]"),
            ("stride-2-63", 0, (2,), ((1 << 63) - 1,), "strides [9223372036854775807]"), ("strides-missing", 0, (2,), (), "0 strides for shape [2]"),
            ("strides-surplus", 0, (2,), (1,) * 1000, "1000 strides for shape [2]"), ("shape-negative", 0, (-2,), (1,), "a negative size"),
            ("shape-2-63", 0, (1 << 62, 4), (0, 0), "beyond 2^63 bits"), ("empty-outside", 7, (0,), (1,), "offset 7"),
            ("expanded-2-40", 0, (1 << 40,), (0,), "4398046511104 bytes expanded from 24"), ("1000-axes", 0, (1,) * 1000, (0,) * 1000, "1000 axes")]:
        bad("view-" + name, w(p_tensor(offset=offset, shape=shape, strides=strides)), [says], tensor("w"))


# ---- a folder with an index

def index_cases():
    INDEX = "model.safetensors.index.json"
    shard = lambda names: safetensors("{%s}" % ",".join(json.dumps(name) + ":" + entry("U8", [2], 2 * i, 2 * i + 2) for i, name in enumerate(names)),
                                      names[0].encode()[:1] * 2 * len(names))
    one_shard, other = shard("ab"), shard("c")
    def index(weight_map, total=6, **more): return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map, **more})
    MAP = {"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}

    def ok(name, files, tensors): add("index", f"index/{name}", files, tensors=tensors)

    def bad(name, text, says, place=None, inside=INDEX, **files):
        """`text` is the index, or changes to the good map; `files` are shards beside or instead of the good ones, None for none."""
        path = f"index/{name}"
        if isinstance(text, dict): text = index({k: v for k, v in {**MAP, **text}.items() if v != ()})
        shards = {"s1": one_shard, "s2": other, **files}
        add("index", path, {INDEX: text, **{k + ".safetensors": v for k, v in shards.items() if v is not None}}, says, place,
            path if inside is None else f"{path}/{inside}")

    ok("good", {INDEX: index(MAP), "s1.safetensors": one_shard, "s2.safetensors": other}, ["a", "b", "c"])
    ok("single-file-wins", {INDEX: "broken", "model.safetensors": one_shard}, ["a", "b"])
    ok("without-metadata", {INDEX: json.dumps({"weight_map": MAP}), "s1.safetensors": one_shard, "s2.safetensors": other}, ["a", "b", "c"])
    ok("canonically-equal-names", {INDEX: index({"\u00e9": "s1.safetensors", "e\u0301": "s2.safetensors"}, 4), "s1.safetensors": shard(["\u00e9"]),
                                   "s2.safetensors": shard(["e\u0301"])}, ["\u00e9", "e\u0301"])

    good = index(MAP)
    for name, length, says in [("before-map", good.index('"weight_map"') - 2, '"," or "}"'), ("in-name", good.index('"b"') + 2, "the rest of a string"),
                               ("in-shard", good.index("s2.safe"), "the rest of a string"), ("last-brace", len(good) - 1, '"," or "}"')]:
        bad("cut-" + name, good[:length], ["the end of the text", says], byte(length))
    bad("empty-index", "", ["the end of the text", "a JSON value"], byte(0))
    bad("array", "[]", ["an array of 0", "weight_map"])
    bad("map-missing", '{"metadata":{"total_size":6}}', ["found nothing", "an object of tensor names"], key("weight_map"))
    bad("map-array", '{"weight_map":["a"]}', ["an array of 1"], key("weight_map"))
    bad("map-twice", '{"weight_map":{},"weight_map":{}}', ["a second time at byte 17"], key("weight_map"))
    bad("surplus-key", index(MAP, other=1), ["an unknown key"], key("other"))
    for name, text in [("metadata-array", json.dumps({"metadata": [], "weight_map": MAP})), ("metadata-null", json.dumps({"metadata": None, "weight_map": MAP})),
                       ("total-too-low", index(MAP, 5)), ("total-string", index(MAP, "6")), ("total-float", index(MAP, 6.0)), ("total-negative", index(MAP, -6)),
                       ("total-2-64", index(MAP, 1 << 64))]:  # informative: nobody reads it
        ok(name, {INDEX: text, "s1.safetensors": one_shard, "s2.safetensors": other}, ["a", "b", "c"])
    bad("tensor-twice", good.replace('"b": "s1', '"a": "s2'), ["a second time at byte"], key("a"))
    for name, value in [("absolute", "/etc/passwd"), ("parent", "../good/s1.safetensors"), ("parent-alone", ".."), ("dot", "."), ("dot-slash", "./s1.safetensors"),
                        ("subfolder", "sub/s1.safetensors"), ("backslash", "..\\s1.safetensors"), ("empty", ""), ("nul", "s1.safetensors\0.txt"),
                        ("terminal", "\x1b[2Js1.safetensors"), ("500-bytes", "s" * 500)]:
        spelled = {"nul": 's1.safetensors\\u{0}.txt"', "terminal": '"\\u{1B}[2Js1', "500-bytes": 's…"'}.get(name, json.dumps(value))
        bad("escape-" + name, {"b": value}, ["the shard the string", spelled, "a file in the same folder"], tensor("b"))
    bad("shard-number", {"b": 1}, ["the shard 1"], tensor("b"))
    bad("shard-null", {"b": None}, ["the shard null"], tensor("b"))
    bad("shard-missing", {"c": "s3.safetensors"}, ['no file "s3.safetensors" beside it'])
    bad("shard-is-index", {"c": INDEX}, ["a header length of", "is this a safetensors file?"], byte(0))
    bad("shard-is-folder", {"c": "folder"}, ["a directory"], inside="folder", **{"folder/keep": b"x"})
    bad("shard-cut", good, [f"{len(other) - 1} bytes", "cut off"], inside="s2.safetensors", s2=other[:-1])
    bad("shard-empty", good, ["0 bytes"], inside="s2.safetensors", s2=b"")
    bad("tensor-in-no-shard", {"d": "s2.safetensors"}, ["no such tensor in any shard", 'it in "s2.safetensors"'], tensor("d"))
    bad("tensor-in-other-shard", {"b": "s2.safetensors"}, ['it in "s1.safetensors"', 'expected it in "s2.safetensors"'], tensor("b"))
    bad("tensor-in-two-shards", good, ["s1.safetensors and in", "s2.safetensors", "it in one shard"], tensor("a"), s2=shard("ca"))
    bad("tensor-not-in-map", {"b": ()}, ['it in "s1.safetensors" but not in weight_map'], tensor("b"))
    bad("canonically-equal-is-another", {"e\u0301": "s2.safetensors"}, ["no such tensor in any shard"], tensor("e\u0301"), s2=shard(["c", "\u00e9"]))
    add("index", "index/nothing", {"README": "no weights here\n"}, ["neither model.safetensors nor model.safetensors.index.json"])
    add("index", "index/not-there", None, ["neither model.safetensors"])


# ---- configurations

CONFIG = dict(model_type="llama", vocab_size=5, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
              rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
ADAPTER = dict(peft_type="MIXLORA", routing_strategy="mixlora", r=2, lora_alpha=4, lora_dropout=0.05, num_experts=2, top_k=1, act_fn="silu",
               target_modules=["q_proj", "down_proj"])


def changed(base, changes): return json.dumps({k: v for k, v in {**base, **changes}.items() if v != ()})


def config_cases():
    def ok(name, changes): add("config", f"config/{name}.json", changed(CONFIG, changes))
    def bad(name, content, says, place=None): add("config", f"config/{name}.json", changed(CONFIG, content) if isinstance(content, dict) else content, says, place)
    good = changed(CONFIG, {})

    ok("good", {})
    ok("nulls", dict(num_key_value_heads=None, rope_scaling=None, sliding_window=None, quantization_config=None, head_dim=None))
    ok("unknown-keys", {"a key nobody knows": 3, "\u00e9": 1, "e\u0301": 2})
    ok("nested-rope", dict(rope_parameters=dict(rope_type="default", rope_theta=5e5)))
    for length, says in [(0, "a JSON value"), (1, "a key in quotes"), (4, "the rest of a string"), (good.index(":"), '":" after the key "model_type"'),
                         (good.index("5"), "a JSON value"), (good.index(", \"hidden"), '"," or "}"'), (len(good) - 1, "e")]:
        bad(f"cut-at-{length}", good[:length], ["the end of the text", says], byte(length))
    bad("two-texts", good + "\n{}", ['"{"', "the end of the text"], byte(len(good) + 1))
    bad("array", "[]", ["an array of 0", "a JSON object"])
    bad("number", "7", ["found 7", "a JSON object"])
    bad("comment", "{ // sizes\n}", ['"/"', "a key in quotes"], byte(2))
    bad("single-quotes", "{'a': 1}", ["a key in quotes"], byte(1))
    bad("nan", '{"rms_norm_eps": NaN}', ['"N"', "a JSON value"], byte(17))
    bad("infinity", '{"rms_norm_eps": -Infinity}', ['"I"', "a digit"], byte(18))
    bad("nested-1000", '{"rope_scaling":' + '{"a":' * 1000, ["nesting 129 deep"], byte(16 + 5 * 127))
    bad("byte-order-mark", b"\xef\xbb\xbf" + good.encode(), ["byte 0xEF", "a JSON value"], byte(0))
    bad("utf-16", good.encode("utf-16"), ["byte 0xFF", "UTF-8"], byte(0))
    bad("size-twice", good.replace('"intermediate_size"', '"hidden_size"'), ["a second time at byte"], key("hidden_size"))
    ok("size-missing", dict(hidden_size=()))
    bad("size-null", dict(hidden_size=None), ["found null", "or no such key"], key("hidden_size"))
    bad("rope-base-null", dict(rope_theta=None), ["found null"], key("rope_theta"))
    bad("size-zero", dict(intermediate_size=0), ["found 0", "1...16777216"], key("intermediate_size"))
    bad("size-negative", dict(vocab_size=-5), ["found -5"], key("vocab_size"))
    bad("size-float", dict(vocab_size=5.0), ["found 5.0", "a whole number"], key("vocab_size"))
    bad("size-exponent", good.replace('"vocab_size": 5', '"vocab_size": 5e0'), ["found 5e0"], key("vocab_size"))
    bad("size-string", dict(hidden_size="4"), ['the string "4"'], key("hidden_size"))
    bad("size-2-25", dict(hidden_size=1 << 25), ["found 33554432", "1...16777216"], key("hidden_size"))
    bad("size-2-64", dict(vocab_size=1 << 64), ["found 18446744073709551616"], key("vocab_size"))
    bad("size-5000-digits", good.replace('"vocab_size": 5', '"vocab_size": ' + "9" * 300), ["a number of 300 characters"], key("vocab_size"))
    bad("size-beyond-double", good.replace('"vocab_size": 5', '"vocab_size": ' + "9" * 400), ["a number of 400 characters", "the range of Double"], byte(good.index("5")))
    bad("layers-huge", dict(num_hidden_layers=1_000_000), ["found 1000000", "1...10000"], key("num_hidden_layers"))
    bad("heads-do-not-divide", dict(num_attention_heads=3), ["3 heads for hidden_size 4", "equal width"], key("num_attention_heads"))
    bad("heads-too-many", dict(num_attention_heads=8), ["8 heads for hidden_size 4"], key("num_attention_heads"))
    bad("heads-odd-width", dict(num_attention_heads=4), ["4 heads of width 1", "an even width"], key("num_attention_heads"))
    bad("key-value-heads", dict(num_attention_heads=2, num_key_value_heads=3), ["3 for 2 query heads", "a divisor of 2"], key("num_key_value_heads"))
    bad("key-value-heads-zero", dict(num_key_value_heads=0), ["found 0"], key("num_key_value_heads"))
    bad("head-width", dict(head_dim=3), ["2 heads of width 3", "an even width"], key("head_dim"))
    bad("epsilon-negative", dict(rms_norm_eps=-1e-5), ["found -1e-05", "a number ≥ 0"], key("rms_norm_eps"))
    bad("epsilon-string", dict(rms_norm_eps="1e-5"), ['the string "1e-5"'], key("rms_norm_eps"))
    bad("rope-base-zero", dict(rope_theta=0), ["found 0", "a number > 0"], key("rope_theta"))
    def scaled(name, scaling, says, place, five=False, **more):
        where = "rope_parameters" if five else "rope_scaling"
        bad("rope-" + name, {where: scaling, **more}, says, key(f"{where}.{place}" if place else where))
    PAIR = dict(short_factor=[1.0], long_factor=[2.0])
    for kind, rest in [("linear", dict(factor=2.0)), ("dynamic", dict(factor=2.0)), ("yarn", dict(factor=2.0)), ("longrope", dict(factor=2, **PAIR)), ("su", dict(factor=2, **PAIR))]:
        ok("rope-" + kind, dict(rope_scaling=dict(type=kind, **rest)))
    ok("rope-five-yarn", dict(rope_parameters=dict(rope_type="yarn", rope_theta=5e5, factor=4.0, original_max_position_embeddings=16)))
    ok("rope-twice-the-same", dict(rope_parameters=dict(rope_type="linear", factor=2), rope_scaling=dict(type="linear", factor=2.0)))
    scaled("scaled", dict(rope_type="llama3", factor=8.0), ["found nothing", "a number > 0"], "low_freq_factor")
    scaled("nested-scaled", dict(rope_type="yarn"), ["found nothing", "a number > 0"], "factor", five=True)
    scaled("nested-base", dict(rope_type="default", rope_theta="big"), ['the string "big"'], "rope_theta", five=True)
    scaled("for-a-terminal", {"rope_type": "x" * 500}, ["xxx…", "one that is built"], "rope_type")
    scaled("unknown", dict(type="mrope", mrope_section=[1]), ['"mrope"', '"longrope"'], "type")
    scaled("number-for-a-type", dict(rope_type=7), ["found 7"], "rope_type")
    scaled("two-types", dict(rope_type="linear", type="dynamic", factor=2), ['"linear"', "the same under rope_type and type"], "rope_type")
    scaled("without-a-type", dict(factor=2.0), ["found nothing", '"linear"'], "rope_type")
    scaled("array", [1], ["an array of 1", "an object"], "")
    scaled("string", "linear", ['the string "linear"', "an object"], "")
    scaled("by-layer", dict(full_attention=dict(rope_type="default"), sliding_attention=dict(rope_type="default")), ["for each type of layer"], "full_attention", five=True)
    scaled("factor-0", dict(rope_type="linear", factor=0), ["found 0", "a number > 0"], "factor")
    scaled("factor-negative", dict(rope_type="dynamic", factor=-1), ["found -1"], "factor")
    scaled("factor-string", dict(rope_type="yarn", factor="2"), ['the string "2"'], "factor")
    scaled("beta-negative", dict(rope_type="yarn", factor=2, beta_fast=-1), ["found -1", "a number ≥ 0"], "beta_fast")
    scaled("truncate-number", dict(rope_type="yarn", factor=2, truncate=1), ["found 1", "true or false"], "truncate")
    scaled("mscale-ratio", dict(rope_type="yarn", factor=2.718281828459045, mscale=1, mscale_all_dim=-10), ["a finite ratio"], "mscale_all_dim")
    scaled("original-0", dict(rope_type="yarn", factor=2, original_max_position_embeddings=0), ["found 0"], "original_max_position_embeddings")
    scaled("long-factor-missing", dict(rope_type="longrope", factor=2, short_factor=[1]), ["found nothing", "1 numbers > 0"], "long_factor")
    scaled("short-factor-of-two", dict(rope_type="longrope", factor=2, short_factor=[1, 1], long_factor=[1]), ["an array of 2", "1 numbers > 0"], "short_factor")
    scaled("long-factor-0", dict(rope_type="longrope", factor=2, short_factor=[1], long_factor=[0]), ["an array of 1"], "long_factor")
    scaled("long-factor-string", dict(rope_type="longrope", factor=2, short_factor=[1], long_factor=["2"]), ["an array of 1"], "long_factor")
    scaled("long-without-a-factor", dict(rope_type="longrope", **PAIR), ["found null", "cos and sin"], "factor")
    scaled("nested-partial", dict(rope_type="default", partial_rotary_factor=0.25), ["found 0.25", "whole heads"], "partial_rotary_factor", five=True)
    bad("rope-no-positions", dict(rope_scaling=dict(type="dynamic", factor=2), max_position_embeddings=None), ["found null"], key("max_position_embeddings"))
    bad("rope-original-of-1", dict(rope_scaling=dict(type="longrope", **PAIR), original_max_position_embeddings=1), ["with 1 positions"], key("rope_scaling.factor"))
    bad("rope-yarn-base-1", dict(rope_scaling=dict(type="yarn", factor=2), rope_theta=1), ["found 1", "another base"], key("rope_theta"))
    bad("rope-twice-different", dict(rope_parameters=dict(rope_type="linear", factor=2), rope_scaling=dict(type="linear", factor=3)), ["what rope_parameters says"], key("rope_scaling"))
    bad("rope-partial", dict(partial_rotary_factor=0.5), ["found 0.5", "not built yet"], key("partial_rotary_factor"))
    bad("bias-string", dict(attention_bias="false"), ['the string "false"', "true or false"], key("attention_bias"))
    bad("bias-number", dict(mlp_bias=0), ["found 0", "true or false"], key("mlp_bias"))
    bad("tied-number", dict(tie_word_embeddings=1), ["found 1"], key("tie_word_embeddings"))
    bad("activation", dict(hidden_act="gelu"), ['the string "gelu"', '"silu"'], key("hidden_act"))
    bad("model-type", dict(model_type="gemma3"), ['the string "gemma3"', '"llama" or "mistral" or "qwen2" or "gemma" or "gemma2"'], key("model_type"))
    bad("model-type-missing", dict(model_type=()), ["found nothing"], key("model_type"))
    bad("model-type-null", dict(model_type=None), ["found nothing"], key("model_type"))
    ok("window", dict(sliding_window=4096))
    bad("quantised", dict(quantization_config=dict(quant_method="gptq", bits=4)), ['"gptq"', "not built yet"], key("quantization_config"))
    add("config", "config/not-there.json", None, ["errno 2 of stat"])


def adapter_config_cases():
    def ok(name, changes): add("adapter-config", f"adapter-config/{name}.json", changed(ADAPTER, changes))

    def bad(name, content, says, place=None, inside=None):
        path = f"adapter-config/{name}.json"
        add("adapter-config", path, changed(ADAPTER, content) if isinstance(content, dict) else content, says, place, inside and path + inside)
    EXPERT = ", expert_lora"
    good = changed(ADAPTER, {})

    ok("good", {})
    ok("inert-and-empty-keys", dict(jitter_noise=0.1, revision="main", something_new=None, another={}, third=0))
    ok("targets-as-object", dict(target_modules=dict(q_proj=True, up_proj=False)))
    ok("expert-branch", dict(expert_lora=dict(r=4, lora_alpha=8)))
    for length, says in [(0, "a JSON value"), (good.index('"r"') + 1, "the rest of a string"), (good.index("[") + 1, "a JSON value"), (len(good) - 1, '"," or "}"')]:
        bad(f"cut-at-{length}", good[:length], ["the end of the text", says], byte(length))
    bad("string", '"MIXLORA"', ['the string "MIXLORA"', "a JSON object"])
    bad("rank-twice", good.replace('"lora_alpha"', '"r"'), ["a second time"], key("r"))
    bad("rank-missing", dict(r=()), ["found nothing", "1...65536"], key("r"))
    bad("rank-zero", dict(r=0), ["found 0"], key("r"))
    bad("rank-huge", dict(r=1 << 40), ["found 1099511627776"], key("r"))
    bad("rank-float", dict(r=2.0), ["found 2.0"], key("r"))
    bad("alpha-missing", dict(lora_alpha=()), ["found nothing"], key("lora_alpha"))
    bad("alpha-string", dict(lora_alpha="4"), ['the string "4"'], key("lora_alpha"))
    bad("dropout-one", dict(lora_dropout=1), ["found 1", "[0, 1)"], key("lora_dropout"))
    bad("dropout-negative", dict(lora_dropout=-0.1), ["found -0.1"], key("lora_dropout"))
    bad("rank-stabilised-string", dict(use_rslora="yes"), ['the string "yes"', "true or false"], key("use_rslora"))
    bad("experts-missing", dict(num_experts=()), ["found nothing", "1...4096"], key("num_experts"))
    bad("experts-zero", dict(num_experts=0), ["found 0"], key("num_experts"))
    bad("experts-huge", dict(num_experts=1 << 32), ["found 4294967296", "1...4096"], key("num_experts"))
    bad("top-k-above-experts", dict(top_k=3), ["found 3", "1...2"], key("top_k"))
    bad("top-k-zero", dict(top_k=0), ["found 0"], key("top_k"))
    bad("targets-missing", dict(target_modules=()), ["found nothing", "a list of names among q_proj"], key("target_modules"))
    bad("targets-pattern", dict(target_modules=".*_proj"), ['the string ".*_proj"'], key("target_modules"))
    bad("targets-unknown", dict(target_modules=["q_proj", "lm_head"]), ['the string "lm_head"'], key("target_modules"))
    bad("targets-number", dict(target_modules=[1]), ["found 1"], key("target_modules"))
    bad("targets-object-number", dict(target_modules=dict(q_proj=1)), ["found 1", "true or false"], key("target_modules.q_proj"))
    bad("targets-object-unknown", dict(target_modules=dict(w1=True)), ['the string "w1"'], key("target_modules"))
    bad("kind-lora", dict(peft_type="LORA"), ['the string "mixlora"', "a LORA adapter"], key("routing_strategy"))
    for method in ["pissa", "olora", "loftq", "corda"]:
        bad("init-" + method, dict(init_lora_weights=method), [f'the string "{method}"', "change the base weights"], key("init_lora_weights"))
    bad("kind-number", dict(peft_type=1), ["found 1"], key("peft_type"))
    bad("routing-missing", dict(routing_strategy=()), ["found nothing", '"mixlora"'], key("routing_strategy"))
    bad("routing-switch", dict(routing_strategy="mixlora-switch"), ['"mixlora-switch"'], key("routing_strategy"))
    dynamic = dict(routing_strategy="mixlora-dynamic", top_k=())
    bad("dynamic-top-k", dict(dynamic, top_k=1), ["found 1", "what it means is not known here"], key("top_k"))
    bad("dynamic-top-p-zero", dict(dynamic, top_p=0), ["found 0", "a number in (0, 1]"], key("top_p"))
    bad("dynamic-top-p-large", dict(dynamic, top_p=1.5), ["found 1.5", "a number in (0, 1]"], key("top_p"))
    bad("dynamic-temperature", dict(dynamic, temperature=-1), ["found -1", "a number ≥ 0"], key("temperature"))
    bad("routing-legacy", dict(routing_strategy="mixtral"), ['"mixtral"'], key("routing_strategy"))
    bad("activation", dict(act_fn="relu"), ['the string "relu"'], key("act_fn"))
    bad("coefficient-negative", dict(router_aux_loss_coef=-1), ["found -1", "a number ≥ 0"], key("router_aux_loss_coef"))
    bad("coefficient-checked-when-off", dict(router_loss=False, router_aux_loss_coef="x"), ['the string "x"'], key("router_aux_loss_coef"))
    bad("init-range-negative", dict(router_init_range=-0.02), ["found -0.02"], key("router_init_range"))
    bad("router-loss-string", dict(router_loss="true"), ['the string "true"'], key("router_loss"))
    for name, value, says in [("use_dora", True, "found true"), ("rank_pattern", {"q_proj": 4}, '{"q_proj":4}'), ("alpha_pattern", {"q_proj": 4}, '{"q_proj":4}'),
                              ("modules_to_save", ["lm_head"], "an array of 1"), ("fan_in_fan_out", True, "found true"),
                              ("layers_to_transform", [0], "an array of 1"), ("lora_bias", True, "found true"), ("bias", "all", 'the string "all"')]:
        bad("unbuilt-" + name.replace("_", "-"), {name: value}, [says, "not built yet"], key(name))
    bad("unknown-key", dict(target_parameters=["experts"]), ["an array of 1", "what it means is not known here"], key("target_parameters"))
    bad("unknown-key-canonically-equal", good[:-1] + ', "\u00e9": 0, "e\u0301": 1}', ["found 1"], key("e\u0301"))
    bad("unknown-object-huge", dict(something={"x" * 500: 1}), ["xxx…"], key("something"))
    bad("expert-branch-array", dict(expert_lora=[]), ["an array of 0", "an object with r"], key("expert_lora"))
    bad("expert-branch-rank", dict(expert_lora=dict(r=0)), ["found 0"], key("r"), EXPERT)
    bad("expert-branch-dora", dict(expert_lora=dict(use_dora=True)), ["not built yet"], key("use_dora"), EXPERT)
    bad("expert-branch-unknown-key", dict(expert_lora=dict(rnak=4)), ["found 4", "not known here"], key("rnak"), EXPERT)
    bad("nested-1000", '{"expert_lora":' + "[" * 1000, ["nesting 129 deep"], byte(15 + 127))
    add("adapter-config", "adapter-config/not-there.json", None, ["errno 2 of stat"])


# ---- GGUF

TYPES = dict(u8=0, i8=1, u16=2, i16=3, u32=4, i32=5, f32=6, bool=7, string=8, array=9, u64=10, i64=11, f64=12)
FORMS = dict(u8="B", i8="b", u16="H", i16="h", u32="I", i32="i", f32="f", bool="B", u64="Q", i64="q", f64="d")
GGML = dict(F32=0, F16=1, Q4_0=2, Q4_1=3, Q5_0=6, Q5_1=7, Q8_0=8, Q2_K=10, Q3_K=11, Q4_K=12, Q5_K=13, Q6_K=14, I8=24, I16=25, I32=26, I64=27, F64=28, BF16=30)
BLOCKS = dict(F32=(1, 4), F16=(1, 2), BF16=(1, 2), F64=(1, 8), I8=(1, 1), I16=(1, 2), I32=(1, 4), I64=(1, 8), Q8_0=(32, 34), Q4_0=(32, 18), Q4_1=(32, 20),
              Q5_0=(32, 22), Q5_1=(32, 24), Q2_K=(256, 84), Q3_K=(256, 110), Q4_K=(256, 144), Q5_K=(256, 176), Q6_K=(256, 210))


def g_string(value): return u64(len(text(value))) + text(value)


def g_value(kind, value):
    """A value without its type; an array is (element kind, list)."""
    if kind == "string": return g_string(value)
    if kind == "array": return u32(TYPES[value[0]]) + u64(len(value[1])) + b"".join(g_value(value[0], v) for v in value[1])
    return struct.pack("<" + FORMS[kind], value)


def g_key(name, kind, value): return g_string(name) + u32(TYPES[kind]) + g_value(kind, value)
def g_raw(name, code, content=b""): return g_string(name) + u32(code) + content
def g_info(name, sizes, kind, offset): return g_string(name) + u32(len(sizes)) + b"".join(map(u64, sizes)) + u32(GGML.get(kind, kind)) + u64(offset)


def g_size(kind, sizes):
    count = 1
    for size in sizes: count *= size
    return count // BLOCKS[kind][0] * BLOCKS[kind][1]


def gguf(keys=(), tensors=(), version=3, alignment=32, infos=None, data=None, counts=None, padded=True):
    """A file. `tensors` are (name, sizes innermost first, type, bytes or None for zeros); the rest overrides what follows from them."""
    made, body = [], b""
    for name, sizes, kind, content in tensors:
        made.append(g_info(name, sizes, kind, len(body)))
        body += content if content is not None else bytes(g_size(kind, sizes))
        if padded or name != tensors[-1][0]: body += bytes(-len(body) % alignment)
    infos = made if infos is None else infos
    head = b"GGUF" + u32(version) + b"".join(map(u64, counts or (len(infos), len(keys)))) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + (body if data is None else data)


G_KEYS = [g_key("general.architecture", "string", "test"), g_key("test.layers", "u32", 2), g_key("test.flag", "bool", 1),
          g_key("test.names", "array", ("string", ["a", "", "\u00e9"])), g_key("test.scores", "array", ("f32", [0.5, -1.0]))]
G_TENSORS = [("w", [3, 2], "F32", struct.pack("<6f", 1.5, -2, 0, 0.25, 3, 4)), ("q", [32, 2], "Q8_0", bytes(range(68))), ("scalar", [], "F32", None)]
G_GOOD = gguf(G_KEYS, G_TENSORS)


def gguf_cases():
    def ok(name, content, tensors): add("gguf", f"gguf/{name}.gguf", content, tensors=tensors)
    def bad(name, content, says, place=None): add("gguf", f"gguf/{name}.gguf", content, says, place)
    def one(sizes, kind, size=4, offset=0): return gguf(infos=[g_info("x", sizes, kind, offset)], data=bytes(size))
    FIRST = 24  # where the first key or tensor begins
    names = ["w", "q", "scalar"]

    ok("good", G_GOOD, names)
    ok("version-2", gguf(G_KEYS, G_TENSORS, version=2), names)
    ok("last-padding-missing", gguf(G_KEYS, G_TENSORS, padded=False), names)
    ok("nothing", gguf(), [])
    ok("nothing-and-no-padding", gguf()[:24], [])
    ok("alignment-8", gguf([g_key("general.alignment", "u32", 8)], G_TENSORS, alignment=8), names)
    ok("alignment-4096", gguf([g_key("general.alignment", "u32", 4096)], G_TENSORS, alignment=4096, padded=False), names)
    ok("alignment-not-first", gguf(G_KEYS + [g_key("general.alignment", "u32", 64)], G_TENSORS, alignment=64), names)
    ok("every-type-of-value", gguf([g_key(kind, kind, 1) for kind in FORMS] + [g_key("array." + kind, "array", (kind, [1, 0])) for kind in FORMS]), [])
    ok("every-type-of-tensor", gguf(tensors=[(kind, [BLOCKS[kind][0] if "_" in kind else 32, 2], kind, None) for kind in BLOCKS]), list(BLOCKS))
    ok("empty-string-and-array", gguf([g_key("a", "string", ""), g_key("b", "array", ("u64", []))]), [])
    ok("string-not-utf-8", gguf([g_key("a", "string", b"\xff\0\x1b")]), [])
    ok("canonically-equal-names", gguf(tensors=[("\u00e9", [1], "F32", None), ("e\u0301", [1], "F32", None)]), ["\u00e9", "e\u0301"])
    ok("nan-infinity", gguf(tensors=[("x", [3], "F32", NAN + struct.pack("<2f", float("inf"), float("-inf"))), ("s", [32], "Q8_0", b"\0\x7e" + bytes(32))]), ["x", "s"])
    ok("name-of-63-bytes", gguf(tensors=[("n" * 63, [1], "F32", None)]), ["n" * 63])
    ok("key-of-65535-bytes", gguf([g_key("k" * 65_535, "u8", 1)]), [])
    ok("4-axes", gguf(tensors=[("x", [2, 1, 3, 1], "F32", None)]), ["x"])

    # The beginning.
    bad("empty", b"", ["0 more bytes", '4 bytes of the magic "GGUF"', "cut off"], byte(0))
    bad("magic-ggml", b"lmgg" + G_GOOD[4:], ['the magic "lmgg"', "is this a GGUF file?"], byte(0))
    bad("magic-lower-case", b"gguf" + G_GOOD[4:], ['the magic "gguf"'], byte(0))
    bad("magic-reversed", b"FUGG" + G_GOOD[4:], ['the magic "FUGG"'], byte(0))
    bad("magic-for-a-terminal", b"\x1b[2J" + G_GOOD[4:], ['the magic "\\u{1B}[2J"'], byte(0))
    bad("a-safetensors-file", GOOD, ["the magic"], byte(0))
    bad("version-0", gguf(version=0), ["version 0", "0 never was one"], byte(4))
    bad("version-1", gguf(version=1), ["version 1", "other widths"], byte(4))
    bad("version-4", gguf(version=4), ["version 4", "newer ones are unknown"], byte(4))
    bad("version-big-endian", b"GGUF" + struct.pack(">I", 3) + G_GOOD[8:], ["version 50331648", "the file is big-endian"], byte(4))
    bad("version-2-32", gguf(version=(1 << 32) - 1), ["version 4294967295"], byte(4))

    # Counts that nothing in the file backs: an allocation of their size, or of their wrapped product, must not happen (CVE-2025-53630, CVE-2026-27940).
    for name, count in [("2-63", 1 << 63), ("2-64", (1 << 64) - 1), ("times-25-wraps", ((1 << 64) // 25) + 1), ("2-32", 1 << 32)]:
        bad("tensor-count-" + name, gguf(counts=(count, 0)), [f"{count} tensors in 16 more bytes", "at most 0"], byte(8))
        bad("key-count-" + name, gguf(counts=(0, count)), [f"{count} keys in 8 more bytes", "at most 0"], byte(16))
    bad("tensor-count-one-more", gguf(G_KEYS, G_TENSORS, counts=(4, 5)), ["an empty name of a tensor"], byte(333))
    bad("tensor-count-one-less", gguf(G_KEYS, G_TENSORS, counts=(2, 5)), ["512 bytes", "at most 448: 320 before the data and 128 of data"])
    bad("key-count-one-more", gguf(G_KEYS, G_TENSORS, counts=(3, 6)), ["a length of 562949953421312 of a tensor's name"], byte(236))
    bad("key-count-one-less", gguf(G_KEYS, G_TENSORS, counts=(3, 4)), ["9 axes"], tensor("test.scores"))

    # Keys.
    bad("key-empty", gguf([g_key("", "u8", 1)]), ["an empty key"], byte(FIRST))
    bad("key-not-ascii", gguf([g_key("\u00e9", "u8", 1)]), ['the key "\u00e9"', "printable ASCII"], byte(FIRST))
    bad("key-with-nul", gguf([g_key("a\0b", "u8", 1)]), ["printable ASCII"], byte(FIRST))
    bad("key-for-a-terminal", gguf([g_key("\x1b[2J", "u8", 1)]), ['the key "\\u{1B}[2J"'], byte(FIRST))
    bad("key-of-65536-bytes", gguf([g_key("k" * 65_536, "u8", 1)]), ["a length of 65536 of a key", "at most 65535"], byte(FIRST))
    bad("key-twice", gguf([g_key("a", "u8", 1), g_key("a", "u8", 1)]), ["it a second time at byte 38"], key("a"))
    bad("key-twice-of-other-type", gguf([g_key("a", "u8", 1), g_key("a", "string", "")]), ["it a second time at byte 38"], key("a"))
    bad("alignment-twice", gguf([g_key("general.alignment", "u32", 32)] * 2), ["it a second time"], key("general.alignment"))
    for name, length, says in [("2-63", 1 << 63, "9223372036854775808 of a key"), ("2-64", (1 << 64) - 1, "18446744073709551615"), ("2-32", 1 << 32, "4294967296"), ("over-file", 100, "a length of 100 of a key")]:
        bad("key-length-" + name, gguf([u64(length) + b"a" + bytes(40)]), [says, "at most"], byte(FIRST))

    # Values.
    bad("type-13", gguf([g_raw("a", 13, bytes(8))]), ["the type 13", "0 to 12"], key("a"))
    bad("type-2-32", gguf([g_raw("a", (1 << 32) - 1, bytes(8))]), ["the type 4294967295"], key("a"))
    bad("bool-2", gguf([g_key("a", "bool", 2)]), ["found 2 at byte 37", "a BOOL, 0 or 1"], key("a"))
    bad("bool-255-in-array", gguf([g_key("a", "array", ("bool", [0, 1, 255]))]), ["found 255 at byte 51"], key("a"))
    bad("string-length-over-file", gguf([g_raw("a", 8, u64(100) + b"abc")]), ['a length of 100 of "a"', "bytes that are left"], byte(37))
    bad("string-length-over-cap", gguf([g_raw("a", 8, u64((1 << 30) + 1))]), ["a length of 1073741825", "at most 1073741824"], byte(37))
    bad("string-length-2-64", gguf([g_raw("a", 8, u64((1 << 64) - 1))]), ["a length of 18446744073709551615"], byte(37))
    bad("string-length-negative-int32", gguf([g_raw("a", 8, u64(0x80000000))]), ["a length of 2147483648"], byte(37))
    bad("array-of-arrays", gguf([g_raw("a", 9, u32(9) + u64(1) + u32(0) + u64(1) + b"\1")]), ["an array of arrays"], key("a"))
    bad("array-of-arrays-1000-deep", gguf([g_raw("a", 9, (u32(9) + u64(1)) * 1000)]), ["an array of arrays"], key("a"))
    bad("array-type-13", gguf([g_raw("a", 9, u32(13) + u64(1) + bytes(8))]), ["the element type 13"], key("a"))
    bad("array-count-over-cap", gguf([g_raw("a", 9, u32(0) + u64((1 << 30) + 1))]), ["an array of 1073741825 elements", "at most 1073741824"], key("a"))
    bad("array-count-2-64", gguf([g_raw("a", 9, u32(10) + u64((1 << 64) - 1))]), ["an array of 18446744073709551615 elements"], key("a"))
    bad("array-bytes-wrap", gguf([g_raw("a", 9, u32(10) + u64((1 << 61) + 1) + bytes(8))]), ["an array of 2305843009213693953 elements"], key("a"))
    bad("array-bytes-wrap-32-bits", gguf([g_raw("a", 9, u32(4) + u64((1 << 30)) + bytes(4))]), ["an array of 1073741824 UINT32 in"], key("a"))
    bad("array-one-short", gguf([g_raw("a", 9, u32(10) + u64(2) + bytes(8))])[:49 + 8], ["an array of 2 UINT64 in 8 more bytes", "at most 1"], key("a"))
    bad("array-of-strings-without-strings", gguf([g_raw("a", 9, u32(8) + u64(1 << 29))]), ["an array of 536870912 STRING in"], key("a"))
    bad("array-string-over-file", gguf([g_raw("a", 9, u32(8) + u64(2) + g_string("x") + u64(99))]), ['a length of 99 of an element of "a"'], byte(58))

    # The alignment, whose padding is a product that may wrap (llama.cpp #26318).
    for name, kind, value, says in [("0", "u32", 0, "found 0"), ("1", "u32", 1, "found 1"), ("4", "u32", 4, "found 4"), ("48", "u32", 48, "found 48"), ("2-32", "u32", (1 << 32) - 1, "found 4294967295")]:
        bad("alignment-" + name, gguf([g_key("general.alignment", kind, value)], G_TENSORS), [says, "a power of two that is at least 8"], key("general.alignment"))
    bad("alignment-u64", gguf([g_key("general.alignment", "u64", 32)], G_TENSORS), ["32 (UINT64)", "a UINT32"], key("general.alignment"))
    bad("alignment-i32", gguf([g_key("general.alignment", "i32", 32)], G_TENSORS), ["32 (INT32)"], key("general.alignment"))
    bad("alignment-string", gguf([g_key("general.alignment", "string", "32")], G_TENSORS), ['the string "32"'], key("general.alignment"))
    bad("alignment-array", gguf([g_key("general.alignment", "array", ("u32", [32]))], G_TENSORS), ["an array of 1 UINT32"], key("general.alignment"))
    bad("alignment-2-31", gguf([g_key("general.alignment", "u32", 1 << 31)], G_TENSORS), ["24 bytes for F32 [2, 3] at byte 2147483648", "at most 0"], tensor("w"))

    # Names.
    bad("name-empty", gguf(tensors=[("", [1], "F32", None)]), ["an empty name"], byte(FIRST))
    bad("name-of-64-bytes", gguf(tensors=[("n" * 64, [1], "F32", None)]), ["a length of 64 of a tensor's name", "at most 63"], byte(FIRST))
    bad("name-length-2-64", gguf(infos=[u64((1 << 64) - 1) + bytes(40)]), ["a length of 18446744073709551615"], byte(FIRST))
    bad("name-not-utf-8", gguf(tensors=[(b"\xff", [1], "F32", None)]), ["a name of a tensor that is not UTF-8"], byte(FIRST))
    bad("name-twice", gguf(tensors=[("a", [1], "F32", None), ("a", [1], "F32", None)]), ["the name twice"], tensor("a"))
    bad("name-for-a-terminal", gguf(infos=[g_info("\x1b[2J\u202e", [1], 99, 0)], data=bytes(4)), ['tensor "\\u{1B}[2J\\u{202E}": found the unknown type 99'], tensor("\x1b[2J\u202e"))

    # Sizes.
    bad("axes-5", one([1] * 5, "F32"), ["5 axes", "at most 4"], tensor("x"))
    bad("axes-2-32", gguf(infos=[g_string("x") + u32((1 << 32) - 1) + bytes(60)]), ["4294967295 axes"], tensor("x"))
    bad("size-0", one([0], "F32"), ["size 0 of axis 0"], tensor("x"))
    bad("size-0-second", one([32, 0], "Q8_0"), ["size 0 of axis 1"], tensor("x"))
    bad("size-negative", one([(1 << 64) - 1], "F32"), ["size -1 of axis 0"], tensor("x"))
    bad("size-2-63", one([1 << 63], "F32"), ["size -9223372036854775808 of axis 0"], tensor("x"))
    bad("sizes-product-wraps-to-4", one([1 << 62, 4 + 1], "I8"), ["[5, 4611686018427387904] of I8", "beyond 2^63"], tensor("x"))
    bad("sizes-product-wraps-to-0", one([1 << 32, 1 << 32], "F32"), ["beyond 2^63 bits"], tensor("x"))
    bad("sizes-four-wrap", one([1 << 16] * 4, "F32"), ["beyond 2^63 bits"], tensor("x"))
    bad("sizes-bits-wrap", one([1 << 60], "F32"), ["[1152921504606846976] of F32", "beyond 2^63 bits"], tensor("x"))
    bad("sizes-blocks-wrap", one([1 << 62], "Q8_0"), ["[4611686018427387904] of Q8_0", "beyond 2^63 bits"], tensor("x"))
    for kind in (kind for kind in BLOCKS if "_" in kind):
        bad("row-of-33-" + kind.lower().replace("_", "-"), one([33], kind, 64), [f"[33] of {kind}", f"rows of 33 are no whole number of blocks of {BLOCKS[kind][0]}"], tensor("x"))
    bad("row-of-32-q4-k", one([32, 8], "Q4_K", 144), ["[8, 32] of Q4_K", "rows of 32 are no whole number of blocks of 256"], tensor("x"))
    bad("block-of-q6-k-one-short", one([256], "Q6_K", 209), ["210 bytes for Q6_K [256]", "at most 209"], tensor("x"))
    bad("row-of-1-q4-0", one([1, 32], "Q4_0", 64), ["[32, 1] of Q4_0", "rows of 1"], tensor("x"))
    bad("scalar-q8-0", one([], "Q8_0", 64), ["rows of 1"], tensor("x"))

    # Types.
    for code, says in [(4, "the unknown type 4"), (5, "the unknown type 5"), (9, "type 9, Q8_1"), (15, "type 15, Q8_K"), (20, "type 20, IQ4_NL"), (39, "type 39, MXFP4"), (41, "the unknown type 41"), ((1 << 32) - 1, "the unknown type 4294967295")]:
        bad(f"tensor-type-{code}", one([256], code, 256), [says, "F32, F16, BF16, F64, Q2_K to Q6_K"], tensor("x"))

    # Offsets: bytes beyond the file would be read from elsewhere in memory (CVE-2026-7482).
    bad("offset-1", one([1], "F32", 64, 1), ["offset 1", "expected 0"], tensor("x"))
    bad("offset-32", one([1], "F32", 64, 32), ["offset 32", "expected 0"], tensor("x"))
    bad("offset-2-64", one([1], "F32", 64, (1 << 64) - 32), ["offset 18446744073709551584"], tensor("x"))
    a = g_info("a", [3], "F32", 0)
    bad("offset-unpadded", gguf(infos=[a, g_info("b", [1], "F32", 12)], data=bytes(64)), ["offset 12", "expected 32"], tensor("b"))
    bad("offset-same", gguf(infos=[a, g_info("b", [3], "F32", 0)], data=bytes(64)), ["offset 0", "expected 32"], tensor("b"))
    bad("offset-gap", gguf(infos=[a, g_info("b", [1], "F32", 64)], data=bytes(96)), ["offset 64", "expected 32"], tensor("b"))
    bad("offset-order", gguf(infos=[g_info("b", [1], "F32", 32), a], data=bytes(64)), ["offset 32", "expected 0"], tensor("b"))
    bad("data-missing", one([1], "F32", 0), ["4 bytes for F32 [1] at byte 64", "at most 0"], tensor("x"))
    bad("data-one-short", one([1], "F32", 3), ["4 bytes for F32 [1] at byte 64", "at most 3"], tensor("x"))
    bad("data-huge", one([1 << 40], "F32", 4), ["4398046511104 bytes", "at most 4"], tensor("x"))
    bad("trailing-byte", G_GOOD + b"\0", [f"{len(G_GOOD) + 1} bytes", f"at most {len(G_GOOD)}"])
    bad("trailing-zip", G_GOOD + b"PK\5\6" + bytes(18), [f"{len(G_GOOD) + 22} bytes"])
    bad("nothing-and-trailing-byte", gguf() + b"\0", ["33 bytes", "at most 32"])

    # Cut off at every field.
    for name, length, says, place in [
            ("in-magic", 3, ["3 more bytes", "4 bytes of the magic"], byte(0)), ("in-version", 6, ["2 more bytes", "4 bytes of the version"], byte(4)),
            ("in-tensor-count", 12, ["4 more bytes", "8 bytes of the number of tensors"], byte(8)), ("before-tensors", 88, ["3 tensors in 72 more bytes", "at most 2"], byte(8)), ("before-keys", 24 + 69, ["5 keys in 69 more bytes", "at most 4"], byte(16)),
            ("in-key-type", 200, ["3 more bytes", '4 bytes of the type of "test.scores"'], byte(197)), ("in-names", 168, ["more bytes", "test.names"], key("test.names"))]:
        bad("cut-" + name, G_GOOD[:length], says, place)
    four = gguf(infos=[g_info("x", [2, 1, 3, 1], "F32", 0)], data=b"")[:81]
    for name, length, says in [
            ("size", 37 + 8 + 4, "4 more bytes"), ("type", 37 + 32 + 3, "3 more bytes"), ("offset", 80, "7 more bytes")]:
        bad("cut-in-" + name, four[:length], [says, 'of "x"', "cut off"], byte(length - int(says[0])))


# ---- GGUF models

G_CONFIG = [("general.architecture", "string", "llama"), ("llama.block_count", "u32", 1), ("llama.embedding_length", "u32", 32), ("llama.feed_forward_length", "u32", 32),
            ("llama.attention.head_count", "u32", 2), ("llama.attention.head_count_kv", "u32", 1), ("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5),
            ("llama.vocab_size", "u32", 5)]
G_MODEL = {"token_embd.weight": ([32, 5], "Q8_0"), "output_norm.weight": ([32], "F32"), "blk.0.attn_norm.weight": ([32], "F32"), "blk.0.ffn_norm.weight": ([32], "F32"),
           "blk.0.attn_q.weight": ([32, 32], "Q4_1"), "blk.0.attn_k.weight": ([32, 16], "Q4_0"), "blk.0.attn_v.weight": ([32, 16], "Q4_0"),
           "blk.0.attn_output.weight": ([32, 32], "Q4_1"), "blk.0.ffn_gate.weight": ([32, 32], "Q4_0"), "blk.0.ffn_up.weight": ([32, 32], "Q4_0"),
           "blk.0.ffn_down.weight": ([32, 32], "Q8_0")}


def gguf_model_cases():
    def content(settings, tensors):
        keys = {key: (kind, value) for key, kind, value in G_CONFIG}
        keys.update(settings)
        keys = [g_key(key, *value) for key, value in keys.items() if value]
        kept = {name: value for name, value in {**G_MODEL, **tensors}.items() if value}
        return gguf(keys, [(name, value[0], value[1], value[2] if len(value) > 2 else None) for name, value in kept.items()])

    def ok(name, settings={}, tensors={}): add("gguf-model", f"gguf-model/{name}.gguf", content(settings, tensors))
    def bad(name, says, place=None, settings={}, tensors={}): add("gguf-model", f"gguf-model/{name}.gguf", content(settings, tensors), says, place)
    def setting(name, key_, value, says, expected="a whole number in"): bad(name, [says, expected], key("llama." + key_), {"llama." + key_: value})

    ok("good")
    ok("head-of-its-own", tensors={"output.weight": ([32, 5], "Q4_1")})
    ok("vocabulary-by-tokens", {"llama.vocab_size": None, "tokenizer.ggml.tokens": ("array", ("string", list("abcde")))})
    ok("unknown-keys", {"llama.something": ("u32", 1), "other.key": ("string", "x"), "tokenizer.ggml.scores": ("array", ("u8", [1]))})
    ok("biases", tensors={"blk.0.attn_q.bias": ([32], "F32"), "blk.0.attn_k.bias": ([16], "F16"), "blk.0.attn_v.bias": ([16], "F32")})
    ok("rope-divisors", tensors={"rope_freqs.weight": ([8], "F32", struct.pack("<8f", *[1.0] * 8))})
    ok("nan-scales", tensors={"blk.0.attn_q.weight": ([32, 32], "Q4_1", b"\xff" * 640)})
    ok("features-that-are-off", {"llama.rope.scaling.type": ("string", "none"), "llama.expert_count": ("u32", 0), "llama.rope.dimension_count": ("u64", 16), "llama.attention.causal": ("bool", 1)})

    bad("architecture-missing", ["found nothing", '"llama" or "qwen2"'], key("general.architecture"), {"general.architecture": None})
    for kind in ("gemma", "gemma2"):
        bad("architecture-" + kind, [f'the string "{kind}"', '"llama" or "qwen2"; others are not built yet'], key("general.architecture"), {"general.architecture": ("string", kind)})
    bad("architecture-phi3", ['the string "phi3"', "not built yet"], key("general.architecture"), {"general.architecture": ("string", "phi3")})
    bad("architecture-number", ["found 1"], key("general.architecture"), {"general.architecture": ("u32", 1)})
    bad("architecture-other-keys", ["found nothing"], key("qwen2.block_count"), {"general.architecture": ("string", "qwen2")})
    bad("split", ["found 2", "parts are not built yet"], key("split.count"), {"split.count": ("u16", 2)})
    for name in ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"]:
        setting(name.replace("_", "-").replace(".", "-") + "-missing", name, None, "found nothing")
        setting(name.replace("_", "-").replace(".", "-") + "-0", name, ("u32", 0), "found 0")
    setting("block-count-2-64", "block_count", ("u64", (1 << 64) - 1), "found 18446744073709551615")
    setting("block-count-negative", "block_count", ("i32", -1), "found -1")
    setting("block-count-float", "block_count", ("f32", 1.0), "found 1.0")
    setting("block-count-string", "block_count", ("string", "-1"), 'the string "-1"')
    setting("block-count-10001", "block_count", ("u32", 10_001), "found 10001")
    setting("heads-an-array", "attention.head_count", ("array", ("u32", [2])), "an array of 1 UINT32")
    setting("heads-no-divisor", "attention.head_count", ("u32", 3), "3 heads for 32 channels", "heads of equal width")
    setting("key-value-heads-no-divisor", "attention.head_count_kv", ("u32", 3), "3 for 2 query heads", "a divisor of 2")
    setting("key-value-heads-0", "attention.head_count_kv", ("u32", 0), "found 0")
    setting("head-width-odd", "attention.key_length", ("u32", 15), "heads of width 15", "an even width")
    setting("value-width-differs", "attention.value_length", ("u32", 8), "found 8", "16, the width of a head")
    setting("rotation-of-a-part", "rope.dimension_count", ("u32", 8), "found 8", "16, the width of a head")
    setting("vocabulary-missing", "vocab_size", None, "found nothing")
    setting("epsilon-missing", "attention.layer_norm_rms_epsilon", None, "found nothing", "a number ≥ 0")
    setting("epsilon-nan", "attention.layer_norm_rms_epsilon", ("f32", float("nan")), "found nan", "a number ≥ 0")
    setting("rope-base-0", "rope.freq_base", ("f32", 0.0), "found 0.0", "a number > 0")
    setting("rope-base-infinite", "rope.freq_base", ("f32", float("inf")), "found inf", "a number > 0")
    F, POSITIONS = "llama.rope.scaling.", {"llama.context_length": ("u32", 64)}
    for name, settings in [("linear", {}), ("linear", {F + "factor": ("f32", 4.0)}), ("yarn", {F + "factor": ("f32", 4.0), **POSITIONS}),
                           ("yarn", {F + "factor": ("f32", 4.0), F + "original_context_length": ("u32", 16), F + "attn_factor": ("f32", 0.5), F + "yarn_beta_fast": ("f32", 8.0)})]:
        ok(f"rope-scaling-{name}-{len(settings)}", {F + "type": ("string", name), **settings})
    ok("rope-scaling-factor", {F + "factor": ("f32", 4.0)})
    ok("rope-scaling-old-key", {"llama.rope.scale_linear": ("f32", 4.0)})
    setting("rope-scaling-longrope", "rope.scaling.type", ("string", "longrope"), 'the string "longrope"', '"none" or "linear" or "yarn"')
    setting("rope-scaling-number", "rope.scaling.type", ("u32", 1), "found 1", '"none" or "linear" or "yarn"')
    setting("rope-scaling-negative", "rope.scaling.factor", ("f32", -4.0), "found -4.0", "a number ≥ 0")
    setting("rope-scaling-nan", "rope.scaling.factor", ("f32", float("nan")), "found nan", "a number ≥ 0")
    setting("rope-scaling-magnitude", "rope.scaling.attn_factor", ("f32", 2.0), "found 2.0", "not built yet")
    bad("rope-scaling-yarn-positions", ["found nothing"], key("llama.context_length"), {F + "type": ("string", "yarn"), F + "factor": ("f32", 4.0)})
    bad("rope-scaling-yarn-original", ["found 0"], key(F + "original_context_length"), {F + "type": ("string", "yarn"), F + "original_context_length": ("u32", 0)})
    bad("rope-scaling-yarn-log", ["found 0.1"], key(F + "yarn_log_multiplier"), {F + "type": ("string", "yarn"), F + "yarn_log_multiplier": ("f64", 0.1), **POSITIONS})
    for name in ("long", "short"):
        bad("rope-factors-" + name, ["F32 [8] that nothing reads"], tensor(f"rope_factors_{name}.weight"), tensors={f"rope_factors_{name}.weight": ([8], "F32")})
    setting("window", "attention.sliding_window", ("u32", 4096), "found 4096", "not built yet")
    setting("experts", "expert_count", ("u32", 8), "found 8", "not built yet")
    setting("softcap", "final_logit_softcapping", ("f32", 30.0), "found 30.0", "not built yet")
    setting("not-causal", "attention.causal", ("bool", 0), "found false", "true")
    bad("tokens-no-array", ['the string "a"', "an array"], key("tokenizer.ggml.tokens"), {"llama.vocab_size": None, "tokenizer.ggml.tokens": ("string", "a")})

    q, embed = "blk.0.attn_q.weight", "token_embd.weight"
    bad("tensor-missing", ["no tensor of this name among 10"], tensor(q), tensors={q: None})
    bad("embedding-missing", ["no tensor of this name among 10"], tensor(embed), tensors={embed: None})
    bad("layer-missing", ["no tensor of this name among 11"], tensor("blk.1.attn_norm.weight"), {"llama.block_count": ("u32", 2)})
    bad("layers-10000", ["no tensor of this name among 11"], tensor("blk.1.attn_norm.weight"), {"llama.block_count": ("u32", 10_000)})
    bad("layer-surplus", ["F32 [32] that nothing reads"], tensor("blk.1.attn_norm.weight"), tensors={"blk.1.attn_norm.weight": ([32], "F32")})
    bad("tensor-surplus", ["F32 [32] that nothing reads"], tensor("blk.0.attn_sub_norm.weight"), tensors={"blk.0.attn_sub_norm.weight": ([32], "F32")})
    bad("hugging-face-name", ["that nothing reads"], tensor("model.norm.weight"), tensors={"model.norm.weight": ([32], "F32")})
    bad("bias-of-q-alone", ["no tensor of this name"], tensor("blk.0.attn_k.bias"), tensors={"blk.0.attn_q.bias": ([32], "F32")})
    bad("shape-of-q", ["shape [16, 32]", "shape [32, 32]"], tensor(q), tensors={q: ([32, 16], "Q4_1")})
    bad("shape-flat", ["shape [1024]"], tensor(q), tensors={q: ([1024], "Q4_1")})
    bad("shape-transposed", ["shape [32, 32]", "shape [5, 32]"], tensor(embed), tensors={embed: ([32, 32], "Q8_0")})
    bad("channels-2-24", ["shape [5, 32]", "shape [5, 16777216]"], tensor(embed), {"llama.embedding_length": ("u32", 1 << 24)})
    bad("vocabulary-2-24", ["shape [5, 32]", "shape [16777216, 32]"], tensor(embed), {"llama.vocab_size": ("u32", 1 << 24)})
    bad("type-i8", ["dtype I8", "or a quantized type"], tensor(q), tensors={q: ([32, 32], "I8")})
    for name, value, says in [("shape", ([4], "F32"), "F32 [4]"), ("type", ([8], "F16"), "F16 [8]"), ("zero", ([8], "F32"), "0.0 at 0"),
                              ("nan", ([8], "F32", NAN * 8), "nan at 0"), ("negative", ([8], "F32", struct.pack("<8f", *[1.0] * 7, -1.0)), "-1.0 at 7")]:
        bad("rope-divisors-" + name, [says], tensor("rope_freqs.weight"), tensors={"rope_freqs.weight": value})
    add("gguf-model", "gguf-model/not-there.gguf", None, ["errno 2 of stat"])


# ---- whole folders

WIDTHS = {"F64": "d", "F32": "f", "F16": "e", "I32": "i", "I64": "q"}


def pack(tensors, metadata=None, padding=0):
    """A safetensors file of name → (dtype, shape, value of every element, or bytes)."""
    header, data = [], b""
    for name, (dtype, shape, value) in tensors.items():
        count = 1
        for size in shape: count *= size
        if dtype == "BF16": part = struct.pack("<f", value)[2:] * count
        else: part = value if isinstance(value, bytes) else struct.pack("<" + WIDTHS[dtype], value) * count
        header.append(json.dumps(name) + ":" + entry(dtype, shape, len(data), len(data) + len(part)))
        data += part
    return safetensors("{%s}" % ",".join(header) + " " * padding, data)


def base_tensors():
    shapes = {"model.embed_tokens.weight": [5, 4], "model.norm.weight": [4], "lm_head.weight": [5, 4]}
    L = "model.layers.0."
    shapes.update({L + "input_layernorm.weight": [4], L + "post_attention_layernorm.weight": [4], L + "self_attn.q_proj.weight": [4, 4],
                   L + "self_attn.k_proj.weight": [2, 4], L + "self_attn.v_proj.weight": [2, 4], L + "self_attn.o_proj.weight": [4, 4],
                   L + "mlp.gate_proj.weight": [6, 4], L + "mlp.up_proj.weight": [6, 4], L + "mlp.down_proj.weight": [4, 6]})
    return {name: ("F32", shape, 0.125) for name, shape in shapes.items()}


def adapter_tensors():
    L = "mixlora.layers.0."
    shapes = {L + "mlp.moe_gate.weight": [2, 4], L + "self_attn.q_proj.lora_A.weight": [2, 4], L + "self_attn.q_proj.lora_B.weight": [4, 2]}
    for e in range(2): shapes.update({L + f"mlp.down_proj.experts.{e}.lora_A.weight": [2, 6], L + f"mlp.down_proj.experts.{e}.lora_B.weight": [4, 2]})
    return {name: ("F32", shape, 0.25) for name, shape in shapes.items()}


def folder_cases():
    def files(base, settings, tensors, whole):
        """A good folder, changed: values of the configuration, tensors (None: left out) or `whole` files (None: left out)."""
        names = ("config.json", "model.safetensors") if base is CONFIG else ("adapter_config.json", "adapter_model.safetensors")
        result = {names[0]: changed(base, settings), names[1]: pack({k: v for k, v in tensors.items() if v is not None})}
        if whole is not None: result = {k: v for k, v in {**result, **whole}.items() if v is not None}
        return result

    def model(name, says=None, place=None, inside="model.safetensors", settings={}, whole=None, tensors={}):
        add("model", f"model/{name}", files(CONFIG, settings, {**base_tensors(), **tensors}, whole), says, place,
            f"model/{name}" + (inside and "/" + inside) if says else None)

    def adapter(name, says=None, place=None, inside="adapter_model.safetensors", settings={}, whole=None, tensors={}):
        add("adapter", f"adapter/{name}", files(ADAPTER, settings, {**adapter_tensors(), **tensors}, whole), says, place,
            f"adapter/{name}" + (inside and "/" + inside) if says else None)

    q, EMBED, NORM, HEAD = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
    up, down = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"
    model("good")
    model("head-width-huge", ["found shape [4, 4]", "expected shape [33554432, 4]"], tensor(q), settings=dict(head_dim=1 << 24))
    model("nan", tensors={q: ("F32", [4, 4], float("nan")), NORM: ("F32", [4], float("inf"))})
    model("unaligned-and-mixed-types", whole={"model.safetensors": pack({**base_tensors(), NORM: ("F64", [4], 1.0), q: ("BF16", [4, 4], 0.5), up: ("F16", [6, 4], 0.5)}, padding=3)})
    model("tied-with-copy", settings=dict(tie_word_embeddings=True))
    model("tied-as-head-alone", settings=dict(tie_word_embeddings=True), tensors={EMBED: None})
    model("tied-as-head-of-other-shape", ["shape [5, 3]", "expected shape [5, 4]"], tensor(HEAD), settings=dict(tie_word_embeddings=True), tensors={EMBED: None, HEAD: ("F32", [5, 3], 1)})
    model("tied-and-neither", ["no tensor of this name among 10"], tensor(EMBED), settings=dict(tie_word_embeddings=True), tensors={EMBED: None, HEAD: None})
    model("old-rotary-frequencies", tensors={"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [1], 1.0)})
    model("tensor-missing", ["no tensor of this name among 11"], tensor(q), tensors={q: None})
    model("embedding-missing", ["no tensor of this name among 11"], tensor(EMBED), tensors={EMBED: None})
    model("head-missing", ["no tensor of this name among 11"], tensor(HEAD), tensors={HEAD: None})
    model("no-tensors", ["no tensor of this name among 0"], tensor(EMBED), whole={"model.safetensors": safetensors("{}")})
    model("tensor-surplus", ["a tensor F32 [4] that nothing reads"], tensor("model.layers.0.self_attn.q_proj.bias"),
          tensors={"model.layers.0.self_attn.q_proj.bias": ("F32", [4], 0)})
    model("layer-surplus", ["a tensor F32 [4] that nothing reads"], tensor("model.layers.1.input_layernorm.weight"),
          tensors={"model.layers.1.input_layernorm.weight": ("F32", [4], 1)})
    model("layer-missing", ["no tensor of this name among 12"], tensor("model.layers.1.input_layernorm.weight"), settings=dict(num_hidden_layers=2))
    model("layers-10000", ["no tensor of this name among 12"], tensor("model.layers.1.input_layernorm.weight"), settings=dict(num_hidden_layers=10_000))
    model("bias-missing", ["no tensor of this name among 12"], tensor("model.layers.0.self_attn.q_proj.bias"), settings=dict(attention_bias=True))
    model("prefix-missing", ["no tensor of this name"], tensor(EMBED), whole={"model.safetensors": pack({k.replace("model.", ""): v for k, v in base_tensors().items()})})
    model("name-canonically-equal", ["no tensor of this name among 12"], tensor(NORM), tensors={NORM: None, "model.norm.weight\u0301": ("F32", [4], 1)})
    model("shape-transposed", ["shape [4, 6]", "expected shape [6, 4]"], tensor(up), tensors={up: ("F32", [4, 6], 1)})
    model("shape-flat", ["shape [16]", "expected shape [4, 4]"], tensor(q), tensors={q: ("F32", [16], 1)})
    model("shape-more-axes", ["shape [1, 4, 4]"], tensor(q), tensors={q: ("F32", [1, 4, 4], 1)})
    model("shape-empty", ["shape [4, 0]"], tensor(q), tensors={q: ("F32", [4, 0], 1)})
    model("shape-scalar", ["shape []", "shape [4]"], tensor(NORM), tensors={NORM: ("F32", [], 1)})
    model("shape-64-axes", ["shape [4, 1, 1, 1,", "expected shape [4]"], tensor(NORM), tensors={NORM: ("F32", [4] + [1] * 63, 1)})
    model("vocabulary-larger", ["shape [5, 4]", "expected shape [6, 4]"], tensor(EMBED), settings=dict(vocab_size=6))
    model("channels-2-24", ["shape [5, 4]", "expected shape [5, 16777216]"], tensor(EMBED), settings=dict(hidden_size=1 << 24, num_attention_heads=1))
    model("hidden-width-2-24", ["shape [6, 4]", "expected shape [16777216, 4]"], tensor("model.layers.0.mlp.gate_proj.weight"), settings=dict(intermediate_size=1 << 24))
    model("vocabulary-2-24", ["shape [5, 4]", "expected shape [16777216, 4]"], tensor(EMBED), settings=dict(vocab_size=1 << 24))
    model("dtype-int", ["dtype I32", "F32, F64, F16 or BF16"], tensor(q), tensors={q: ("I32", [4, 4], 1)})
    model("dtype-float8", ["dtype F8_E4M3"], tensor(q), tensors={q: ("F8_E4M3", [4, 4], bytes(16))})
    model("dtype-complex", ["dtype C64"], tensor(down), tensors={down: ("C64", [4, 6], bytes(8 * 24))})
    model("tied-with-other-copy", ["other values than model.embed_tokens.weight"], tensor(HEAD), settings=dict(tie_word_embeddings=True), tensors={HEAD: ("F32", [5, 4], 1)})
    model("tied-with-flat-copy", ["dtype F32, shape [20]", "expected dtype F32, shape [5, 4]"], tensor(HEAD), settings=dict(tie_word_embeddings=True), tensors={HEAD: ("F32", [20], 0.125)})
    model("tied-with-copy-of-other-type", ["dtype I32", "expected dtype F32"], tensor(HEAD), settings=dict(tie_word_embeddings=True),
          tensors={HEAD: ("I32", [5, 4], struct.pack("<f", 0.125) * 20)})
    model("config-missing", ["errno 2 of stat"], inside="config.json", whole={"config.json": None})
    model("weights-missing", ["neither model.safetensors nor"], inside="", whole={"model.safetensors": None})
    model("weights-cut", ["cut off"], whole={"model.safetensors": pack(base_tensors())[:-1]})
    model("config-is-weights", ["byte 0x1", "a JSON value"], byte(0), inside="config.json", whole={"config.json": b"\1" + bytes(7) + b"{}"})

    gate, A, B = "mixlora.layers.0.mlp.moe_gate.weight", "mixlora.layers.0.self_attn.q_proj.lora_A.weight", "mixlora.layers.0.self_attn.q_proj.lora_B.weight"
    expert = "mixlora.layers.0.mlp.down_proj.experts.%d.lora_%s.weight"
    FILE = "adapter_model.safetensors"
    boxed = [(name, shape) for name, (_, shape, _) in adapter_tensors().items()]

    def state(tensors):
        """adapter_model.bin with a storage a tensor, filled with NaN."""
        parts = [(name, p_parameter(p_tensor(p_storage(str(i), count=a * b), shape=(a, b), strides=(b, 1)))) for i, (name, (a, b)) in enumerate(tensors)]
        return archive(members(pickle(p_dict(*[p_string(name) + value for name, value in parts])), [(str(i), NAN * (a * b)) for i, (_, (a, b)) in enumerate(tensors)]))

    adapter("good")
    adapter("nan", tensors={A: ("F32", [2, 4], float("nan"))})
    adapter("pytorch-nan", whole={FILE: None, "adapter_model.bin": state(boxed)})
    adapter("safetensors-wins", whole={"adapter_model.bin": b"broken"})
    adapter("gate-missing", ["no tensor of this name among 6"], tensor(gate), tensors={gate: None})
    adapter("branch-missing", ["no tensor of this name among 6"], tensor(B), tensors={B: None})
    adapter("expert-missing", ["no tensor of this name among 6"], tensor(expert % (1, "A")), tensors={expert % (1, "A"): None})
    adapter("expert-surplus", ["a tensor F32 [2, 6] that nothing reads"], tensor(expert % (2, "A")), tensors={expert % (2, "A"): ("F32", [2, 6], 1)})
    adapter("layer-surplus", ["that nothing reads"], tensor(gate.replace(".0.", ".1.")), tensors={gate.replace(".0.", ".1."): ("F32", [2, 4], 1)})
    adapter("target-missing", ["no tensor of this name among 7"], tensor(A.replace("q_proj", "v_proj")), settings=dict(target_modules=["q_proj", "v_proj", "down_proj"]))
    adapter("target-surplus", ["that nothing reads"], tensor(A), settings=dict(target_modules=["down_proj"]))
    adapter("no-targets", ["that nothing reads"], tensor(A), settings=dict(target_modules=[]))
    adapter("plain-lora-names", ["no tensor of this name"], tensor(A), whole={FILE: pack({k.replace("mixlora", "base_model.model.model"): v for k, v in adapter_tensors().items()})})
    adapter("experts-more-than-gate", ["shape [2, 4]", "expected shape [3, 4]"], tensor(gate), settings=dict(num_experts=3))
    adapter("gate-transposed", ["shape [4, 2]", "expected shape [2, 4]"], tensor(gate), tensors={gate: ("F32", [4, 2], 1)})
    adapter("a-and-b-swapped", ["shape [4, 2]", "expected shape [2, 4]"], tensor(A), tensors={A: ("F32", [4, 2], 1), B: ("F32", [2, 4], 1)})
    adapter("rank-differs", ["shape [2, 4]", "expected shape [3, 4]"], tensor(A), settings=dict(r=3))
    adapter("rank-65536", ["shape [2, 6]", "expected shape [65536, 6]"], tensor(expert % (0, "A")), settings=dict(expert_lora=dict(r=65_536)))
    adapter("experts-2048-rank-65536", ["shape [2, 6]", "expected shape [65536, 6]"], tensor(expert % (0, "A")), settings=dict(num_experts=2048, expert_lora=dict(r=65_536)),
            tensors={gate: ("F16", [2048, 4], 0.0)})
    adapter("expert-of-other-rank", ["shape [3, 6]", "expected shape [2, 6]"], tensor(expert % (1, "A")), tensors={expert % (1, "A"): ("F32", [3, 6], 1)})
    adapter("dtype-int", ["dtype I64"], tensor(gate), tensors={gate: ("I64", [2, 4], 1)})
    adapter("weights-missing", ["neither adapter_model.safetensors nor adapter_model.bin"], inside="", whole={FILE: None})
    adapter("config-missing", ["errno 2 of stat"], inside="adapter_config.json", whole={"adapter_config.json": None})
    adapter("broken-safetensors-is-no-reason-for-bin", ["0 bytes"], whole={FILE: b"", "adapter_model.bin": state(boxed)})
    adapter("pytorch-surplus", ["that nothing reads"], tensor("x"), inside="adapter_model.bin", whole={FILE: None, "adapter_model.bin": state(boxed + [("x", [1, 1])])})
    adapter("pytorch-missing", ["no tensor of this name among 6"], tensor(gate), inside="adapter_model.bin", whole={FILE: None, "adapter_model.bin": state(boxed[1:])})
    adapter("pytorch-cut", ["no zip end record"], inside="adapter_model.bin", whole={FILE: None, "adapter_model.bin": state(boxed)[:-1]})


# ---- tokenizer.json

def tokenizer_json(**changes):
    """A tokenizer of a few tokens; `changes` replace top-level keys, with None gone, and `model` is merged into the model."""
    alphabet = [chr(c) for c in list(range(0x21, 0x7F)) + [0x120]]
    words = ["th", "the", "\u0120the", "\u0120t", "\u0120th", "er"]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False, "vocab": {t: i for i, t in enumerate(alphabet + words)}, "merges": [["t", "h"], ["th", "e"], ["\u0120", "the"], ["e", "r"]]}
    model.update(changes.pop("model", {}))
    value = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added_token(len(alphabet + words), "<end>")], "normalizer": None,
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
             "post_processor": None, "decoder": BYTE_LEVEL, "model": {k: v for k, v in model.items() if v is not REMOVED}}
    value.update(changes)
    return json.dumps({k: v for k, v in value.items() if v is not REMOVED}, ensure_ascii=False, separators=(",", ":"))


REMOVED = object()
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TOKENS = 94 + 1 + 6


def added_token(id, content, **changes):
    return {**{"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}, **changes}


def tokenizer_cases():
    def bad(name, says, place=None, **changes): add("tokenizer", f"tokenizer/{name}.json", tokenizer_json(**changes), says, place)
    def ok(name, **changes): add("tokenizer", f"tokenizer/{name}.json", tokenizer_json(**changes))
    vocab = json.loads(tokenizer_json())["model"]["vocab"]
    split = lambda **changes: {"type": "Sequence", "pretokenizers": [{**{"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated", "invert": False}, **changes}, BYTE_LEVEL]}
    template = lambda single, tokens={"<end>": {"id": "<end>", "ids": [TOKENS], "tokens": ["<end>"]}}: {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens}
    text, end = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}
    GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

    ok("good")
    ok("no-merges", model=dict(merges=[]))
    ok("no-vocabulary", model=dict(vocab={}, merges=[]), added_tokens=[])
    ok("canonically-equal-tokens", model=dict(vocab={**vocab, "\u00e9": TOKENS, "e\u0301": TOKENS + 1}), added_tokens=[])
    ok("ids-with-holes", model=dict(vocab={**vocab, "x1": 60_000}), added_tokens=[])
    ok("merges-of-version-first", model=dict(merges=["#version: 0.2", "t h"]))
    ok("begin-token", post_processor=template([end, text]))
    ok("truncation-and-padding", truncation={"max_length": 1}, padding={"strategy": "Fixed"})
    ok("split", pre_tokenizer=split())

    add("tokenizer", "tokenizer/empty.json", "", ["the end of the text"], byte(0))
    add("tokenizer", "tokenizer/array.json", "[]", ["an array of 0", "an object"])
    add("tokenizer", "tokenizer/not-utf-8.json", b'{"version":"\xff"}', ["byte 0xFF"], byte(12))
    add("tokenizer", "tokenizer/not-there.json", None, ["errno 2 of stat"])
    add("tokenizer", "tokenizer/token-twice.json", tokenizer_json().replace('"!":0', '"!":0,"!":0'), ["a second time"], key("!"))
    bad("version", ["\"2.0\"", "\"1.0\""], key("version"), version="2.0")
    bad("unknown-key", ["true", "not understood"], key("mystery"), mystery=True)
    add("tokenizer", "tokenizer/model-missing.json", '{"version":"1.0"}', ["nothing", "a BPE model"], key("model"))
    bad("model-unigram", ["an object of 101", "an array"], key("model.vocab"), model=dict(type="Unigram"))
    unigram = dict(type="Unigram", merges=REMOVED, dropout=REMOVED, continuing_subword_prefix=REMOVED, end_of_word_suffix=REMOVED, unk_token=REMOVED, fuse_unk=REMOVED, ignore_merges=REMOVED)
    bad("unigram-without-unknown", ["nothing"], key("model.unk_id"), model={**unigram, "vocab": [["a", 0]]}, added_tokens=[])
    bad("unigram-unknown-beyond", ["1", "below 1"], key("model.unk_id"), model={**unigram, "vocab": [["a", 0]], "unk_id": 1}, added_tokens=[])
    bad("unigram-score", ["an array of 2 at 0"], key("model.vocab"), model={**unigram, "vocab": [["a", "b"]], "unk_id": 0}, added_tokens=[])
    bad("unigram-byte-level", ["ByteLevel"], key("pre_tokenizer"), model={**unigram, "vocab": [["a", 0]], "unk_id": 0}, added_tokens=[])
    bad("model-wordpiece", ["\"WordPiece\"", "\"BPE\""], key("model.type"), model=dict(type="WordPiece"))
    bad("model-unknown-key", ["1", "not understood"], key("model.mystery"), model=dict(mystery=1))
    bad("dropout", ["0.1", "null"], key("model.dropout"), model=dict(dropout=0.1))
    ok("byte-fallback", model=dict(byte_fallback=True))
    bad("prefix", ["\"##\""], key("model.continuing_subword_prefix"), model=dict(continuing_subword_prefix="##"))
    bad("suffix", ["</w>"], key("model.end_of_word_suffix"), model=dict(end_of_word_suffix="</w>"))
    bad("unk-unknown", ["<unk>", "a token of the vocabulary"], key("unk_token"), model=dict(unk_token="<unk>"))
    bad("unk-number", ["0", "a string"], key("model.unk_token"), model=dict(unk_token=0))
    bad("vocabulary-missing", ["nothing"], key("model.vocab"), model=dict(vocab=REMOVED))
    bad("vocabulary-array", ["an array of 1"], key("model.vocab"), model=dict(vocab=["a"]))
    bad("id-negative", ["-1", "\"zz\""], key("model.vocab"), model=dict(vocab={**vocab, "zz": -1}))
    bad("id-2-31", ["2147483648"], key("model.vocab"), model=dict(vocab={**vocab, "zz": 1 << 31}))
    bad("id-huge", ["16777216"], key("model.vocab"), model=dict(vocab={**vocab, "zz": 1 << 24}))
    bad("id-beyond-holes", ["id 16777215 among 102 tokens", "0 to 65739"], key("vocab"), model=dict(vocab={**vocab, "zz": (1 << 24) - 1}), added_tokens=[])
    bad("id-fraction", ["1.5"], key("model.vocab"), model=dict(vocab={**vocab, "zz": 1.5}))
    bad("id-twice", ["id 3 of \"$\" and of \"zz\""], key("vocab"), model=dict(vocab={**vocab, "zz": 3}), added_tokens=[])
    bad("merges-missing", ["nothing", "an array"], key("model.merges"), model=dict(merges=REMOVED))
    bad("merge-of-one", ["\"th\"", "at 1"], key("model.merges"), model=dict(merges=["t h", "th"]))
    bad("merge-of-three", ["\"t h e\"", "at 0"], key("model.merges"), model=dict(merges=["t h e"]))
    bad("merge-array-of-three", ["an array of 3"], key("model.merges"), model=dict(merges=[["t", "h", "e"]]))
    bad("merge-of-numbers", ["an array of 2"], key("model.merges"), model=dict(merges=[[1, 2]]))
    bad("merge-of-nothing", ["an array of 2"], key("model.merges"), model=dict(merges=[["", "t"]]))
    bad("merge-unknown-part", ["\"t\" and \"\u00e9\" at 0"], key("merges"), model=dict(merges=[["t", "\u00e9"]]))
    bad("merge-unknown-result", ["\"e\" and \"t\" at 0", "\"et\""], key("merges"), model=dict(merges=[["e", "t"]]))
    bad("merge-twice", ["\"t\" and \"h\" again at 1"], key("merges"), model=dict(merges=["t h", "t h"]))
    bad("added-not-next", [f"{TOKENS + 1} for \"<end>\"", str(TOKENS)], key("added_tokens[0].id"), added_tokens=[added_token(TOKENS + 1, "<end>")])
    bad("added-other-id", ["5 for \"the\"", str(vocab["the"])], key("added_tokens[0].id"), added_tokens=[added_token(5, "the")])
    bad("added-twice", ["\"the\" twice"], key("added_tokens"), added_tokens=[added_token(vocab["the"], "the")] * 2)
    bad("added-empty", ["nothing", "the token's text"], key("added_tokens[0].content"), added_tokens=[added_token(TOKENS, "")])
    bad("added-long", ["1025 bytes"], key("added_tokens"), added_tokens=[added_token(TOKENS, "x" * 1025)])
    bad("added-flag", ["1", "true or false"], key("added_tokens[0].lstrip"), added_tokens=[added_token(TOKENS, "<a>", lstrip=1)])
    bad("added-unknown-key", ["true"], key("added_tokens[0].mystery"), added_tokens=[added_token(TOKENS, "<a>", mystery=True)])
    bad("added-control-characters", ["\\u{1B}[2J"], key("added_tokens[1].id"), added_tokens=[added_token(TOKENS, "<a>"), added_token(TOKENS, "\x1b[2J" + "x" * 300)])
    ok("normalizer-nfkc", normalizer={"type": "NFKC"})
    ok("normalizer-in-sequence", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})
    ok("pre-tokenizer-missing", pre_tokenizer=None)
    ok("pre-tokenizer-metaspace", pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True})
    ok("pre-tokenizer-without-byte-level", pre_tokenizer={"type": "Digits", "individual_digits": True})
    bad("pre-tokenizer-byte-level-twice", ["behind"], key("pre_tokenizer.pretokenizers[1].type"), pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTE_LEVEL, BYTE_LEVEL]})
    bad("split-broken-expression", ["\"(\""], key("pre_tokenizer.pretokenizers[0].pattern.Regex"), pre_tokenizer=split(pattern={"Regex": "("}))
    bad("split-sideways", ["Sideways"], key("pre_tokenizer.pretokenizers[0].behavior"), pre_tokenizer=split(behavior="Sideways"))
    bad("normalizer-unknown", ["\"Nmt\""], key("normalizer.type"), normalizer={"type": "Nmt"})
    ok("pre-tokenizer-empty", pre_tokenizer={"type": "Sequence", "pretokenizers": []})
    ok("digits-together", pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, BYTE_LEVEL]})
    ok("split-other-expression", pre_tokenizer=split(pattern={"Regex": "\\d+"}))
    ok("split-by-string", pre_tokenizer=split(pattern={"String": " "}))
    ok("split-removed", pre_tokenizer=split(behavior="Removed"))
    ok("split-inverted", pre_tokenizer=split(invert=True))
    bad("decoder-behind-fuse", ["behind a step that joins"], key("decoder.decoders[1].type"), decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]})
    bad("decoder-strip-many", ["1025"], key("decoder.decoders[1].start"), decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1025, "stop": 0}]})
    bad("decoder-wordpiece", ["\"WordPiece\""], key("decoder.type"), decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    bad("processor-bert", ["9999"], key("post_processor.cls"), post_processor={"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 9999]})
    bad("template-two-tokens", ["after another"], key("post_processor.single[1].SpecialToken"), post_processor=template([end, end, text]))
    ok("template-end-token", post_processor=template([text, end]))
    bad("template-empty-item", ["without token and text"], key("post_processor.single"), post_processor=template([text, {}]))
    bad("template-without-text", ["no text"], key("post_processor.single"), post_processor=template([end]))
    bad("template-unknown-token", ["nothing"], key("post_processor.special_tokens.<end>"), post_processor=template([end, text], {}))
    bad("template-no-such-id", ["[9999]"], key("post_processor.special_tokens.<end>.ids"), post_processor=template([end, text], {"<end>": {"id": "<end>", "ids": [9999], "tokens": ["<end>"]}}))
    bad("template-two-ids", [f"[{TOKENS},1]"], key("post_processor.special_tokens.<end>.ids"), post_processor=template([end, text], {"<end>": {"id": "<end>", "ids": [TOKENS, 1], "tokens": ["<end>", "x"]}}))


def main(arguments):
    if arguments not in ([], ["--check"]): sys.exit(__doc__)
    for cases in (safetensors_cases, pytorch_cases, gguf_cases, index_cases, config_cases, adapter_config_cases, folder_cases, tokenizer_cases, gguf_model_cases): cases()
    FILES["cases.json"] = ("[\n" + ",\n".join(json.dumps(case, sort_keys=False) for case in CASES) + "\n]\n").encode()
    present = {str(path.relative_to(HERE)) for path in HERE.rglob("*") if path.is_file()} - {"make.py", "README.md"}
    if arguments:
        wrong = [name for name, content in FILES.items() if name not in present or (HERE / name).read_bytes() != content]
        wrong += [name + " (made by no case)" for name in sorted(present - set(FILES))]
        if wrong: sys.exit("differ: " + ", ".join(wrong))
    else:
        for name in present - set(FILES): (HERE / name).unlink()
        for name, content in FILES.items():
            (HERE / name).parent.mkdir(parents=True, exist_ok=True)
            (HERE / name).write_bytes(content)
        for folder in sorted((path for path in HERE.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()): folder.rmdir()
    counts = {}
    for case in CASES: counts[case["opens"]] = counts.get(case["opens"], 0) + 1
    print(f"{len(CASES)} cases in {len(FILES)} files, {sum(map(len, FILES.values()))} bytes:", ", ".join(f"{n} {kind}" for kind, n in counts.items()))


if __name__ == "__main__": main(sys.argv[1:])
