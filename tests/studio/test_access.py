"""Who may use the studio: hosts, origins, tokens, sizes, and the headers of a page."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from fastapi import FastAPI, Request, UploadFile
from fastapi.testclient import TestClient

from ldm.studio.access import Access, Policy

OWN = "http://127.0.0.1:7860"


def client_of(policy: Policy, address: str = OWN) -> TestClient:
    app = FastAPI()
    app.add_middleware(Access, policy=policy)

    @app.get("/")
    @app.get("/api/thing")
    def thing() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/api/thing")
    async def change(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.post("/api/form")
    def form(file: UploadFile) -> dict[str, int | None]:
        return {"bytes": file.size}

    return TestClient(app, base_url=address, follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1:7860", True),
        ("localhost:7860", True),
        ("LOCALHOST", True),
        ("[::1]:7860", True),
        ("attacker.example:7860", False),
        ("127.0.0.1.attacker.example", False),
        ("localhost.attacker.example:7860", False),
        ("192.168.1.5:7860", False),
        ("", False),
    ],
)
def test_only_the_own_host_is_served(host: str, served: bool) -> None:
    """DNS rebinding: a foreign name that leads to this machine."""
    answer = client_of(Policy()).get("/api/thing", headers={"host": host})
    assert answer.status_code == (200 if served else 403)
    assert served or "is not served" in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # curl
        ({"origin": OWN, "sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://attacker.example"}, False),
        ({"origin": "http://127.0.0.1:8000"}, False),  # another program's page on this machine
        ({"origin": "null"}, False),  # a page from a file, or a sandboxed frame
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_other_sites_pages_can_neither_send_nor_read(headers: dict[str, str], allowed: bool) -> None:
    client = client_of(Policy())
    assert client.post("/api/thing", headers=headers).status_code == (200 if allowed else 403)
    assert client.get("/api/thing", headers=headers).status_code == (200 if allowed else 403)


def test_a_link_on_another_page_may_lead_to_the_studio() -> None:
    assert client_of(Policy()).get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_a_token_is_needed_and_becomes_a_cookie() -> None:
    policy = Policy(host="0.0.0.0", token="secret-word")
    client = client_of(policy, "http://192.168.1.5:7860")
    assert client.get("/").status_code == client.get("/api/thing").status_code == 401
    assert client.get("/api/thing?token=secret-word").status_code == 401  # addresses end up in logs
    wrong = client.get("/?token=wrong")
    assert wrong.status_code == 401 and "That is not the token." in wrong.text
    assert client.get("/api/thing", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/api/thing", headers={"authorization": "Bearer secret-word"}).status_code == 200
    answer = client.get("/?token=secret-word")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "SameSite=Strict" in cookie and "HttpOnly" in cookie
    client.cookies.set(policy.cookie, "secret-word")
    assert client.get("/").status_code == client.get("/api/thing").status_code == 200


def test_a_person_without_a_token_is_asked_for_it() -> None:
    client = client_of(Policy(host="0.0.0.0", token="secret-word"), "http://192.168.1.5:7860")
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html") and "not the token" not in page.text
    assert 'name="token"' in page.text and "form-action 'self'" in page.headers["content-security-policy"]
    assert (
        client.get("/style.css").status_code == 404
    )  # of this small application: it is not asked for a token
    assert client.post("/style.css").status_code == client.get("/main.js").status_code == 401
    assert client.get("/api/thing").json()["error"].startswith("a token is needed")


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "http://127.0.0.1:7860/"), ("::1", "http://[::1]:7860/")]
)
def test_the_address_is_that_of_the_host(host: str, expected: str) -> None:
    assert Policy(host=host).address == expected
    assert expected in Policy(host=host).refusal("GET", "/", {"host": "attacker.example"}, "")[1]


def test_the_address_on_every_address_can_be_opened() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        policy = Policy(host="0.0.0.0", port=listener.getsockname()[1])
        own = policy.address.removeprefix("http://").removesuffix("/")
        socket.create_connection((own.partition(":")[0], policy.port), timeout=10).close()
    assert not own.startswith("0.0.0.0") and policy.refusal("GET", "/", {"host": own}, "") == (0, "")


def test_on_every_address_names_are_still_checked() -> None:
    client = client_of(Policy(host="0.0.0.0"))
    assert client.get("/api/thing", headers={"host": "192.168.1.5:7860"}).status_code == 200
    assert client.get("/api/thing", headers={"host": "attacker.example"}).status_code == 403


def test_bodies_are_limited_with_and_without_a_length() -> None:
    client = client_of(Policy(max_bytes=1 << 20))
    assert client.post("/api/thing", content=b"x" * (1 << 20)).json() == {"bytes": 1 << 20}
    assert client.post("/api/thing", content=b"x" * (1 + (1 << 20))).status_code == 413
    pieces = (b"x" * (1 << 18) for _ in range(5))
    assert client.post("/api/thing", content=pieces).status_code == 413
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    form = (part for part in (head, *(b"x" * (1 << 18) for _ in range(5)), b"\r\n--x--\r\n"))
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/form", content=form, headers=kind).status_code == 413
    assert client.post("/api/thing", headers={"content-length": "many"}).status_code == 400


def test_pages_run_no_foreign_code() -> None:
    headers = client_of(Policy()).get("/").headers
    policy = headers["content-security-policy"]
    assert "script-src 'self';" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and headers["x-content-type-options"] == "nosniff"
