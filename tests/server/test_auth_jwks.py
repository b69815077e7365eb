"""Keys of issuers, fetched from a real server: renewed, kept while that fails, and given up in time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cra.errors import ConfigInvalid, Overloaded, RateLimited, Unauthenticated
from cra.server.auth import fetch
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.fetch import FetchFailed, check_url, fetch_json
from cra.server.auth.jwks import MAX_WAITING, read_keys
from cra.server.auth.oidc import discover
from tests.server.identities import (
    Clocks,
    KeyServer,
    authenticator,
    b64,
    bearer,
    claims,
    key_server,
    public,
    sign,
    signing_key,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


@pytest.fixture
def server(shared: KeyServer) -> KeyServer:
    shared.routes.clear()
    shared.asked.clear()
    return shared


ONE, TWO = signing_key("P-256", "one"), signing_key("P-256", "two")
BY_ONE = sign(ONE, claims(), {"kid": "one"})
BY_TWO = sign(TWO, claims(), {"kid": "two"})


def settings(**more: Any) -> dict[str, Any]:
    value = {"issuer": "https://login.test/acme", "audience": ["cra"], "tenants": ["default"], **more}
    return {"issuers": [value]}


async def gets_in(doorman: Authenticator, token: bytes) -> bool:
    try:
        await doorman(bearer(token))
    except Unauthenticated:
        return False
    return True


async def settled(doorman: Authenticator) -> None:
    """Wait for what is fetched in the background."""
    assert doorman._tokens is not None
    for _, source in doorman._tokens._issuers.values():
        if source._flight is not None:
            await source._flight


def with_keys(server: KeyServer, test: Callable[[Authenticator, Clocks], Awaitable[None]], **more: Any) -> None:
    clocks = Clocks()
    doorman = authenticator(clocks=clocks, auth=settings(jwks_uri=f"{server.url}/jwks", **more))

    async def run() -> None:
        await test(doorman, clocks)

    asyncio.run(run())


def test_keys_are_fetched_once_and_again_when_their_time_is_over(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE))

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert server.asked == []
        for _ in range(5):
            assert await gets_in(doorman, BY_ONE)
        assert len(server.asked) == 1
        clocks.elapsed_s += 299
        assert await gets_in(doorman, BY_ONE)
        assert len(server.asked) == 1
        clocks.elapsed_s += 1
        assert await gets_in(doorman, BY_ONE)
        await settled(doorman)
        assert len(server.asked) == 2

    with_keys(server, test)


def test_many_tokens_at_once_have_the_keys_fetched_once(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE))

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        tokens = [sign(ONE, claims(sub=f"s{n}"), {"kid": "one"}) for n in range(50)]
        assert all(await asyncio.gather(*(gets_in(doorman, token) for token in tokens)))
        assert len(server.asked) == 1

    with_keys(server, test)


def test_a_new_key_is_found_and_made_up_ones_do_not_have_the_keys_fetched_all_the_time(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE))

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert await gets_in(doorman, BY_ONE)
        server.gives("/jwks", public(ONE, TWO))
        assert not await gets_in(doorman, BY_TWO)  # asked a moment ago
        clocks.elapsed_s += 30
        assert await gets_in(doorman, BY_TWO)
        asked = len(server.asked)
        for number in range(20):
            assert not await gets_in(doorman, sign(ONE, claims(), {"kid": f"made-up-{number}"}))
        assert len(server.asked) == asked

    with_keys(server, test)


def test_what_a_key_that_is_gone_has_signed_is_refused_though_it_was_good_before(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE, TWO))

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert await gets_in(doorman, BY_ONE)
        server.gives("/jwks", public(TWO))
        clocks.elapsed_s += 40
        assert not await gets_in(doorman, sign(ONE, claims(), {"kid": "unknown"}))
        assert not await gets_in(doorman, BY_ONE)
        assert await gets_in(doorman, BY_TWO)

    with_keys(server, test)


def test_a_key_of_the_same_name_that_is_another_counts_as_another(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE))
    other = json.loads(json.dumps(public(TWO)).replace('"two"', '"one"'))

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert await gets_in(doorman, BY_ONE)
        server.gives("/jwks", other)
        clocks.elapsed_s += 600
        assert not await gets_in(doorman, BY_ONE)
        assert await gets_in(doorman, sign(TWO, claims(), {"kid": "one"}))

    with_keys(server, test)


def test_while_keys_cannot_be_fetched_the_last_ones_serve_and_then_nobody_gets_in(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE))

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert await gets_in(doorman, BY_ONE)
        server.gives("/jwks", b"", status=500)
        clocks.elapsed_s += 300
        assert await gets_in(doorman, BY_ONE)
        await settled(doorman)
        asked = len(server.asked)
        for _ in range(10):
            assert await gets_in(doorman, BY_ONE)
        assert len(server.asked) == asked  # not for every call
        clocks.elapsed_s += 599
        assert await gets_in(doorman, BY_ONE)
        await settled(doorman)
        clocks.elapsed_s += 1
        assert not await gets_in(doorman, BY_ONE)
        server.gives("/jwks", public(ONE))
        clocks.elapsed_s += 30
        assert await gets_in(doorman, BY_ONE)

    with_keys(server, test, jwks_stale_seconds=600)


def test_while_an_issuer_does_not_answer_no_call_waits_for_it(server: KeyServer) -> None:
    server.gives("/jwks", public(ONE))
    release = threading.Event()

    def hang(request: BaseHTTPRequestHandler) -> None:
        release.wait(10)
        request.send_error(503)

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert await gets_in(doorman, BY_ONE)
        server.routes["/jwks"] = hang
        clocks.elapsed_s += 300
        for _ in range(20):
            assert await gets_in(doorman, BY_ONE)
        release.set()
        await settled(doorman)
        assert len(server.asked) == 2

    with_keys(server, test)


def test_an_issuer_that_was_never_reached_lets_nobody_in(server: KeyServer) -> None:
    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert not await gets_in(doorman, BY_ONE)
        clocks.elapsed_s += 60
        server.gives("/jwks", public(ONE))
        assert await gets_in(doorman, BY_ONE)

    with_keys(server, test)


def _endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(100):
            request.wfile.write(b" " * 100_000)
    except OSError:
        pass


BAD_ANSWERS: dict[str, Callable[[KeyServer], None]] = {
    "not found": lambda server: None,
    "a redirect": lambda server: server.gives("/jwks", b"", status=302, Location=f"{server.url}/good"),
    "a permanent redirect": lambda server: server.gives("/jwks", b"", status=308, Location=f"{server.url}/good"),
    "no content": lambda server: server.gives("/jwks", b"", status=204),
    "not JSON": lambda server: server.gives("/jwks", b"<html>"),
    "a list": lambda server: server.gives("/jwks", []),
    "keys twice": lambda server: server.gives("/jwks", b'{"keys":[],"keys":[]}'),
    "no keys": lambda server: server.gives("/jwks", {"keys": []}),
    "keys that are an object": lambda server: server.gives("/jwks", {"keys": {}}),
    "too many keys": lambda server: server.gives("/jwks", {"keys": [{}] * 101}),
    "too deep": lambda server: server.gives("/jwks", b"[" * 100 + b"]" * 100),
    "too large": lambda server: server.gives("/jwks", b" " * (fetch.MAX_BYTES + 1)),
    "endless": lambda server: server.routes.__setitem__("/jwks", _endless),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_is_no_key_set_is_not_taken(server: KeyServer, name: str) -> None:
    server.gives("/good", public(ONE))
    BAD_ANSWERS[name](server)

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert not await gets_in(doorman, BY_ONE)
        assert server.asked == ["/jwks"]

    with_keys(server, test)


# What a server can go on sending without an end, each piece long before any time-out of a socket.
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "a header": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "one interim answer after the other": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "the size of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "what follows the last chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_server_that_drips_does_not_hold_us(server: KeyServer, name: str) -> None:
    release = threading.Event()
    head, piece = DRIPS[name]

    def drip(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(head)
            # It would end by itself in the end, so that a test of code that waits for it ends too.
            for _ in range(500):
                if release.wait(0.02):
                    return
                request.wfile.write(piece)
        except OSError:
            pass

    server.routes["/slow"] = drip
    began = time.monotonic()
    try:
        with pytest.raises(FetchFailed, match="takes more than"):
            fetch_json(f"{server.url}/slow", timeout_s=0.2)
        assert time.monotonic() - began < 5
    finally:
        release.set()


def test_no_more_than_so_many_wait_for_an_issuer_that_is_slow(server: KeyServer) -> None:
    arrived, release = threading.Event(), threading.Event()
    server.gives("/jwks", public(ONE))
    answer = server.routes["/jwks"]

    def slow(request: BaseHTTPRequestHandler) -> None:
        arrived.set()
        release.wait(10)
        answer(request)

    async def test(doorman: Authenticator, clocks: Clocks) -> None:
        assert await gets_in(doorman, BY_ONE)
        clocks.pass_(31)
        server.routes["/jwks"] = slow
        made_up = [sign(ONE, claims(), {"kid": f"made-up-{n}"}) for n in range(MAX_WAITING + 50)]
        asked = [asyncio.create_task(gets_in(doorman, token)) for token in made_up]
        await asyncio.to_thread(arrived.wait, 10)
        done, waiting = await asyncio.wait(asked, timeout=0.1)
        assert len(waiting) == MAX_WAITING
        # Not refused as wrong: what they show may be good, once its key is there.
        assert all(isinstance(task.exception(), Overloaded) for task in done)
        # Whose key is known has nothing to wait for.
        assert await gets_in(doorman, sign(ONE, claims(sub="somebody"), {"kid": "one"}))
        release.set()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(end is False or isinstance(end, RateLimited) for end in ends)

    with_keys(server, test)


KEYS_LEFT_OUT: dict[str, dict[str, Any]] = {
    "private": {**signing_key("P-256", "x").as_dict(private=True)},
    "symmetric": {"kty": "oct", "kid": "x", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
    "for encryption": {**signing_key("P-256", "x").as_dict(private=False), "use": "enc"},
    "for signing only": {**signing_key("P-256", "x").as_dict(private=False), "key_ops": ["sign"]},
    "without kid": {k: v for k, v in signing_key("P-256", "x").as_dict(private=False).items() if k != "kid"},
    "a kid that is a number": {**signing_key("P-256", "x").as_dict(private=False), "kid": 7},
    "RSA too short": {"kty": "RSA", "kid": "x", "e": "AQAB", "n": b64(b"\xc1" * 128).decode()},
    "RSA too long": {"kty": "RSA", "kid": "x", "e": "AQAB", "n": b64(b"\xc1" * 4096).decode()},
    "not on its curve": {**signing_key("P-256", "x").as_dict(private=False), "y": "AAAA"},
    "an unknown curve": {**signing_key("P-256", "x").as_dict(private=False), "crv": "P-999"},
    "an unknown type": {"kty": "PQC", "kid": "x"},
    "no parts": {"kty": "RSA", "kid": "x"},
    "parts that are lists": {"kty": "RSA", "kid": "x", "n": [1], "e": {}},
    "an algorithm of another type": {**signing_key("P-256", "x").as_dict(private=False), "alg": "RS256"},
    "an algorithm that is a list": {**signing_key("P-256", "x").as_dict(private=False), "alg": ["ES256"]},
}


@pytest.mark.parametrize("name", KEYS_LEFT_OUT)
def test_a_key_that_should_not_verify_is_left_out(name: str) -> None:
    entries = [KEYS_LEFT_OUT[name], *public(ONE)["keys"], "text", None]
    assert set(read_keys({"keys": entries})) == {"one"}


def test_a_kid_that_is_there_twice_is_nobodys() -> None:
    twice = public(ONE)["keys"] * 3
    assert set(read_keys({"keys": [*twice, *public(TWO)["keys"]]})) == {"two"}


def test_a_key_verifies_only_by_the_algorithm_that_it_names() -> None:
    rsa = signing_key("RSA", "one")
    (key,) = read_keys({"keys": [{**rsa.as_dict(private=False), "alg": "PS256"}]}).values()
    assert key.algorithms == {"PS256"}


# -- discovery --------------------------------------------------------------------------------------------------------

WELL_KNOWN = "/.well-known/openid-configuration"


def test_the_keys_of_an_issuer_are_found_by_its_name(server: KeyServer) -> None:
    issuer = f"{server.url}/realms/acme"
    server.gives(f"/realms/acme{WELL_KNOWN}", {"issuer": issuer, "jwks_uri": f"{server.url}/certs"})
    server.gives("/certs", public(ONE))
    clocks = Clocks()
    doorman = authenticator(clocks=clocks, auth=settings(issuer=issuer))
    token = sign(ONE, claims(iss=issuer), {"kid": "one"})

    async def run() -> None:
        assert await gets_in(doorman, token)
        assert server.asked == [f"/realms/acme{WELL_KNOWN}", "/certs"]
        clocks.elapsed_s += 300
        assert await gets_in(doorman, token)
        await settled(doorman)
        assert server.asked[2:] == ["/certs"]
        # The keys have moved: the configuration is asked for again.
        del server.routes["/certs"]
        server.gives("/moved", public(ONE))
        server.gives(f"/realms/acme{WELL_KNOWN}", {"issuer": issuer, "jwks_uri": f"{server.url}/moved"})
        for _ in range(2):
            clocks.elapsed_s += 300
            assert await gets_in(doorman, token)
            await settled(doorman)
        assert server.asked[-1] == "/moved"

    asyncio.run(run())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"issuer": "https://other.test", "jwks_uri": "https://other.test/jwks"},
        {"issuer": "SELF/", "jwks_uri": "SELF/jwks"},
        {"issuer": "SELF"},
        {"issuer": "SELF", "jwks_uri": ["SELF/jwks"]},
        {"issuer": "SELF", "jwks_uri": "http://login.test/jwks"},
        {"issuer": "SELF", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "SELF", "jwks_uri": "x" * 3000},
        {"issuer": ["SELF"], "jwks_uri": "SELF/jwks"},
    ],
)
def test_a_configuration_of_another_issuer_or_without_keys_is_not_taken(
    server: KeyServer, document: dict[str, Any]
) -> None:
    server.gives(WELL_KNOWN, json.loads(json.dumps(document).replace("SELF", server.url)))
    server.gives("/jwks", public(ONE))
    with pytest.raises(FetchFailed):
        discover(server.url)


def test_an_issuer_with_https_cannot_send_us_to_this_machine(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cra.server.auth import oidc

    # Only the answer stands in: there is no certificate here that a system would trust.
    answer = {"issuer": "https://login.test", "jwks_uri": f"{server.url}/jwks"}
    monkeypatch.setattr(oidc, "fetch_json", lambda url: answer)
    with pytest.raises(FetchFailed):
        discover("https://login.test")


def test_a_certificate_that_nobody_has_signed_is_not_taken(tmp_path: Path) -> None:
    import ssl
    from http.server import HTTPServer

    from tests.server.identities import self_signed

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    certificate = self_signed(tmp_path)
    with HTTPServer(("127.0.0.1", 0), Handler) as https:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        https.socket = context.wrap_socket(https.socket, server_side=True)
        https.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=https.handle_request)
        thread.start()
        with pytest.raises(FetchFailed, match="SSLCertVerificationError"):
            fetch_json(f"https://127.0.0.1:{https.server_port}/jwks")
        thread.join()


def test_an_issuer_with_a_query_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        discover("https://login.test/?a=b")


def test_an_address_with_a_password_in_it_is_refused_and_not_repeated() -> None:
    for url in ("https://u:hunter2@login.test/", "https://hunter2@login.test/"):
        with pytest.raises(ConfigInvalid, match="a user or a password") as refused:
            check_url(url, what="issuer")
        assert "hunter2" not in str(refused.value)


def test_a_token_opens_the_service_and_what_it_may_not_is_refused(server: KeyServer) -> None:
    import time

    import httpx

    from cra.server.settings import ServiceSettings
    from tests.server.running import running

    server.gives("/jwks", public(ONE))
    now = int(time.time())
    payload = claims(exp=now + 600, iat=now, agent_id="bot", roles=["agent"])
    auth = settings(jwks_uri=f"{server.url}/jwks")
    with running(ServiceSettings(storage="memory", shutdown_seconds=5, auth=auth)) as service:
        with httpx.Client(base_url=service.url) as client:

            def ask(token: bytes, method: str, path: str, body: Any = None) -> httpx.Response:
                return client.request(method, path, json=body, headers={"Authorization": f"Bearer {token.decode()}"})

            good = sign(ONE, payload, {"kid": "one"})
            made = ask(good, "POST", "/v1/sessions", {"agent_id": "bot", "goal": "g"})
            assert made.status_code == 201
            assert ask(good, "POST", "/v1/sessions", {"agent_id": "other", "goal": "g"}).status_code == 403
            assert ask(good, "GET", "/v1/keys").json()["details"] == {"permission": "keys.read"}
            path = f"/v1/sessions/{made.json()['session_id']}"
            other = sign(ONE, {**payload, "agent_id": "other"}, {"kid": "one"})
            assert ask(other, "GET", path).json()["code"] == "session_not_found"
            assert ask(sign(TWO, payload, {"kid": "one"}), "GET", path).status_code == 401
            assert ask(sign(ONE, {**payload, "exp": now - 100}, {"kid": "one"}), "GET", path).status_code == 401
