#!/usr/bin/env python3
"""What `lessons.py` and `documentation.py` must notice, each planted in a small text. Nothing is compiled: a script stands for the program."""

import contextlib, io, stat, tempfile, unittest
from pathlib import Path

import documentation, lessons

TEXT = """# 1 · A test

```equation
y = x Wᵀ
```
*From somewhere, equation 1.*
<!-- test: CaseTests.everyCaseHoldsInDoublePrecision (linear), GradientTests.finiteDifferencesGiveTheGradientOfEveryBaseTensor · bug: 01-rope-pairing -->

```swift source=Sources/Layers/Linear.swift
// forward: y += b
…
run.backend.addProduct(1, dy, weight, into: &dx)  // (N,I)  + dy W
```

```swift
print(1.5)
```

```output
1.5
```

![a line](pictures/01-1a.svg)

Text.

```swift exercise
let x = 0
```

<!-- hidden
```swift
let x = 1
```
```swift test
expect(x == 1, "one")
```
-->

```swift exercise
let x = 0
```

<!-- hidden
```swift
let x = 2
```
```swift test
expect(x == 2, "two")
```
-->
"""

SAID = """\x01cell 1
1.5
\x01picture a line
<svg/>
\x01end
\x01exercise 1 stub
\x01failed one
\x01ended 1
\x01exercise 1 solution
\x01ended 1
\x01exercise 2 stub
\x01failed two
\x01ended 1
\x01exercise 2 solution
\x01ended 1
"""


class LessonsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)

    def lesson(self, text):
        file = self.path / "01-test.md"
        file.write_text(text)
        return lessons.Lesson(file)

    def program(self, said, status=0):
        file = self.path / "program"
        (self.path / "said").write_text(said)
        file.write_text(f'#!/bin/sh\ncat "{self.path}/said"\nexit {status}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file

    def check(self, text=TEXT, said=SAID, status=0, picture="<svg/>\n"):
        """As `lessons.py check` does it, with the pictures in a folder of the test."""
        lesson = self.lesson(text)
        lessons.check_text(lesson)
        lessons.check_exercises(lesson, lessons.run(self.program(said, status), lesson))
        (self.path / "lessons/pictures").mkdir(parents=True, exist_ok=True)
        (self.path / "lessons/pictures/01-1a.svg").write_text(picture)
        kept, lessons.notebooks = lessons.notebooks, self.path
        try:
            lessons.compare(lesson, *lessons.written(lesson))
        finally:
            lessons.notebooks = kept

    def wrong(self, message, **given):
        with self.assertRaisesRegex(lessons.Wrong, message):
            self.check(**given)

    def test_a_right_lesson_passes(self):
        self.check()

    def test_another_number_fails(self):
        self.wrong(r"01-test.md:\d+: stands\n  1.5\nbut the cells give\n  1.6", said=SAID.replace("1.5", "1.6"))
        self.wrong("stands", said=SAID.replace("1.5\n", ""))
        self.wrong("stands", said=SAID.replace("1.5\n", "1.5\n2\n"))

    def test_a_number_that_is_none_fails_even_if_it_stands_there(self):
        for word in ["nan", "-inf", "inf", "NaN"]:
            self.wrong("a number that is none", text=TEXT.replace("\n1.5\n", f"\n{word}\n"), said=SAID.replace("1.5", word))

    def test_another_picture_fails(self):
        self.wrong("another picture", picture="<svg></svg>\n")
        self.wrong("stands", said=SAID.replace("picture a line", "picture another"))

    def test_a_lesson_without_its_parts_fails(self):
        self.wrong("no output", text=TEXT.replace("```output\n1.5\n```\n", ""))
        self.wrong("no cell", text=TEXT.replace("```swift\nprint(1.5)\n```\n", ""))
        self.wrong("no equation", text=TEXT.replace("```equation", "```text"))
        self.wrong("fewer than two exercises", text=TEXT[:TEXT.rindex("```swift exercise")])

    def test_a_quotation_that_is_none_fails(self):
        self.wrong("do not stand so", text=TEXT.replace("addProduct(1, dy, weight", "addProduct(2, dy, weight"))
        self.wrong("not there", text=TEXT.replace("Layers/Linear.swift", "Layers/Linearly.swift"))
        self.wrong("1 to 10 lines", text=TEXT.replace("…\n", "x\n" * 10))

    def test_an_equation_needs_a_source_a_test_and_a_bug_that_there_are(self):
        self.wrong("its source", text=TEXT.replace("*From somewhere, equation 1.*\n", ""))
        self.wrong("no test CaseTests.everyCaseHolds", text=TEXT.replace("everyCaseHoldsInDoublePrecision", "everyCaseHolds"))
        self.wrong("no case linearly", text=TEXT.replace("(linear)", "(linearly)"))
        self.wrong("no seeded bug 01-rope", text=TEXT.replace("01-rope-pairing", "01-rope"))

    def test_exercises_must_be_unsolved_and_solvable(self):
        self.wrong("before anybody solved it", said=SAID.replace("\x01failed one\n", ""))
        self.wrong("solution of exercise 2 fails", said=SAID.replace("\x01exercise 2 solution\n", "\x01exercise 2 solution\n\x01failed two\n"))
        self.wrong("expects nothing", said=SAID.replace("solution\n\x01ended 1", "solution\n\x01ended 0"))

    def test_a_program_that_stops_or_says_nothing_fails(self):
        self.wrong("stopped in cell 1", said="\x01cell 1\n1.5\n", status=4)
        self.wrong("did not run", said="")

    def test_update_writes_what_check_reads(self):
        bare = TEXT.replace("\n```output\n1.5\n```\n\n![a line](pictures/01-1a.svg)\n", "")
        lesson = self.lesson(bare)
        lessons.run(self.program(SAID), lesson)
        self.assertEqual(lessons.written(lesson), (TEXT, {"pictures/01-1a.svg": "<svg/>\n"}))

    def test_answers_are_hidden_until_asked_for(self):
        import lessons_pages

        lesson = self.lesson(TEXT)
        lessons.run(self.program(SAID), lesson)
        for solutions in [False, True]:
            page = lessons_pages.page(lesson, None, None, solutions)
            self.assertEqual("let x = 2" in page, solutions)
            self.assertIn("1.5", page)
            self.assertNotIn("CaseTests", page)
            cells = lessons_pages.notebook(lesson, solutions)["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells)
            self.assertEqual("let x = 2" in code, solutions)
            if solutions:  # behind the last question
                for shown in [page, code]:
                    self.assertGreater(shown.index("let x = 1"), shown.rindex("let x = 0"))
                    self.assertGreater(shown.index("let x = 2"), shown.index("let x = 1"))
                self.assertEqual(page.count("<details>"), 4)


ARTICLE = """# Look

```sh
echo 1.5 > file
cat file
```

```output
1.5
```

<!-- source: Sources/Layers/Linear.swift -->
```swift
run.backend.addProduct(1, dy, weight, into: &dx)  // (N,I)  + dy W
```

```swift
import MixLoRA
print(1.5)
```

```output
1.5
```
"""


class ArticlesTest(unittest.TestCase):
    """The same for an article of the documentation: commands are run, the Swift is said by a script."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "Test.docc"
        self.path.mkdir()
        self.addCleanup(lessons.shutil.rmtree, lessons.root / ".build/articles/Look", ignore_errors=True)

    def article(self, text):
        (self.path / "Look.md").write_text(text)
        return lessons.Lesson(self.path / "Look.md")

    def check(self, text=ARTICLE, said="\x01cell 1\n1.5\n"):
        lesson = self.article(text)
        lessons.check_text(lesson)
        program = self.path / "program"
        (self.path / "said").write_text(said)
        program.write_text(f'#!/bin/sh\ncat "{self.path}/said"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        lessons.check_exercises(lesson, lessons.run(program, lesson))
        lessons.compare(lesson, *lessons.written(lesson))

    def wrong(self, message, **given):
        with self.assertRaisesRegex(lessons.Wrong, message):
            self.check(**given)

    def test_a_right_article_passes(self):
        self.check()

    def test_another_number_fails(self):
        self.wrong(r"stands\n  1.5\nbut the cells give\n  1.6", said="\x01cell 1\n1.6\n")
        self.wrong(r"stands\n  1.5\nbut the cells give\n  1.6", text=ARTICLE.replace("echo 1.5", "echo 1.6"))
        self.wrong("a number that is none", text=ARTICLE.replace("echo 1.5", "echo nan"))

    def test_a_command_that_fails_fails(self):
        self.wrong("ended with status 1", text=ARTICLE.replace("cat file", "false; cat file"))
        self.wrong("ended with status", text=ARTICLE.replace("cat file", "cat another | cat"))

    def test_commands_stand_before_swift(self):
        self.wrong("commands run before Swift", text=ARTICLE + "\n```sh\necho 1\n```\n")

    def test_a_quotation_that_is_none_fails(self):
        self.wrong("do not stand so", text=ARTICLE.replace("dy, weight", "dx, weight"))

    def test_swift_is_compiled_without_its_import(self):
        text = lessons.program([self.article(ARTICLE)])["LessonLook.swift"]
        self.assertIn("print(1.5)", text)
        self.assertEqual(text.count("import MixLoRA"), 1)

    def test_an_article_runs_something(self):
        self.wrong("no cell", text="# Look\n\nText.\n")


class DocumentationTest(unittest.TestCase):
    def test_a_symbol_without_documentation_is_named(self):
        def symbol(name, **more):
            return {"pathComponents": ["Shape", name], "location": {"uri": "file:///Shape.swift", "position": {"line": 6}}, **more}

        said = symbol("rows", docComment={"lines": [{"text": "Rows."}]})
        graph = {"module": {"name": "Tensors"}, "symbols": [said, symbol("init(_:)"), symbol("empty", docComment={"lines": []})]}
        lacking, count = documentation.undocumented([graph])
        self.assertEqual(count, 3)
        self.assertEqual(lacking, [f"Shape.swift:7: Tensors.Shape.{name} has no documentation" for name in ["init(_:)", "empty"]])

    def test_sections_of_the_map_are_taken_in(self):
        text = documentation.article(documentation.catalogue / "Architecture.md", {"LoRAExperts": "/Layers/LoRAExperts"})
        self.assertIn("## The way of a tensor\n", text)
        self.assertIn("``/Layers/LoRAExperts``", text)
        self.assertNotIn("README.md#", text)
        with self.assertRaisesRegex(lessons.Wrong, "no section #the-way-of-nothing"):
            documentation.section(lessons.root / "Sources/README.md", "the-way-of-nothing")

    def test_every_library_stands_in_the_map(self):
        names = documentation.libraries()
        self.assertGreater(len(names), 15)
        documentation.pages_of_libraries(names)
        with self.assertRaisesRegex(lessons.Wrong, "the map has no Nothing"):
            documentation.pages_of_libraries(["Nothing"])

    def test_a_link_to_a_file_that_is_not_there_fails(self):
        (lessons.root / ".build").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=lessons.root / ".build") as folder:
            file = Path(folder) / "Look.md"
            file.write_text("[text](../nothing.md)")
            with self.assertRaisesRegex(lessons.Wrong, "there is no ../nothing.md"):
                documentation.article(file, {})


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        unittest.main()
