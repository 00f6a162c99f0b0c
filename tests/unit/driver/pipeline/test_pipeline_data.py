"""What a pipeline on preference pairs derives from them: no prompt on both sides, text from training alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.runs import PipelineRun
from plumbob.configs.settings.data import PipelineDataSettings, PromptDataSettings
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings, PipelinePolicySettings
from plumbob.configs.settings.rewards import PipelineScorerSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import no_chat, read_prompts
from plumbob.driver.pipeline.pipeline_data import PreparedFiles, check_models, prepare_files
from plumbob.driver.pipeline.pipeline_files import Files
from plumbob.models.adapter import save_adapter
from plumbob.models.from_scratch import build_bert
from tests.support.chat_rows import dialogue
from tests.support.tiny_policy import make_adapter, write_policy

NUM_PROMPTS = 20


def rows(path: str | Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write(path: Path, content: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """Two pairs for each of 20 prompts."""
    content = [
        {"prompt": f"Q{n}: ", "chosen": f"good {n} {which}", "rejected": f"bad {n} {which}"}
        for n in range(NUM_PROMPTS)
        for which in "ab"
    ]
    return write(tmp_path / "pairs.jsonl", content)


def settings(**data: Any) -> PipelineRun:
    return PipelineRun(
        data=PipelineDataSettings(**({"heldout_fraction": 0.25} | data)),
        policy=PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024)),
        reward=PipelineScorerSettings(model=NewBertSettings()),
    )


def prepare(tmp_path: Path, **data: Any) -> Files:
    prepared = prepare_files(settings(**data))
    folder = tmp_path / "out" / "data"
    assert not folder.exists(), "preparing writes nothing"
    return prepared(folder)


def prompts_of(path: str) -> set[str]:
    return {row["prompt"] for row in rows(path)}


def test_everything_is_derived_from_the_pairs(tmp_path: Path, pairs: str) -> None:
    files = prepare(tmp_path, pairs=pairs)
    train, heldout = rows(files.pairs), rows(files.heldout_pairs)
    # A quarter of 20 prompts, two pairs each.
    assert (len(train), len(heldout)) == (30, 10)
    assert prompts_of(files.pairs).isdisjoint(prompts_of(files.heldout_pairs))
    assert prompts_of(files.prompts) == prompts_of(files.pairs) and len(rows(files.prompts)) == 15
    assert (
        prompts_of(files.heldout_prompts) == prompts_of(files.heldout_pairs) and len(rows(files.heldout_prompts)) == 5
    )
    assert rows(files.demonstrations) == [{"prompt": r["prompt"], "completion": r["chosen"]} for r in train]
    assert [row["text"] for row in rows(files.text)] == [r["prompt"] + r["chosen"] for r in train]
    assert files.gold_reward is None and files.noise_ceiling is None


def test_given_files_take_the_place_of_derived_ones(tmp_path: Path, pairs: str) -> None:
    asked = write(tmp_path / "prompts.jsonl", [{"prompt": f"New {n}"} for n in range(8)])
    text = write(tmp_path / "text.jsonl", [{"text": "words"}])
    shown = write(tmp_path / "shown.jsonl", [{"prompt": f"Say {n}", "completion": "yes"} for n in range(3)])
    files = prepare(tmp_path, pairs=pairs, prompts=asked, text=text, demonstrations=shown)
    assert rows(files.text) == [{"text": "words"}]
    assert [row["prompt"] for row in rows(files.demonstrations)] == ["Say 0", "Say 1", "Say 2"]
    both = [row["prompt"] for path in (files.prompts, files.heldout_prompts) for row in rows(path)]
    assert sorted(both) == [f"New {n}" for n in range(8)] and len(rows(files.heldout_prompts)) == 2


def test_rows_of_prompts_go_along_where_the_reward_reads_them(tmp_path: Path, pairs: str) -> None:
    given = [{"question": f"New {n}", "answer": n, "more": {"of": [n]}} for n in range(8)]
    asked = write(tmp_path / "prompts.jsonl", given)
    run = settings(pairs=pairs, prompts=asked)
    given_parts = {"model": NewBertSettings(), "parts": [{"kind": "numeric", "column": "answer"}]}
    parts = PipelineScorerSettings.model_validate(given_parts)
    files = prepare_files(run.model_copy(update={"reward": parts}))(tmp_path / "with")
    for path in (files.prompts, files.heldout_prompts):
        # As a stage reads them.
        for prompt in read_prompts(
            path, PromptDataSettings(prompts=path, rendered=True), no_chat, keeps_rows=True
        ).records:
            assert prompt.row == given[int(prompt.text.removeprefix("New "))]
    assert all(set(row) == {"prompt"} for row in rows(prepare(tmp_path, pairs=pairs, prompts=asked).prompts))
    # One without what a part compares with is refused before anything starts.
    write(tmp_path / "prompts.jsonl", [*given, {"question": "New 8"}])
    with pytest.raises(UserError, match="numeric needs the column 'answer'"):
        prepare_files(run.model_copy(update={"reward": parts}))


def test_each_turn_of_the_demonstrations_is_learnt_where_all_are(tmp_path: Path, pairs: str) -> None:
    shown = write(tmp_path / "shown.jsonl", [dialogue("Hi", "yes", "Who?", "me"), dialogue("Why?", "so")])
    files = prepare(tmp_path, pairs=pairs, demonstrations=shown, learnt_turns="all")
    first = "\n\nHuman: Hi\n\nAssistant:"
    assert rows(files.demonstrations) == [
        {"prompt": first, "completion": " yes"},
        {"prompt": f"{first} yes\n\nHuman: Who?\n\nAssistant:", "completion": " me"},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "completion": " so"},
    ]
    last = prepare_files(settings(pairs=pairs, demonstrations=shown))(tmp_path / "last")
    assert len(rows(last.demonstrations)) == 2
    with pytest.raises(ValueError, match="learnt_turns=all is about conversations to imitate"):
        settings(pairs=pairs, learnt_turns="all")


def test_a_demonstration_on_a_held_out_prompt_is_refused_or_dropped(tmp_path: Path, pairs: str) -> None:
    everything = [{"prompt": f"Q{n}: ", "completion": "yes"} for n in range(NUM_PROMPTS)]
    shown = write(tmp_path / "shown.jsonl", everything)
    with pytest.raises(UserError, match=r"data\.demonstrations and the held-out prompts: 5 prompts stand in both"):
        prepare(tmp_path, pairs=pairs, demonstrations=shown)
    files = prepare(tmp_path, pairs=pairs, demonstrations=shown, overlap="drop")
    assert prompts_of(files.demonstrations).isdisjoint(prompts_of(files.heldout_prompts))
    assert len(rows(files.demonstrations)) == 15 and any("dropped from training" in note for note in files.notes)


def test_a_pipeline_needs_something_held_out(tmp_path: Path, pairs: str) -> None:
    with pytest.raises(UserError, match="nothing is held out"):
        prepare(tmp_path, pairs=pairs, heldout_fraction=0.0)


def test_no_pair_trains_on_a_prompt_that_is_held_out_of_the_prompts(tmp_path: Path, pairs: str) -> None:
    judged = write(tmp_path / "judged.jsonl", [{"prompt": "H: ", "chosen": "good", "rejected": "bad"}])
    # A quarter of two prompts, at least one: it is Q0 or Q1, of which the training pairs have two each.
    asked = write(tmp_path / "asked.jsonl", [{"prompt": "Q0: "}, {"prompt": "Q1: "}])
    given = {"pairs": pairs, "heldout_pairs": judged, "prompts": asked}
    found = r"data\.pairs and the prompts held out of data\.prompts: 1 prompts stand in both, in 2 of 40 training"
    with pytest.raises(UserError, match=found):
        prepare(tmp_path, **given)
    files = prepare(tmp_path, **given, overlap="drop")
    (apart,) = prompts_of(files.heldout_prompts)
    kept = {f"Q{n}: " for n in range(NUM_PROMPTS)} - {apart}
    # What is derived from the pairs is without it too.
    assert prompts_of(files.pairs) == prompts_of(files.demonstrations) == kept
    assert (len(rows(files.pairs)), len(rows(files.text))) == (38, 38)
    assert any("1 prompts stand in both" in note and "dropped from training" in note for note in files.notes)


def test_no_prompt_is_trained_on_whose_pairs_are_held_out(tmp_path: Path, pairs: str) -> None:
    content = [{"prompt": f"H{n}: ", "chosen": "good", "rejected": "bad"} for n in range(3)]
    judged = write(tmp_path / "judged.jsonl", content)
    # Two of eight are held out, so at least one of the three is left for training.
    asked = write(
        tmp_path / "asked.jsonl", [{"prompt": f"H{n}: "} for n in range(3)] + [{"prompt": c} for c in "abcde"]
    )
    given = {"pairs": pairs, "heldout_pairs": judged, "prompts": asked}
    with pytest.raises(UserError, match=r"data\.prompts and the held-out pairs: [123] prompts stand in both"):
        prepare(tmp_path, **given)
    files = prepare(tmp_path, **given, overlap="drop")
    assert prompts_of(files.prompts) == set("abcde") - prompts_of(files.heldout_prompts)
    assert len(rows(files.heldout_pairs)) == 3 and len(rows(files.heldout_prompts)) == 2


def test_prompts_of_which_none_is_held_out_are_refused(tmp_path: Path, pairs: str) -> None:
    asked = write(tmp_path / "asked.jsonl", [{"prompt": "one"}])
    with pytest.raises(UserError, match=r"asked\.jsonl: no prompt is held out"):
        prepare(tmp_path, pairs=pairs, prompts=asked)


def test_the_text_is_read_by_the_rules_before_anything_starts(tmp_path: Path, pairs: str) -> None:
    with pytest.raises(UserError, match="absent"):
        prepare_files(settings(pairs=pairs, text=str(tmp_path / "absent.jsonl")))
    text = write(tmp_path / "text.jsonl", [{"text": "words"}, {"text": 5}, {"text": "more"}])
    with pytest.raises(UserError, match="1 of 3 rows is malformed"):
        prepare_files(settings(pairs=pairs, text=text))
    files = prepare(tmp_path, pairs=pairs, text=text, bad_rows="skip")
    assert Path(files.text).parent == tmp_path / "out" / "data"
    assert [row["text"] for row in rows(files.text)] == ["words", "more"]
    assert any("1 of 3 rows skipped" in note for note in files.notes)


def test_chat_messages_are_written_plainly_for_a_model_that_is_yet_to_be_made(tmp_path: Path) -> None:
    def said(role: str, content: str) -> list[dict[str, str]]:
        return [{"role": role, "content": content}]

    responses = {"chosen": said("assistant", "good"), "rejected": said("assistant", "bad")}
    chats = write(tmp_path / "chats.jsonl", [{"prompt": said("user", name), **responses} for name in "abcd"])
    text = write(tmp_path / "text.jsonl", [{"messages": said("user", "Hi") + said("assistant", "Hello!")}])
    files = prepare(tmp_path, pairs=chats, text=text)
    both = prompts_of(files.pairs) | prompts_of(files.heldout_pairs)
    assert both == {f"\n\nHuman: {name}\n\nAssistant:" for name in "abcd"}
    assert rows(files.text) == [{"text": "\n\nHuman: Hi\n\nAssistant: Hello!"}]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("data", {"max_prompt_tokens": 961}, r"data\.max_prompt_tokens=961 \+ rollout\.max_tokens=64 = 1025 tokens"),
        ("data", {"max_response_tokens": 513}, r"max_prompt_tokens=512 \+ data\.max_response_tokens=513 = 1025 tokens"),
        (
            "pretrain",
            {"block_tokens": 1025},
            r"pretrain\.block_tokens=1025 .* 1024 positions of policy\.model\.max_pos",
        ),
        ("pretrain_encoder", {"block_tokens": 257}, r"pretrain_encoder\.block_tokens=257 .* 256 positions of reward\."),
        ("reward", {"max_tokens": 257}, r"reward\.max_tokens=257 .* 256 positions of reward\.model\.max_positions"),
    ],
)
def test_lengths_that_a_later_stage_would_refuse(
    pairs: str, section: str, change: dict[str, int], message: str
) -> None:
    run = settings(pairs=pairs)
    prepare_files(run)
    changed = getattr(run, section).model_copy(update=change)
    with pytest.raises(UserError, match=message):
        prepare_files(run.model_copy(update={section: changed}))


def test_a_named_encoder_is_looked_at_first(tmp_path: Path, pairs: str) -> None:
    def named(model: str, max_tokens: int) -> PipelineRun:
        return settings(pairs=pairs).model_copy(
            update={"reward": PipelineScorerSettings(model=model, max_tokens=max_tokens)}
        )

    sizes = {"hidden_size": 32, "num_heads": 1, "num_layers": 1, "intermediate_size": 32, "vocab_size": 60}
    folder = tmp_path / "bert"
    build_bert(NewBertSettings(max_positions=40, **sizes), ["good bad"], folder, seed=0)
    prepare_files(named(str(folder), 40))
    with pytest.raises(UserError, match=r"reward\.max_tokens=41: .* takes at most 40 tokens"):
        prepare_files(named(str(folder), 41))
    with pytest.raises(UserError, match=r"reward\.model=.*absent: no such folder"):
        prepare_files(named(str(tmp_path / "absent"), 40))
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"reward\.model=.*bert: cannot be read as a model"):
        prepare_files(named(str(folder), 40))


@pytest.mark.parametrize("setting", ["tuning", "sft_tuning"])
def test_targets_are_looked_up_in_a_model_that_is_yet_to_be_made(pairs: str, setting: str) -> None:
    def run(*targets: str) -> PipelineRun:
        policy = PipelinePolicySettings(
            model=NewLlamaSettings(max_positions=1024), **{setting: LoraTuning(targets=targets)}
        )
        rollout = RolloutSettings(adapter="lora")  # A new model's embeddings are its head: nothing is merged into them.
        return settings(pairs=pairs).model_copy(update={"policy": policy, "rollout": rollout})

    check_models(run("q_proj", "embed_tokens"))
    with pytest.raises(
        UserError, match=r"embed_tokens \(Embedding\) shares its weight.*; or set rollout\.adapter=lora$"
    ):
        check_models(run("embed_tokens").model_copy(update={"rollout": RolloutSettings()}))
    with pytest.raises(UserError) as refused:
        check_models(run("q_proj", "nope"))
    assert str(refused.value) == (
        f"policy.{setting}.targets: nope is no module in the new policy.model; choose among down_proj, embed_tokens, "
        f"gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj, or set policy.{setting}.targets=all-linear"
    )


def test_a_named_policy_is_looked_at_first(tmp_path: Path, pairs: str) -> None:
    def check(model: Path | str, **policy: Any) -> None:
        short = PipelineDataSettings(pairs=pairs, max_prompt_tokens=8, max_response_tokens=8)
        named = {"policy": PipelinePolicySettings(model=str(model), **policy), "data": short}
        check_models(settings(pairs=pairs).model_copy(update=named))

    base = write_policy(tmp_path / "base")
    check(base)
    with pytest.raises(UserError, match=r"policy\.sft_tuning\.targets: nope is no module in .*base"):
        check(base, sft_tuning=LoraTuning(targets=("nope",)))
    adapter = tmp_path / "adapter"
    save_adapter(make_adapter(base, 0, seed=1), adapter)
    check(adapter, sft_tuning=LoraTuning())
    with pytest.raises(UserError, match=r"adapter: is an adapter, .*or set policy\.sft_tuning\.kind=lora"):
        check(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_bias": True}))
    with pytest.raises(UserError, match="trained with lora_bias=true, which vLLM cannot carry"):
        check(adapter, sft_tuning=LoraTuning())
    (tmp_path / "base" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"policy\.model=.*base: model\.safetensors is damaged"):
        check(base)


def test_rows_of_which_none_fits_are_refused_before_anything_is_planned(tmp_path: Path, pairs: str) -> None:
    policy = {"policy": PipelinePolicySettings(model=str(write_policy(tmp_path / "base")))}

    def prepared(**limits: int) -> PreparedFiles:
        return prepare_files(settings(pairs=pairs, **limits).model_copy(update=policy))

    found = prepared(max_prompt_tokens=16, max_response_tokens=32).sizes()
    assert sorted(found.learnt) == ["dpo", "ppo", "pretrain-encoder", "reward", "sft"]
    short = prepared(max_prompt_tokens=16, max_response_tokens=2)
    with pytest.raises(UserError) as refused:
        short.sizes()
    assert str(refused.value).startswith(
        "no demonstrations are left to use: raise the limit or give shorter ones. 30 of 30 demonstrations dropped, "
        "because a response with its EOS is longer than data.max_response_tokens=2 (the longest has "
    )


@pytest.mark.parametrize("setting", ["tuning", "sft_tuning"])
def test_a_rank_that_the_engine_does_not_serve(tmp_path: Path, pairs: str, setting: str) -> None:
    for model in (NewLlamaSettings(max_positions=1024), write_policy(tmp_path / "base")):
        policy = PipelinePolicySettings(model=model, **{setting: LoraTuning(rank=513)})
        merged = settings(pairs=pairs).model_copy(update={"policy": policy})
        if isinstance(model, NewLlamaSettings):  # The other one has too few positions.
            check_models(merged)
        run = merged.model_copy(update={"rollout": RolloutSettings(adapter="lora")})
        with pytest.raises(UserError, match=rf"^policy\.{setting}\.rank=513: vLLM serves LoRA up to rank 512"):
            check_models(run)
