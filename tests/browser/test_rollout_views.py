"""The tables of rollouts, groups and pairs: filters that stand in the address, hostile text, all by keyboard."""

import pytest

from tests.support.browser.axe import serious_findings
from tests.support.browser.headless import HeadlessBrowser
from tests.support.browser.shown_texts import cells, texts
from tests.support.known_run import KNOWN_RUN, LONG_WORD

RUN = f"#/run/{KNOWN_RUN}"
HOSTILE_GROUP = f"{RUN}/rollouts/1/group/1-1%2F%3Cb%3E"
VIEWS = {
    "rollouts": f"{RUN}/rollouts",
    "group": HOSTILE_GROUP,
    "tokens": f"{RUN}/rollouts/1/0?overlay=logprob",
    "episode": f"{RUN}/rollouts/1/2?overlay=mask",
    "reward": f"{RUN}/rollouts/1/0?overlay=ratio",
    "pairs": f"{RUN}/pairs",
}
DRAWN = "document.querySelector('#content section.panel h2, #content section.panel .tokens')"
COUNT = "document.querySelector('.rollouts [role=status]')?.innerText"
SCORES = "[...document.querySelectorAll('.rollouts tbody tr')].map(e => Number(e.children[1].innerText))"


@pytest.fixture(autouse=True)
def wide(browser: HeadlessBrowser) -> None:
    browser.look(1440, "light")


def fill(browser: HeadlessBrowser, label: str, text: str) -> None:
    """As a person does: into the field of that label, then Enter."""
    browser.run(
        "const label = [...document.querySelectorAll('.field')].find(e => e.firstChild.innerText === arguments[0]);"
        "label.querySelector('input').focus()",
        label,
    )
    browser.press(*text, "Enter")


def test_filters_stand_in_the_address_and_choose_what_is_listed(browser: HeadlessBrowser, served: str) -> None:
    browser.open(f"{served}{RUN}/rollouts")
    assert browser.wait(COUNT) == "12 answers"
    fill(browser, "score from", "1")
    browser.wait(f"{COUNT} === '5 of 12 answers'")
    fill(browser, "step to", "1")
    browser.wait(f"{COUNT} === '1 of 12 answers'")
    assert browser.run("return location.hash") == f"{RUN}/rollouts?score_min=1&step_to=1"
    browser.click(".filters button")
    browser.wait(f"{COUNT} === '12 answers'")
    fill(browser, "text in prompt or answer", "COD.EXE")  # The hostile prompt, of four.
    browser.wait(f"{COUNT} === '4 of 12 answers'")
    browser.open(f"{served}{RUN}/rollouts?sort=score&order=asc&dropped=no")
    assert browser.wait(f"{COUNT} === '8 of 12 answers' && {SCORES}") == [-1, 0, 0.25, 0.5, 0.5, 0.75, 0.75, 2.5]


def test_a_range_of_scores_is_chosen_on_the_histogram(browser: HeadlessBrowser, served: str) -> None:
    """Thirty bins from -1 to 2.5: the last ten begin at -1 + 20 x 3.5 / 30 = 1.333 and have the 2.5
    alone; three more begin at 0.983 and have the four of 1."""
    browser.open(f"{served}{RUN}/rollouts")
    browser.wait(f"{COUNT} === '12 answers'")
    browser.drag(".brush svg", 0.99, 0.68)
    browser.wait(f"{COUNT} === '1 of 12 answers'")
    assert browser.run("return location.hash").startswith(f"{RUN}/rollouts?score_min=1.33333")
    browser.run("document.querySelector('.brush-end').focus()")
    browser.press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    browser.wait(f"{COUNT} === '5 of 12 answers'")


def test_rows_are_opened_by_keyboard(browser: HeadlessBrowser, served: str) -> None:
    browser.open(f"{served}{RUN}/rollouts?order=asc")
    browser.wait(f"{COUNT} === '12 answers'")
    browser.run("document.querySelector('tbody tr').focus()")
    browser.press("ArrowDown", "ArrowDown", "Enter")
    browser.wait("document.querySelectorAll('.turn').length === 3")
    assert browser.run("return location.hash") == f"{RUN}/rollouts/1/2"


@pytest.mark.parametrize("width", [390, 1440])
def test_hostile_text_is_shown_and_does_nothing(browser: HeadlessBrowser, served: str, width: int) -> None:
    browser.look(width, "light")
    browser.console()
    for view in (HOSTILE_GROUP, f"{RUN}/rollouts", f"{RUN}/rollouts/1/2", f"{RUN}/rollouts/1/4", f"{RUN}/pairs"):
        browser.open("about:blank")
        browser.open(f"{served}{view}")
        browser.wait(DRAWN)
        assert browser.run("return document.querySelectorAll('#app script, #app img').length") == 0
        assert browser.run("return document.documentElement.scrollWidth") == width, view
        assert "Plumbob" in browser.run("return document.title")
    browser.open(f"{served}{HOSTILE_GROUP}")
    browser.wait("document.querySelector('.answer .written')")
    shown = texts(browser, ".answer .written")
    assert shown[0].startswith("<script>document.title") and shown[0].endswith("⟨U+202E⟩cod.exe⟨U+0007⟩")
    assert (shown[1], shown[3]) == (LONG_WORD, "")
    assert browser.console() == []


def test_a_group_stands_side_by_side_with_its_prompt_once(browser: HeadlessBrowser, served: str) -> None:
    browser.open(f"{served}{RUN}/rollouts/1/group/1-0")
    browser.wait("document.querySelectorAll('.answer').length === 4 && document.querySelector('.episode')")
    assert browser.run("return document.body.innerText").count("What does it run on?") == 1
    tops = browser.run("return [...document.querySelectorAll('.answer')].map(e => e.getBoundingClientRect().top)")
    assert len(set(tops)) == 1
    badges = browser.run(
        "return [...document.querySelectorAll('.answer')].map(e => e.querySelector('.badge')?.innerText ?? '')"
    )
    assert badges == ["best", "", "", "worst"]
    turns = browser.run("return [...document.querySelectorAll('.episode li')].map(e => e.innerText.split('\\n')[0])")
    assert turns == ["assistant reward -0.25", "tool", "assistant reward +1"]


def test_pairs_stand_against_each_other_the_worst_first(browser: HeadlessBrowser, served: str) -> None:
    """Two of four agree. 62.2 % sure are 0.5 and -0.5, of which half are right; 2 is right 88.1 %, -3 wrong 95.3 %."""
    browser.open(f"{served}{RUN}/pairs")
    browser.wait("document.querySelectorAll('.pair').length === 2")
    heads = "[...document.querySelectorAll('.pair-head')].map(e => e.children[1].innerText)"
    assert browser.run(f"return {heads}") == ["margin -3", "margin -0.5"]
    assert browser.run("return document.querySelector('.tile-value').innerText") == "50 %"
    assert cells(browser, ".calibration tbody tr") == [
        ["62.2 %", "50 %", "2"],
        ["88.1 %", "100 %", "1"],
        ["95.3 %", "0 %", "1"],
    ]
    browser.run("[...document.querySelectorAll('.segmented input')][1].click()")
    browser.wait(f"{heads}.join() === 'margin -3,margin -0.5,margin +0.5,margin +2'")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_axe_finds_nothing_serious(browser: HeadlessBrowser, served: str, width: int, scheme: str) -> None:
    browser.look(width, scheme)
    for name, view in VIEWS.items():
        browser.open("about:blank")
        browser.open(f"{served}{view}")
        browser.wait(DRAWN)
        assert serious_findings(browser) == [], name
