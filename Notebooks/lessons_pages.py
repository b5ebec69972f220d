"""Pages and notebooks of the lessons: what `lessons.py export` writes.

A page is plain HTML that needs nothing else: no script, no network, light and dark by the reader's own setting. A notebook is
nbformat 4 with the outputs and pictures of the run that was just checked.
"""

import html, json, re, types

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fdfdfb; --soft: #f1f1ec; --line: #d8d8d0; --link: #1f5fa8; --said: #2e6b3f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --paper: #16181b; --soft: #22252a; --line: #3a3e45; --link: #7fb2ea; --said: #8fcf9f; }
  svg .paper { fill: #16181b; } svg .ink { fill: #ddd; }
}
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink); font: 1.05rem/1.55 Georgia, serif; }
p, li, h1, h2, nav { max-width: 46rem; }
h1, h2, h3, nav { font-family: system-ui, sans-serif; line-height: 1.25; } h2 { margin-top: 2.2rem; }
nav { font-size: .9rem; display: flex; justify-content: space-between; gap: 1rem; } a { color: var(--link); }
pre, code { font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace; } code { background: var(--soft); padding: .1em .3em; border-radius: 3px; }
pre { background: var(--soft); border-left: 3px solid var(--line); padding: .7rem .9rem; overflow-x: auto; } pre code { background: none; padding: 0; }
pre.output { background: none; border-color: var(--said); margin-top: -.6rem; } pre.equation { border-color: var(--link); font-size: 1rem; white-space: pre-wrap; }
sub, sup { line-height: 0; font-size: .75em; }
pre.quote { border-color: #c2571a; } .from { font-family: system-ui, sans-serif; font-size: .8rem; margin: -.6rem 0 .2rem; opacity: .8; }
.comment { opacity: .65; } svg { max-width: 100%; height: auto; } figure { margin: 1rem 0; } table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; } details { border: 1px solid var(--line); padding: .4rem .8rem; margin: .6rem 0; }
details.drawing { border: 0; padding: 0; font-size: .85rem; opacity: .85; }
"""


def export(lessons, folder, solutions):
    """A page and a notebook a lesson, and a page that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, lesson in enumerate(lessons):
        before, after = lessons[i - 1] if i > 0 else None, lessons[i + 1] if i + 1 < len(lessons) else None
        (folder / f"{lesson.name}.html").write_text(page(lesson, before, after, solutions))
        (folder / f"{lesson.name}.ipynb").write_text(json.dumps(notebook(lesson, solutions), indent=1, ensure_ascii=False) + "\n")
    items = "\n".join(f'<li value="{int(lesson.number)}"><a href="{lesson.name}.html">{inline(lesson.title.split(" · ", 1)[-1])}</a></li>' for lesson in lessons)
    (folder / "index.html").write_text(document("MixLoRA, number by number", f"<h1>MixLoRA, number by number</h1>\n{INTRODUCTION}\n<ol>\n{items}\n</ol>"))
    print(f"{folder}: {len(lessons)} pages and notebooks")


INTRODUCTION = """<p>Lessons for someone who knows matrix products and the chain rule, and nothing of transformers. Every number on these
pages was computed by the code above it, every equation names its source, and every derivative is checked against slopes.</p>"""


def parts(lesson, solutions):
    """What a reader sees: blocks, text without comments; the solutions, if asked for, behind everything, where no glance at a question
    meets them."""
    for block in lesson.blocks:
        if block.kind in ("output", "solution", "test"):
            continue
        if block.kind == "text":
            lines = [line for line in block.body.split("\n") if line.strip() not in ("<!-- hidden", "-->")]
            text = re.sub(r"<!--.*?-->", "", "\n".join(lines), flags=re.S)
            text = "\n".join(line for line in text.split("\n") if not re.match(r"!\[.*\]\(pictures/", line)).strip("\n")
            if text.strip():
                yield block, text
        else:
            yield block, block.body
    for number, (_, *hidden) in enumerate(lesson.exercises() if solutions else [], 1):
        yield types.SimpleNamespace(kind="text"), ("## Solutions\n\n" if number == 1 else "") + f"**{number}.** A solution, and its test."
        for block in hidden:
            yield block, block.body


# Pages


def document(title, body):
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n")


def page(lesson, before, after, solutions):
    def link(other, text):
        return f'<a href="{other.name}.html">{text}</a>' if other else "<span></span>"

    body = [f'<nav>{link(before, "← before")}<a href="index.html">all lessons</a>{link(after, "next →")}</nav>']
    for block, text in parts(lesson, solutions):
        if block.kind == "text":
            body.append(markdown(text))
        elif block.kind == "equation":
            body.append(f'<pre class="equation">{equation(text)}</pre>')
        elif block.kind == "quote":
            source = block.info.split(" source=", 1)[1]
            body.append(f'<pre class="quote">{code(text)}</pre>\n<p class="from">the engine’s own lines: {html.escape(source)}</p>')
        elif block.kind in ("solution", "test"):
            body.append(f"<details><summary>{'a solution' if block.kind == 'solution' else 'its test'}</summary><pre>{code(text)}</pre></details>")
        else:
            shown, drawing = split(text)
            if shown:
                body.append(f"<pre>{code(shown)}</pre>")
            if block.kind == "cell" and block.output:
                body.append(f'<pre class="output">{html.escape(block.output)}</pre>')
            if drawing:
                body.append(f'<details class="drawing"><summary>how the picture is drawn</summary><pre>{code(drawing)}</pre></details>')
            for alternative, svg in block.pictures:
                label = html.escape(alternative, quote=True)
                body.append("<figure>" + svg.replace('role="img"', f'role="img" aria-label="{label}"', 1) + "</figure>")
    body.append(f'<nav>{link(before, "← before")}{link(after, "next →")}</nav>')
    return document(lesson.title, "\n".join(body))


