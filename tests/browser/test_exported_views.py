"""A run exported as one file, opened from the disk without a server: its rollouts, tokens and pairs."""

from pathlib import Path

import httpx
import pytest

from tests.support.browser.headless import HeadlessBrowser
from tests.support.browser.shown_texts import cells
from tests.support.known_run import KNOWN_RUN, MANY_TOKENS

RUN = f"#/run/{KNOWN_RUN}"
COUNT = "document.querySelector('.rollouts [role=status]')?.innerText"


@pytest.fixture(scope="module")
def exported(served: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file's address."""
    path: Path = tmp_path_factory.mktemp("exported") / "run.html"
    path.write_bytes(httpx.get(f"{served}api/runs/{KNOWN_RUN}/export.html", timeout=60, trust_env=False).content)
    return path.as_uri()


def test_a_file_from_the_disk_shows_what_the_server_shows(browser: HeadlessBrowser, exported: str) -> None:
    browser.look(1440, "light")
    browser.open(f"{exported}{RUN}/rollouts?sort=score&order=asc")
    assert browser.wait(COUNT) == "12 answers"
    scores = [float(row[1]) for row in cells(browser, ".rollouts tbody tr")]
    assert scores == [-1, 0, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1, 2.5]
    browser.open(f"{exported}{RUN}/rollouts?score_min=0.5&score_max=1&dropped=no&length_min=5&text=DIESEL")
    # Of 0.5, 0.5, 0.75 and 0.75 those whose prompt or response has Diesel: one of 2,000 tokens, and the episode.
    browser.wait(f"{COUNT} === '2 of 12 answers'")
    browser.open(f"{exported}{RUN}/rollouts/1/0")
    browser.wait("document.querySelectorAll('[role=option]').length === 4")
    assert ["TD error", "-0.3750"] in cells(browser, ".token-details dl div")
    browser.press("n")
    browser.wait(f"document.querySelectorAll('[role=option]').length === {MANY_TOKENS}")
    browser.open(f"{exported}{RUN}/rollouts/1/group/1-0")
    browser.wait("document.querySelectorAll('.answer').length === 4")
    browser.open(f"{exported}{RUN}/pairs")
    browser.wait("document.querySelectorAll('.pair').length === 2")
    assert browser.run("return document.querySelector('.tile-value').innerText") == "50 %"
    assert browser.console() == []


def test_what_is_not_in_the_file_is_told(browser: HeadlessBrowser, exported: str) -> None:
    browser.open(f"{exported}{RUN}/rollouts/1/99")
    browser.wait("document.querySelector('.error-note')?.innerText.includes('not in the exported file')")
