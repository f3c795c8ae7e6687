"""Templates that nobody would write in good faith. None may hang: what would run for hours must be refused at once."""

# ruff: noqa: E501 (a line of a template is best left whole)

import json
from typing import Any

import pytest

from sottovoce.chat.messages import ChatMessage
from sottovoce.chat.template import ChatTemplate
from sottovoce.chat.template_limits import MAX_STEPS, Meter, TemplateLimitError
from sottovoce.errors import BundleError, InputError

MESSAGES = (ChatMessage("user", "hi"), ChatMessage("assistant", "yo"))

TWICE = "{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}"
PAIRS = "{% set n = namespace(s=(1,), t=(1,)) %}{% for i in range(60) %}{% set n.s = (n.s, n.s) %}{% endfor %}"
LONG = "{% set s = 'a' * 900000 %}{% for i in range(100000) %}"

TOO_MUCH_WORK = {
    "nested loops": "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    "loops whose body never runs": "{% for a in range(90000) %}{% for b in range(90000) if false %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "a list of lists of itself printed": "{% set n = namespace(s=[1], t=1) %}" + TWICE + "{{ n.s }}",
    "the same joined": "{% set n = namespace(s=[1], t=1) %}" + TWICE + "{{ n.s ~ '' }}",
    "the same as JSON": "{% set n = namespace(s=[1], t=1) %}" + TWICE + "{{ n.s | tojson }}",
    "the same compared": "{% set n = namespace(s=[1], t=[1]) %}" + TWICE + "{{ n.s == n.t }}",
    "the same looked for": "{% set n = namespace(s=[1], t=[1]) %}" + TWICE + "{{ n.s in [n.t] }}{{ n.s is in [n.t] }}",
    "the same remembered by a loop": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{{ loop.changed(n.s) }}{% endfor %}",
    "the same hashed": PAIRS + "{{ {}[n.s] }}",
    "the same got": PAIRS + "{{ {'a': 1}.get(n.s) }}",
    "the same made unique": PAIRS + "{{ [n.s] | unique | list }}",
    "the same formatted": PAIRS + "{{ '%s' % (n.s,) }}",
    "the same formatted by braces": PAIRS + "{{ '{}'.format(n.s) }}",
    "lists added up": "{{ ([[0] * 1000] * 1000) | sum(start=[]) }}",
    "long texts sorted": "{{ (['a' * 900000] * 10000) | sort | length }}",
    "long texts grouped": "{{ (['a' * 900000] * 10000) | groupby(0) | list }}",
    "a macro's own text": "{% macro m() %}"
    + "x" * 60000
    + "{% endmacro %}{% for i in range(100000) %}{% set q = m() %}{% endfor %}",
    "much between the loop's ends": "{% for i in range(100000) %}" + "{% if a %}{% endif %}" * 1200 + "{% endfor %}",
    "many texts kept": LONG + "{% set s = s ~ '' %}{% endfor %}",
    "slices of a long text": LONG + "{% set q = s[1:] %}{% endfor %}",
    "a long text searched": LONG + "{% if 'b' in s %}{% endif %}{% endfor %}",
    "a long text tested": LONG + "{% if s is upper %}{% endif %}{% endfor %}",
    "a long text compared": LONG + "{% if s == 'a' * 900000 %}{% endif %}{% endfor %}",
    "a long text passed through filters": LONG + "{% set q = s | title | length %}{% endfor %}",
    "a long text's methods": LONG + "{% set q = s.upper() %}{% endfor %}",
    "numbers printed": "{% set s = [0] * 90000 %}{% for i in range(90000) %}{% set q = s | string %}{% endfor %}",
    "a cycle of many": "{% for i in range(100000) %}{{ loop.cycle(*range(1000)) }}{% endfor %}",
}

TOO_LARGE = {
    "a text times a number": "{{ 'a' * 10**9 }}",
    "a number times a text": "{{ 10**9 * 'a' }}",
    "a list times a number": "{{ ([0] * 10**9) | length }}",
    "a power": "{{ 10 ** 100000 }}",
    "a power of a power": "{{ (10**100) ** (10**100) }}",
    "squares": "{% set n = namespace(x=3) %}{% for i in range(100) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "a range": "{% for a in range(10**9) %}{% endfor %}",
    "a loop in a generation block": "{% generation %}{% for i in range(10**6) %}{% endfor %}{% endgeneration %}",
    "a text doubled": "{% set n = namespace(s='aa') %}{% for i in range(100) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a text added to itself": "{% set n = namespace(s='aa') %}{% for i in range(100) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a list added to itself": "{% set n = namespace(s=[1]) %}{% for i in range(100) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a block doubled": "{% set n = namespace(s='') %}{% for i in range(100) %}{% set n.s %}{{ n.s }}{{ n.s }}x{% endset %}{% endfor %}",
    "output": "{% for i in range(100000) %}" + "x" * 60000 + "{% endfor %}",
    "a width": "{{ '{:>1000000000}'.format(1) }}",
    "a width from a value": "{{ '{:>{}}'.format(1, 1000000000) }}",
    "a width by percent": "{{ '%1000000000d' % 1 }}",
    "a width by percent from a value": "{{ '%*d' % (1000000000, 1) }}",
    "a precision": "{{ '%.1000000000f' | format(1.0) }}",
    "a centred text": "{{ 'a' | center(10**9) }}",
    "a padded text": "{{ 'a'.ljust(10**9) }}{{ 'a'.zfill(10**9) }}",
    "an indent": "{{ ('a\\n' * 10000) | indent('x' * 100000) }}",
    "a replacement": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "a replacement by filter": "{{ ('a' * 100000) | replace(old='a', new='b' * 100000) }}",
    "a replacement of nothing": "{{ ('a' * 900000).replace('', 'bbbb') }}",
    "a joining": "{{ ('b' * 100000).join(['a'] * 100000) }}",
    "a joining by filter": "{{ (['a'] * 100000) | join('b' * 100000) }}",
    "batches": "{{ [1] | batch(10**9, 0) | list }}",
    "slices": "{{ [1] | slice(10**9) | list }}",
    "a rounding": "{{ 5 | round(-10**9) }}",
    "a rounding up": "{{ 5 | round(10**9, 'ceil') }}",
    "a number read": "{{ ('f' * 900000) | int(base=16) }}",
    "characters stripped": "{{ ('a' * 900000).strip('b' * 900000) }}",
    "words": "{{ ('a ' * 400000).split() | length }}",
    "separators of JSON": "{{ [1, 2] | tojson(separators=('x' * 100000, ':')) }}",
    "an indent of JSON": "{{ [[[[1]]]] | tojson(indent=10**9) }}",
    "a date's width": "{{ strftime_now('%1000000000Y') }}",
}

TOO_DEEP = {
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a recursive loop": "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    "a list in a list in a list": "{% set n = namespace(s=[1]) %}{% for i in range(9000) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s }}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 30000 + "]" * 30000 + " }}",
    "ifs": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "a sum": "{{ " + "+".join(["1"] * 9000) + " }}",
    "attributes": "{{ a" + ".b" * 9000 + " }}",
    "filters": "{{ 1" + "|string" * 9000 + " }}",
    "nots": "{{ " + "not " * 5000 + "1 }}",
    "alternatives": "{{ " + "1 if a else " * 3000 + "1 }}",
    "parts": "{{ a }}" * 9000,
}

