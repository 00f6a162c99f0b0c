"""The token view: what it shows of a response whose every number is known, by mouse and by keyboard."""

import math
import os
from collections.abc import Iterator

import pytest

from tests.support.browser.headless import HeadlessBrowser
from tests.support.browser.shown_texts import cells, texts
from tests.support.known_run import KNOWN_RUN, MANY_TOKENS

pytestmark = pytest.mark.usefixtures("known")

OPEN_MS = 300
"""From the click to the drawn tokens."""

CLASSES = "[...document.querySelectorAll('[role=option]')].map(e => e.className.trim())"

FIRST = {
    **{"log-prob": "-0.5000", "probability": "60.65 %", "learner log-prob": "-0.5000", "reference log-prob": "-0.7500"},
    **{"entropy": "0.1250", "advantage": "0.5000", "reward": "-0.1250", "return": "1.8750", "value": "0.5000"},
    **{"TD error": "-0.3750", "KL to reference": "0.2500", "sampler gap": "0.0000", "importance ratio": "1.0000"},
    **{"clipped": "no", "written by": "the policy", "version": "3", "id": "1"},
}
SECOND = {
    **{"log-prob": "-1.2500", "probability": "28.65 %", "learner log-prob": "-1.3125", "reference log-prob": "-1.0000"},
    **{"entropy": "1.0000", "advantage": "-0.5000", "reward": "0.0000", "return": "2.0000", "value": "0.2500"},
    **{"TD error": "0.5000", "KL to reference": "-0.3125", "sampler gap": "0.0625", "importance ratio": "1.5000"},
    **{"clipped": "yes", "written by": "the policy", "version": "3", "id": "2"},
}
"""exp(-0.5) = 0.6065, exp(-1.25) = 0.2865; the others stand in the run, or follow by `NUMBERS` there."""

STEPS = {
    "logprob": ["low-2", "low-4", "low-1", "low-5"],
    "entropy": ["high-1", "high-3", "high-5", "high-2"],
    "ratio": ["middle", "high-5 clipped", "low-3", "middle"],
    "td_error": ["low-2", "high-3", "high-2", "high-5"],
}
"""Overlay -> each token's step of a fifth of the scale, upwards: log-probs -0.5, -1.25, -0.25, -2 of 2 are 1.25, 3.125,
0.625 and 5 fifths; entropies 0.125, 1, 2, 0.5 of 2 are 0.3, 2.5, 5 and 1.25; ratios less 1 are 0, 0.5, -0.25, 0 of 0.5;
TD errors -0.375, 0.5, 0.25, 1 of 1 are -1.9, 2.5, 1.25, 5.
"""

DRAWN = """
const wanted = arguments[0], link = document.querySelector(arguments[1]);
return new Promise((resolve) => {
  const begun = performance.now();
  const seen = new MutationObserver(() => {
    if (document.querySelectorAll('[role=option]').length !== wanted) return;
    seen.disconnect();
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begun)));
  });
  seen.observe(document.body, {childList: true, subtree: true});
  link.click();
});
"""


@pytest.fixture
def known(browser: HeadlessBrowser) -> Iterator[None]:
    browser.look(1440, "light")
    yield
    assert browser.console() == []


def open_answer(browser: HeadlessBrowser, served: str, step: int, row: int, query: str = "") -> None:
    browser.open(f"{served}#/run/{KNOWN_RUN}/rollouts/{step}/{row}{query}")
    wait_for_answer(browser, step, row)


def wait_for_answer(browser: HeadlessBrowser, step: int, row: int) -> None:
    """Groups are of four."""
    group = f"rollouts/{step}/group/{step}-{row // 4}"
    place = f"Step {step}, answer {row % 4 + 1} of 4"
    browser.wait(
        f"document.querySelector('.answer-head h2 a[href*=\"{group}\"]')?.parentNode.innerText.startsWith('{place}')"
    )


def numbers(browser: HeadlessBrowser) -> dict[str, str]:
    """Of the current token."""
    return dict(cells(browser, ".token-details dl div"))


def test_a_token_shows_all_its_numbers_under_the_mouse_and_by_keyboard(browser: HeadlessBrowser, served: str) -> None:
    open_answer(browser, served, 1, 0)
    assert texts(browser, "[role=option]") == ["Diesel", " it", "⏎\n", "</s>"]
    assert numbers(browser) == FIRST
    browser.click("#token-1")
    assert numbers(browser) == SECOND
    browser.press("ArrowLeft")
    assert numbers(browser) == FIRST
    browser.press("ArrowRight", "ArrowDown")
    assert browser.run("return document.activeElement.getAttribute('aria-activedescendant')") == "token-3"
    assert browser.run("return document.querySelector('[aria-selected=true]').textContent") == "</s>"


def test_the_colours_of_an_overlay_are_fifths_of_its_scale(browser: HeadlessBrowser, served: str) -> None:
    open_answer(browser, served, 1, 0)
    for overlay, steps in STEPS.items():
        open_answer(browser, served, 1, 0, f"?overlay={overlay}")
        browser.wait(f"document.querySelector('#tokens').dataset.overlay === '{overlay}'")
        assert browser.run(f"return {CLASSES}") == steps, overlay
    open_answer(browser, served, 1, 0, "?overlay=ratio")
    assert browser.wait("document.querySelector('.scale-ends').innerText.split('\\n')") == ["≤ 0.5", "1", "≥ 1.5"]


