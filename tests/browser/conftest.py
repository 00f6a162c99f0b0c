"""A folder of runs, served; and a headless Chromium to look at them."""

from collections.abc import Iterator

import pytest

from tests.support.browser.headless import HeadlessBrowser, find_browser, headless_browser
from tests.support.browser.served import serving
from tests.support.known_run import known_run


@pytest.fixture(scope="session", autouse=True)
def browser_is_there() -> None:
    """Else nothing is made that would only be looked at."""
    find_browser()


@pytest.fixture(scope="session")
def browser(browser_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadlessBrowser]:
    with headless_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="session")
def served(browser_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the run whose numbers are known."""
    runs = tmp_path_factory.mktemp("known")
    known_run(runs)
    with serving(runs) as address:
        yield address
