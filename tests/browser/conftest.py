"""A folder of runs, served; and a headless Chromium to look at them."""

from collections.abc import Iterator

import pytest

from tests.support.browser.headless import HeadlessBrowser, find_browser, headless_browser


@pytest.fixture(scope="session", autouse=True)
def browser_is_there() -> None:
    """Else nothing is made that would only be looked at."""
    find_browser()


@pytest.fixture(scope="session")
def browser(browser_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadlessBrowser]:
    with headless_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started
