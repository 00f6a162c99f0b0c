"""YAML that is hostile or clumsy: a message with its place, and nothing is written out that has no end."""

import time
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.yaml_files import overridden, read_source
from plumbob.core.errors import UserError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 100))

BROKEN = {
    "0x_": "a: 0x_",
    "an int that is none": "a: !!int x",
    "a float that is none": "a: !!float x",
    "a list that contains itself": "a: &b [*b]",
    "a map that contains itself": "--- &a\nb: *a",
    "a map that contains itself below": "a: &b\n  c:\n    d: *b",
    "aliases without end": LAUGHS,
    "5,000 digits": "a: 1" + "0" * 5000,
    "nesting": "a: " + "[" * 5000 + "]" * 5000,
    "nesting in blocks": "".join(" " * i + "a:\n" for i in range(200)),
    "some nesting": "a: " + "{b: " * 40 + "1" + "}" * 40,
    "an object": "a: !!python/object/apply:os.system ['true']",
    "bytes": "\xff\xfe",
    "NUL": "a: \0",
    "a tab": "\ta: b",
    "two documents": "a: b\n---\na: b",
    "no such anchor": "a: *b",
    "a merge with a text": "a:\n  <<: b",
    "nothing": "",
    "a list": "- a",
    "a date as a key": "2026-01-01: a",
    "a list as a key": "? [a]\n: b",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_settings(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(BROKEN[name].encode("latin-1"))
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^run\.yaml") as refused:
        source = read_source(path, "run.yaml")
        if name in ("a date as a key", "a merge with a text"):  # Text here.
            raise UserError("run.yaml")
        load_run(str(path))
        raise AssertionError(source)
    assert len(str(refused.value)) < 1000
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "override",
    [
        "a=0x_",
        "a=!!int x",
        "a=&b [*b]",
        "a=1" + "0" * 5000,
        "a=" + "[" * 5000,
        "a='",
        ".".join("a" * 5000) + "=1",
        "=1",
        "a..b=1",
        "a",
        "",
        "\ud83d=\ud83d",
    ],
)
def test_an_override_that_is_none(override: str) -> None:
    with pytest.raises(UserError):
        load_run("toy", [override])


@pytest.mark.parametrize(
    "text",
    ["1:30", "190:20:30", "1:30.5", "010", "-010", "08", "00", "0_1", "1_000", "1_000.5", "1_", "0b11", "0x1_F", "0x_"],
)
def test_a_number_that_yaml_1_1_alone_reads_so_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    """YAML 1.1 has 90 for 1:30, 8 for 010 and 1000 for 1_000; YAML 1.2 has a text, 10 and a text."""
    (tmp_path / "run.yaml").write_text(f"a: 1\nb: [2, {text}]\n")
    with pytest.raises(UserError) as refused:
        read_source(tmp_path / "run.yaml", "run.yaml")
    assert str(refused.value) == (
        f"run.yaml, line 2, column 8: this is not valid YAML: YAML's versions read {text} in different ways; "
        "write plain digits, or text in quotes"
    )
    with pytest.raises(UserError, match=f"^online.num_steps={text}: .* write plain digits"):
        load_run("toy", [f"online.num_steps={text}"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            (each, each)
            for each in ("on", "off", "yes", "No", "y", "N", "2026-01-01", "10:75", "1.2.3.4:80", "=", "<<")
        ],
        *[("'010'", "010"), ('"1:30"', "1:30"), ("!!str 010", "010"), ("0.1.0", "0.1.0"), ("1,000", "1,000")],
        *[("true", True), ("FALSE", False), ("~", None), ("Null", None), ("", None)],
        *[("0", 0), ("-12", -12), ("+1", 1), ("0o10", 8), ("0x1F", 31), ("!!int 0x1f", 31)],
        *[("1e-4", 0.0001), ("-1E5", -100_000.0), ("1.", 1.0), ("-.5", -0.5), (".5e-3", 0.0005), ("!!float 1", 1.0)],
        *[("010.5", 10.5), ("-.INF", float("-inf"))],
    ],
)
def test_what_both_versions_of_yaml_agree_on_and_what_1_2_alone_says(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "run.yaml").write_text(f"a: {text}\n")
    found = read_source(tmp_path / "run.yaml", "run.yaml").values["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["on", "yes", "off", "no"])
def test_a_switch_is_switched_by_the_words_of_yaml_1_1_too(text: str) -> None:
    run = load_run("toy", [f"learner.gradient_checkpointing={text}"])
    assert run.learner.gradient_checkpointing is (text in ("on", "yes"))
    assert load_run("toy", [f"name={text}"]).name == text


@pytest.mark.parametrize(
    "text", ["!!int 1:30", "!!int x", "!!float 1_0.5", "!!bool on", "!!null x", "!!binary aGk=", "!!set {b}"]
)
def test_a_tag_that_its_value_does_not_have(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(f"a: {text}\n")
    with pytest.raises(UserError, match=r"^run.yaml, line 1, column 4: this is not valid YAML: "):
        read_source(tmp_path / "run.yaml", "run.yaml")


def test_aliases_that_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {b: 1, c: &c [2, 3]}\nd: *a\ne: [*a, *c]\n")
    group = {"b": 1, "c": [2, 3]}
    assert read_source(path, "run.yaml").values == {"a": group, "d": group, "e": [group, [2, 3]]}
    assert overridden(read_source(path, "run.yaml"), ["d.b=5"]).values["d"]["b"] == 5


@pytest.mark.parametrize(
    "config", ["x" * 300, "x" * 300 + ".yaml", "a/\0.yaml", "/dev/null/a.yaml", "~nosuchuser/a.yaml"]
)
def test_a_config_of_a_name_that_no_file_can_have(config: str) -> None:
    with pytest.raises(UserError):
        load_run(config)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# " + "x" * 2**20)
    with pytest.raises(UserError, match="cannot be read as YAML text: it has more than 1 MiB"):
        load_run(str(tmp_path / "run.yaml"))
