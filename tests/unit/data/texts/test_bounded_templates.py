"""Chat templates are run as transformers runs them, until they do more than any template that writes a dialogue."""

import time
from datetime import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from plumbob.data.texts.bounded_templates import MAX_LETTERS, MAX_SECONDS, render, template_time, template_trial
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE

MESSAGES = [
    {"role": "system", "content": " Be kind. "},
    {"role": "user", "content": "Is <1 & 2> 'so'?", "tools": [{"name": "f", "arguments": {"é": 1}}]},
    {"role": "assistant", "content": "Yes,\nit is."},
]

TEMPLATES = {
    "plain": PLAIN_CHAT_TEMPLATE,
    "chatml": "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m.content | trim ~ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "blocks": "{%- for m in messages %}\n    {%- if m.role == 'system' %}\n  [{{ m.content }}]\n    {%- else %}\n"
    "{{ m.content }}\n    {%- endif %}\n{%- endfor %}\n",
    "tools": "{% for m in messages %}{% if m.tools %}{{ m.tools | tojson(indent=2) }}{% endif %}{% endfor %}",
    "macro": "{% macro turn(m) -%}<{{ m.role | upper }}>{{ m.content }}{%- endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + 1 %}"
    "{{ '%d: %s' % (ns.n, m.content) }}{% if ns.n == 1 %}{% continue %}{% endif %}!{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "lists": "{{ messages[1:] | map(attribute='role') | join }} {{ messages | count }} {{ 'a b'.split() | last }}"
    "{{ 'a-b'.replace('-', '+') }}{{ range(3) | list }}{% set x %}{{ messages[0].content }}{% endset %}{{ x | trim }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("opened", [True, False])
def test_a_template_writes_what_it_writes_in_transformers(name: str, opened: bool) -> None:
    template, tokens = TEMPLATES[name], {"eos_token": "</s>", "tools": None, "documents": None}
    if "generation %" in template:
        expected = "".join(message["content"] for message in MESSAGES)
    else:
        options = {"chat_template": template, "add_generation_prompt": opened, "eos_token": "</s>"}
        expected = render_jinja_template([MESSAGES], **options)[0][0]
    assert render(template, messages=MESSAGES, add_generation_prompt=opened, **tokens) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10000000 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ [0] * 1000000000 }}",
        "{% set ns = namespace(a='aaaa') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% set ns = namespace(a='aaaa') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{% set ns = namespace(a=9) %}{% for i in range(99) %}{% set ns.a = ns.a * ns.a %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ ('a' * 1000000).replace('a', 'a' * 1000000) }}",
        "{{ ('a' * 1000000) | replace('a', 'a' * 1000000) }}",
        "{{ range(100000) | join('a' * 1000000) }}",
        "{{ ('a' * 1000000).join(['a'] * 100000) }}",
        "{{ range(1000000000) | list }}",
        "{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}",
        "{% set text %}{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
        "{{ messages | tojson(indent=1000000000) }}",
        "x" * (MAX_LETTERS + 1),
    ],
)
def test_a_text_that_would_fill_the_memory_is_never_made(template: str) -> None:
    with pytest.raises(OverflowError):
        render(template, messages=MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% set x = ('a' * 1000000) | upper %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_a_loop_that_never_ends_is_ended(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.data.texts.bounded_templates.MAX_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(OverflowError):
        render(template, messages=MESSAGES)
    assert time.monotonic() - began < MAX_SECONDS


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ raise_exception('no system') }}",
        "{{ 1 | nonesuch }}",
        "{% for %}",
    ],
)
def test_what_a_template_may_not_do_is_raised(template: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - jinja, Python or the sandbox: whoever calls expects any
        render(template, messages=MESSAGES)


def test_the_budget_is_of_one_dialogue() -> None:
    template = "{% for i in range(400) %}{{ 'x' * 1000 }}{% endfor %}"
    for _ in range(7):
        assert len(render(template)) == 400_000


def test_a_template_writes_the_date_that_it_is_given() -> None:
    """As Llama 3.2's does; a run that is resumed on another day would read other texts."""
    template = "Today: {{ strftime_now('%d %b %Y') }}"
    with template_time(datetime(2024, 7, 26)) as clock:
        assert render("no date") == "no date"
        assert not clock.was_read
        assert render(template) == "Today: 26 Jul 2024"
        assert clock.was_read
    assert render(template) != "Today: 26 Jul 2024"


def test_a_template_that_is_tried_out_has_the_same_time_and_has_written_no_date() -> None:
    with template_time(datetime(2024, 7, 26)) as clock:
        with template_trial():
            assert render("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"
        assert not clock.was_read
    with template_trial():
        assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)
