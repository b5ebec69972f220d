"""Writes cases.json: templates with every feature that chat templates use, and what jinja2 makes of them.

Pins: jinja2==3.1.6 and transformers==4.46.3 on CPython 3.11, whose environment (an immutable sandbox with trim_blocks, lstrip_blocks,
loop controls, tojson, raise_exception and `generation` blocks) renders every case. An error is kept as its kind alone.

    python make_cases.py        # beside this file
"""

import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Größe 你好 🎉 \"q\" 'a' \\ <b>"},
    {"role": "assistant", "content": "ok", "n": 3, "x": 1.5, "tags": ["b", "A", "c"], "none": None, "yes": True},
]
VALUES = {"messages": MESSAGES, "tools": None, "add_generation_prompt": True, "bos_token": "<s>"}

# Templates: a line each where nothing else is said.
LINES = r"""
{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ 1.5 % 1 }} {{ -1.5 // 1 }}
{{ 1e16 }} {{ 1e15 }} {{ 123456789012345.6 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.0 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ 0.1 + 0.2 }} {{ -0.0 }} {{ 1e22 }} {{ 100.0 }}
{{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1_0.5_0 }} {{ 00 }}
{{ true }} {{ True }} {{ none }} {{ None }} {{ false }} {{ [1, 'a', "it's", none, true, 1.0] }} {{ (1,) }} {{ () }} {{ {'a': 1, 'b': [2]} }} {{ {} }}
{{ 'a' ~ 1 ~ none ~ 2.0 ~ [1] ~ undefinedthing }} {{ 'a' 'b' "c" }} {{ 'ab' * 3 }} {{ 2 * [1] }} {{ [1] + [2] }} {{ (1,) + (2,) }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ not 1 }} {{ not not 1 }}
{{ 'a' in 'cab' }} {{ 'x' not in 'cab' }} {{ 1 in [1.0] }} {{ 'a' in {'a': 1} }} {{ 2 in (1, 2) }} {{ 3 in range(5) }} {{ '' in '' }} {{ 1 in [] }}
{{ 1 and 0 }} {{ 0 or 'x' }} {{ '' or [] or none }} {{ 1 and 'y' }} {{ 'a' if true else 'b' }} {{ 'a' if false }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[4:1:-1] }} {{ [1,2,3,4][1:] }} {{ [1,2,3][:-1] }} {{ 'abc'[10:] }} {{ 'abc'[-1] }} {{ (1,2,3)[::-2] }} {{ range(10)[2:8:3] | list }} {{ range(10)[::-1] }}
{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[-1].tags.1 }} {{ messages[2].none }} {{ messages[5] }} {{ messages[0].nope }}| {{ messages[0]['nope'] is defined }} {{ messages[0].items is defined }}
{{ undefinedthing }}|{{ undefinedthing is defined }}|{{ undefinedthing | default('d') }}|{{ '' | default('d') }}|{{ '' | default('d', true) }}|{{ none | d('x') }}|{{ not undefinedthing }}|{{ undefinedthing == other }}|{% for x in undefinedthing %}x{% else %}none{% endfor %}|{{ undefinedthing | length }}|{{ undefinedthing | list }}
{{ undefinedthing.a }}
{{ undefinedthing['a'] }}
{{ undefinedthing + 1 }}
{{ undefinedthing() }}
{{ undefinedthing | int }}
{{ messages.foo.bar }}
{{ ''.__class__ }}|{{ [].append }}|{{ messages[0].update }}|{{ messages._x }}
{{ ''.__class__.__mro__ }}
{{ ''['__class__']['__mro__'] }}
{{ [].append(1) }}
{{ messages[0].pop('role') }}
{{ {}.update({'a': 1}) }}
{{ '{0.__class__}'.format(1) }}
{{ '{a} {b[x]} {} {!r:>5}|{:.2f}|{:5d}|{:<4}|{:^7}|{:+}|{:,}|{:x}|{:%}|{{}}'.format(1, 'q', 2.345, 42, 'ab', 'mid', 3, 1234567, 255, 0.5, a='A', b={'x': 1}) }}
{{ '%s %d %5.2f %r %% %x %-5s| %05d %+d' % ('a', 3, 2.5, 'q', 255, 'ab', 42, 7) }} {{ '%(a)s' % {'a': 1} }} {{ '%s' % 'x' }} {{ '%s-%s' | format(1, 2) }}
{{ '%d' % 'x' }}
{{ '%s %s' % 'x' }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 'a' + 1 }}
{{ 'a' < 1 }}
{{ none + 1 }}
{{ 1 in none }}
{{ none | length }}
{{ raise_exception('no: ' ~ messages[0].role) }}
{% for x in 3 %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% set a, b = 1 %}
{% set x.y = 1 %}
{{ range(200000) | length }}
{{ [1, 2] | sort | join('-') }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ [3, 1, 2] | sort(reverse=true) }} {{ messages | sort(attribute='role') | map(attribute='role') | list }} {{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 1}] | sort(attribute='a,b') }}
{{ ' a b ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ 'aB' | upper }} {{ 'aB' | lower }} {{ 'hello wORLD-foo (bar)' | title }} {{ 'hELLO' | capitalize }} {{ 'a-b' | replace('-', '+') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'ab' | replace('', '-') }}
{{ [1, 2, 3] | join(', ') }} {{ messages | join('|', attribute='role') }} {{ 'abc' | join('.') }} {{ [] | join(',') }} {{ [1, none, true] | join }}
{{ 'abc' | length }} {{ messages | count }} {{ 'e\u0301' | length }} {{ '🎉' | length }} {{ {'a': 1} | length }}
{{ [1, 2] | first }} {{ [1, 2] | last }} {{ 'abc' | first }} {{ [] | first }}| {{ [] | last is undefined }} {{ {'a': 1, 'b': 2} | last }} {{ range(3) | last }}
{{ 'abc' | list }} {{ {'a': 1} | list }} {{ range(3) | list }} {{ (1, 2) | list }} {{ 'abc' | reverse }} {{ [1, 2, 3] | reverse | list }} {{ [1, 1, 2] | unique | list }} {{ ['a', 'A'] | unique | list }}
{{ [1, 2, 3] | map('string') | list }} {{ [' a '] | map('trim') | list }} {{ messages | map(attribute='n') | list }} {{ messages | map(attribute='n', default=0) | list }} {{ ['a'] | map('replace', 'a', 'b') | first }}
{{ [1, 2, 3, 4] | select('odd') | list }} {{ [1, 2, 3] | reject('gt', 1) | list }} {{ [0, 1, ''] | select | list }} {{ [0, 1] | reject | list }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first }} {{ messages | rejectattr('role', 'eq', 'user') | list | length }} {{ messages | selectattr('n') | list | length }} {{ messages | selectattr('n', 'defined') | list | length }} {{ messages | selectattr('role', 'in', ['user', 'system']) | map(attribute='role') | join(' ') }}
{{ [3, 1, 2] | min }} {{ [3, 1, 2] | max }} {{ ['b', 'A'] | min }} {{ [] | max is undefined }} {{ [1, 2, 3] | sum }} {{ [1.5, 2] | sum }} {{ messages | map(attribute='n', default=1) | sum }} {{ [{'a': 2}] | sum(attribute='a') }} {{ [1] | sum(start=10) }} {{ messages | max(attribute='role') | attr('nope') }}|
{{ -3 | abs }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 2.9 | round(0, 'floor') }} {{ 5 | round }} {{ 1234 | round(-2) }} {{ 2.675 | round(2) }} {{ '42' | int }} {{ '4.7' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '0x1f' | int(base=16) }} {{ 4.9 | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ ' 3 ' | int }} {{ none | int }} {{ '1e3' | float }} {{ true | int }}
{{ {'b': 1, 'A': 2, 'c': 0} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }} {{ {'b': 1, 'a': 2} | dictsort(reverse=true) }} {{ {'a': 1} | items | list }} {{ undefinedthing | items | list }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, '-') | list }} {{ [1, 2, 3, 4, 5] | slice(3) | list }} {{ [1, 2, 3, 4] | slice(3, 0) | list }}
{% for role, list in [{'r': 'a', 'n': 1}, {'r': 'B', 'n': 2}, {'r': 'A', 'n': 3}] | groupby('r') %}{{ role }}:{{ list | map(attribute='n') | join(',') }};{% endfor %}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent('> ', blank=true) }}|{{ '' | indent }}|{{ 'a\n' | indent }}
{{ 'one two three' | wordcount }} {{ 'a long sentence that goes on' | truncate(12) }} {{ 'a long sentence that goes on' | truncate(12, true) }} {{ 'short text' | truncate(9) }} {{ 'a long sentence' | truncate(10, end='!', leeway=0) }} {{ 'ab' | center(6) }}| {{ 'a b&c/ü' | urlencode }} {{ {'a': 'x y', 'b': 1} | urlencode }} {{ 1500 | filesizeformat }} {{ 1 | filesizeformat }} {{ 3000000 | filesizeformat(true) }}
{{ '<a href="x">&\'' | e }} {{ '<a>' | escape | escape }} {{ '<a>' | safe }} {{ ('<a>' | e) + '<b>' }} {{ '<c>' + ('<a>' | safe) }} {{ ('<a>' | e) is escaped }} {{ '<a>' | e | forceescape }} {{ ('<%s>' | safe) % '<i>' }} {{ ('<' | safe).join(['<', '&']) }} {{ [('<' | safe)] }}
{{ messages[1] | tojson }} {{ messages[2] | tojson }} {{ 'a"b\\c\n\t\u0001<>&é' | tojson }} {{ [1.0, 2, none, true, 1e20, 'x'] | tojson }} {{ {} | tojson }} {{ [] | tojson }} {{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4} | tojson }}
{{ messages[2] | tojson(indent=2) }} {{ [] | tojson(indent=2) }} {{ [[1], {}] | tojson(indent=4) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [1, {'a': 2}] | tojson(separators=(',', ':')) }} {{ 'é🎉' | tojson(ensure_ascii=true) }}
{{ undefinedthing | tojson }}
{{ namespace(a=1) | tojson }}
{{ 1 is odd }} {{ 2 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 'a' is string }} {{ 1 is number }} {{ 1 is integer }} {{ true is integer }} {{ true is number }} {{ 1.0 is float }} {{ true is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ none is none }} {{ {} is mapping }} {{ [] is iterable }} {{ 1 is iterable }} {{ 'a' is sequence }} {{ {} is sequence }} {{ [] is sequence }} {{ range is callable }} {{ 1 is callable }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 1 is not none }} {{ 'a' is in 'abc' }} {{ 1 is eq 1 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is ge 2 }} {{ none is sameas none }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ undefinedthing is sequence }} {{ messages[0].items() is sequence }} {{ not 1 is none }}
{{ '  a b '.strip() }}|{{ 'xaxx'.strip('x') }}|{{ 'xax'.lstrip('x') }}|{{ 'xax'.rstrip('x') }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(' ', 1) }}|{{ 'a b c'.rsplit(' ', 1) }}|{{ 'a b  c '.split(none, 1) }}|{{ ' a  b c'.rsplit(none, 1) }}|{{ 'a\nb\r\nc\x0bd'.splitlines() }}|{{ 'a\nb'.splitlines(true) }}|{{ ''.split() }}|{{ ''.split(',') }}
{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'ab')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.endswith(('x', 'y')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('x') }} {{ 'abcabc'.index('b', 2) }} {{ 'aaaa'.count('aa') }} {{ 'abc'.count('') }} {{ 'abc'.rfind('') }} {{ 'abc'.find('c', 0, 2) }}
{{ 'hello world'.title() }} {{ "they're".title() }} {{ 'hELLO'.capitalize() }} {{ 'aB'.swapcase() }} {{ 'a-b-c'.replace('-', '+', 1) }} {{ '-'.join(['a', 'b']) }} {{ 'abc'.upper().lower() }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'Ab Cd'.istitle() }} {{ 'AB'.isupper() }} {{ ''.isalpha() }} {{ '½'.isnumeric() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ 'a_1'.isidentifier() }} {{ 'é'.isascii() }} {{ 'ab'.center(7, '*') }} {{ 'abc'.center(6, '*') }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }} {{ '-5'.zfill(4) }} {{ 'a.b.c'.partition('.') }} {{ 'a.b.c'.rpartition('.') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'a\tb'.expandtabs(4) }}
{{ 'ΟΔΟΣ ΣΑΣ'.lower() }} {{ 'straße'.upper() }} {{ 'ǆ'.title() }} {{ 'İ'.lower() | length }} {{ 'ﬁ'.upper() }}
{{ 'abc'.index('x') }}
{{ 'a'.split('') }}
{{ 'abc'.nope() }}
{{ messages[2].get('n') }} {{ messages[2].get('q') }} {{ messages[2].get('q', 'd') }} {{ messages[0].keys() | list }} {{ messages[0].values() | list | length }} {% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %} {{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() | list }} {{ {'items': 5}['items'] }} {{ {'a': 1} == {'a': 1.0} }} {{ [1, 2].index(2) }} {{ [1, 1].count(1) }} {{ {1: 'a', 1.0: 'b', true: 'c'} }}
{{ 'q"\'\\\n\x7f\u200b\ue000é🎉' | list }} {{ ["'"] }} {{ ['"'] }} {{ ["'\""] }} {{ '\x41\101\u00e9\U0001F389\q' }}
{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns['a'] }} {{ ns }}
{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}
{% for i in [1, 2] %}{{ y }}{% set y = i %}{{ y }}{% endfor %}|{{ y }}
{% set a, b = 1, [2, 3] %}{{ a }}{{ b }}{% set (c, d) = 'xy' %}{{ c }}{{ d }}{% for (k, v), w in [((1, 2), 3)] %}{{ k }}{{ v }}{{ w }}{% endfor %}
{% set block %}text {{ 1 + 1 }}{% endset %}[{{ block }}]{% set up | upper | replace('A', 'b') %}aXa{% endset %}{{ up }}
{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.changed(i // 2) }};{% endfor %}
{% for i in range(6) if i is even %}{{ loop.index }}/{{ loop.length }}:{{ i }}{% if not loop.last %},{% endif %}{% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}{% for i in [1] if i > 1 %}x{% else %}none{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for i in [[1, [2]], 3] recursive %}{% if i is sequence %}<{{ loop(i) }}>{% else %}{{ i }}@{{ loop.depth }}{% endif %}{% endfor %}
{% macro m(a, b=2, c='z') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(1, 2, 3) }} {{ m() }}| {{ m.name }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{% macro n() %}{{ caller('in') }}{% endmacro %}{% call(x) n() %}<{{ x }}>{% endcall %}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}
{% macro fact(n) %}{{ 1 if n < 2 else n * (fact(n - 1) | int) }}{% endmacro %}{{ fact(10) }}
{% macro m() %}{{ later }}{% endmacro %}{% set later = 5 %}{{ m() }}
{% filter upper %}abc {{ 'd' }}{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{% with %}{% set q = 1 %}{% endwith %}{{ q }}
{% block b %}in block {{ bos_token }}{% endblock %}{% print 1, 2 %}
{{ bos_token }}{% generation %}gen {{ 1 }}{% endgeneration %} x{% for i in [1, 2] %}{% generation %}é{{ i }}{% endgeneration %},{% endfor %}
{% generation %}first{% endgeneration %}{% generation %}second{% endgeneration %}
{% if undefinedthing %}{{ 1 | nofilter }}{% endif %}fine
{{ 1 | nofilter }}
{% for i in [1] %}{% if false %}{{ 1 | nofilter }}{% endif %}{% endfor %}ok
{% if false %}{% for i in [1] %}{{ 1 | nofilter }}{% endfor %}{% endif %}
{{ 1 is notest }}
{% nope %}
{% if true %}
{{ 1 +
{{ (1 }}
{% endif %}
{% break %}
{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% include 'x' %}
{% if false %}{% include 'x' %}{% endif %}fine
{{ cycler('a', 'b').next() }} {% set j = joiner('|') %}{{ j() }}a{{ j() }}b {{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ range(5, 1, -2) | list }} {{ range(3) }}
{{ messages[0].content.strip() + '!' }} {{ messages[0]['content'] | trim }} {{ messages | length > 2 and messages[0].role == 'system' }} {{ messages[1:] | map(attribute='role') | list }} {{ messages[::-1][0].role }} {{ messages[1:][0].role }}
{{ (messages | last).tags | join(',') }} {{ messages[2].tags | sort | first }} {{ messages[2]['x'] * 2 }} {{ messages[2].yes and 'Y' }} {{ messages[2].tags is sequence and messages[2].tags is not string }}
{{ 9223372036854775807 }} {{ 'x' if 1 is defined and none is not defined }}|{{ foo if foo is defined else 'no foo' }}|{{ (none or 'a') ~ ('' and 'b') }}|{{ 3.0 | int }}|{{ 7 | string ~ '' }}|{{ 1 if 2 > 1 > 0 }}
{# comment #}a{#- strip -#} b {#+ keep #} c
a {{- ' b ' -}} c {%- if true -%} d {%- endif -%} e {{ '-' }} -{{ 1 }}-
{% raw %}{{ not }} {% this %}{% endraw %}| {%- raw -%} x {% endraw -%} y
"""

