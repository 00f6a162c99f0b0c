"""`plumbob init`: each combination of answers becomes a file that loads and that `plumbob plan` accepts."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import BertForSequenceClassification

from plumbob.configs.load_run import load_run
from plumbob.console.cli import main
from plumbob.console.first_settings.first_answers import METHODS, Answers
from plumbob.console.first_settings.yaml_text import yaml_text
from plumbob.driver.api import check_input
from plumbob.reward.reward_models.calibration import CALIBRATION_FILE, Calibration
from tests.support.ended_run import error_in
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import bert_config, bert_tokenizer

ROWS = {
    "pairs": {"prompt": "the car {}", "chosen": " has four doors", "rejected": " is a boat"},
    "demonstrations": {"prompt": "the car {}", "completion": " has four doors"},
    "prompts": {"prompt": "the car {}", "answer": "4"},
    "labelled": {"prompt": "the car {}", "completion": " has four doors", "label": True},
    "text": {"text": "the car {} has four doors and a red engine, and another car has two doors and a blue one"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy files of all kinds, a tiny policy, a tiny BERT and a reward function."""
    folder = tmp_path_factory.mktemp("world")
    for have, row in ROWS.items():
        numbered = ({k: v.format(n) if isinstance(v, str) else v for k, v in row.items()} for n in range(64))
        (folder / f"{have}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in numbered))
    write_policy(folder / "policy")
    config = bert_config(num_labels=1)
    config.max_position_embeddings = 512
    BertForSequenceClassification(config).save_pretrained(folder / "bert")
    bert_tokenizer().save_pretrained(folder / "bert")
    (folder / "bert" / CALIBRATION_FILE).write_text(json.dumps(asdict(Calibration(0.0, 1.0, 8, "a policy"))))
    (folder / "mine.py").write_text("def score(prompt, response):\n    return float(len(response))\n")
    return folder


def answers_of(world: Path) -> Iterator[Answers]:
    """All combinations of what there is, method, reward, time and engine."""
    for have, methods in METHODS.items():
        rewards = [str(world / "bert"), f"{world / 'mine.py'}:score", "column:answer"] if have == "prompts" else [""]
        for method in methods:
            models = {"reward": [str(world / "bert")], "pretrain": ["", str(world / "policy")]}
            for model in models.get(method, [str(world / "policy")]):
                for reward in rewards:
                    for time, engine in (("try", "transformers"), ("full", "vllm")):
                        file = str(world / f"{have}.jsonl")
                        yield Answers(have, file, method, model, reward, time, "cpu", engine)


def test_each_file_plans(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    num_files = 0
    for answers in answers_of(world):
        Path("first.yaml").write_text(yaml_text(answers, "first.yaml"))
        run = load_run("first.yaml", [f"storage.path={tmp_path}/runs"])
        assert check_input(run), answers
        num_files += 1
    # 5 methods of pairs, sft, 3 x 3 of prompts, kto, pretrain twice; each as a try and in full.
    assert num_files == 2 * (5 + 1 + 9 + 1 + 2)


@pytest.mark.parametrize("method", [method for methods in METHODS.values() for method in methods])
def test_each_file_for_a_gpu_loads(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (have,) = (have for have, methods in METHODS.items() if method in methods)
    reward = "rm" if have == "prompts" else ""
    text = yaml_text(Answers(have, "rows.jsonl", method, "model", reward, "full", "gpu", "vllm"), "g.yaml")
    Path("g.yaml").write_text(text)
    run = load_run("g.yaml")
    groups = [getattr(run, name) for name in ("learner", "rollout", "reward") if reward or name == "learner"]
    assert sum(group.num_gpus for group in groups) == pytest.approx(1)  # All of them share the one.
    assert text.count("#") > 5 and max(map(len, text.splitlines())) <= 120


def test_options_write_the_file_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["init", "--have", "pairs", "--file", 'my "pairs".jsonl', "--model", "base"]
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": "plumbob.yaml", "next": "plumbob plan plumbob.yaml"}
    run = load_run("plumbob.yaml")
    assert (run.kind, run.data.pairs, run.policy.model) == ("dpo", 'my "pairs".jsonl', "base")
    before = Path("plumbob.yaml").read_bytes()
    assert main([*given, "--method", "ipo"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert Path("plumbob.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--have: say what there is to learn from"),
        (["--have", "pairs"], "--file: say where the pairs are"),
        (["--have", "pairs", "--file", "f"], "--model: give the model to train"),
        (["--have", "pairs", "--file", "f", "--method", "reward"], "--model: give a BERT to begin from"),
        (
            ["--have", "pairs", "--file", "f", "--model", "m", "--method", "sft"],
            "--method=sft: does not learn from pairs",
        ),
        (["--have", "prompts", "--file", "f", "--model", "m"], "--reward: say what a response is worth"),
        (["--have", "text", "--file", "f", "--reward", "r"], "--reward=r: is for --have=prompts only"),
        (["--have", "text", "--file", "f", "--output", "first.txt"], "expected a name that ends in .yaml"),
        (["--have", "text", "--file", "f", "--output", "no/such.yaml"], "its folder is not there"),
        (["--have", "text", "--file", "f", "--output", "~nosuchuser/a.yaml"], "a.yaml: cannot be looked at"),
    ],
)
def test_answers_that_do_not_go_together_are_named_and_nothing_is_written(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", *given, "--json"]) == 2
    assert message in error_in(capsys.readouterr().out)["error"]
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_it_asks_what_no_option_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By number, by name, again after what is none, and by nothing for the first."""
    monkeypatch.chdir(tmp_path)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    typed = iter(["3", "", "rows.jsonl", "7", "rloo", "base", "column:answer", "1", ""])
    monkeypatch.setattr("builtins.input", lambda question: next(typed))
    assert main(["init", "--machine", "cpu"]) == 0
    run = load_run("plumbob.yaml")
    assert (run.kind, run.online.estimator.kind, run.data.prompts, run.online.num_steps) == (
        *("online", "rloo", "rows.jsonl", 5),
    )
    shown = capsys.readouterr().out
    assert "3  prompts         prompts alone, and a reward" in shown
    assert "7: give a number from 1 to 3, or a name" in shown
