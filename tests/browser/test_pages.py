"""The pages of `plumbob ui` in a real browser: every view at both widths, light and dark, and its use."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.browser.axe import serious_findings
from tests.support.browser.headless import HeadlessBrowser
from tests.support.browser.run_folders import add_steps, growing_run, many_runs, served_runs
from tests.support.browser.served import TOKEN, serving
from tests.support.finished_run import HOSTILE, finished_run

LOOKS = [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")]
VIEWS = {
    "#/": "document.querySelectorAll('tbody tr').length === 4",
    "#/compare/grpo,growing": "document.querySelectorAll('.chart canvas').length > 0",
    "#/run/grpo": "document.querySelectorAll('.tile').length >= 6",
    "#/run/toy?stage=reward": "document.querySelectorAll('.tile').length >= 3",
    "#/run/grpo/curves": "document.querySelectorAll('.chart canvas').length > 0",
    "#/run/grpo/timeline": "document.querySelector('.timeline-rows rect')",
    "#/run/grpo/config": "document.querySelectorAll('tbody tr').length > 3",
    "#/run/grpo/steer": "document.querySelectorAll('tbody tr').length > 1",
    "#/run/grpo/logs": "document.querySelector('.log')",
}
"""Address -> what is so when the view is there."""

CUT = """
const page = document.documentElement;
const wide = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('.table-frame, .tabs, .log-files, svg, .plot, .hidden'));
return page.scrollWidth > innerWidth ? [`the page is ${page.scrollWidth} wide`, ...wide.map(e => e.className)] : [];
"""


TYPED = """
const [field, text] = [document.querySelector(arguments[0]), arguments[1]];
field.value = text;
field.dispatchEvent(new Event("input", {bubbles: true}));
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    with serving(runs) as served:
        yield served


def opened(browser: HeadlessBrowser, address: str, there: str) -> None:
    """Another hash alone would not load the page anew."""
    browser.open("about:blank")
    browser.open(address)
    browser.wait(there)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_whole_in_every_look_and_says_nothing_in_the_console(
    browser: HeadlessBrowser, address: str, view: str
) -> None:
    """Console: errors of scripts, files that are missing, and whatever the security policy refused."""
    browser.console()
    browser.look(*LOOKS[0])
    opened(browser, address + view, VIEWS[view])
    grounds = set()
    for width, scheme in LOOKS:
        browser.look(width, scheme)
        browser.wait("document.documentElement.clientWidth === innerWidth")
        assert browser.run(CUT) == [], (width, scheme)
        grounds.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
        assert serious_findings(browser) == [], (width, scheme)
    assert len(grounds) == 2
    assert browser.console() == []


def test_text_of_others_is_shown_as_text(browser: HeadlessBrowser, address: str) -> None:
    for view, there in VIEWS.items():
        opened(browser, address + view, there)
        assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    for view in ("#/run/grpo", "#/run/grpo/steer", "#/run/grpo/logs"):
        opened(browser, address + view, VIEWS[view])
        assert HOSTILE in browser.wait("document.querySelector('main').innerText")


def test_a_curve_grows_without_being_read_again(browser: HeadlessBrowser, runs: Path, tmp_path: Path) -> None:
    """The steps are asked for once; what comes after is told."""
    run = growing_run(tmp_path / "on", num_steps=12)
    with serving(tmp_path) as address:
        browser.look(1440, "light")
        opened(browser, f"{address}#/run/on/curves", "document.body.innerText.includes('step 12 of 12')")
        browser.wait("document.querySelector('.connection').innerText.includes('live')")
        add_steps(run, 13, 15)
        browser.wait("document.querySelector('.chart-now').innerText.includes('step 15')")
        asked = browser.run("return performance.getEntriesByType('resource').map(({name}) => name)")
        assert len([name for name in asked if "/metrics" in name]) == 1
        assert browser.run("return document.querySelector('.plot').getAttribute('aria-label')").endswith("at step 15")