BLOCKS = [
    "  {% if true %}\n  kept\n  {% endif %}\nend\n",
    "a\n    {%- if true %}\n b\n    {%- endif %}\nc\n\n",
    "    {%+ if true %}x{% endif +%}\ny",
    "{% if true %}\n\n\nx{% endif %}\n\n",
    "x {# c #}\n y\n   {# whole line #}\nz",
    "\r\na\r\nb\rc\n\n",
    "{{ 'a\r\nb' }}\n\n",
    "  {{ 1 }}\n  {% set x = 1 %}\n\n  {% for i in [1,2] %}\n    {{ i }}\n  {% endfor %}\n",
    "\n\n  {% raw %}\n  a\n  {% endraw %}\n b",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ '}}' }}{{ {'x': '%}'} }}",
    "{{ 'a' -}}  \n {{+ 'b' }}",
    "",
    "\n",
    "plain\n",
    "{%- for message in messages %}\n    {%- if loop.first and message['role'] != 'system' %}\n        {{- 'none' }}\n    {%- endif %}\n    {{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|assistant|>\\n' }}\n{%- endif %}\n",
]


def rendered(template):
    try:
        compiled = _compile_jinja_template(template)
        blocks, generations = [], []
        with compiled.environment.activate_tracker(blocks, generations):
            for block in compiled.generate(**VALUES):
                blocks.append(block)
            text = "".join(blocks)
    except Exception as error:
        return {"error": type(error).__name__}
    places = [[len(text[:end].encode()) for end in pair] for pair in generations]
    return {"text": text, "generations": places}


if __name__ == "__main__":
    templates = LINES.strip("\n").split("\n") + BLOCKS
    cases = [{"template": template, **rendered(template)} for template in templates]
    path = pathlib.Path(__file__).with_name("cases.json")
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    path.write_text('{"values": ' + json.dumps(VALUES, ensure_ascii=True) + ',\n"cases": [\n' + lines + "\n]}\n")
