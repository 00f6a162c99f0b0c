"""Modules of the pages by themselves, in the browser that runs them."""

import json
from typing import Any

import pytest

from tests.support.browser.headless import HeadlessBrowser


@pytest.fixture(autouse=True)
def page(browser: HeadlessBrowser, served: str) -> None:
    if not browser.run("return location.href").startswith(served):
        browser.open(served)


def called(browser: HeadlessBrowser, module: str, call: str) -> Any:
    """What an expression over a module's names comes to."""
    return browser.run(f"return import('/static/{module}').then((m) => {call})")


@pytest.mark.parametrize(
    ("text", "token", "plain", "line"),
    [
        ("a\nb", "a⏎\nb", "a\nb", "a⏎ b"),
        ("  ", "··", "  ", "  "),
        ("\n\n", "⏎\n⏎\n", "\n\n", "⏎ ⏎ "),
        (" the", " the", " the", " the"),
        ("\t", "⇥", "\t", "\t"),
        ("", "⟨⟩", "", ""),
        ("\x00\x7f\x85\r", "⟨U+0000⟩⟨U+007F⟩⟨U+0085⟩⟨U+000D⟩", None, None),
        ("\u202e\u2066\u200f", "⟨U+202E⟩⟨U+2066⟩⟨U+200F⟩", None, None),
        # Letters of no width, of tags and of variation selectors; and a private one, which stands for nothing of ours.
        ("\u200b\ufeff\U000e0041\U000e0100", "⟨U+200B⟩⟨U+FEFF⟩⟨U+E0041⟩⟨U+E0100⟩", None, None),
        ("\ue000", "⟨U+E000⟩", None, None),
        # Joiners of an emoji and of a Persian word stay; one between Latin letters is shown.
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم", None, None),
        ("a\u200db", "a⟨U+200D⟩b", None, None),
    ],
)
def test_nothing_hides_in_a_text(
    browser: HeadlessBrowser, text: str, token: str, plain: str | None, line: str | None
) -> None:
    quoted = json.dumps(text)
    assert called(browser, "lib/visible_text.js", f"m.tokenText({quoted})") == token
    assert called(browser, "lib/visible_text.js", f"m.plainText({quoted})") == (token if plain is None else plain)
    assert called(browser, "lib/visible_text.js", f"m.oneLine({quoted})") == (token if line is None else line)


def test_scales_reach_to_a_round_number_and_leave_out_what_is_masked(browser: HeadlessBrowser) -> None:
    calls = "[0, 0.7, 1, 1.01, 3, 8e-6, 70].map(m.roundUp)"
    assert called(browser, "tokens/scale.js", calls) == [1, 1, 1, 2, 5, 1e-5, 100]
    masked = called(browser, "tokens/scale.js", "m.scaleOf([0.9, -3, null, 50], [true, true, true, false], 0)")
    assert masked == {"centre": 0, "reach": 5, "isBelow": True, "isAbove": True}
    steps = "[-2, -1, -0.2, -0.01, 0, 0.21, 1, 9].map((x) => m.stepOf(x, {centre: 0, reach: 1}))"
    assert called(browser, "tokens/scale.js", steps) == [-5, -5, -1, -1, 0, 2, 5, 5]


def test_a_line_has_gaps_where_a_token_has_no_number(browser: HeadlessBrowser) -> None:
    """From -1 to 1 over a height of 100: 1 is at 0, 0 at 50, -1 at 100."""
    path = "m.linePath([1, 0, null, -1, 0], [true, true, true, true, false], -1, 1)"
    assert called(browser, "tokens/value_chart.js", path) == "M0 0.00H1L1 50.00H2M3 100.00H4"


def test_turns_leave_what_is_between_them_to_the_environment(browser: HeadlessBrowser) -> None:
    turn = '{role: "assistant", start: %d, end: %d, reward: %s}'
    told = f'{{role: "tool", start: null, end: null, reward: null}}, {turn % (5, 6, "1.5")}'
    spans = called(browser, "tokens/turns.js", f"m.turnSpans({{turns: [{turn % (0, 2, 'null')}, {told}]}}, 8)")
    assert [(span["start"], span["end"], span["label"]) for span in spans] == [
        (0, 2, "assistant"),
        (2, 5, "environment"),
        (5, 6, "assistant, reward 1.5"),
        (6, 8, "environment"),
    ]


def test_small_and_large_numbers_of_a_token_keep_their_digits(browser: HeadlessBrowser) -> None:
    texts = called(browser, "tokens/numbers.js", "[0, 0.00004, -1.23456, 2e7, null].map(m.tokenNumber)")
    assert texts == ["0.0000", "4.00e-5", "-1.2346", "2.00e+7", "–"]


def test_ids_of_any_letters_are_found_again_in_an_address(browser: HeadlessBrowser) -> None:
    ids = ["a,b", "try#2", "50%", "x%2Cy", "é~ppo?"]
    path = called(browser, "lib/addresses.js", f"m.comparePath({json.dumps(ids)})")
    part = called(browser, "lib/router.js", f"m.parse('#' + {json.dumps(path)}).params.ids")
    assert called(browser, "lib/addresses.js", f"m.comparedIds({json.dumps(part)})") == ids
    for name in ids:
        path = called(browser, "lib/addresses.js", f"m.runPath({json.dumps(name)}, 'curves')")
        assert called(browser, "lib/router.js", f"m.parse('#' + {json.dumps(path)}).params.id") == name
        answers = json.dumps({"answers": {f"/api/runs/{name}/metrics": 7}})
        client = f"m.exportClient({answers}).get('/api/runs/' + encodeURIComponent({json.dumps(name)}) + '/metrics')"
        assert called(browser, "lib/export_client.js", client) == 7
    assert called(browser, "lib/router.js", "m.parse('#/run/50%/curves').params.id") == "50%"


@pytest.mark.parametrize("address", ["50%25", "50%"])
def test_a_token_of_any_letters_is_taken_out_of_the_address(browser: HeadlessBrowser, address: str) -> None:
    taken = f"(history.replaceState(null, '', '#token={address}'), m.tokenFromAddress(), m.savedToken())"
    assert called(browser, "lib/token.js", taken) == "50%"
    assert browser.run("return location.hash") == "#/"
    called(browser, "lib/token.js", "m.forgetToken()")


def test_hours_of_processors_that_were_reserved_are_shown(browser: HeadlessBrowser) -> None:
    runs = "[[1.5, 0.25], [2, 0], [2, null], [null, null]].map(([cpu_hours, gpu_hours]) => ({cpu_hours, gpu_hours}))"
    texts = called(browser, "lib/format.js", f"{runs}.map((run) => m.cost(run))")
    assert texts == ["1.5 CPU h, 0.25 GPU h", "2 CPU h", "2 CPU h", "–"]


def test_of_a_sample_of_pairs_it_is_known_how_many_there_were(browser: HeadlessBrowser) -> None:
    pairs = "{total: 512, rows: [{index: 0, margin: -1}, {index: 1, margin: 2}]}"
    found = called(browser, "lib/export_rollouts.js", f"m.pairListing({pairs}, {{sort: 'disagreement'}})")
    assert (found["num_rows"], found["sampled_of"], found["matching"]) == (2, 512, 1)