FORBIDDEN = {
    "classes": "{{ ''.__class__.__mro__ }}",
    "classes by item": "{{ ''['__class__']['__mro__'] }}",
    "classes by filter": "{{ (''|attr('__class__')).x }}",
    "classes by map": "{{ (['']|map(attribute='__class__.__mro__')|list)[0].x }}",
    "classes by format": "{{ ('{0.__class__.__mro__}').format('') }}",
    "globals of a global": "{{ namespace.__init__.__globals__ }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "globals of a cycler": "{{ cycler(1).next.__func__.__globals__ }}",
    "a frame": "{{ (messages|map('upper')).gi_frame.f_back }}",
    "a hidden name in a namespace": "{% set n = namespace(__class__=1) %}",
    "a hidden name set": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "a list changed": "{{ messages.append(1) }}",
    "a message changed": "{{ messages[0].update({'role': 'x'}) }}",
    "format_map": "{{ '{a}'.format_map({'a': 1}) }}",
    "bytes": "{{ 'a'.encode() }}",
    "a number's methods": "{{ (1).to_bytes(10**9, 'big') }}",
    "a tuple as a key": "{% set d = {(1, 2): 3} %}",
    "another template": "{% include 'x' %}",
    "an import": "{% import 'x' as y %}",
    "names imported": "{% from 'x' import y %}",
    "a parent": "{% extends 'x' %}",
    "a block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "escaping": "{% autoescape true %}{% endautoescape %}",
    "filler": "{{ lipsum(n=100000) }}",
    "chance": "{{ [1] | random }}",
    "links": "{{ 'a' | urlize }}",
    "a printer": "{{ messages | pprint }}",
    "an integer too long": "{{ " + "9" * 60000 + " }}",
    "half a string": "{{ 'aaaa",
}


