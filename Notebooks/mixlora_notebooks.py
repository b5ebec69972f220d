#!/usr/bin/env python3
"""Executes the notebooks in Python: Markdown files in Notebooks/python whose cells need mixlora.py, NumPy and the built library.

    Notebooks/mixlora_notebooks.py check [NAME …]     every .ipynb is what its cells give now
    Notebooks/mixlora_notebooks.py update [NAME …]    runs the cells and writes the .ipynb beside this file

NAME is a file's without its ending (`routing`), all without one. A cell is ```python; what it prints is its output, as is the value of
its last line: a picture if it has `_repr_svg_`, else its repr. Jupyter does the same, so the .ipynb can be run by hand too. Exit status:
0, or 1 with what is wrong and where.
"""

import argparse, ast, contextlib, difflib, io, json, os, re, sys
from pathlib import Path

import lessons, lessons_pages

notebooks = Path(__file__).resolve().parent
PYTHON = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
          "language_info": {"name": "python", "file_extension": ".py"}}


class Notebook:
    """What lessons_pages makes an .ipynb of."""

    def __init__(self, path):
        self.path, self.number = path, path.stem
        self.result = notebooks / f"{path.stem}.ipynb"
        self.blocks = lessons.parse(path.name, path.read_text().splitlines(), language="python")
        self.cells = [block for block in self.blocks if block.kind == "cell"]
        if not self.cells or any(block.kind not in ("cell", "text") for block in self.blocks):
            raise lessons.Wrong(f"{path.name}: a notebook in Python has text and cells, and at least one of these")

    def run(self):
        """Runs the cells in one scope, in the folder that Jupyter would run them in."""
        scope = {"__name__": "__main__"}
        os.chdir(notebooks)
        for count, cell in enumerate(self.cells, 1):
            cell.count, printed = count, io.StringIO()
            try:
                with contextlib.redirect_stdout(printed):
                    self.run_cell(cell, scope)
            except Exception as error:
                raise lessons.Wrong(f"{self.path.name}:{cell.line}: {type(error).__name__}: {error}") from error
            cell.output = printed.getvalue().rstrip("\n")
            if re.search(r"\b(nan|inf)\b", cell.output, re.I):
                raise lessons.Wrong(f"{self.path.name}:{cell.line}: prints a figure that is not finite:\n{cell.output}")
        if not any(cell.output for cell in self.cells):
            raise lessons.Wrong(f"{self.path.name}: no cell prints anything")

    def run_cell(self, cell, scope):
        tree = ast.parse("\n" * cell.line + cell.body, self.path.name)
        last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, self.path.name, "exec"), scope)
        value = eval(compile(last, self.path.name, "eval"), scope) if last else None
        if hasattr(value, "_repr_svg_"):
            cell.pictures.append((value.label, value._repr_svg_()))
        elif value is not None:
            print(repr(value))

    def text(self):
        return json.dumps(lessons_pages.notebook(self, False, PYTHON), indent=1, ensure_ascii=False) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "update"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    sources = {path.stem: path for path in sorted((notebooks / "python").glob("*.md"))}
    wrong = [f"there is no notebook {name}; there are {', '.join(sources)}" for name in options.names if name not in sources]
    for path in [] if wrong else [sources[name] for name in options.names or sources]:
        try:
            notebook = Notebook(path)
            notebook.run()
            found, formed = notebook.result.read_text() if notebook.result.is_file() else "", notebook.text()
            if options.command == "update":
                notebook.result.write_text(formed)
            elif found != formed:
                lines = difflib.unified_diff(found.splitlines(), formed.splitlines(), notebook.result.name, "what its cells give", "", "", 1, "")
                raise lessons.Wrong("\n".join(line[:200] for line in list(lines)[:40]))
            print(f"{path.name}: {len(notebook.cells)} cells, {len(formed) // 1024} kB", flush=True)
        except lessons.Wrong as error:
            wrong.append(str(error))
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
