#!/usr/bin/env python3
"""Runs the lessons, and the articles of the documentation: Markdown files whose Swift cells are compiled against this library.

    Notebooks/lessons.py check [LESSON …]             every cell prints what stands below it, every exercise has its solution
    Notebooks/lessons.py update [LESSON …]            writes what the cells print below them
    Notebooks/lessons.py try LESSON [--solutions]     your answers in the lesson's exercise cells against the hidden tests
    Notebooks/lessons.py export FOLDER [--solutions]  a page and a notebook (.ipynb) a lesson, with outputs and pictures
    Notebooks/lessons.py bugs                         for each seeded bug the tests that the lessons name for it

LESSON is a file, its number (`3`) or an article's name (`AddALayer`), all without one. Python 3.9 with its standard library, and Swift. How a lesson is written:
Notebooks/README.md. Exit status: 0, or 1 with what is wrong and where.
"""

import argparse, os, re, shutil, subprocess, sys
from pathlib import Path

notebooks = Path(__file__).resolve().parent
root = notebooks.parent
catalogue = root / "Sources/MixLoRA/MixLoRA.docc"
MARK = "\x01"
QUOTED_LINES = 10  # of the engine's own code, at most, in one quotation


class Wrong(Exception):
    """Something about a lesson that a reader should not meet: where it is, and what."""


class Block:
    """Consecutive lines of a lesson: `kind` is text, cell, shell, output, quote, equation, exercise, solution or test."""

    def __init__(self, kind, line, raw, body="", info=""):
        self.kind, self.line, self.raw, self.body, self.info = kind, line, raw, body, info
        self.output, self.pictures = "", []  # of a cell, once it has run: what it printed; (alternative text, SVG)
        self.count = None  # which cell it was, where a notebook is to say so


