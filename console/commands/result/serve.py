"""`plumbob serve`: a policy, and adapters beside it, over HTTP by vLLM's own OpenAI-compatible server."""

from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_dtype, add_listening, add_policy, token_of
from plumbob.core.errors import UserError

NAME = "serve"
ABOUT = "serve a policy over HTTP, by vLLM's own OpenAI-compatible server"
EXAMPLE = "plumbob serve runs/toy/ppo --also dpo=runs/toy/dpo --port 8000"


def add_options(parser: ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("--name", metavar="NAME", help="what clients call it; default: the run's, or the folder's")
    parser.add_argument(
        "--also",
        metavar="NAME=RUN_OR_FOLDER",
        action="append",
        default=[],
        help="a further adapter on the same base, under that name; may be given several times",
    )
    add_listening(parser, 8000)
    add_dtype(parser)
    parser.add_argument("--kv-cache-gib", type=float, default=1.0, metavar="X", help="on a CPU; default: 1")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="of prompt and response together; default: the model's positions"
    )


def run(arguments: Namespace) -> int:
    token = token_of(arguments)
    also = dict(_pair(text) for text in arguments.also)
    if len(also) < len(arguments.also):
        raise UserError("--also: a name is given twice; give each policy its own")
    if not 0 < arguments.kv_cache_gib < float("inf"):
        raise UserError(f"--kv-cache-gib={arguments.kv_cache_gib}: expected a number above 0")
    if arguments.max_tokens is not None and arguments.max_tokens < 1:
        raise UserError(f"--max-tokens={arguments.max_tokens}: expected a number from 1")
    from plumbob.models.quantization.forms import hush_bitsandbytes

    hush_bitsandbytes()
    from plumbob.driver.result.policy_server import ServerOptions, serve_policies

    host, port = arguments.host, arguments.port
    options = ServerOptions(host, port, token, arguments.dtype, arguments.kv_cache_gib, arguments.max_tokens)
    serve_policies(arguments.policy, arguments.name, also, options, lambda message: print(message, flush=True))
    return OK


def _pair(text: str) -> tuple[str, str]:
    name, _, policy = text.partition("=")
    if not name or not policy:
        raise UserError(f"--also={text}: expected NAME=RUN_OR_FOLDER")
    return name, policy
