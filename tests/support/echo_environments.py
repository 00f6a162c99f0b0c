"""Environments for tests of episodes, as a user writes them: no import of ours."""

import os
import time
from pathlib import Path


class Echo:
    """Answers each turn with how many letters it had, in several words; ends with the turn `num_turns`."""

    def __init__(self, num_turns: int = 2) -> None:
        self._num_turns = num_turns

    def reset(self, row: dict, seed: int) -> list[dict] | None:  # type: ignore[type-arg]
        self._turns: list[str] = []
        return None

    def step(self, turn: dict) -> dict:  # type: ignore[type-arg]
        self._turns.append(turn["content"])
        answer = {"role": "user", "content": f"the car has {len(turn['content'])} doors"}
        is_done = len(self._turns) == self._num_turns
        return {"messages": [] if is_done else [answer], "reward": float(len(self._turns)), "done": is_done}


class Asking(Echo):
    """Opens with a question of its own about the row."""

    def reset(self, row: dict, seed: int) -> list[dict] | None:  # type: ignore[type-arg]
        super().reset(row, seed)
        return [{"role": "user", "content": f"about the {row['thing']}"}]


class Forgetful(Echo):
    """Opens otherwise when it is asked again."""

    def reset(self, row: dict, seed: int) -> list[dict] | None:  # type: ignore[type-arg]
        super().reset(row, seed)
        return [{"role": "user", "content": f"question {time.time_ns()}"}]


class Waiting(Echo):
    """Answers its second turn once a file is there."""

    def __init__(self, num_turns: int, file: str) -> None:
        super().__init__(num_turns)
        self._file = Path(file)

    def step(self, turn: dict) -> dict:  # type: ignore[type-arg]
        answer = super().step(turn)
        while len(self._turns) == 2 and not self._file.exists():
            time.sleep(0.01)
        return answer


class Breaking(Echo):
    """Fails in its second turn: it raises, hangs, or ends its process."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def step(self, turn: dict) -> dict:  # type: ignore[type-arg]
        answer = super().step(turn)
        if len(self._turns) == 2:
            if self._how == "hangs":
                time.sleep(3600)
            if self._how == "exits":
                os._exit(3)
            raise RuntimeError("out of doors")
        return answer
