"""Who may ask the server of `plumbob ui`, for what, and what its answers let a page do."""

from pathlib import Path

import httpx
import pytest
import uvicorn

from plumbob.console.web.server import serve_ui
from plumbob.core.errors import UserError
from tests.support.served_runs import TOKEN, asked, served

RUN = "/api/runs/nested~ppo"
BEARING = {"X-Plumbob-Token": TOKEN}


def test_every_answer_lets_a_page_do_little(client: httpx.Client) -> None:
    for path in ("/api/runs", "/api/runs/nothing", "/nothing", "/"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy, path
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "localhost:80"}, 200),
        ({"Host": "[::1]:80"}, 200),
    ],
)
def test_another_site_reads_nothing(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/runs", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-Plumbob-Token": "another"}, 401),
        ({"X-Plumbob-Token": "\xe9"}, 401),
        (BEARING | {"Origin": "http://evil.example"}, 403),
        (BEARING | {"Content-Type": "text/plain"}, 415),
        (BEARING | {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (BEARING, 400),
    ],
)
def test_steering_needs_the_token_and_the_page_itself(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    """The last is let in, and asks for nothing that there is."""
    kind = {"Content-Type": "application/json"} | headers
    encoded = {name: value.encode("latin-1") for name, value in kind.items()}
    answer = client.post(f"{RUN}/steer", content='{"action": "explode"}', headers=encoded)
    assert answer.status_code == status and answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..",
        "/api/runs/..%2F",
        "/api/runs/..~secret.txt",
        "/api/runs/~",
        f"{RUN}/logs/..%2F..%2F..%2Fsecret.txt",
        f"{RUN}/logs/secret.txt",
        f"{RUN}/logs/resolved.json",
        f"{RUN}/rollouts/..%2F..%2Fsecret/row/0",
        f"{RUN}/rollouts/99/row/0",
        f"{RUN}/rollouts/9/row/1",
        f"{RUN}/rollouts/9/group/..%2Fsecret",
        "/api/runs/toy/metrics?stage=../..",
        "/api/runs/toy/metrics?stage=checkpoints",
        "/static/..%2F..%2F__init__.py",
        "/static/%2e%2e/server.py",
        "/%2e%2e/secret.txt",
    ],
)
def test_what_is_no_name_of_the_listing_is_not_there(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404) and "nobody may read this" not in answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "query",
    [
        *({"limit": value} for value in ("0", "501", "x", "-1", "1e3", "9" * 30)),
        *({"offset": "-1"}, {"sort": "name"}, {"order": "up"}, {"dropped": "maybe"}, {"score_min": "nan"}),
        *({"part_min": "inf"}, {"text": "a" * 501}, {"version": "one"}),
    ],
)
def test_what_asks_for_too_much_or_nothing_is_refused(client: httpx.Client, query: dict[str, str]) -> None:
    answer = client.get(f"{RUN}/rollouts", params=query)
    assert answer.status_code == 400 and next(iter(query)) in answer.json()["error"]


def test_a_cursor_that_was_never_given_is_refused(client: httpx.Client) -> None:
    for path in ("metrics", "events", "live?metrics=x"):
        assert client.get(f"{RUN}/{path}", params={"after": "-7", "metrics": "x"}).status_code == 400


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "resolved.json").write_text('{"config": {"name": "outside"}}')
    (tmp_path / "outside" / "driver.log").write_text("nobody may read this\n")
    run = tmp_path / "runs" / "run"
    (run / "logs").mkdir(parents=True)
    (run / "resolved.json").write_text('{"config": {"name": "run"}}')
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "outside")
    (run / "driver.log").symlink_to(tmp_path / "outside" / "driver.log")
    (run / "logs" / "worker.log").symlink_to(tmp_path / "outside" / "driver.log")
    (run / "metrics.jsonl").symlink_to(tmp_path / "outside" / "driver.log")
    with served(tmp_path / "runs") as client:
        assert [one["id"] for one in asked(client, "/api/runs")["runs"]] == ["run"]
        assert asked(client, "/api/runs/run/logs")["files"] == []
        assert client.get("/api/runs/run/logs/driver.log").status_code == 404
        assert asked(client, "/api/runs/run/logs/merged")["text"] == ""
        assert asked(client, "/api/runs/run/metrics")["records"] == []


def test_from_elsewhere_nothing_is_read_without_the_token(runs: Path) -> None:
    with served(runs, is_local=False) as client:
        assert client.get("/api/runs").status_code == 401
        assert asked(client, "/api/session") | {"version": ""} == {
            **{"version": "", "runs_folder": "", "can_steer": False, "needs_token": True}
        }
        assert client.get("/api/runs", headers=BEARING).status_code == 200
        assert client.post("/api/session", json={"token": "another"}).status_code == 401
        assert client.get("/api/runs").status_code == 401
        known = client.post("/api/session", json={"token": TOKEN})
        assert known.status_code == 204
        assert "HttpOnly" in known.headers["set-cookie"] and "SameSite=strict" in known.headers["set-cookie"]
        assert client.get("/api/runs").status_code == 200  # The client keeps the cookie.
        assert asked(client, "/api/session")["can_steer"] is False
        (kept,) = client.cookies.values()
        assert TOKEN not in known.headers["set-cookie"]
        steering = {"X-Plumbob-Token": kept}  # Whoever listens on another port of the host is sent it too.
        assert client.post("/api/runs/toy/steer", json={"action": "stop"}, headers=steering).status_code == 401
        assert client.post("/api/session", json={"token": kept}).status_code == 401
        # A stream bears the cookie too; steering needs the header all the same.
        assert client.post("/api/runs/toy/steer", json={"action": "stop"}).status_code == 401


def test_a_server_for_others_is_not_opened_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--host=0\.0\.0\.0: others could read your runs: give a token"):
        serve_ui(tmp_path, "0.0.0.0", 0, None)
    with pytest.raises(UserError, match="there is no such folder"):
        serve_ui(tmp_path / "none", "127.0.0.1", 0, None)


def test_the_address_that_is_printed_holds_any_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: sockets[0].close())
    serve_ui(tmp_path, "127.0.0.1", 0, "50% of/#")
    assert "/#token=50%25%20of%2F%23\n" in capsys.readouterr().out
