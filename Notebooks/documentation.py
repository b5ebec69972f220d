#!/usr/bin/env python3
"""Writes the documentation with DocC: guides, the architecture, and a page for every public symbol.

    Notebooks/documentation.py FOLDER       pages for a web server (python3 -m http.server -d FOLDER, then /documentation/mixlora)

`docc` comes with Swift, so Package.swift needs no plug-in. The libraries are built as `swift test` builds them; what they declare is read
from there, all of them in one catalogue, so that a guide may point into any. The text of the guides is checked by `lessons.py check`.
Fails where a public symbol has no documentation, or a link leads nowhere.
"""

import json, re, shutil, subprocess, sys, tempfile
from pathlib import Path

from lessons import Wrong, catalogue, root, swift_build


def section(file, anchor):
    """The text under a heading of a Markdown file, by the heading's anchor."""
    parts = re.split(r"^(?=#{1,3} )", file.read_text(), flags=re.M)
    for part in parts:
        heading, _, text = part.partition("\n")
        if anchor_of(heading) == anchor:
            return heading.lstrip("# "), text.strip("\n")
    raise Wrong(f"{file.relative_to(root)} has no section #{anchor}")


def anchor_of(heading):
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def article(path, symbols):
    """An article as DocC is to read it: sections of other files in the place of links to them, other links to the repository as text."""
    def of_repository(match):
        file = (path.parent / match[2].split("#")[0]).resolve()
        if not file.exists():
            raise Wrong(f"{path.relative_to(root)}: there is no {match[2]}")
        return f"{match[1]} (`{file.relative_to(root)}`)"

    def taken_in(match):
        place, _, anchor = match[2].partition("#")
        heading, text = section((path.parent / place).resolve(), anchor)
        text = re.sub(r"(?<!`)`([A-Z]\w+)`(?!`)", lambda m: f"``{symbols[m[1]]}``" if m[1] in symbols else m[0], text)
        return f"## {heading}\n\n{text}\n"

    text = re.sub(r"^- \[([^\]]+)\]\((\S+\.md#\S+)\)$", taken_in, path.read_text(), flags=re.M)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)", of_repository, text)


def symbol_graphs(names, folder):
    """Builds the libraries and writes what they declare into the folder. (SwiftPM's dump-symbol-graph would build all tests before.)"""
    swift_build(root, "MixLoRA")
    build = root / ".build/debug"
    maps = [*build.glob("*.build/module.modulemap"), *root.glob("Sources/*/module.modulemap"), *root.glob(".build/checkouts/*/Sources/*/include/module.modulemap")]
    target = json.loads(subprocess.run(["swiftc", "-print-target-info"], check=True, stdout=subprocess.PIPE).stdout)["target"]["triple"]
    common = ["-I", str(build / "Modules"), "-target", target, "-module-cache-path", str(folder.parent / "modules"), "-output-dir", str(folder)]
    common += [part for file in maps for part in ("-Xcc", f"-fmodule-map-file={file}")]
    tool = ["swift-symbolgraph-extract"]
    if shutil.which("xcrun"):
        tool = ["xcrun", *tool]
        common += ["-sdk", subprocess.run(["xcrun", "--show-sdk-path"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()]
    for name in names:
        arguments = tool + ["-module-name", name, "-minimum-access-level", "public", "-skip-synthesized-members", *common]
        result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0:
            raise Wrong(f"{name}: {result.stdout}")


def libraries():
    """The targets whose symbols users meet: what `import MixLoRA` brings, and what that stands on."""
    names = [folder.name for folder in (root / "Sources").iterdir() if any(folder.rglob("*.swift"))]
    return sorted(set(names) - {"CInterface", "MixLoRACommand"})


def pages_of_libraries(names):
    """A page a library that says what the map of the sources says of it: {file name: text}."""
    _, text = section(root / "Sources/README.md", "the-map")
    said = {name: " ".join(words.split()) for name, words in re.findall(r"^ {4}(\w+) {2,}(\S.*(?:\n {8,}\S.*)*)", text, flags=re.M)}
    if missing := set(names) - set(said):
        raise Wrong(f"Sources/README.md: the map has no {', '.join(sorted(missing))}")
    return {f"{name}Library.md": f"# ``/{name}``\n\n{said[name][0].upper() + said[name][1:]}.\n" for name in names}


def undocumented(graphs):
    """Every public symbol without documentation, with its place; the number of all."""
    lacking, count = [], 0
    for graph in graphs:
        for symbol in graph["symbols"]:
            count += 1
            if not symbol.get("docComment", {}).get("lines"):
                where = symbol.get("location", {"uri": "?", "position": {"line": -1}})
                name = ".".join(symbol["pathComponents"])
                lacking.append(f"{where['uri'].split('/')[-1]}:{where['position']['line'] + 1}: {graph['module']['name']}.{name} has no documentation")
    return lacking, count


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        kept, book = Path(scratch) / "symbols", Path(scratch) / "MixLoRA.docc"
        kept.mkdir()
        names = libraries()
        symbol_graphs(names, kept)
        graphs = [json.loads(file.read_text()) for file in sorted(kept.glob("*.symbols.json"))]
        if missing := set(names) - {graph["module"]["name"] for graph in graphs}:
            raise Wrong(f"no symbol graph of {', '.join(sorted(missing))}")
        lacking, count = undocumented(graphs)
        if lacking or count < 1000:
            raise Wrong("\n".join(lacking) or f"only {count} public symbols were found")
        types = {}
        for graph in graphs:
            for symbol in graph["symbols"]:
                if len(symbol["pathComponents"]) == 1:
                    types.setdefault(symbol["pathComponents"][0], set()).add(f"/{graph['module']['name']}/{symbol['pathComponents'][0]}")
        symbols = {name: places.pop() for name, places in types.items() if len(places) == 1}
        book.mkdir()
        for name, text in pages_of_libraries(set(names) - {"MixLoRA"}).items():
            (book / name).write_text(text)
        for file in sorted(catalogue.glob("*.md")):
            (book / file.name).write_text(article(file, symbols))
        arguments = (["xcrun"] if shutil.which("xcrun") else []) + ["docc", "convert", str(book), "--additional-symbol-graph-dir", str(kept), "--output-dir", str(folder), "--warnings-as-errors"]
        # A doc comment here names the parameters that need a word; DocC would have all or none.
        result = subprocess.run(arguments + ["--disable-parameters-and-returns-validation"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0:
            raise Wrong(result.stdout)
    print(f"{folder}: {count} public symbols, all documented; {len(list(catalogue.glob('*.md')))} pages of text")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except Wrong as error:
        sys.exit(str(error))
