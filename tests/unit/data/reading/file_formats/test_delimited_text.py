import json
from pathlib import Path

import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.file_formats.formats import iterate_rows
from plumbob.data.reading.readers import (
    read_demonstrations,
    read_labelled,
    read_pairs,
    read_rankings,
    read_scored_responses,
)
from plumbob.data.records import Demonstration, LabelledResponse, PreferencePair, Ranking, ScoredResponse
from plumbob.data.texts.chat_text import plain_dialogue

RULES = ReadingSettings()
SKIP = ReadingSettings(bad_rows="skip")


def save(folder: Path, text: str, name: str = "rows.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_cells_are_text_as_written(tmp_path: Path) -> None:
    path = save(tmp_path, '\ufeffprompt,completion\n42," a ""b"",\n\nc"\nNaN,true\n')
    assert read_demonstrations(path, RULES, plain_dialogue).records == (
        Demonstration("42", ' a "b",\n\nc'),
        Demonstration("NaN", "true"),
    )


def test_tabs_stand_between_the_cells_of_a_tsv(tmp_path: Path) -> None:
    path = save(tmp_path, "prompt\tcompletion\nq, r\ta\n", "rows.tsv")
    assert read_demonstrations(path, RULES, plain_dialogue).records == (Demonstration("q, r", "a"),)


def test_fields_that_are_no_texts_are_read_as_json(tmp_path: Path) -> None:
    labelled = save(tmp_path, "prompt,completion,label\np,a,true\np,b,FALSE\n")
    assert [record.desirable for record in read_labelled(labelled, RULES, plain_dialogue).records] == [True, False]
    scores = ReadingSettings(columns={"score": "stars"})
    scored = save(tmp_path, "prompt,answer,stars\np,a,3.5\n")
    assert read_scored_responses(scored, scores, plain_dialogue).records == (ScoredResponse("p", "a", 3.5),)
    ranked = save(tmp_path, 'prompt,answers,ranks\np,"[""a"", ""b""]","[2, 1]"\n')
    assert read_rankings(ranked, RULES, plain_dialogue).records == (Ranking("p", ("b", "a")),)
    chat = '[{""role"": ""user"", ""content"": ""Hi""}, {""role"": ""assistant"", ""content"": ""Hello!""}]'
    conversation = save(tmp_path, f'messages,label\n"{chat}",true\n')
    assert read_labelled(conversation, RULES, plain_dialogue).records == (
        LabelledResponse("\n\nHuman: Hi\n\nAssistant:", " Hello!", True),
    )


def cells(*values: object) -> str:
    """A line of CSV: lists as JSON."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return ",".join('"' + text.replace('"', '""') + '"' for text in texts) + "\n"


def test_messages_in_cells_of_prompts_and_responses_are_messages(tmp_path: Path) -> None:
    user, answers = [{"role": "user", "content": "Hi"}], [[{"role": "assistant", "content": x}] for x in "ab"]
    prompt = "\n\nHuman: Hi\n\nAssistant:"
    path = save(tmp_path, "prompt,chosen,rejected\n" + cells(user, *answers))
    assert read_pairs(path, RULES, plain_dialogue).records == (PreferencePair(prompt, " a", " b"),)
    path = save(tmp_path, "chosen,rejected\n" + cells(*([*user, *answer] for answer in answers)))
    assert read_pairs(path, RULES, plain_dialogue).records == (PreferencePair(prompt, " a", " b"),)
    sharegpt = [{"from": "human", "value": "Hi"}]
    path = save(tmp_path, "prompt,completion\n" + cells(sharegpt, answers[0]))
    assert read_demonstrations(path, RULES, plain_dialogue).records == (Demonstration(prompt, " a"),)


def test_other_lists_in_cells_are_text_and_messages_that_are_no_json_are_refused(tmp_path: Path) -> None:
    for text in ("[1, 2]", "[]", '[{"a": 1}]', "[x] is it?"):
        path = save(tmp_path, "prompt,completion\n" + cells(text, text))
        assert read_demonstrations(path, RULES, plain_dialogue).records == (Demonstration(text, text),)
    written_by_str = str([{"content": "Hi", "role": "user"}])  # As pandas' to_csv writes it.
    path = save(tmp_path, "prompt,completion\n" + cells(written_by_str, "a"))
    with pytest.raises(UserError, match=r"row 1: 'prompt': expected messages as JSON, found .*json\.dumps"):
        read_demonstrations(path, RULES, plain_dialogue)


def test_a_label_that_is_no_json_is_refused_as_it_stands(tmp_path: Path) -> None:
    path = save(tmp_path, "prompt,completion,label\np,a,yes\n")
    with pytest.raises(UserError, match="row 1: 'label': expected true or false, found 'yes'"):
        read_labelled(path, RULES, plain_dialogue)


def test_rows_of_another_width_are_malformed(tmp_path: Path) -> None:
    path = save(tmp_path, "prompt,completion\np,a\np,a,b\n\np\n")
    assert [row.fault for row in iterate_rows(path)] == [
        "",
        "expected 2 cells, one a column of the first line, found 3",
        "expected 2 cells, one a column of the first line, found 1",
    ]
    read = read_demonstrations(path, SKIP, plain_dialogue)
    assert (len(read.records), read.num_skipped_malformed) == (1, 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("prompt,prompt\na,b\n", "'prompt' stands there twice"),
        ('prompt,completion\n"a,b\n', "line 2: unexpected end of data"),
        ("prompt,completion\n", "holds no rows"),
        ("prompt;completion\na;b\n", r"names one column, 'prompt;completion': cells .* and not between ';'"),
        ("sep=;\nprompt;completion\na;b\n", "names one column, 'sep=;': cells .* and not between ';'"),
        ("prompt\tcompletion\na\tb\n", r"cells stand between commas .* and not between '.t'"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UserError, match=f"rows.csv: .*{why}"):
        list(iterate_rows(save(tmp_path, text)))
