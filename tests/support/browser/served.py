"""`plumbob ui` over a folder of runs, in this process: what a page asks is answered by the product's own server."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from plumbob.console.web.server import ui_app
from plumbob.core.host_network import listening_socket

TOKEN = "a-token-of-the-tests"
START_S = 20
END_S = 20


@contextmanager
def serving(root: Path, port: int = 0) -> Iterator[str]:
    """Its address on this machine, with a slash at the end, until the block ends; it is steered with TOKEN."""
    listening = listening_socket("127.0.0.1", port)
    port = listening.getsockname()[1]
    app = ui_app(root, TOKEN, port, is_local=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(END_S)
        assert not thread.is_alive(), "the server did not end"
