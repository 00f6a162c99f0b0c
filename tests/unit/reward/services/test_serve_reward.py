"""`plumbob serve-reward` as a process of its own, asked as a run asks it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from plumbob.configs.settings.reward_services import HttpPart
from plumbob.console.cli import main
from plumbob.core.errors import UserError
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.dialogue_form import form_of, save_form
from plumbob.reward.scorer import ScoreRequest
from tests.support.score_requests import score_requests
from tests.support.served_rewards import serving
from tests.support.tiny_scorer import model_reward, write_scorer

FORM = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}a"
PAIRS = [("a b c", "d e"), ("a", "b c d"), ("", "x"), ("p q", "r")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_scorer(tmp_path_factory.mktemp("served"))
    save_form(form_of(FORM, {}), folder)
    return folder


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with serving(model, "--raw") as url:
        yield url


def test_it_scores_as_the_model_does(model: Path, address: str) -> None:
    part = HttpPart(url=address, batch_size=2)
    check_reward(part)
    expected = BertScorer(model_reward(model)).score(score_requests(PAIRS))
    found = open_scorer(part, "cpu").score(score_requests(PAIRS))
    assert [score.total for score in found] == pytest.approx([score.total for score in expected], abs=1e-5)
    assert httpx.get(address.replace("/score", "/health")).json() == {
        "status": "ok", "model": str(model), "is_calibrated": False, "max_tokens": 32,
    }  # fmt: skip


def test_many_at_once_each_get_their_own(model: Path, address: str) -> None:
    expected = [score.total for score in BertScorer(model_reward(model)).score(score_requests(PAIRS))]

    def ask(number: int) -> float:
        prompt, response = PAIRS[number % len(PAIRS)]
        body = {"requests": [{"prompt": prompt, "response": response}]}
        found: float = httpx.post(address, json=body, timeout=60).json()["scores"][0]["score"]
        return found

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(ask, range(64)))
    assert found == pytest.approx(expected * 16, abs=1e-5)


USER = {"role": "user", "content": "b c"}
ANSWERED = {"role": "assistant", "content": "e"}
SAW = "[whatever the policy saw]"


@pytest.mark.parametrize(
    ("row", "read"),
    [
        ({"prompt": [USER]}, "user b c a"),
        ({"messages": [USER, ANSWERED]}, "user b c a"),
        ({"conversations": [{"from": "human", "value": "b c"}, {"from": "gpt", "value": "e"}]}, "user b c a"),
        ({"question": [USER], "answer": 4}, "user b c a"),
        ({"chosen": [USER, ANSWERED], "rejected": [USER, {**ANSWERED, "content": "f"}]}, "user b c a"),
        # Its system message, as readers put it before the rest; a null counts as missing.
        ({"prompt": "b c", "system": "k"}, "system k user b c a"),
        ({"prompt": [USER], "system": None, "messages": None}, "user b c a"),
        # What no prompt is made of, and a prompt that is text.
        ({"answer": [1, 2], "prompt": "b c"}, SAW),
    ],
)
def test_chat_messages_are_read_in_the_models_own_form(
    row: dict[str, Any], read: str, model: Path, address: str
) -> None:
    (found,) = open_scorer(HttpPart(url=address), "cpu").score([ScoreRequest(SAW, "d", row)])
    (expected,) = BertScorer(model_reward(model)).score(score_requests([(read, "d")]))
    assert found.total == pytest.approx(expected.total, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"requests": [{"prompt": 3, "response": "x"}]}', 400),
        (b'{"requests": [{"prompt": "x"}]}', 400),
        (b'{"requests": ' + b"[1]" * 2**20, 400),
        (b'{"requests": [{"prompt": "x", "response": "y", "row": [1]}]}', 400),
        (b'{"requests": [{"prompt": "x", "response": "y", "row": {"messages": [1]}}]}', 400),
        (b" " * (64 * 2**20 + 1), 413),
    ],
)
def test_what_is_no_batch_is_refused(address: str, body: bytes, status: int) -> None:
    answer = httpx.post(address, content=body, timeout=60)
    assert answer.status_code == status and answer.json()["error"]


def test_whoever_has_not_the_token_is_not_scored(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(model, "--raw", "--token-env=KEY", KEY="s3cret") as url:
        with pytest.raises(UserError, match="status 401"):
            check_reward(HttpPart(url=url))
        monkeypatch.setenv("MINE", "s3cret")
        check_reward(HttpPart(url=url, token_env="MINE"))


def test_a_mistake_ends_the_command_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["serve-reward", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("plumbob: reward.model=nowhere: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL"], "calibration.json"),
        (["MODEL"], "(here as --raw, --max-tokens)"),
        (["MODEL", "--raw", "--batch-size=0"], "--batch-size=0: expected a number from 1"),
        (["MODEL", "--raw", "--host=0.0.0.0"], "others could use the server: give a token too"),
        (["MODEL", "--raw", "--token-env=NOT_SET"], "the variable is not set"),
        (["MODEL", "--raw", "--port=1000000"], "--port=1000000: a port is a number from 0"),
    ],
)
def test_a_mistake_gets_one_message(
    model: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(model) if option == "MODEL" else option for option in options]
    assert main(["serve-reward", *given, "--max-tokens=32"]) == 2
    assert message in capsys.readouterr().err
