"""Listening for `plumbob serve-reward`: the socket, the server on it, and the reward model's own form of dialogue."""

from typing import Any

import uvicorn

from plumbob.configs.settings.rewards import ModelReward
from plumbob.core.errors import UserError
from plumbob.core.host_network import listening_socket
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.reward_prompts import RewardPrompts
from plumbob.reward.services.reward_server import reward_app


def serve_reward(reward: ModelReward, host: str, port: int, token: str | None) -> None:
    """Serve until the process is asked to end.

    Raises:
        UserError: the model cannot be used, or nothing can listen there.
    """
    try:
        check_reward(reward)
    except UserError as error:
        raise UserError(f"{error} (here as --raw, --max-tokens)") from error
    prompts = RewardPrompts(reward)
    listening = listening_socket(host, port)
    about = {"model": reward.model.name, "is_calibrated": reward.is_calibrated, "max_tokens": reward.max_tokens}
    app = reward_app(open_scorer(reward, _device()), prompts.written, about, token, reward.batch_size)
    shown = f"[{host}]" if ":" in host else host
    print(f"{reward.model.name} scores batches at http://{shown}:{listening.getsockname()[1]}/score", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _device() -> Any:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
