"""`plumbob serve-reward`: a trained reward model as an endpoint that scores batches."""

import os
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK

NAME = "serve-reward"
ABOUT = "serve a trained reward model over HTTP, for reward.parts of kind http"
EXAMPLE = "plumbob serve-reward runs/toy/reward/reward_model --port 8100"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="FOLDER", help="a reward model's folder or hub name")
    parser.add_argument(
        "--host", default="127.0.0.1", help="what to listen on; another than this machine's own needs a token"
    )
    parser.add_argument("--port", type=int, default=8100, help="0 takes a free one, which is printed")
    parser.add_argument("--token-env", metavar="NAME", help="the variable with the token that each request must bear")
    parser.add_argument("--max-tokens", type=int, default=256, help="of prompt and response together")
    parser.add_argument("--batch-size", type=int, default=32, help="responses in one forward")
    parser.add_argument("--raw", action="store_true", help="the model's own output, without its calibration")


def run(arguments: Namespace) -> int:
    from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
    from plumbob.configs.settings.rewards import ModelReward
    from plumbob.core.errors import UserError
    from plumbob.driver.reward_endpoint import serve_reward

    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port={arguments.port}: a port is a number from 0, for a free one, to 65535")
    for option, value in (("--batch-size", arguments.batch_size), ("--max-tokens", arguments.max_tokens)):
        if value < 1:
            raise UserError(f"{option}={value}: expected a number from 1")
    token = None
    if arguments.token_env is not None:
        token = os.environ.get(arguments.token_env)
        if not token:
            raise UserError(f"--token-env={arguments.token_env}: the variable is not set: export it with the token")
    elif arguments.host not in ("127.0.0.1", "::1", "localhost"):
        raise UserError(f"--host={arguments.host}: others could use the server: give a token too, --token-env=NAME")
    ref = ModelRef(arguments.model, REWARD_MODEL)
    reward = ModelReward(ref, arguments.batch_size, arguments.max_tokens, not arguments.raw)
    serve_reward(reward, arguments.host, arguments.port, token)
    return OK
