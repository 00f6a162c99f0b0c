"""That a server which has started is found, whatever proxy the user has."""

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from plumbob.driver.result import policy_server


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()


def test_a_server_is_asked_past_the_users_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the proxy is said to be."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(policy_server, "BOOT_S", 10.0)
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    process = subprocess.Popen(["sleep", "60"])
    try:
        policy_server._await_answer(process, f"http://127.0.0.1:{server.server_port}")
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        thread.join()
        server.server_close()