def test_a_lost_connection_is_said_and_taken_up_where_it_was(browser: HeadlessBrowser, tmp_path: Path) -> None:
    run = growing_run(tmp_path / "on", num_steps=12)
    with serving(tmp_path) as address:
        opened(browser, f"{address}#/run/on", "document.querySelector('.connection')?.innerText.includes('live')")
    browser.wait("document.querySelector('.connection').innerText.includes('lost')")
    add_steps(run, 13, 14)
    with serving(tmp_path, port=int(address.rstrip("/").rpartition(":")[2])):
        browser.wait("document.querySelector('.connection').innerText.includes('live')")
        browser.wait("document.querySelector('.where').innerText.includes('step 14')")
        asked = browser.run("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert len([name for name in asked if "/metrics" in name]) == 1


def test_two_hundred_runs_are_there_within_a_second(browser: HeadlessBrowser, tmp_path: Path) -> None:
    """From the address to the last row, on the first visit or one of the next; of each process that wants the core."""
    cores = os.cpu_count() or 1
    with serving(many_runs(tmp_path, 200)) as address:
        taken = []
        while not taken or (min(taken) >= 1 and len(taken) < 4):
            browser.open("about:blank")
            began = time.monotonic()
            browser.open(f"{address}#/")
            browser.wait("document.querySelectorAll('tbody tr').length === 200")
            taken.append(time.monotonic() - began)
        browser.open("about:blank")  # A page that outlives its server complains of it in the next test.
    assert min(taken) < max(1, os.getloadavg()[0] / cores), taken


def test_the_pages_are_used_by_keyboard(browser: HeadlessBrowser, address: str) -> None:
    browser.look(1440, "light")
    opened(browser, f"{address}#/", VIEWS["#/"])
    browser.press("Tab")
    assert browser.run("return document.activeElement.textContent") == "Skip to the content"
    browser.press("Enter", "?")
    browser.wait("document.querySelector('dialog').open")
    assert "compare the chosen runs" in browser.run("return document.querySelector('dialog').innerText")
    browser.press("Escape")
    browser.wait("!document.querySelector('dialog').open")
    browser.run("document.querySelector('tbody tr[tabindex=\"0\"]').focus()")
    browser.press("Space", "ArrowDown", "Space", "c")
    browser.wait("location.hash.startsWith('#/compare/')")
    browser.press("g")
    browser.wait("document.querySelectorAll('tbody tr').length === 4")
    browser.run("document.querySelector('tbody tr[tabindex=\"0\"]').focus()")
    browser.press("ArrowDown", "ArrowUp", "Enter")
    browser.wait("document.querySelector('.tabs [aria-current]')?.innerText === 'Overview'")
    browser.press("]")
    browser.wait("document.querySelector('.tabs [aria-current]').innerText === 'Curves'")


def test_a_run_of_any_name_is_opened_and_compared(browser: HeadlessBrowser, tmp_path: Path) -> None:
    name = "try#2, 50%"
    for run in (name, "other"):
        finished_run(tmp_path / run, "dpo", {"heldout_loss": 0.489})
    with serving(tmp_path) as address:
        opened(browser, f"{address}#/", "document.querySelectorAll('tbody tr').length === 2")
        for box in range(2):
            browser.run("document.querySelectorAll('tbody input[type=checkbox]')[arguments[0]].click()", box)
        browser.press("c")
        browser.wait("document.querySelectorAll('.chart canvas').length > 0")
        opened(browser, f"{address}#/run/{quote(name, safe='')}", "document.querySelectorAll('.tile').length > 0")


def test_a_step_of_a_curve_opens_its_rollouts(browser: HeadlessBrowser, address: str) -> None:
    browser.look(1440, "light")
    there = "document.querySelector('.chart canvas')"
    opened(browser, f"{address}#/run/grpo/curves", there)
    browser.click(".chart .u-over")
    browser.wait("location.hash.startsWith('#/run/grpo/rollouts')")
    step = int(browser.run("return new URLSearchParams(location.hash.split('?')[1]).get('step_from')"))
    assert 10 <= step <= 20, "in the middle of 30 steps"
    opened(browser, f"{address}#/run/grpo/curves", there)
    browser.run("document.querySelector('.plot').focus()")
    browser.press("ArrowLeft", "ArrowLeft", "Enter")
    browser.wait("location.hash.includes('step_from=29')")


def test_metrics_are_found_by_a_regular_expression_and_shown_on_a_logarithmic_axis(
    browser: HeadlessBrowser, address: str
) -> None:
    titles = "[...document.querySelectorAll('.chart-title')].map(e => e.innerText).join()"
    opened(
        browser, f"{address}#/run/grpo/curves?metrics=^(policy|value)_loss", f"{titles} === 'policy loss,value loss'"
    )
    browser.console()
    browser.click("input[type=checkbox]")
    browser.wait("location.hash.includes('log=1')")
    browser.run(TYPED, "input[type=search]", "(")
    browser.wait("document.querySelector('main').innerText.includes('not a regular expression')")
    assert browser.console() == []


def test_steering_asks_for_the_token(browser: HeadlessBrowser, address: str) -> None:
    opened(browser, f"{address}#/run/growing/steer", "document.querySelector('input[type=password]')")
    for word, answer in (("wrong", "[role=alert]"), (TOKEN, ".request")):
        browser.run(TYPED, "input[type=password]", word)
        browser.wait("!document.querySelector('.token-form button').disabled")
        browser.click(".token-form button")
        browser.wait(f"document.querySelector('{answer}')")
