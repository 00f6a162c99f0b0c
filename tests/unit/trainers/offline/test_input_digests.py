"""A stage knows the records that it began with again, and names the file of those that have changed."""

from pathlib import Path

import numpy as np
import pytest

from plumbob.configs.runs import SftRun
from plumbob.configs.settings.data import DemonstrationDataSettings, ReplaySettings, RetentionSettings
from plumbob.configs.settings.models import PolicySettings
from plumbob.core.errors import UserError
from plumbob.data.record_digest import Inputs
from plumbob.data.tokenization import TokenSequence
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.retention import RetainedText
from plumbob.trainers.offline.input_digests import inputs_of
from plumbob.trainers.offline.sft import prepare_sft
from tests.support.tiny_policy import write_policy

ROWS = [f'{{"prompt": "the car {number}", "completion": " red"}}\n' for number in range(10)]


def read(run: SftRun) -> Inputs:
    data = prepare_sft(run)
    assert data.replayed is not None and run.replay is not None
    replayed = {run.replay.text: data.replayed.blocks}
    return inputs_of(run.data, "demonstrations", data.train, data.heldout, data.retained, replayed)


def test_the_file_that_has_changed_is_named(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("rows", "heldout", "kept", "again")}
    files["rows"].write_text("".join(ROWS))
    files["heldout"].write_text('{"prompt": "the door", "completion": " blue"}\n')
    for name in ("kept", "again"):
        files[name].write_text('{"text": "a car has a door"}\n' * 20)
    run = SftRun(
        data=DemonstrationDataSettings(demonstrations=str(files["rows"])),
        policy=PolicySettings(model=write_policy(tmp_path / "policy")),
        retention=RetentionSettings(text=str(files["kept"]), block_tokens=8),
        replay=ReplaySettings(text=str(files["again"]), block_tokens=8),
    )
    began = read(run)
    read(run).check(began.digests)
    # One response of the file, whichever side of the split it is on.
    files["rows"].write_text("".join([*ROWS[:-1], ROWS[-1].replace("red", "blue")]))
    with pytest.raises(UserError, match=rf"^data\.demonstrations={files['rows']}: the records are not those"):
        read(run).check(began.digests)
    files["rows"].write_text("".join(ROWS))
    read(run).check(began.digests)
    for name, setting in (("kept", "retention"), ("again", "replay")):
        whole = files[name].read_text()
        files[name].write_text(whole.replace("door", "key", 1))
        with pytest.raises(UserError, match=rf"^{setting}\.text={files[name]}: the records are not those .* Put them"):
            read(run).check(began.digests)
        files[name].write_text(whole)


def test_a_held_out_file_is_named_apart() -> None:
    one, other = (TokenSequence(np.array([number], np.int32), np.ones(1, np.bool_)) for number in (1, 2))
    data = DemonstrationDataSettings(demonstrations="/d", heldout_demonstrations="/h")
    text = RetainedText(RetentionSettings(text="/t"), PackedText((one,), 0, ()))
    began = inputs_of(data, "demonstrations", [one], [one], text)
    with pytest.raises(UserError, match=r"^data\.heldout_demonstrations=/h: the"):
        inputs_of(data, "demonstrations", [one], [other], text).check(began.digests)
    both = data.model_copy(update={"heldout_demonstrations": None})
    with pytest.raises(UserError, match=r"^data\.demonstrations=/d: the"):
        inputs_of(both, "demonstrations", [other], [other], text).check(began.digests)