def render(source: str) -> str:
    return ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize("name", TOO_MUCH_WORK)
def test_work_without_end_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"steps of work|more than \d+$"):
        render(TOO_MUCH_WORK[name])


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_value_too_large_is_refused_before_it_is_made(name: str) -> None:
    with pytest.raises(BundleError, match=r"goes beyond a limit: .* more than|takes its width from a value"):
        render(TOO_LARGE[name])


@pytest.mark.parametrize("name", TOO_DEEP)
def test_nesting_without_end_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"deep|parts"):
        render(TOO_DEEP[name])


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_way_out_of_the_sandbox_is_refused(name: str) -> None:
    with pytest.raises((BundleError, InputError)) as error:
        render(FORBIDDEN[name])
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "source",
    [
        "{% set n = namespace(s=(1,)) %}{% for i in range(50000) %}{% set n.s = (n.s,) %}{% endfor %}ok",
        "{% set n = namespace(s=1) %}{% for i in range(50000) %}{% set n.s = namespace(s=n.s) %}{% endfor %}ok",
        "{% set n = namespace(s=[1]) %}{% for i in range(20000) %}{% set n.s = n.s | map('string') %}{% endfor %}ok",
        "{% set n = namespace(s=1) %}{% set n.s = n %}{{ '' if n ~ '' }}ok",
    ],
)
def test_a_long_chain_of_values_does_not_break_the_process(source: str) -> None:
    assert render(source) == "ok"


def test_a_frame_of_an_iterator_cannot_be_seen_for_there_is_none() -> None:
    assert render("{{ (['a']|map('upper')).gi_frame is defined }}") == "False"


def test_a_template_that_fails_leaves_the_next_render_as_it_was() -> None:
    template = ChatTemplate("{% if messages|length > 1 %}{{ 'a' * 10**9 }}{% endif %}{{ messages[0].content }}")
    with pytest.raises(BundleError):
        template.render(MESSAGES)
    assert template.render(MESSAGES[:1]) == "hi"


def test_the_budget_grows_with_what_is_given() -> None:
    assert Meter(1000).allowed == MAX_STEPS + 2000


def test_a_meter_refuses_what_exceeds_it_and_says_so() -> None:
    with pytest.raises(TemplateLimitError, match=f"more than {MAX_STEPS} steps"):
        Meter().spend(MAX_STEPS + 1)


def test_a_value_that_is_in_another_twice_is_paid_for_twice() -> None:
    once, twice = Meter(), Meter()
    inner: list[Any] = [1] * 100
    once.weigh([inner])
    twice.weigh([inner, inner])
    assert twice.allowed - twice.steps > 1.9 * (once.allowed - once.steps)
    assert twice.weigh([inner, inner]) >= len(json.dumps([inner, inner]))
