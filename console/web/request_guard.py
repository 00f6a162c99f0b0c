"""Who may ask the server, and what its answers let a page do (`RequestGuard`).

A page of another site could reach a server on this machine: by its name that was made to mean 127.0.0.1 (DNS
rebinding: the Host header tells), or by a request in the user's name (the Origin header tells). Whoever is on this
machine may read without a token; from elsewhere nobody, and without one nobody steers.
"""

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
TOKEN_HEADER = "x-plumbob-token"
SESSION = "/api/session"
POLICY = "; ".join(
    [
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class RequestGuard:
    """Refuses requests that may not be, and sets the headers of every answer; an ASGI app around another.

    Args:
        token: what reading from elsewhere and all steering must bear.
        port: that is listened on.
        is_local: whether only this machine can reach it: then no token is needed to read, and Host must be its own.

    Attributes:
        cookie: the name of the cookie by which a browser may read, and `reading` what it holds: nothing that tells the
            token, since a browser sends a host's cookies to every port of it, whoever listens there.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, is_local: bool) -> None:
        self._app, self._token, self._is_local = app, token, is_local
        self.cookie, self.reading = f"plumbob_{port}", secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store" if scope["path"].startswith("/api/") else "no-cache")
            await send(message)

        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, send_with_headers)
        else:
            status, reason = refused
            await JSONResponse({"error": reason}, status)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers, path, is_reading = Headers(scope=scope), scope["path"], scope["method"] in ("GET", "HEAD")
        if self._is_local and _host_of(headers.get("host", "")) not in LOCAL_HOSTS:
            return 421, "this server answers to 127.0.0.1 and localhost alone: open it under one of them"
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        is_foreign |= headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        # Other sites may link to the page itself: its address bar shows whose it is.
        if is_foreign and (path.startswith("/api/") or not is_reading):
            return 403, "requests of other sites are refused: open the page itself"
        if not is_reading and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "expected JSON: Content-Type: application/json"
        if not path.startswith("/api/") or path == SESSION:
            return None
        if not is_reading and not self.may_steer(headers):
            return 401, "steering needs the token: it stands in the address that `plumbob ui` printed when it started"
        if is_reading and not self._is_local and not self.is_known(headers):
            return 401, "a token is needed: it stands in the address that `plumbob ui` printed when it started"
        return None

    def bears(self, given: str | None) -> bool:
        """Whether that is the token; takes as long whatever is wrong with it."""
        return given is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def may_steer(self, headers: Headers) -> bool:
        return self.bears(headers.get(TOKEN_HEADER))

    def is_known(self, headers: Headers) -> bool:
        """Whether a request bears the token in its header, or the cookie of one who bore it."""
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        kept = cookies.get(self.cookie)
        is_kept = kept is not None and hmac.compare_digest(kept.value.encode(), self.reading.encode())
        return is_kept or self.may_steer(headers)

    def needs_token(self, headers: Headers) -> bool:
        """Whether a request may not read as it is."""
        return not self._is_local and not self.is_known(headers)


def _host_of(host: str) -> str:
    """Without its port, and the brackets of IPv6."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
