"""Files that are written anew: which rows are left, and what stands in place of personal data."""

import json
from pathlib import Path

import pytest

from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.core.errors import UserError
from plumbob.data.audit.cleaned_files import clean_files
from tests.unit.data.audit.test_data_report import LONG, numbered, write


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_are_left_out_each_for_its_reason(tmp_path: Path) -> None:
    rows = [{**numbered(number), "source": None, "tags": ["ä", number]} for number in range(30)]
    wrong = [
        {"prompt": "Held?", "chosen": "a", "rejected": "b"},
        {"prompt": f"{LONG}?", "chosen": "a", "rejected": "b"},
        {"prompt": "Same?", "chosen": "A.", "rejected": "a"},
        {"prompt": "Both?", "chosen": "yes", "rejected": "no"},
        {"prompt": "Both?", "chosen": "no", "rejected": "yes"},
        rows[2],
        {**rows[3], "chosen": "Good 3!"},
    ]
    train = write(tmp_path / "train.jsonl", [*rows, *wrong, 7])
    held = write(tmp_path / "held.jsonl", [{"prompt": "Held?"}])
    checks = DataCheckSettings(benchmarks=(write(tmp_path / "bench.jsonl", [{"q": LONG}]),))
    cleaned = clean_files([train], tmp_path / "out", [held], checks)
    assert cleaned.left_out == {
        **{"unread": 1, "leak": 1, "benchmark": 1, "identical": 1},
        **{"contradictory": 2, "duplicate": 1, "near-duplicate": 1},
    }
    # As they were, whatever columns they have.
    assert read(tmp_path / "out/train.jsonl") == rows
    assert json.loads((tmp_path / "out/data_clean.json").read_text()) == cleaned.as_dict()
    assert [one["num_rows"] for one in (*cleaned.inputs, *cleaned.outputs)] == [38, 30]
    kept = clean_files([train], tmp_path / "all", [held], checks, keep=("leak", "contradictory", "duplicate"))
    assert kept.outputs[0]["num_rows"] == 34 and "leak" not in kept.left_out


def test_cells_of_csv_are_what_they_stand_for(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion,label\nWhy?,Because.,True\nHow?,So.,false\n")
    clean_files([str(tmp_path / "rows.csv")], tmp_path / "out")
    assert [row["label"] for row in read(tmp_path / "out/rows.jsonl")] == [True, False]


def test_no_file_is_overwritten_and_none_left_empty(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [numbered(1)])
    with pytest.raises(UserError, match="itself would be overwritten"):
        clean_files([train], tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="another file has the name a too"):
        clean_files([train, write(tmp_path / "b/a.jsonl", [numbered(2)])], tmp_path / "out")
    with pytest.raises(UserError, match=r"no row is left of 1; left out: .*'leak': 1"):
        clean_files([train], tmp_path / "out", [train])
    assert not (tmp_path / "out").exists()


def test_the_same_person_has_the_same_pseudonym_in_all_rows(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer")
    key = b"a key of thirty-two bytes, known"
    rows = [
        {"messages": [{"role": "user", "content": "I am Ada Lovelace, ada@example.com. What does Ada do?"},
                      {"role": "assistant", "content": "Ada Lovelace wrote programs."}]},
        {"messages": [{"role": "user", "content": "Mail ADA@example.com or call +44 20 7946 0958."},
                      {"role": "assistant", "content": "I asked Ada Lovelace yesterday."}]},
    ]  # fmt: skip
    train = write(tmp_path / "train.jsonl", rows)
    cleaned = clean_files([train], tmp_path / "out", key=key)
    text = (tmp_path / "out/train.jsonl").read_text()
    one, other = ([message["content"] for message in row["messages"]] for row in read(tmp_path / "out/train.jsonl"))
    assert not any(word in text for word in ("Lovelace", "Ada", "ada@", "7946"))
    name = one[1].removesuffix(" wrote programs.")
    assert name.startswith("[NAME-") and other[1] == f"I asked {name} yesterday."
    assert one[0].startswith(f"I am {name}, [MAIL-") and one[0].endswith(f"What does {name} do?")
    mail = one[0].split(", ")[1].split(". ")[0]
    assert other[0].startswith(f"Mail {mail} or call [PHONE-")
    assert '"role": "user"' in text and cleaned.replaced == {"name": 4, "mail": 2, "phone": 1}
    # The same key makes the same files; another one makes others. It stands nowhere.
    again = clean_files([train], tmp_path / "again", key=key)
    assert again.outputs[0]["sha256"] == cleaned.outputs[0]["sha256"] and again.key_check == cleaned.key_check
    fresh = clean_files([train], tmp_path / "fresh", key=b"another key of thirty-two bytes.")
    assert name not in (tmp_path / "fresh/train.jsonl").read_text() and fresh.key_check != cleaned.key_check
    assert all(key not in path.read_bytes() for path in tmp_path.glob("*/*"))
