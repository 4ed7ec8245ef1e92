"""Who may use the studio: the Host and Origin of every request are checked, its token, and its size.

Host: a page of another site whose name was made to lead to this machine (DNS rebinding) is refused. Origin: a
page of another site cannot send anything (CSRF). Token: needed on any address but the loopback one.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/style.css", "/icon.svg")  # the page that asks for the token needs them
OWN = ("same-origin", "none")  # values of Sec-Fetch-Site: sent by our pages, or by the user
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
ASKING = """<!doctype html>
<html lang="en">
  <meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Studio: token</title>
  <link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/style.css">
  <main class="page">
    <form class="empty" action="/">
      <h2>This studio needs a token</h2>
      <p>%sThe token stands in the address that <code>studio.sh</code> printed, after <code>token=</code>.</p>
      <p class="inline"><input type="password" name="token" aria-label="Token" required autofocus
        ><button class="primary">Open</button></p>
    </form>
  </main>
</html>
"""


@dataclass(frozen=True)
class Policy:
    """The address that is served, the token it needs ("": none), and the largest body in bytes."""

    host: str = "127.0.0.1"
    port: int = 7860
    token: str = ""
    max_bytes: int = 1 << 30

    @property
    def address(self) -> str:
        """The address of the first page, as another machine can open it."""
        name = _network_address() if self.host in EVERY_ADDRESS else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/"

    @property
    def cookie(self) -> str:
        """Name of the cookie: a browser sends those of one host to all its ports."""
        return f"studio_{self.port}"

    def refusal(self, method: str, path: str, headers: Mapping[str, str], query: str) -> tuple[int, str]:
        """HTTP status and reason of a refusal; (0, "") if the request is allowed."""
        if not self._is_ours(headers.get("host", "")):
            return 403, f"the host {headers.get('host', '')[:80]!r} is not served; open {self.address}"
        if reason := self._foreign(method, path, headers):
            return 403, reason
        needed = self.token and not (path in OPEN and method in SAFE)
        if needed and not self._has_token(headers, query if method == "GET" and path == "/" else ""):
            return 401, "a token is needed: open the address that studio.sh printed, or send it as Bearer"
        if int(headers.get("content-length") or 0) > self.max_bytes:
            return 413, f"more than {self.max_bytes >> 20} MB; send a smaller file"
        return 0, ""

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names the address that is served."""
        name = _host_name(host)
        if name in (*LOOPBACK, self.host.lower()):
            return True
        return self.host in EVERY_ADDRESS and (_is_address(name) or name == socket.gethostname().lower())

    def _foreign(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """Why a request comes from another site's page; "" if it does not."""
        site, origin = headers.get("sec-fetch-site", OWN[0]), headers.get("origin", "")
        protected = method not in SAFE or path.startswith("/api")
        if protected and site not in OWN:
            return "another site's page cannot use the studio"
        if origin and origin.partition("://")[2] != headers.get("host") and protected:
            return f"the origin {origin[:80]!r} is not the studio's"
        return ""

    def _has_token(self, headers: Mapping[str, str], query: str) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer if scheme.lower() == "bearer" else "", *parse_qs(query).get("token", [])]
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            found = None
        given += [found.value] if found is not None else []
        return any(hmac.compare_digest(text.encode(), self.token.encode()) for text in given)


class TooLarge(Exception):
    """A body without a length turned out to be too large."""


class Access:
    """Middleware that applies a policy, and adds the headers of a page that runs no foreign code."""

    def __init__(self, app: App, policy: Policy) -> None:
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]}
        query = scope.get("query_string", b"").decode("latin-1")
        try:
            status, reason = self.policy.refusal(scope["method"], scope["path"], headers, query)
        except ValueError:
            status, reason = 400, "a header is malformed"
        if status == 401 and scope["path"] == "/":
            wrong = "<b class=notice>That is not the token.</b> " if "token=" in query else ""
            await _answer(send, status, ASKING % wrong, {"content-type": "text/html; charset=utf-8"})
        elif status:
            await _answer(send, status, {"error": reason})
        elif self.policy.token and scope["path"] == "/" and "token=" in query:
            value = f"{self.policy.cookie}={self.policy.token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, {}, {"location": "/", "set-cookie": value})
        else:
            await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, started = 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.policy.max_bytes:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                if size > self.policy.max_bytes:  # a form is answered as malformed then
                    raise TooLarge
                started = True
                there = {name for name, _ in message["headers"]}
                own = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *(h for h in own if h[0] not in there)]
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        except TooLarge:
            if started:
                raise
            await _answer(send, 413, {"error": f"more than {self.policy.max_bytes >> 20} MB"})


def _network_address() -> str:
    """This machine's address in its network: where a packet to elsewhere would leave it; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of the addresses for documentation
        except OSError:  # no network
            return LOOPBACK[1]
        return str(probe.getsockname()[0])


def _host_name(host: str) -> str:
    """ "[::1]:7860" => "::1"."""
    name = host.strip().lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _answer(
    send: Send, status: int, values: Mapping[str, Any] | str, more: Mapping[str, str] | None = None
) -> None:
    body = (values if isinstance(values, str) else json.dumps(values)).encode()
    own = {"content-type": "application/json", "content-length": str(len(body))}
    headers = own | HEADERS | dict(more or {})
    encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