class Lesson:
    def __init__(self, path):
        self.path, self.name = path, path.stem
        self.is_article = path.parent.suffix == ".docc"
        self.number = path.stem if self.is_article else path.stem[:2]
        self.place = path.relative_to(root) if path.is_relative_to(root) else path
        self.blocks = parse(self.place, path.read_text().splitlines(), shell="sh" if self.is_article else None)
        self.title = next((b.body for b in self.blocks if b.kind == "text" and b.body.startswith("# ")), "# ").split("\n")[0][2:]

    def of(self, *kinds):
        return [block for block in self.blocks if block.kind in kinds]

    def exercises(self):
        """(exercise, solution, test) each."""
        parts = self.of("exercise", "solution", "test")
        kinds = [part.kind for part in parts]
        if kinds != ["exercise", "solution", "test"] * (len(parts) // 3) or not (parts or self.is_article):
            raise Wrong(f"{self.place}: exercises are an exercise cell, then in a comment its solution and its test; found {kinds}")
        return [parts[i:i + 3] for i in range(0, len(parts), 3)]


def parse(place, lines, language="swift", shell=None):
    """The blocks of a lesson. A fence inside of a comment is a solution or a test; `shell` is the language of commands to run."""
    blocks, text, start, i, hidden = [], [], 1, 0, False

    def end_text():
        nonlocal text
        if text:
            blocks.append(Block("text", start, text, "\n".join(text).strip("\n")))
        text = []

    while i < len(lines):
        line = lines[i]
        if not line.startswith("```"):
            if line.strip() == "<!-- hidden":
                hidden = True
            elif hidden and line.strip() == "-->":
                hidden = False
            if not text:
                start = i + 1
            text.append(line)
            i += 1
            continue
        end = next((j for j in range(i + 1, len(lines)) if lines[j] == "```"), None)
        if end is None:
            raise Wrong(f"{place}:{i + 1}: a fence without an end")
        info, raw = line[3:].strip(), lines[i:end + 1]
        if text and (source := re.fullmatch(r"<!-- source: (\S+) -->", text[-1])):  # as DocC takes it
            info, raw = f"{info} source={source.group(1)}", [text.pop()] + raw
        kind = {language: "cell", shell: "shell", "output": "output", "equation": "equation", "swift exercise": "exercise"}.get(info, "other")
        if re.match(r"(swift|cpp) source=", info):
            kind = "quote"
        if hidden:
            kind = {"swift": "solution", "swift test": "test"}.get(info)
            if kind is None:
                raise Wrong(f"{place}:{i + 1}: hidden are ```swift, the solution, and ```swift test, found ```{info}")
        if kind == "other" and info.startswith("swift"):
            raise Wrong(f"{place}:{i + 1}: no such cell: ```{info}")
        if kind == "other":  # a block of text that is no cell
            if not text:
                start = i + 1
            text += lines[i:end + 1]
        else:
            end_text()
            blocks.append(Block(kind, i + 1, raw, "\n".join(lines[i + 1:end]), info))
        i = end + 1
    end_text()
    return blocks


# What is checked without running anything


def check_text(lesson, has_run=True):
    """Quotations stand in their files; equations name a source, a test and a bug that there are; the lesson has all its parts."""
    cells, equations, quotes = lesson.of("cell", "shell"), lesson.of("equation"), lesson.of("quote")
    outputs = lesson.of("output") if has_run else cells
    parts = [(cells, "cell"), (outputs, "output"), (equations, "equation"), (quotes, "quotation of the engine")]
    for found, what in parts[:2] if lesson.is_article else parts:
        if not found:
            raise Wrong(f"{lesson.place}: no {what}")
    if not lesson.is_article and len(lesson.exercises()) < 2:
        raise Wrong(f"{lesson.place}: fewer than two exercises")
    if any(before.kind == "cell" and after.kind == "shell" for before, after in zip(cells, cells[1:])):
        raise Wrong(f"{lesson.place}: commands run before Swift does, so they stand before it")
    for quote in quotes:
        check_quote(lesson, quote)
    for i, block in enumerate(lesson.blocks):
        if block.kind == "equation":
            following = lesson.blocks[i + 1] if i + 1 < len(lesson.blocks) else None
            check_equation(f"{lesson.place}:{block.line}", following.body if following and following.kind == "text" else "")


def quoted_file(quote):
    return quote.info.split(" source=", 1)[1]


def check_quote(lesson, quote):
    place = f"{lesson.place}:{quote.line}"
    file = root / quoted_file(quote)
    if not file.is_file():
        raise Wrong(f"{place}: quotes {file}, which is not there")
    stripped = [line.strip() for line in file.read_text().splitlines()]
    lines = [line.strip() for line in quote.body.splitlines()]
    if not lines or sum(1 for line in lines if line not in ("", "…")) > QUOTED_LINES:
        raise Wrong(f"{place}: a quotation has 1 to {QUOTED_LINES} lines")
    begin = 0
    for part in "\n".join(lines).split("\n…\n"):  # `…` leaves lines out
        part = part.split("\n")
        begin = next((i + len(part) for i in range(begin, len(stripped)) if stripped[i:i + len(part)] == part), None)
        if begin is None:
            raise Wrong(f"{place}: these lines do not stand so in {file.relative_to(root)}:\n" + "\n".join(part))


def references(place, comment):
    """(tests, bugs) of `test: File.name (case), … · bug: name, …`; each must exist."""
    match = re.fullmatch(r"test: (.+?)(?: · bug: (.+))?", comment)
    if not match:
        raise Wrong(f"{place}: the comment of an equation is `test: File.name (case) · bug: name`, found `{comment}`")
    tests, bugs = [], [bug.strip() for bug in (match.group(2) or "").split(",") if bug.strip()]
    for reference in match.group(1).split(","):
        name = re.fullmatch(r"(\w+)\.(\w+)(?: \(([\w-]+)\))?", reference.strip())
        if not name:
            raise Wrong(f"{place}: no test's name: {reference.strip()}")
        file, function, case = name.groups()
        sources = [source.read_text() for source in (root / "Tests").glob(f"*/{file}.swift")]
        if not any(f"func {function}(" in source for source in sources):
            raise Wrong(f"{place}: there is no test {file}.{function}")
        if case and not (root / "Fixtures/cases" / case).is_dir() and not any(
                f'"{case}"' in cases.read_text() for cases in (root / "Sources/Conformance/Cases").glob("*.swift")):
            raise Wrong(f"{place}: there is no case {case}")
        tests.append(f"{file}.{function}")
    for bug in bugs:
        if not (root / ".ci/seeded-bugs" / f"{bug}.patch").is_file():
            raise Wrong(f"{place}: there is no seeded bug {bug}")
    return tests, bugs


def check_equation(place, following):
    """Behind an equation: `*From source.*` and in a comment what tests it."""
    match = re.match(r"\*From [^*]+\*\s*<!-- (.+?) -->", following)
    if not match:
        raise Wrong(f"{place}: behind an equation stands `*From its source.*` and `<!-- test: … · bug: … -->`")
    return references(place, match.group(1))


# Running


def program(lessons, answers=False):
    """Swift files of the package: a function a lesson. With `answers`, what stands in the exercise cells instead of the solutions too."""
    files = {file.name: file.read_text() for file in (notebooks / "lessons").glob("*.swift")}
    files["main.swift"] = main_file(lessons)
    for lesson in lessons:
        body, number = [], 0
        for block in lesson.of("cell"):
            number += 1
            code = re.sub(r"^import (MixLoRA|Conformance)$", "", block.body, flags=re.M)  # which stand above the function
            body += [f'mark("cell {number}")', f'#sourceLocation(file: "{lesson.place}", line: {block.line + 1})', code, "#sourceLocation()"]
        for number, (exercise, solution, test) in enumerate(lesson.exercises(), 1):
            for kind, block in [("stub", exercise), ("solution", solution)]:
                body.append(f'mark("exercise {number} {kind}")')
                body.append("do {")
                for part in (block, test):
                    body += [f'#sourceLocation(file: "{lesson.place}", line: {part.line + 1})', part.body, "#sourceLocation()"]
                body += ["}", "endExercise()"]
        files[f"Lesson{lesson.number}.swift"] = "\n".join(
            ["import Conformance", "import MixLoRA", "", f"func lesson{lesson.number}() throws {{"] + body + ["}", ""])
    return files


def main_file(lessons):
    cases = "\n".join(f'case "{lesson.number}": try lesson{lesson.number}()' for lesson in lessons)
    return f'switch CommandLine.arguments.last {{\n{cases}\ndefault: fatalError("no such lesson")\n}}\n'


def build(lessons):
    """Builds the program, with the library as `swift test` has built it; its path."""
    folder = root / ".build/program-of-lessons"  # no name of a clone, for SwiftPM tells packages apart by folders
    sources = folder / "Sources/lessons"
    sources.mkdir(parents=True, exist_ok=True)
    files = program(lessons)
    for file in sources.glob("*.swift"):
        if file.name not in files:
            file.unlink()
    for name, text in files.items():
        if not (sources / name).is_file() or (sources / name).read_text() != text:
            (sources / name).write_text(text)
    products = ", ".join(f'.product(name: "{name}", package: "{root.name}")' for name in ["MixLoRA", "Conformance"])
    manifest = f"""// swift-tools-version: 6.2
import PackageDescription
let package = Package(
  name: "lessons", platforms: [.macOS(.v15)], dependencies: [.package(path: "{root}")],
  targets: [.executableTarget(name: "lessons", dependencies: [{products}])])
"""
    if not (folder / "Package.swift").is_file() or (folder / "Package.swift").read_text() != manifest:
        (folder / "Package.swift").write_text(manifest)
    if any(lesson.of("shell") for lesson in lessons):
        swift_build(root, "mixlora")
    swift_build(folder, "lessons")
    return root / ".build/debug/lessons"


def swift_build(package, product):
    # Two packages share the folder, so a plan that lies there may be the other's.
    arguments = ["swift", "build", "-q", "--disable-build-manifest-caching", "--scratch-path", str(root / ".build"), "--product", product]
    result = subprocess.run(arguments, cwd=package, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        raise Wrong(f"{product} does not build:\n" + result.stdout)


def place_of(lesson):
    """Where cells run: the clone; those of an article, which write files, in a folder of their own."""
    if not lesson.is_article:
        return root
    folder = root / ".build/articles" / lesson.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["Fixtures", "Sources"]:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(root / name)
    return folder


def run_commands(binary, lesson):
    """Runs the commands of an article with the program that was built beside the lessons, and sets what they print."""
    folder = place_of(lesson)
    shutil.rmtree(folder)
    folder = place_of(lesson)
    environment = dict(os.environ, SWIFT_BACKTRACE="enable=no", PATH=f"{binary.parent}:{os.environ['PATH']}")
    for block in lesson.of("shell"):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.body], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if result.returncode != 0:
            raise Wrong(f"{lesson.place}:{block.line}: the command ended with status {result.returncode}\n{result.stdout}{result.stderr}")
        block.output = result.stdout.splitlines()


def run(binary, lesson):
    """Runs a lesson's cells and sets their outputs; what each exercise came to: {(number, "stub" or "solution"): [what failed]}."""
    if lesson.of("shell"):
        run_commands(binary, lesson)
    environment = dict(os.environ, SWIFT_BACKTRACE="enable=no")
    result = subprocess.run(
        [str(binary), lesson.number], cwd=place_of(lesson), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cells, verdicts = lesson.of("cell"), {}
    lines, picture, cell, exercise = [], None, None, None
    for line in result.stdout.splitlines():
        word, _, rest = line[1:].partition(" ") if line.startswith(MARK) else ("", "", "")
        if word == "cell":
            cell, exercise = cells[int(rest) - 1], None
            cell.output, cell.pictures = [], []
        elif word == "exercise":
            number, kind = rest.split()
            cell, exercise = None, (int(number), kind)
        elif word == "failed":
            verdicts.setdefault(exercise, []).append(rest)
        elif word == "ended":  # with the number of expectations, of which there must have been one
            verdicts.setdefault(exercise, [] if int(rest) > 0 else ["the test expects nothing"])
        elif word == "picture":
            picture = (rest, [])
        elif word == "end":
            (cell.pictures if cell else []).append((picture[0], "\n".join(picture[1]) + "\n"))
            picture = None
        elif picture:
            picture[1].append(line)
        elif cell:
            cell.output.append(line)
    if result.returncode != 0:
        where = f"cell {cells.index(cell) + 1} at line {cell.line}" if cell else f"exercise {exercise}"
        raise Wrong(f"{lesson.place}: stopped in {where} with status {result.returncode}\n{result.stderr}")
    for block in lesson.of("cell", "shell"):
        if not isinstance(block.output, list):
            raise Wrong(f"{lesson.place}:{block.line}: the cell did not run")
        block.output = "\n".join(text.rstrip() for text in block.output)
        if re.search(r"(?i)(?<![\w])[-+]?(nan|inf|infinity)(?![\w])", block.output):
            raise Wrong(f"{lesson.place}:{block.line}: the cell printed a number that is none:\n{block.output}")
        if lesson.is_article and block.pictures:
            raise Wrong(f"{lesson.place}:{block.line}: articles have no pictures")
    return verdicts


def picture_name(lesson, cell, number):
    return f"pictures/{lesson.number}-{lesson.of('cell').index(cell) + 1}{'abcdef'[number]}.svg"


def written(lesson):
    """The lesson's lines with what its cells printed, and its pictures: (text, {name: SVG})."""
    lines, pictures = [], {}
    blocks = lesson.blocks
    for i, block in enumerate(blocks):
        raw = block.raw
        if block.kind == "output":
            continue
        if block.kind == "text" and i > 0 and blocks[i - 1].kind in ("cell", "shell", "output"):  # pictures are written anew
            if not block.body and i + 1 < len(blocks) and blocks[i + 1].kind == "output":
                continue
            raw = list(raw)
            while raw and (raw[0] == "" or re.match(r"!\[.*\]\(pictures/\d\d-\d+[a-z]\.svg\)$", raw[0])):
                raw.pop(0)
            raw = [""] + raw
        lines += raw
        if block.kind in ("cell", "shell"):
            if block.output:
                lines += ["", "```output"] + block.output.split("\n") + ["```"]
            for number, (alternative, svg) in enumerate(block.pictures):
                name = picture_name(lesson, block, number)
                pictures[name] = svg
                lines += ["", f"![{alternative}]({name})"]
    return "\n".join(lines) + "\n", pictures


def check_exercises(lesson, verdicts):
    for number in range(1, len(lesson.exercises()) + 1):
        failed = verdicts.get((number, "solution"), ["it did not run"])
        if failed:
            raise Wrong(f"{lesson.place}: the solution of exercise {number} fails its test: {'; '.join(failed)}")
        if not verdicts.get((number, "stub"), ["it did not run"]):
            raise Wrong(f"{lesson.place}: exercise {number} passes its test before anybody solved it (your own answers: `lessons.py try`)")


def check(lessons, binary):
    wrong = []
    for lesson in lessons:
        try:
            check_exercises(lesson, run(binary, lesson))
            text, pictures = written(lesson)
            compare(lesson, text, pictures)
            print(f"{lesson.place}: {len(lesson.of('cell', 'shell'))} cells, {len(lesson.exercises())} exercises", flush=True)
        except Wrong as error:
            wrong.append(str(error))
    if wrong:
        raise Wrong("\n".join(wrong))


def compare(lesson, text, pictures):
    found, expected = lesson.path.read_text().splitlines(), text.splitlines()
    for number, (a, b) in enumerate(zip(found + ["end of file"], expected + ["end of file"]), 1):
        if a != b:
            raise Wrong(f"{lesson.place}:{number}: stands\n  {a}\nbut the cells give\n  {b}")
    kept = {f"pictures/{file.name}" for file in (notebooks / "lessons/pictures").glob(f"{lesson.number}-*.svg")}
    if kept != set(pictures):
        raise Wrong(f"{lesson.place}: its pictures are {sorted(pictures)}, kept are {sorted(kept)}")
    for name, svg in pictures.items():
        if (notebooks / "lessons" / name).read_text() != svg:
            raise Wrong(f"{lesson.place}: {name} is another picture now")


def update(lessons, binary):
    for lesson in lessons:
        check_exercises(lesson, run(binary, lesson))
        text, pictures = written(lesson)
        for file in (notebooks / "lessons/pictures").glob(f"{lesson.number}-*.svg"):
            file.unlink()
        for name, svg in pictures.items():
            (notebooks / "lessons/pictures").mkdir(exist_ok=True)
            (notebooks / "lessons" / name).write_text(svg)
        lesson.path.write_text(text)
        print(f"{lesson.place}: written")


def attempt(lesson, binary, shows):
    """Says which exercises are solved; with `shows`, how."""
    verdicts = run(binary, lesson)
    for number, (_, solution, test) in enumerate(lesson.exercises(), 1):
        failed = verdicts.get((number, "stub"), ["it did not run"])
        print(f"exercise {number}: " + ("right" if not failed else "not yet: " + "; ".join(failed)))
        if shows:
            print(f"\na solution:\n\n{solution.body}\n\nits test:\n\n{test.body}\n")


def chosen(names):
    files = sorted((notebooks / "lessons").glob("[0-9][0-9]-*.md"))
    files += sorted(file for file in catalogue.glob("*.md") if file.name != "MixLoRA.md")  # which is a list of the others
    if not files:
        raise Wrong("there are no lessons")
    if not names:
        return [Lesson(file) for file in files]
    found = [file for name in names for file in files if Path(name).name in (file.name, file.stem) or file.name.startswith(f"{name.zfill(2)}-")]
    if len(found) != len(names):
        raise Wrong(f"no such lesson: {' '.join(names)}")
    return [Lesson(file) for file in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "update", "try", "export", "bugs"])
    parser.add_argument("names", nargs="*", metavar="LESSON or FOLDER")
    parser.add_argument("--solutions", action="store_true", help="show the solutions and the tests of the exercises")
    options = parser.parse_args()
    try:
        if options.command == "bugs":
            pairs = {}
            for lesson in chosen(options.names):
                for i, block in enumerate(lesson.blocks):
                    if block.kind == "equation":
                        tests, bugs = check_equation(f"{lesson.place}:{block.line}", lesson.blocks[i + 1].body)
                        for bug in bugs:
                            pairs.setdefault(bug, set()).update(tests)
            print("\n".join(f"{bug} {' '.join(sorted(pairs[bug]))}" for bug in sorted(pairs)))
            return 0
        if options.command in ("try", "export") and len(options.names) != 1:
            parser.error(f"{options.command} takes one name")
        lessons = chosen([] if options.command == "export" else options.names)
        for lesson in lessons:
            check_text(lesson, has_run=options.command != "update")
        binary = build(lessons)
        if options.command == "check":
            check(lessons, binary)
        elif options.command == "update":
            update(lessons, binary)
        elif options.command == "try":
            attempt(lessons[0], binary, options.solutions)
        else:
            import lessons_pages
            check(lessons, binary)
            lessons_pages.export([lesson for lesson in lessons if not lesson.is_article], Path(options.names[0]), options.solutions)
        return 0
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