def split(text):
    """A cell's code before its picture, and the drawing, which is folded."""
    match = re.search(r"^var \w+ = Picture\(", text, flags=re.M)
    return (text[:match.start()].rstrip("\n"), text[match.start():]) if match else (text, "")


def equation(text):
    """`x_ni` and `e^{z}` with what is small small."""
    text = html.escape(text, quote=False)
    text = re.sub(r"\^(?:\{([^}]*)\}|\(([^)]*)\))", lambda m: f"<sup>{m[1] or m[2]}</sup>", text)
    return re.sub(r"_(?:\{([^}]*)\}|([A-Za-z0-9]+))", lambda m: f"<sub>{m[1] or m[2]}</sub>", text)


def code(text):
    """Swift, its comments paler."""
    lines = []
    for line in text.split("\n"):
        match = re.match(r"""((?:[^"/]|"(?:\\.|[^"\\])*"|/(?!/))*)(//.*)?$""", line)
        before, comment = (match.group(1), match.group(2)) if match else (line, None)
        lines.append(html.escape(before, quote=False) + (f'<span class="comment">{html.escape(comment, quote=False)}</span>' if comment else ""))
    return "\n".join(lines)


def inline(text):
    """Emphasis, code and links within a line."""
    pieces = re.split(r"(`[^`]+`)", text)
    for i, piece in enumerate(pieces):
        if piece.startswith("`") and piece.endswith("`") and len(piece) > 1:
            pieces[i] = f"<code>{html.escape(piece[1:-1], quote=False)}</code>"
            continue
        piece = html.escape(piece, quote=False)
        piece = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", lambda m: f'<a href="{html.escape(target(m[2]), quote=True)}">{m[1]}</a>', piece)
        piece = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", piece)
        pieces[i] = re.sub(r"(?<![\w*])\*([^*\n]+)\*(?![\w*])", r"<em>\1</em>", piece)
    return "".join(pieces)


def target(link):
    """Lessons lie beside each other as pages."""
    return re.sub(r"^(\d\d-[\w-]+)\.md$", r"\1.html", link)


def markdown(text):
    """The Markdown that lessons use: headings, paragraphs, lists, tables, fenced text."""
    out, lines, i = [], text.split("\n"), 0
    while i < len(lines):
        line = lines[i]
        if not line.strip():
            i += 1
        elif line.startswith("```"):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            out.append("<pre>" + html.escape("\n".join(lines[i + 1:end])) + "</pre>")
            i = end + 1
        elif match := re.match(r"(#{1,3}) (.*)", line):
            out.append(f"<h{len(match[1])}>{inline(match[2])}</h{len(match[1])}>")
            i += 1
        elif line.startswith("|"):
            rows = []
            while i < len(lines) and lines[i].startswith("|"):
                rows.append([cell.strip() for cell in lines[i].strip().strip("|").split("|")])
                i += 1
            kinds = ["th"] + ["td"] * (len(rows) - 1)
            out.append("<table>" + "".join(
                "<tr>" + "".join(f"<{kind}>{inline(cell)}</{kind}>" for cell in row) + "</tr>"
                for kind, row in zip(kinds, rows[:1] + rows[2:])) + "</table>")
        elif re.match(r"(-|\d+\.) ", line):
            tag = "ul" if line.startswith("-") else "ol"
            out.append(f"<{tag}>")
            while i < len(lines) and (match := re.match(r"(?:-|\d+\.) (.*)", lines[i])):
                out.append(f"<li>{inline(match[1])}</li>")
                i += 1
            out.append(f"</{tag}>")
        else:
            paragraph = []
            while i < len(lines) and lines[i].strip() and not re.match(r"#{1,3} |```|\||- ", lines[i]):
                paragraph.append(lines[i].strip())
                i += 1
            joined = " ".join(paragraph)
            out.append(f'<p class="from">{inline(joined)}</p>' if joined.startswith("*From ") else f"<p>{inline(joined)}</p>")
    return "\n".join(out)


# Notebooks


SWIFT = {"kernelspec": {"display_name": "Swift", "language": "swift", "name": "swift"}, "language_info": {"name": "swift", "file_extension": ".swift"}}


def notebook(lesson, solutions, language=SWIFT):
    """nbformat 4.5. There is no Swift kernel to count on, so code is shown with what it printed when it was checked."""
    cells = []

    def add(kind, text, **more):
        lines = text.split("\n")
        source = [line + "\n" for line in lines[:-1]] + lines[-1:]
        cells.append({"cell_type": kind, "id": f"{lesson.number}-{len(cells)}", "metadata": {}, "source": source, **more})

    for block, text in parts(lesson, solutions):
        if block.kind == "text":
            add("markdown", text)
        elif block.kind == "equation":
            add("markdown", f"```text\n{text}\n```")
        elif block.kind == "quote":
            add("markdown", f"The engine's own lines, `{block.info.split(' source=', 1)[1]}`:\n\n```{block.info.split()[0]}\n{text}\n```")
        elif block.kind == "cell":
            outputs = []
            if block.output:
                outputs.append({"output_type": "stream", "name": "stdout", "text": (block.output + "\n").splitlines(keepends=True)})
            for alternative, svg in block.pictures:
                data = {"image/svg+xml": svg.splitlines(keepends=True), "text/plain": [alternative]}
                outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
            add("code", text, execution_count=block.count, outputs=outputs)
        else:
            add("code", text, execution_count=None, outputs=[])
    return {
        "cells": cells,
        "metadata": language,
        "nbformat": 4, "nbformat_minor": 5,
    }
