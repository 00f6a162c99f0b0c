"""What stands on a page, as text."""

from tests.support.browser.headless import HeadlessBrowser


def texts(browser: HeadlessBrowser, selector: str) -> list[str]:
    """Of every element that fits, as it was written: signs and line breaks as they are."""
    found: list[str] = browser.run(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )
    return found


def cells(browser: HeadlessBrowser, selector: str) -> list[list[str]]:
    """Of every element that fits, what each of its children reads as."""
    found: list[list[str]] = browser.run(
        "return [...document.querySelectorAll(arguments[0])].map(e => [...e.children].map(c => c.innerText))", selector
    )
    return found
