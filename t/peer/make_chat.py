#!/usr/bin/env python3
"""Conversations, and what transformers' renderer makes of them with each template: the fixtures of t/data/chat.
usage: make_chat.py DIR [--show]

DIR/*.jinja                 templates that are there
DIR/conversations.jsonl     written: {"messages": [...]} a line, 200 of them, the same in every run
DIR/NAME.want               written: for each, 16 digits of the SHA-256 of the text, or "-" where the renderer fails
DIR/cases.jsonl             written with --cases: [template, text or null where the renderer fails] a line

bos_token is <s>, eos_token </s>, and strftime_now gives 26 Jul 2024, whatever the template. --show prints the first
failure of each template, and how many there are."""
import argparse
import datetime
import glob
import hashlib
import json
import os
import random
from unittest import mock

from transformers.utils import chat_template_utils

WORDS = ("the a of bread river Zürich naïve 東京 привет שלום emoji😀 👩‍👩‍👧 e\u0301 \u00a0 code() {x} <b> </s> <s> [INST] "
         "<|im_start|> <think> </think> \"quoted\" it's 1,234.5 \\n % # {{ }} {% %} \t \u2028 \u3000 end").split(" ")
SPACES = ["", "", "", "", " ", "\n", "  ", "\n\n", "\t", "\u00a0", " \n "]
SYSTEMS = ["", " ", "You are helpful.", "  Be brief.\n", "Antworte auf Deutsch.\n\nImmer.", "/no_think", "/think x "]


def text(r, longest):
    words = [r.choice(WORDS) for _ in range(r.randrange(longest + 1))]
    body = "".join(w + r.choice([" ", " ", " ", "\n", ", "]) for w in words)
    return r.choice(SPACES) + body.strip(" ") + r.choice(SPACES)


def answer(r):
    if r.random() < 0.1:
        return "<think>\n" + text(r, 4) + "\n</think>\n\n" + text(r, 6)
    return text(r, 9)


def turns(r, count, last_user):
    out = []
    for _ in range(count):
        out += [{"role": "user", "content": text(r, 8)}, {"role": "assistant", "content": answer(r)}]
    return out[:-1] if last_user else out


