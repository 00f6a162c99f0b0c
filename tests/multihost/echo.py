"""Measures the way between two hosts: `python echo.py serve`, and `python echo.py visit ADDRESS NUM_BYTES`."""

import json
import socket
import sys
import time

PORT = 5000
RESPONSE_S = 1.0
"""How long a visitor waits to be let in: a cut cable is noticed by that alone."""

MESSAGE_S = 60.0

NUM_TRIES = 3
"""The shortest counts: whatever else the machine is at makes a message slower, and none faster than its way."""

END = b"."
PIECE = 1 << 16


def serve() -> None:
    """Response with one byte whenever a message has come whole."""
    server = socket.create_server(("0.0.0.0", PORT))
    print("ready", flush=True)
    while True:
        guest, _ = server.accept()
        with guest:
            while piece := guest.recv(PIECE):
                if piece.endswith(END):
                    guest.sendall(END)


def visit(address: str, num_bytes: int) -> None:
    """Once a line says so: print seconds that a byte takes there and back, and that a message of so many takes."""
    print("ready", flush=True)
    sys.stdin.readline()
    with socket.create_connection((address, PORT), RESPONSE_S) as server:
        server.settimeout(MESSAGE_S)
        print(json.dumps([min(exchange(server, size) for _ in range(NUM_TRIES)) for size in (0, num_bytes)]))


def exchange(server: socket.socket, num_bytes: int) -> float:
    began = time.monotonic()
    server.sendall(b"a" * num_bytes + END)
    server.recv(1)
    return time.monotonic() - began


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        visit(sys.argv[2], int(sys.argv[3]))
