"""An HTTP endpoint of a test's own, on a free port."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""(status, what is written as JSON)."""

END_S = 30.0


@contextmanager
def http_endpoint(answer: Callable[[Any, Any], Answer]) -> Iterator[str]:
    """The address of a server that answers each post by (its JSON, its headers)."""

    class PostHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, given = answer(body, self.headers)
            written = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), PostHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(END_S)
        assert not thread.is_alive(), "the server did not end"
        server.server_close()
