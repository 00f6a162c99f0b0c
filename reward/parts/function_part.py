"""The part `function`: a function of the user's."""

from pathlib import Path

from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.reward.programs.function_process import FunctionProcess
from plumbob.reward.programs.function_scorer import FunctionScorer
from plumbob.reward.scorer import Opening


def opening(part: FunctionPart, folder: Path | None) -> Opening:
    """It is checked by importing it here, in a process of its own that ends at once."""
    return Opening(lambda: FunctionProcess(part, quiet=True).close(), lambda device: FunctionScorer(part))
