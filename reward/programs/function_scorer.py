"""A user's function as a scorer."""

from collections.abc import Sequence

from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.core.errors import RunFailed
from plumbob.reward.programs.function_process import FunctionProcess, NoScore
from plumbob.reward.scorer import Score, ScoreRequest

SHOWN = 120
"""Letters of a prompt and of a response that a message repeats."""


class FunctionScorer:
    """Scores by a function of the user's, in a process of its own.

    Raises:
        UserError: the function cannot be imported, is no function or takes other arguments.
    """

    def __init__(self, part: FunctionPart) -> None:
        self._part, self._process = part, FunctionProcess(part)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests.

        Raises:
            RunFailed: the function failed on one, and `on_failure` is to stop then.
        """
        answers = self._process.ask([(one.prompt, one.response, dict(one.row)) for one in requests])
        return [self._score(answer, request) for answer, request in zip(answers, requests, strict=True)]

    def _score(self, answer: float | NoScore, request: ScoreRequest) -> Score:
        if isinstance(answer, float):
            return Score(answer, {})
        if self._part.on_failure == "stop":
            shown = "".join(f"\n  {line}" for line in answer.detail)
            raise RunFailed(
                f"the reward function {self._part.function} failed on the response {request.response[:SHOWN]!r} to "
                f"...{request.prompt[-SHOWN:]!r}: {answer.reason}{shown}\n"
                f"on_failure=NUMBER in its part of the reward scores such responses with that number"
            )
        return Score(self._part.on_failure, {}, {"function": answer.reason})