def test_keys_lead_to_the_answers_around_and_through_the_overlays(browser: HeadlessBrowser, served: str) -> None:
    open_answer(browser, served, 1, 0, "?overlay=entropy")
    for key, row in (("n", 1), ("p", 0), ("N", 4), ("P", 0)):
        browser.press(key)
        wait_for_answer(browser, 1, row)
    assert browser.run("return location.hash") == f"#/run/{KNOWN_RUN}/rollouts/1/0?overlay=entropy"
    browser.press("o")
    browser.wait("document.querySelector('#tokens').dataset.overlay === 'advantage'")
    browser.press("2")
    browser.wait("document.querySelector('#tokens').dataset.overlay === 'logprob'")
    browser.press("f")
    assert browser.run("return document.activeElement.id") == "tokens"


def test_two_thousand_tokens_are_drawn_at_once(browser: HeadlessBrowser, served: str) -> None:
    """On cores that others use too, by so much later."""
    took = []
    for _ in range(5):
        browser.open(f"{served}#/run/{KNOWN_RUN}/rollouts?step_to=1&order=asc")
        browser.wait("document.querySelector('td a[href*=\"rollouts/1/1\"]')")
        took.append(browser.run(DRAWN, MANY_TOKENS, 'td a[href*="rollouts/1/1"]'))
    print(f"{MANY_TOKENS} tokens from the click to the drawing: {', '.join(f'{ms:.0f}' for ms in took)} ms")
    assert min(took) < OPEN_MS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert browser.run("return document.querySelector('#token-1500').className") == "low-5"
    open_answer(browser, served, 1, 1, "?overlay=version")
    browser.wait("document.querySelector('#token-1500')?.className === 'version-2 changed'")
    assert browser.run("return document.querySelector('#token-1499').className") == "version-1"


def test_the_chart_and_the_text_have_the_same_current_token(browser: HeadlessBrowser, served: str) -> None:
    """Three quarters along a line of 2,000 tokens is about token 1,500, which had been below the edge of its box."""
    open_answer(browser, served, 1, 1)
    share = browser.run(
        "const chart = document.querySelector('.value-chart svg[role=img]');"
        "const {left, width} = chart.getBoundingClientRect(), x = Math.round(left + 0.75 * width);"
        "chart.dispatchEvent(new MouseEvent('mousemove', {clientX: x, bubbles: true}));"
        "return (x - left) / width"
    )
    index = int(share * MANY_TOKENS)
    browser.wait(f"document.querySelector('[aria-selected]').id === 'token-{index}'")
    edges = "['[aria-selected]', '#tokens'].map(e => document.querySelector(e).getBoundingClientRect().bottom)"
    token, box = browser.run(f"return {edges}")
    assert token <= box + 1
    assert browser.run("return document.querySelector('.line-cursor').getAttribute('d')") == f"M{index}.5 -4V104"
    assert numbers(browser)["value"] == f"{math.sin(index / 20):.4f}"


def test_an_episode_stands_in_its_turns_and_what_the_policy_did_not_write_is_hatched(
    browser: HeadlessBrowser, served: str
) -> None:
    open_answer(browser, served, 1, 2)
    turns = "[...document.querySelectorAll('.turn')].map(e => [e.dataset.label, e.children.length])"
    assert browser.run(f"return {turns}") == [["assistant, reward -0.25", 2], ["tool", 1], ["assistant, reward 1", 2]]
    assert browser.run(f"return {CLASSES}")[2] == "masked"
    browser.click("#token-2")
    shown = numbers(browser)
    assert (shown["log-prob"], shown["written by"], shown["version"]) == ("–", "not the policy: masked", "–")
    assert "The environment failed: time-out: 5 s" in browser.run("return document.body.innerText")


def test_a_waterfall_leads_from_the_parts_to_the_return(browser: HeadlessBrowser, served: str) -> None:
    """3 - 0.5 = 2.5, doubled 5, clipped at 4, less 2 for a missing end, less 0.125 for the KL: 1.875."""
    open_answer(browser, served, 1, 0)
    assert [row[:3] for row in cells(browser, ".waterfall tbody tr")] == [
        ["model part, scored 2.5", "+3", "3"],
        ["brief part, scored -1", "-0.5", "2.5"],
        ["total", "", "2.5"],
        ["scale", "+2.5", "5"],
        ["clip", "-1", "4"],
        ["no end penalty", "-2", "2"],
        ["kl", "-0.125", "1.875"],
        ["return", "", "1.875"],
    ]
    begin, width = (
        browser.run(
            f"return [...document.querySelectorAll('.waterfall rect')].map(e => Number(e.getAttribute('{name}')))"
        )
        for name in ("x", "width")
    )
    assert begin == [0, 50, 0, 50, 80, 40, 37.5, 0]  # Of the axis from 0 to 5, in percent.
    assert width == [60, 10, 50, 50, 20, 40, 2.5, 37.5]


def test_an_answer_without_a_token_and_one_that_was_dropped_are_shown(browser: HeadlessBrowser, served: str) -> None:
    open_answer(browser, served, 1, 3)
    assert "An empty answer: not one token." in browser.wait("document.querySelector('.empty')?.innerText")
    open_answer(browser, served, 2, 0)
    browser.wait("document.body.innerText.includes('its whole group has the same reward')")
    assert list(numbers(browser)) == [
        "log-prob",
        "probability",
        "written by",
        "version",
        "id",
    ]
