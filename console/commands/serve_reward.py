"""`plumbob serve-reward`: a trained reward model as an endpoint that scores batches."""

from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_listening, token_of

NAME = "serve-reward"
ABOUT = "serve a trained reward model over HTTP, for reward.parts of kind http"
EXAMPLE = "plumbob serve-reward runs/toy/reward/reward_model --port 8100"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="FOLDER", help="a reward model's folder or hub name")
    add_listening(parser, 8100)
    parser.add_argument("--max-tokens", type=int, default=256, help="of prompt and response together")
    parser.add_argument("--batch-size", type=int, default=32, help="responses in one forward")
    parser.add_argument("--raw", action="store_true", help="the model's own output, without its calibration")


def run(arguments: Namespace) -> int:
    from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
    from plumbob.configs.settings.rewards import ModelReward
    from plumbob.core.errors import UserError
    from plumbob.driver.reward_endpoint import serve_reward

    token = token_of(arguments)
    for option, value in (("--batch-size", arguments.batch_size), ("--max-tokens", arguments.max_tokens)):
        if value < 1:
            raise UserError(f"{option}={value}: expected a number from 1")
    ref = ModelRef(arguments.model, REWARD_MODEL)
    reward = ModelReward(ref, arguments.batch_size, arguments.max_tokens, not arguments.raw)
    serve_reward(reward, arguments.host, arguments.port, token)
    return OK
