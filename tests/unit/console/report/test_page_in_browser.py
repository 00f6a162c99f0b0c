"""The report in a real browser: at the widths of a phone and of wide screens, light and dark, nothing is cut or tiny.

Skipped, or failed, as the pages' own tests in a browser are (`find_browser`).
"""

import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path

from plumbob.console.report.html_page import POLICY
from plumbob.console.report.page import write_report
from tests.support.browser.headless import FLAGS, find_browser
from tests.support.finished_run import finished_pipeline, finished_run

WIDTHS = (390, 768, 1280, 1440)
SCHEMES = ("light", "dark")
MIN_LETTERS_PX = 10
TIMEOUT_S = 180

MEASURE = """
window.onload = () => {
  const found = [...document.querySelectorAll('iframe')].map(frame => {
    const page = frame.contentDocument;
    const found = {name: frame.title, width: page.documentElement.clientWidth, cut: [], letters: 99, columns: 0};
    const clipped = e => e.scrollWidth > e.clientWidth && e.clientWidth && getComputedStyle(e).display !== 'inline';
    for (const e of [page.documentElement, ...page.body.querySelectorAll('*')]) {
      if (!e.closest('svg') && clipped(e)) found.cut.push(`${e.tagName}.${e.className}`);
      const isText = [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
      if (!isText || !e.checkVisibility()) continue;
      const scale = e.closest('svg') ? e.getScreenCTM().a : 1;
      found.letters = Math.min(found.letters, scale * parseFloat(getComputedStyle(e).fontSize));
    }
    const figures = [...page.querySelectorAll('.curves')][0].children;
    found.columns = new Set([...figures].map(e => e.getBoundingClientRect().left)).size;
    found.outside = [...page.querySelectorAll('svg text')].filter(e => e.checkVisibility()).filter(e => {
      const [own, whole] = [e.getBoundingClientRect(), e.closest('svg').getBoundingClientRect()];
      return own.left < whole.left - 1 || own.right > whole.right + 1;
    }).map(e => e.textContent);
    found.background = getComputedStyle(page.body).backgroundColor;
    return found;
  });
  document.body.innerHTML = '<pre id="found"></pre>';
  document.getElementById('found').textContent = JSON.stringify(found);
};
"""

PLANTED = """<!doctype html><body class="curves"><div class="narrow" style="width:90px;overflow:auto">
<div style="width:180px">wide</div></div><svg viewBox="0 0 40 20" width="40">
<text x="1" y="5" font-size="4">4 px</text><text x="38" y="15" font-size="10">far</text></svg>"""
"""With a mistake of each kind that is looked for."""


def measured(folder: Path, reports: dict[str, str]) -> list[dict[str, object]]:
    """What the browser finds of each report, at each width, in each scheme."""
    frames = []
    for name, text in reports.items():
        opened = text.replace(POLICY, "").replace("<details>", "<details open>")
        for scheme in SCHEMES:
            shown = escape(opened.replace("color-scheme: light dark", f"color-scheme: {scheme}"))
            frames += [
                f'<iframe title="{name} {width} {scheme}" style="width:{width}px;height:900px;border:0" '
                f'srcdoc="{shown}"></iframe>'
                for width in WIDTHS
            ]
    page = folder / "all.html"
    script = f"<script>{MEASURE}</script>"
    page.write_text(f'<!doctype html><meta charset="utf-8"><body>{"".join(frames)}{script}', encoding="utf-8")
    browser, _ = find_browser()
    own = (f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom")
    ended = subprocess.run(
        [browser, *FLAGS, *own, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, re.S)
    assert found is not None, ended.stderr[-2000:]
    content: list[dict[str, object]] = json.loads(unescape(found[1]))
    return content


def test_nothing_is_cut_or_too_small_to_read(tmp_path: Path) -> None:
    find_browser()  # Else nothing is made that would only be looked at.
    runs = [
        finished_pipeline(tmp_path / "toy"),
        finished_run(tmp_path / "grpo", "ppo", {"first_train_reward": 0.1, "train_reward": 0.6, "train_kl": 2.5}),
        finished_run(tmp_path / "dpo", "dpo", {"heldout_loss": 0.489, "heldout_accuracy": 0.775}),
        finished_run(tmp_path / "sft", "sft", {"heldout_loss": 0.509}, num_steps=4),
    ]
    reports = {run.name: write_report(run).read_text(encoding="utf-8") for run in runs}
    *found, planted = measured(tmp_path, {**reports, "planted": PLANTED})[: -len(WIDTHS) * len(SCHEMES) + 1]
    assert (planted["cut"], planted["letters"], planted["outside"]) == (["DIV.narrow"], 4, ["far"])
    assert len(found) == len(runs) * len(WIDTHS) * len(SCHEMES)
    for page in found:
        assert page["width"] == int(str(page["name"]).split()[1])
        assert (page["cut"], page["outside"]) == ([], []), page["name"]
        assert float(str(page["letters"])) >= MIN_LETTERS_PX, page["name"]
        assert page["columns"] == (1 if page["width"] == 390 else 2 if page["width"] == 768 else 3), page["name"]
    assert len({page["background"] for page in found}) == len(SCHEMES)
