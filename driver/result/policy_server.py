"""A server of policies: vLLM's own, as a process of its own (`serve_policies`) that ends when this one does."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from plumbob.configs.base import Dtype
from plumbob.configs.paths import absolute
from plumbob.configs.settings.workers import VllmEngine
from plumbob.core.errors import RunFailed, UserError
from plumbob.core.process_ends.after_death import AfterDeath
from plumbob.core.process_ends.stop_signals import STDERR
from plumbob.driver.result.served_models import ServedModels, served_models
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.rollout.samplers.vllm.server_program import server_command, server_environment

BOOT_S = 900.0
"""Until a server answers; a large model loads for minutes."""

END_S = 10.0
"""That a server has to end by itself."""

POLL_S = 0.2


@dataclass(frozen=True)
class ServerOptions:
    """How policies are served.

    Attributes:
        host, port: what is listened on; port 0 takes a free one.
        token: what each request must bear; None for none.
        dtype: of the weights.
        kv_cache_gib: of an engine on a CPU.
        max_tokens: positions that a text may have; None for as many as the model has.
    """

    host: str
    port: int
    token: str | None
    dtype: Dtype
    kv_cache_gib: float
    max_tokens: int | None


def serve_policies(
    policy: str, name: str | None, also: Mapping[str, str], options: ServerOptions, notify: Callable[[str], None]
) -> None:
    """Serve until this process is asked to end, or the server ends.

    Args:
        policy, name, also: as of `served_models`.
        notify: is given sentences for the user; the last when requests are answered.

    Raises:
        UserError: a policy cannot be served, or nothing can listen there.
        RunFailed: the server ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="plumbob-serve-") as folder:
        served = served_models(policy, name, also, options.dtype, Path(folder))
        for note in served.notes:
            notify(note)
        address = options.host, _free_port(options.host, options.port)
        with _running(served, options, address, Path(folder)) as server:
            url = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{address[1]}"
            _await_answer(server, url)
            notify(f"{', '.join((served.name, *served.adapters))}: served at {url}/v1 (OpenAI's API, vLLM)")
            if server.wait() != 0:
                raise RunFailed(f"vLLM's server ended by itself (status {server.returncode}): it has said why above")


@contextmanager
def _running(
    served: ServedModels, options: ServerOptions, address: tuple[str, int], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process, the first of a group, which ends with this block and with this process."""
    on_cpu = not torch.cuda.is_available()
    settings = VllmEngine(kv_cache_gib=options.kv_cache_gib, enforce_eager=on_cpu)
    spec = SamplerSpec(
        model=served.ref,
        worker="server",
        engine=settings,
        temperature=1.0,
        max_tokens=1,
        lora_rank=served.rank,
        tokenizer=absolute(served.tokenizer),
        num_threads=torch.get_num_threads(),
    )
    names = served.name, served.adapters
    command = [sys.executable, *server_command(spec, settings, names, address, options.max_tokens, on_cpu)]
    environment = os.environ | server_environment(spec, settings, options.token)
    # Its log is no result of ours: it goes where messages do.
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=STDERR, start_new_session=True)
    guard = AfterDeath([server.pid], folder, END_S)
    try:
        yield server
    finally:
        _end(server)
        guard.cancel()


def _end(server: subprocess.Popen[bytes]) -> None:
    """The server and every process that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _await_answer(server: subprocess.Popen[bytes], url: str) -> None:
    """Raises RunFailed when the server ends, or has not answered after BOOT_S."""
    deadline = time.monotonic() + BOOT_S
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # Not by the proxy that the user may have.
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RunFailed(f"vLLM's server did not start (status {server.returncode}): it has said why above")
        with suppress(OSError), directly.open(f"{url}/health", timeout=5):
            return
        time.sleep(POLL_S)
    raise RunFailed(f"vLLM's server has not answered after {BOOT_S:.0f} s")


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises UserError when nothing can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            return int(found.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise UserError(f"nothing can listen on {host}, port {port}: {error}; give another --host or --port") from error
