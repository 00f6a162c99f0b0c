"""The calibration that is stored with a reward model: what makes its scores mean 0 and variance 1."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers.utils import cached_file

from plumbob.configs.settings.models import ModelRef
from plumbob.core.atomic_files import flush, write_atomically
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.models.resolution import resolve_package_folder

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What makes scores mean 0 and variance 1 under the responses that it was measured on.

    Attributes:
        mean, std: of the raw scores; `std` is divided by their number, and above 0.
        num_samples: responses measured.
        under: whose responses they were, for people.
    """

    mean: float
    std: float
    num_samples: int
    under: str

    def normalized(self, raw: float) -> float:
        return (raw - self.mean) / self.std


def calibrate(raw_scores: Sequence[float], under: str) -> Calibration:
    """Raises UserError when the scores are all equal: such a model tells no response from another."""
    if not raw_scores:
        raise UserError(f"no responses to calibrate the reward model on ({under})")
    mean, std = statistics.fmean(raw_scores), statistics.pstdev(raw_scores)
    # Below this the spread is float32 rounding, not a preference.
    if not std > 1e-6 * max(abs(mean), 1.0):
        raise UserError(
            f"the reward model scores all {len(raw_scores)} responses ({under}) with {mean:.6g}: it cannot be "
            f"calibrated; calibrate on at least two different responses, or train the model longer or on more pairs"
        )
    return Calibration(mean, std, len(raw_scores), under)


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write the calibration into a reward model's folder, whole or not at all."""
    write_atomically(folder / CALIBRATION_FILE, json.dumps(asdict(calibration), indent=2) + "\n")
    flush(folder)


def load_calibration(ref: ModelRef) -> Calibration:
    """The calibration stored with a reward model.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    try:
        path = Path(cached_file(resolve_package_folder(ref.name, ref.setting), CALIBRATION_FILE))
    except OSError as error:
        raise UserError(
            f"{ref}: there is no {CALIBRATION_FILE} beside the model; a reward run writes it, or set {_raw(ref)}"
        ) from error
    what, fix = f"{ref}: {path} cannot be used", f"copy the model again, or set {_raw(ref)}"
    content = read_json_object(path, what, fix)
    with from_outside(what, fix):
        calibration = Calibration(
            float(content["mean"]), float(content["std"]), int(content["num_samples"]), str(content["under"])
        )
        if not (math.isfinite(calibration.mean) and math.isfinite(calibration.std) and calibration.std > 0):
            found = f"found {calibration.mean} and {calibration.std}"
            raise ValueError(f"mean must be finite and std above 0, {found}")
    return calibration


def _raw(ref: ModelRef) -> str:
    """The setting by which a model's raw scores are used."""
    return f"{ref.setting.rpartition('.')[0]}.normalize=false to use one model's raw scores"
