#!/usr/bin/env python3
"""Looks at the page of 'mixlora explain' in a headless Chromium.

    python3 Fixtures/explain/check.py .build/release/mixlora [--pictures FOLDER]

Every number that the page forms of its terms is compared with the run, its terms with those of 'mixlora step'; pointer, keys and address
choose what they should; it opens in time, fits a phone, and can be read in light and dark. Python's own library and a Chromium are all it
needs; without one it says so and exits with 77."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import browser

here = os.path.dirname(os.path.abspath(__file__))
golden = os.path.join(here, "..", "golden")
parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("program")
parser.add_argument("--pictures", help="folder for the three pictures of the demo's page that the documentation shows")
options = parser.parse_args()
if not browser.program():
    print("not run: no Chromium here")
    sys.exit(77)

failed = []
page = browser.Browser()
scratch = tempfile.TemporaryDirectory()


def expect(condition, claim, found=""):
    print(("ok   " if condition else "FAIL ") + claim + (f": {found}" if found != "" else ""))
    if not condition:
        failed.append(claim)


def mixlora(*arguments, **more):
    return subprocess.run([options.program, *arguments], check=True, capture_output=True, text=True, **more).stdout


def chosen():
    """The element that the page shows, and its number."""
    return page.js("[spell(state.tensor, state.index), document.getElementById('value')?.textContent]")


# Terms: those of step, of one number of every tensor.
def compare_terms(case):
    files = [f"--model={golden}/{case}/model", f"--adapter={golden}/{case}/adapter", f"--batch={golden}/{case}/batch.safetensors"]
    file = f"{scratch.name}/{case}.html"
    mixlora("explain", "--out", file, *files)
    page.open(f"file://{file}")
    asked = page.js("""points.filter((one) => one.count > 0).map((one, n) => spell(one, one.index((n * 7919) % one.count)))""")
    answers = mixlora("step", *files, "--dtype", "float32", "--script", "-", input="".join(f"why {name}\n" for name in asked))
    shown = re.split(r"^(?=\S)", answers, flags=re.M)[1:]
    assert len(shown) == len(asked) > 200, (len(shown), len(asked))
    formed = page.js("""%s.map((name) => {
      open(name);
      const form = why(state.tensor, state.index), list = form.kind === 'product' ? form.terms[0].factors.map((f) => term(f)) : form.terms;
      if (form.kind === 'sum') list.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
      return {value: state.tensor.value(state.index), kind: form.kind, count: list.length,
        terms: list.slice(0, 8).map((one) => ({value: one.value, factors: one.factors.map((f) => [f.text, f.value])}))};
    })""" % json.dumps(asked))
    number = r"-?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf)|nan"

    def near(a, b):
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1e-12)

    wrong = []
    for text, form in zip(shown, formed):
        lines = text.split("\n")
        value = float(lines[0].split(" = ")[1])
        if value != form["value"]:
            wrong.append(f"{lines[0]}, page has {form['value']}")
            continue
        found = [re.fullmatch(rf" +(?:\d+\. )?({number})? *(\S.*)", line) for line in lines[2:] if line.startswith("    ") or re.match(r"  \d+\. ", line)]
        for match, own in zip(found, form["terms"]):
            # 'value  text value · text value', of a decision 'text value'.
            factors = [re.fullmatch(rf"(.*?)(?: ({number}))?", part).groups() for part in match[2].split(" · ")]
            texts = [name for name, _ in factors]
            if texts and texts[0].startswith("the other"):
                continue
            if match[1] is not None and not near(float(match[1]), own["value"]) or texts != [name for name, _ in own["factors"]] and not any(
                    near(own["value"], other["value"]) and texts == [name for name, _ in other["factors"]] for other in form["terms"]):
                wrong.append(f"{lines[0].split(' = ')[0]}: {match[0].strip()}, page has {own}")
                break
    expect(not wrong, f"{case}: terms of {len(asked)} numbers are those of step", "; ".join(wrong[:3]))
    page.open(f"file://{file}#check")
    verdict = page.js("document.getElementById('verdict').textContent")
    expect(verdict.startswith("✓"), f"{case}: numbers are what their terms give", verdict[:300])


for case in sorted(os.listdir(golden)):
    if os.path.isdir(f"{golden}/{case}/model"):
        compare_terms(case)

# Every family, routing and option that there are cases of.
peers = os.path.join(here, "..", "peers")
wrong = []
numbers = 0
with open(f"{peers}/cases.json") as index:
    cases = json.load(index)
for case in cases:
    adapter = ["--adapter", f"{peers}/{case['adapter']}"] if case.get("adapter") else []
    mixlora("explain", "--out", f"{scratch.name}/peer.html", "--model", f"{peers}/{case['model']}", *adapter, "--batch", f"{peers}/{case['batch']}")
    page.open(f"file://{scratch.name}/peer.html#check")
    verdict = page.js("document.getElementById('verdict').textContent")
    if not verdict.startswith("✓"):
        wrong.append(f"{case['name']}: {verdict[:200]}")
    numbers += int(verdict.split()[1])
expect(len(cases) > 50 and not wrong, f"numbers of {len(cases)} peers' cases are what their terms give", "; ".join(wrong) or numbers)

# The demo's page.
file = f"{scratch.name}/explain.html"
report = json.loads(mixlora("explain", "--out", file, "--json"))
expect(report["bytes"] <= 5_000_000, "the page has at most 5 MB", report["bytes"])
page.screen(1280, 900)
page.open(f"file://{file}")
time = page.js("(() => { const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime; })()")
expect(0 < time < 2000, "it opens in less than 2 s", f"{time:.0f} ms")
page.open(f"file://{file}#check")
verdict = page.js("document.getElementById('verdict').textContent")
expect(verdict.startswith("✓"), "the demo's numbers are what their terms give", verdict)

page.open(f"file://{file}#model.layers.0.mlp.output[0,2,7]")
expect(chosen()[0] == "model.layers.0.mlp.output[0,2,7]", "an address chooses its number", chosen())
for key, name in [("ArrowRight", "[0,2,8]"), ("ArrowLeft", "[0,2,7]"), ("ArrowDown", "[0,3,7]"), ("ArrowUp", "[0,2,7]")]:
    page.press(key)
    expect(chosen()[0] == "model.layers.0.mlp.output" + name, f"{key} goes to {name}", chosen())
page.press("g")
expect(chosen()[0] == "grad.model.layers.0.mlp.output[0,2,7]", "g shows the gradient", chosen())
page.press("g")
expect(chosen()[0] == "model.layers.0.mlp.output[0,2,7]", "g again the value", chosen())
page.press("[")
page.press("]")
expect(chosen()[0].startswith("model.layers.0.mlp.output["), "[ and ] go back and on by a tensor", chosen())
source = page.js("document.querySelector('.terms button.factor').dataset.go")
page.js("document.querySelector('.terms button.factor').focus()")
page.press("Enter")
expect(chosen()[0] == source, "Enter on a factor goes to where it comes from", chosen())
expect(page.js("document.activeElement.id") == "row", "and the row that it leads to has the focus", page.js("document.activeElement.id"))
page.js("history.back()")
page.js("new Promise((done) => setTimeout(done, 100))")
expect(chosen()[0].startswith("model.layers.0.mlp.output["), "back is back", chosen())
for key, title in [("2", "Which expert computes which token"), ("3", "How it was trained"), ("4", "What this page is"), ("1", "Layer 0")]:
    page.press(key)
    titles = page.js("[...document.querySelectorAll('main h2')].map((h) => h.textContent)")
    expect(title in titles, f"{key} opens '{title}'", titles)
token = page.js("(() => { const all = [...document.querySelectorAll('.token')]; all[4].click(); return all[4].dataset.place; })()")
expect(page.js("String(state.place)") == token and chosen()[0].startswith("model.layers.0.mlp.output[0,4,"), "a token is chosen by a click", chosen())
# Texts of tokens beside numbers of the vocabulary and of the batch: those of the tokens above, whose ids the page has.
for address, id in [("lm_head.output[0,6,365]", 365), ("grad.lm_head.output[0,6,59]", 59), ("model.embed_tokens.weight[308,3]", 308)]:
    page.open(f"file://{file}#{address}")
    found, text = page.js("[document.getElementById('word').textContent.trim(), tokenText(batch.ids.indexOf(%d))]" % id)
    expect(found == text != "", f"{address} says whose it is", [found, text])
page.open(f"file://{file}#model.layers.0.self_attn.o_proj.input[0,7,3]")
found = page.js("[...document.querySelectorAll('#terms li')].map((one) => [/v\\[0,(\\d+),/.exec(one.textContent)[1], one.querySelector('.word')?.textContent ?? ''])")
texts = page.js("batch.ids.map((id, place) => ' ' + tokenText(place))")
expect(len(found) == 8 and all(text == ("" if at == "7" else texts[int(at)]) for at, text in found), "a term of attention says whose value it has", found)
vocabulary = page.js("range(0, byName.get('logits').width).filter((id) => batch.names[id] === undefined).length")
expect(vocabulary == 0, "every token of the demo's vocabulary has its text", vocabulary)

# The legend: every mark, and every dashed, bold or framed thing that the page shows.
page.open(f"file://{file}")
page.js("document.querySelector('#legend summary').click()")
shown = page.js("[...document.querySelectorAll('#marks > div')].filter((one) => one.checkVisibility() && one.textContent.length > 20).length")
expect(shown >= 15, "the legend opens", shown)
missing = page.js("""(() => { const all = new Set(), classes = ['trained', 'away', 'none', 'mine', 'padding', 'load', 'disk', 'word', 'pattern', 'plus', 'minus', 'series', 'bars', 'heat'], used = new Set();
  for (const view of ['model.layers.0.mlp.output', 'grad.model.layers.0.mlp.output', 'model.layers.0.self_attn.o_proj.input', 'lm_head.output', 'routing', 'training']) {
    open(view); render();
    for (const node of document.querySelectorAll('#main, #bar')) {
      for (const mark of node.textContent.match(/[\u2190-\u21ff\u2205\u2423\u25a0-\u25ff\u2700-\u27bf]/g)) all.add(mark);
      for (const name of classes) if (node.querySelector('.' + name)) used.add(name);
    } }
  const legend = document.getElementById('marks'), own = (name) => legend.querySelector('.' + name) || name === 'bars' || name === 'heat';
  return [all.size, used.size, [...all].filter((mark) => !legend.textContent.includes(mark)), [...used].filter((name) => !own(name))]; })()""")
expect(missing[0] > 6 and missing[1] > 10 and not missing[2] and not missing[3], "the legend has every mark and shape", missing)

# A phone: the number lies below what was pressed, and there is a way back to it.
page.screen(390, 844, is_phone=True)
page.open(f"file://{file}")
visible = "(() => { const box = document.getElementById('back').getBoundingClientRect(); return box.height > 20 && box.top >= 0 && box.bottom <= innerHeight; })()"
wait = "new Promise((done) => setTimeout(done, 1500))"
expect(not page.js(visible), "where nothing lies behind, no way back is shown")
first = chosen()
page.js("document.querySelector('#block .expert [data-go]').scrollIntoView()")
before = page.js("scrollY")
second = page.js("(() => { const button = document.querySelector('#block .expert [data-go]'); button.click(); return button.dataset.go; })()")
page.js(wait)
top = page.js("document.getElementById('number').getBoundingClientRect().top")
expect(before > 300 and 0 <= top < 300 and chosen()[0].startswith(second + "["), "what is pressed is shown", [before, top, chosen()])
third = page.js("(() => { const button = document.querySelector('#terms button.factor'); button.click(); return button.dataset.go; })()")
page.js(wait)
expect(chosen()[0].startswith(third) and page.js(visible), "a way back is in sight", chosen())
page.js("document.getElementById('back').click()")
page.js(wait)
expect(chosen()[0].startswith(second + "[") and page.js(visible), "back is the number before", chosen())
page.js("document.getElementById('back').click()")
page.js(wait)
after = page.js("scrollY")
expect(chosen() == first and not page.js(visible) and abs(after - before) < 50, "back again is where it began, at the same place", [chosen(), before, after])
page.screen(1280, 900)
page.open(f"file://{file}#model.layers.0.mlp.output[0,2,7]")
page.js("document.querySelector('#terms button.factor').click()")
expect(not page.js(visible), "on a wide screen the browser's own way back is enough")

links = page.js("""(() => { const bad = []; let n = 0;
  for (const point of points) { open(point.name); render();
    for (const button of document.querySelectorAll('[data-go]')) { n++; const name = button.dataset.go.replace(/\\[[\\d,]+\\]$/, ''); if (!byName.has(name)) bad.push(button.dataset.go); }
    for (const node of document.querySelectorAll('main, header')) if (/undefined|NaN|\\[object/.test(node.textContent)) bad.push(point.name + ' shows ' + /.{20}(undefined|NaN|\\[object).{10}/.exec(node.textContent)?.[0]); }
  return [n, bad.slice(0, 5)]; })()""")
expect(links[0] > 10_000 and not links[1], "every link of every tensor's page leads somewhere", links)
named = page.js("""[...document.querySelectorAll('button, canvas[tabindex]')].filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label'))).length""")
expect(named == 0, "every button has a name")

# Contrast of all text that is shown, by WCAG: 4.5 to 1.
contrast = """(() => { const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map((x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = (node) => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor; if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  const poor = new Map(); let n = 0;
  for (const node of document.querySelectorAll('body *')) {
    if (!node.checkVisibility() || ![...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim()) || node.namespaceURI.endsWith('svg')) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(back(node))], ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); n++;
    if (ratio < 4.5) poor.set(node.className || node.tagName, ratio.toFixed(2)); }
  return [n, [...poor]]; })()"""
for name, is_dark in [("light", False), ("dark", True)]:
    for view in ["model.layers.1.mlp.output[0,2,7]", "routing", "training", "about"]:
        page.screen(1280, 900, is_dark=is_dark)
        page.open(f"file://{file}#{view}")
        page.js("document.getElementById('legend').open = true")
        count, poor = page.js(contrast)
        expect(count > 30 and not poor, f"text of {view.split('[')[0]} can be read, {name}", poor or count)
for width in [320, 390, 768, 1280, 1920]:
    page.screen(width, 844, is_phone=width < 700)
    for view in ["model.layers.0.self_attn.o_proj.input[0,2,7]", "routing", "training", "about"]:
        page.open(f"file://{file}#{view}")
        page.js("document.getElementById('legend').open = true")
        over = page.js("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        expect(over <= 0, f"{view.split('[')[0]} fits {width} pixels", over)
expect(not page.errors, "nothing went wrong in the page, and nothing was to be loaded", json.dumps(page.errors)[:600] if page.errors else "")

if options.pictures:
    for name, size, address in [("desktop", (1280, 900), "model.layers.0.mlp.output[0,5,7]"), ("dark", (1280, 900), "routing"),
                                ("phone", (390, 844), "model.layers.3.self_attn.o_proj.input[0,7,3]")]:
        page.screen(*size, is_dark=name == "dark", is_phone=name == "phone")
        page.open(f"file://{file}")
        page.js(f"go('{address}')")  # so that there is a way back
        if name == "phone":
            page.js("document.getElementById('number').scrollIntoView()")
        page.picture(f"{options.pictures}/{name}.webp")

page.close()
print(f"{len(failed)} failed" if failed else "all right")
sys.exit(1 if failed else 0)
