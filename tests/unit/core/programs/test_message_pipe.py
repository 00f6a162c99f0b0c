"""Messages of a pipe: whole, bounded in time and size, and never believed."""

import json
import os
import socket
import time

import pytest

from plumbob.core.programs.message_pipe import MessagePipe, PipeClosed
from plumbob.core.programs.users_code import HEADER


def pair(max_bytes: int = 100_000) -> tuple[MessagePipe, socket.socket, socket.socket]:
    """A pipe, its own end, which the caller keeps, and the other one."""
    ours, theirs = socket.socketpair()
    return MessagePipe(ours.fileno(), ours.fileno(), max_bytes), ours, theirs


def soon() -> float:
    return time.monotonic() + 0.2


def test_messages_come_whole_however_they_are_cut() -> None:
    pipe, _ours, theirs = pair()
    content = HEADER.pack(7) + b'{"a":1}' + HEADER.pack(11) + b'{"b": "\\n"}'
    for byte in content[:-1]:
        theirs.send(bytes([byte]))
    assert pipe.take() == {"a": 1} and pipe.take() is None
    with pytest.raises(TimeoutError):
        pipe.receive(soon())
    theirs.send(content[-1:])
    assert pipe.receive(soon()) == {"b": "\n"}


def test_what_does_not_go_at_once_goes_later() -> None:
    pipe, _ours, theirs = pair()
    sent = {"text": "é" * 10**6}
    pipe.begin_sending(sent)
    assert not pipe.is_sent() and pipe.is_sending
    with pytest.raises(TimeoutError):
        pipe.send({"more": 1}, soon())
    received, size = bytearray(), sum(HEADER.size + len(json.dumps(one)) for one in (sent, {"more": 1}))
    while len(received) < size:
        received += theirs.recv(2**20)
        pipe.is_sent()
    other, _kept, back = pair(10**7)
    messages = []
    for start in range(0, size, 50_000):
        back.sendall(received[start : start + 50_000])
        while (message := other.take()) is not None:
            messages.append(message)
    assert messages == [sent, {"more": 1}] and not pipe.is_sending


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (HEADER.pack(100_001), "a message of more than"),
        (HEADER.pack(2**64 - 1), "a message of more than"),
        (HEADER.pack(2) + b"[]", "what is no message"),
        (HEADER.pack(2) + b"{]", "what is no message"),
        (HEADER.pack(2) + b"\xff\xff", "what is no message"),
        (HEADER.pack(90_000) + b"[" * 90_000, "what is no message"),
    ],
)
def test_what_is_no_message(content: bytes, what: str) -> None:
    pipe, _ours, theirs = pair()
    theirs.sendall(content)
    with pytest.raises(PipeClosed, match=what):
        pipe.take()


def test_a_closed_side_is_told_without_a_word() -> None:
    pipe, _ours, theirs = pair()
    theirs.sendall(HEADER.pack(2) + b"{}" + HEADER.pack(5) + b"{")
    theirs.close()
    assert pipe.take() == {}
    for call in (pipe.take, lambda: pipe.send({}, soon())):
        with pytest.raises(PipeClosed) as closed:
            call()
        assert str(closed.value) == ""


def test_pipes_of_two_files() -> None:
    into, out = os.pipe()
    pipe = MessagePipe(out, into)
    pipe.send({"a": [1]}, soon())
    assert pipe.receive(soon()) == {"a": [1]}
    os.close(into)
    os.close(out)
