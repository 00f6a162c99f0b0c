"""The program of `plumbob serve`: vLLM's own OpenAI-compatible server, with what engines on a CPU need first.

vLLM's server spawns a process for its engine, and such a process imports the program that it was spawned from: what
stands here at the top is done in each of them.
"""

from collections.abc import Mapping
from typing import Any

from plumbob.configs.settings.workers import VllmEngine
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.rollout.samplers.vllm.engine_settings import engine_arguments, environment
from plumbob.rollout.samplers.vllm.support import accepted_rank

PROGRAM = __name__ if __name__.startswith("plumbob.") else "plumbob.rollout.samplers.vllm.server_program"

OF_SAMPLERS = ("model", "skip_tokenizer_init", "distributed_executor_backend")
"""Arguments of an engine in a sampler's process; a server takes text."""

TOKEN = "VLLM_API_KEY"


def server_command(
    spec: SamplerSpec,
    settings: VllmEngine,
    names: tuple[str, Mapping[str, str]],
    address: tuple[str, int],
    max_model_len: int | None,
    on_cpu: bool,
) -> list[str]:
    """What is run, as `python -m`: this program with vLLM's own arguments.

    Args:
        names: of the model, and name -> folder of each adapter on it.
        address: host and port.
        max_model_len: positions that a text may have; None for as many as the model has.
    """
    name, adapters = names
    rank = accepted_rank(spec.lora_rank) if adapters else 0
    chosen = engine_arguments(spec, settings, rank, len(adapters), on_cpu)
    chosen = {key: value for key, value in chosen.items() if key not in OF_SAMPLERS}
    chosen |= {"served_model_name": name, "tokenizer": spec.tokenizer or spec.model.name}
    chosen |= {"host": address[0], "port": address[1], "uvicorn_log_level": "warning"}
    chosen |= {} if max_model_len is None else {"max_model_len": max_model_len}
    modules = [f"{each}={folder}" for each, folder in adapters.items()]
    options = [word for key, value in chosen.items() for word in _option(key, value)]
    return ["-m", PROGRAM, "--model", spec.model.name, *options, *(["--lora-modules", *modules] if modules else [])]


def _option(key: str, value: Any) -> list[str]:
    flag = key.replace("_", "-")
    match value:
        case True:
            return [f"--{flag}"]
        case False:
            return [f"--no-{flag}"]
        case _:
            return [f"--{flag}", str(value)]


def server_environment(spec: SamplerSpec, settings: VllmEngine, token: str | None) -> dict[str, str]:
    """As of a sampler's engine, which a server has in a process of its own; no list of processes shows the token."""
    variables = environment(spec, settings)
    del variables["VLLM_ENABLE_V1_MULTIPROCESSING"]
    return variables | ({} if token is None else {TOKEN: token})


def _prepare() -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from plumbob.rollout.samplers.vllm.lora_products import use_grouped_lora
        from plumbob.rollout.samplers.vllm.vllm_sampler import allow_amx

        allow_amx()
        use_grouped_lora()


if __name__ in ("__main__", "__mp_main__"):
    _prepare()

if __name__ == "__main__":
    # What `vllm serve` runs too; its own command asks for a distribution called vllm, which the CPU build is not.
    from vllm.entrypoints.launchers.api_server.entry import main

    main()
