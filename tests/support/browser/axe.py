"""What axe-core (4.14.1 of the npm registry, in axe.min.js beside this; its licence in axe.LICENSE) finds of a page."""

from pathlib import Path

from tests.support.browser.headless import HeadlessBrowser

SOURCE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")

RUN = """
return axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations.map(
    ({impact, id, help, nodes}) => [impact, `${id}: ${help}: ${nodes.map(({target}) => target.join(" ")).join()}`]));
"""


def serious_findings(browser: HeadlessBrowser) -> list[str]:
    """Of the page as it is shown: rule, what it wants, and the elements that break it."""
    if not browser.run("return 'axe' in window"):
        browser.run(SOURCE)
    return [text for impact, text in browser.run(RUN) if impact in SERIOUS]