def conversation(r, i):
    messages = turns(r, r.choice([1, 1, 2, 2, 3, 5]), r.random() < 0.2)
    if r.random() < 0.5:
        messages.insert(0, {"role": "system", "content": r.choice(SYSTEMS + [text(r, 8)])})
    if i % 10 == 7:  # what some templates refuse
        kind = i // 10 % 5
        if kind == 0:
            messages.insert(len(messages) // 2, {"role": "system", "content": "again"})
        elif kind == 1:
            messages.append(dict(messages[-1]))
        elif kind == 2:
            messages[0]["role"] = "assistant"
        elif kind == 3:
            messages[-1]["content"] = [{"type": "text", "text": text(r, 3)}, {"type": "text", "text": "part"}]
        else:
            messages.append({"role": "moderator", "content": "x"})
    if i % 20 == 13:
        call = {"type": "function", "id": "abcdefg12", "function": {"name": "f", "arguments": {"x": [1, 2.5, None, True, "ä\"\n"]}}}
        messages += [{"role": "user", "content": "call"}] if messages[-1]["role"] == "assistant" else []
        messages += [{"role": "assistant", "content": r.choice([None, "", "now"]), "tool_calls": [call]},
                     {"role": "tool", "content": "{\"a\": 1}", "tool_call_id": "abcdefg12"},
                     {"role": "assistant", "content": answer(r)}]
    if i % 20 == 4 and messages[-1]["role"] == "assistant":
        messages[-1]["reasoning_content"] = text(r, 4)
    return messages


CASES = r"""
{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ -7 // 2 }} {{ 7 / 2 }} {{ 2 - -1 }} {{ +3 }} {{ 1 / 4 }} {{ 10 / 5 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.50 }} {{ 'a' 'b' "c" }} {{ "it's" + 'q"q' }} {{ 'a\nb\t\x41\u00e9\\d' }}
{{ true and 0 }} {{ '' or 'x' }} {{ not '' }} {{ not not 1 }} {{ 1 if '' else 2 }} {{ 'no' if false }} {{ 1 if 0 else 2 if 0 else 3 }}
{{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ none == false }} {{ [1, 'a'] == [1.0, 'a'] }} {{ {'a': 1} == {'a': true} }} {{ u == v }}
{{ 'a' < 'b' }} {{ 'é' > 'z' }} {{ 2 >= 2 }} {{ 1.5 < 2 }} {{ true < 2 }} {{ 'ab' < 'abc' }} {{ 1 != 2 }}
{{ 'b' in 'abc' }} {{ 'x' not in ['x'] }} {{ 'a' in d }} {{ 1 in [true] }} {{ 1 in d }} {{ 'a' in u }} {{ not 'a' in 'b' }}
{{ 1 in 'a' }}
{{ 'x' in none }}
{{ 1 < 'a' }}
{{ u + 'a' }}
{{ 'a' + 1 }}
{{ u.x }}
{{ u }}|{{ d.zz }}|{{ d['zz'] }}|{{ none.x }}|{{ (1).x }}|{{ 'a'.x }}|{{ l.x }}|{{ l[99] }}|{{ 'abc'[7] }}
{{ d.a }} {{ d['b'] }} {{ d.n.m[1].k }} {{ l[0] }} {{ l[-1] }} {{ l.0 }} {{ 'añb'[1] }} {{ 'añb'[-1] }} {{ 'abc'[true] }}
{{ 'añbcdef'[1:3] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[:-2] }} {{ 'abcdef'[4:1:-1] }} {{ 'abc'[5:] }}
{{ l[1:] | join(',') }} {{ l[::-1] | join(',') }} {{ l[:2] | length }} {{ l[-99:99] | join }} {{ l[3:1] | length }} {{ l[1::2] | join }}
{{ 'abc'[::0] }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in l if x != 2 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% else %}none{% endfor %}{% for x in [] %}a{% else %}empty{% endfor %}
{% for k, v in d.items() if k != 'n' %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'añ' %}<{{ c }}>{% endfor %}{% for x in u %}x{% endfor %}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for a, b in [[1, 2], 'xy'] %}{{ a }}{{ b }}{% endfor %}{% for (a, b) in [[1, 2]] %}{{ a }}{{ b }}{% endfor %}
{% for a, b in [[1]] %}{% endfor %}
{% for a, b in [[1, 2, 3]] %}{% endfor %}
{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}{{ x }}
{% for x in range(3, 0, -1) %}{{ x }}{% endfor %}{% for i in [1] %}{% for j in [2] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for x in 1, 2 %}{{ x }}{% endfor %}{% for x in (1, 2) + (3,) %}{{ x }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% for i in [1] %}{% set y = 3 %}{% endfor %}{{ y }}
{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns['a'] }}
{% set d.a = 1 %}
{% set a, b = 1, 'z' %}{{ b }}{{ a }}{% set t %}  in {{ a }}  {% endset %}[{{ t }}]{% set t | trim | upper %} q {% endset %}[{{ t }}]
{% set a, b = [1] %}
{% filter upper %}a{{ 'b' }}{% endfilter %}{% filter trim | replace('a', 'b') %} aa {% endfilter %}
{% macro m(a, b='B', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}{{ m(1) | length }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% set g = 1 %}{% macro m() %}{{ g }}{{ h }}{% set g = 5 %}{{ g }}{% endmacro %}{% set h = 2 %}{{ m() }}{{ g }}{% for g in [7] %}{{ m() }}{% endfor %}
{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% generation %}a{% set q = 1 %}{% endgeneration %}{{ q }}b
{{ '  a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'éaé'.strip('é') }}|{{ '\u3000a\u00a0'.strip() }}|{{ '\x1ca'.strip() }}
{{ 'a,b,,c'.split(',') | join('|') }} {{ ' a  b\tc '.split() | join('|') }} {{ 'a,b,c'.split(',', 1) | join('|') }} {{ ''.split() | length }} {{ ''.split(',') | length }}
{{ 'aXbX'.replace('X', '--') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('ab') }} {{ 'aé'.find('é') }} {{ ','.join(['a', 'b']) }}
{{ 'aBc d1e'.upper() }} {{ 'ABC'.lower() }} {{ 'hELLO wORLD'.capitalize() }} {{ "it's 3d ok".title() }} {{ 'x' | capitalize }}
{{ d.get('a') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.keys() | list | join(',') }} {{ d.values() | first }}
{{ [1, none, 'é"\n', 1.5, {'a': [], 'b': {}}] | tojson }}|{{ 'é\x01\x7f' | tojson }}|{{ 'é😀' | tojson(ensure_ascii=true) }}
{{ d | tojson(indent=2) }}|{{ [] | tojson(indent=4) }}|{{ [[1], 2] | tojson(indent=4) }}|{{ none | tojson }}
{{ u | tojson }}
{{ ' x ' | trim }}|{{ 'xax' | trim('x') }}|{{ none | trim }}|{{ 5 | string + 'a' }}|{{ u | trim }}|{{ 'aé' | length }}|{{ d | length }}|{{ u | length }}|{{ 'ab' | list | join('-') }}
{{ none | length }}
{{ 5 | length }}
{{ u | default('x') }} {{ '' | default('x') }} {{ '' | default('x', true) }} {{ none | default('x') }} {{ d.q | d(1) }} {{ u | default(default_value=2) }}
{{ l | first }} {{ l | last }} {{ [] | first }} {{ 'abc' | first }} {{ l | reverse | join }} {{ 'abc' | reverse }} {{ '12' | int + 1 }} {{ 3 | int }} {{ true | int }}
{{ ms | selectattr('role', 'equalto', 'user') | map(attribute='n') | join(',') }} {{ ms | rejectattr('n') | list | length }} {{ ms | selectattr('n', 'defined') | list | length }} {{ none | selectattr('a') | list | length }}
{{ l | select('odd') | join }} {{ l | reject('eq', 2) | join }} {{ ['a ', 'b'] | map('trim') | join }} {{ d | items | first | first }} {{ {'b': 1, 'A': 2} | dictsort | map('first') | join }}
{{ {4: 'b', 1: 'a'}[4] }} {{ {4: 'b', -1: 'a', 10: 'c'} | dictsort | map('last') | join }} {{ {1: 2}[3] }} {{ {1: 'x'}[true] }}{% for k, v in {2: 'b', 1: 'a'} | dictsort %}{{ k + 1 }}{{ v }}{% endfor %}
{{ u is defined }} {{ d is mapping }} {{ l is mapping }} {{ 'a' is string }} {{ l is iterable }} {{ 'a' is sequence }} {{ 5 is iterable }} {{ none is none }} {{ u is none }} {{ u is undefined }} {{ 1 is number }} {{ true is number }}
{{ true is boolean }} {{ 1 is boolean }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 3 is odd }} {{ 4 is even }} {{ range is callable }} {{ 1 is eq 1 }} {{ 1 is in [1] }} {{ 2 is gt(1) }} {{ 1 is not odd }}
{{ 0.1 }} {{ 100.0 }} {{ 1.5 * 2 }} {{ 12345678901234567 }} {{ 0.0001 }} {{ 0.00001 }} {{ 10000000000000000.0 }} {{ 123456789012345.6 }} {{ 1 / 3 }} {{ -0.5 }} {{ f }}
{{ raise_exception('stop') }}
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%A %B %j %y %H:%M') }}
{{ 'a' | nothing }}
{{ nothing(1) }}
{{ l.append(1) }}
{{ d.pop('a') }}
{{ 'a' is nothing }}
{{ 1 // 0 }}
{{ 1 / 0 }}
{{ 'x' if l is defined and l | length > 2 and not (u is defined) else 'y' }} {{ (1, 2)[1] }} {{ [1, 2][0] }} {{ {'a': {'b': 'c'}}['a']['b'] }} {{ {'a': {'b': 1}} | tojson }}
  {% if true %}
  a
    {% endif %}
b {% if true %} c {% endif %} d
   {%- if true -%}   e   {%- endif -%}   f
 {%+ if true %} g {% endif +%}
{# c #}
  {# d #}  h
{#- x -#}
i {{- ' j ' -}} k
{% if true %}{% endif %}

l
"""
CONTEXT = {"d": {"a": 1, "b": "x", "n": {"m": [0, {"k": "K"}]}}, "l": [1, 2, 3], "f": 6.02e23,
           "ms": [{"role": "user", "n": 1}, {"role": "tool"}, {"role": "user", "n": 0}]}


def cases():
    head, tail = CASES.strip("\n").split("  {% if true %}\n", 1)
    tail = "  {% if true %}\n" + tail
    return head.split("\n")[:-1] + [tail, tail.replace("\n", "\r\n"), "{{ 1 }}\n", "{{ 1 }}\n\n", "\n{% if 1 %}\n\nx\n{% endif %}\n", "",
                                   "a\u3000{%- if 1 -%}\u2003b{% endif %}", "{{ '}}' }}{{ {'a': '%}'}['a'] }}", "{{ {'a': {'b': 2}}['a'] | tojson }}"]


class Day(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def render(template, messages, **variables):
    with mock.patch.object(chat_template_utils, "datetime", Day):
        return chat_template_utils.render_jinja_template(conversations=[messages], chat_template=template, **variables)[0][0]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dir")
    ap.add_argument("--show", action="store_true")
    ap.add_argument("--cases", action="store_true")
    a = ap.parse_args()
    if a.cases:
        with open(os.path.join(a.dir, "cases.jsonl"), "w", encoding="utf-8") as f:
            for c in cases():
                try:
                    out = render(c, None, **CONTEXT)
                except Exception:
                    out = None
                f.write(json.dumps([c, out], ensure_ascii=False) + "\n")
    r = random.Random(8)
    chats = [conversation(r, i) for i in range(200)]
    with open(os.path.join(a.dir, "conversations.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"messages": m}, ensure_ascii=False, separators=(",", ":")) + "\n" for m in chats)
    for path in sorted(glob.glob(os.path.join(a.dir, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            template = f.read()
        lines, first = [], None
        for m in chats:
            try:
                out = render(template, m, bos_token="<s>", eos_token="</s>")
                lines.append(hashlib.sha256(out.encode()).hexdigest()[:16])
            except Exception as e:
                first = first or e
                lines.append("-")
        if a.show:
            print(os.path.basename(path), lines.count("-"), first)
        with open(path[:-len("jinja")] + "want", "w") as f:
            f.writelines(x + "\n" for x in lines)


main()
