"""Guessing credentials is bounded by the address that guesses, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import httpx
import pytest

from cra.errors import ConfigInvalid, CRAError
from cra.server import live
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.failures import Failures
from cra.server.auth.settings import ThrottleSettings, auth_settings
from cra.server.settings import ServiceSettings
from tests.server.identities import Clocks, authenticator, make_key, memory, scope
from tests.server.running import Running, running

GUESS = "cra_default_" + "a" * 16 + "_" + "A" * 43


def throttle(**more: Any) -> dict[str, Any]:
    return {"throttle": {"failures_per_second": 1, "failure_burst": 3, **more}}


def ask(doorman: Authenticator, text: str | None, address: str = "192.0.2.1", *more: tuple[str, str]) -> str:
    given = [] if text is None else [("Authorization", f"Bearer {text}")]

    async def once() -> str:
        try:
            return (await doorman(scope(*given, *more, client=(address, 40_000)))).subject
        except CRAError as error:
            return error.code

    return asyncio.run(once())


def test_an_address_that_guesses_is_not_listened_to_for_a_while_and_others_are() -> None:
    store, clocks = memory(), Clocks()
    _, good = make_key(store, subject="dana")
    doorman = authenticator(store, clocks, throttle())
    assert [ask(doorman, GUESS) for _ in range(3)] == ["unauthenticated"] * 3
    # Now not even the right key opens, or trying would tell.
    assert [ask(doorman, text) for text in (GUESS, good, None)] == ["rate_limited"] * 3
    assert ask(doorman, good, "192.0.2.2") == "dana"
    clocks.pass_(1)
    assert ask(doorman, good) == "dana"
    assert doorman._failures.shut == {}


@pytest.mark.parametrize("text", [GUESS, "cra_nobody_" + GUESS[12:], "nonsense", "e30.e30.AAAA", ""])
def test_every_kind_of_refused_credential_counts(text: str) -> None:
    doorman = authenticator(auth=throttle())
    assert [ask(doorman, text) for _ in range(4)] == ["unauthenticated"] * 3 + ["rate_limited"]


def test_what_is_refused_without_waiting_counts_too() -> None:
    store = memory()
    _, good = make_key(store, subject="dana")
    doorman = authenticator(store, auth=throttle())
    assert ask(doorman, good) == "dana"

    def known(text: str) -> str:
        try:
            given = scope(("X-API-Key", text), client=("192.0.2.1", 1))
            identity = doorman.known(given, dict(given["headers"]))
        except CRAError as error:
            return error.code
        return "" if identity is None else identity.subject

    assert [known(text) for text in (good, GUESS, GUESS, "", good)] == [
        "dana", "unauthenticated", "unauthenticated", "unauthenticated", "rate_limited",
    ]  # fmt: skip
    assert ask(doorman, good) == "rate_limited"


def test_no_credential_is_no_guess() -> None:
    doorman = authenticator(auth=throttle())
    assert {ask(doorman, None) for _ in range(20)} == {"unauthenticated"}


def test_good_calls_are_not_counted() -> None:
    store = memory()
    _, good = make_key(store, subject="dana")
    doorman = authenticator(store, auth=throttle())
    assert {ask(doorman, good) for _ in range(20)} == {"dana"}
    remembered: Any = doorman._failures._limiter
    assert not remembered._store._backend._client


def test_without_a_limit_nobody_is_shut_out() -> None:
    doorman = authenticator(auth=throttle(failures_per_second=0))
    assert {ask(doorman, GUESS) for _ in range(50)} == {"unauthenticated"}


def test_a_network_of_ipv6_is_one_address_and_a_mapped_address_is_its_own() -> None:
    doorman = authenticator(auth=throttle())
    codes = [ask(doorman, GUESS, f"2001:db8::{number:x}") for number in range(1, 5)]
    assert codes == ["unauthenticated"] * 3 + ["rate_limited"]
    assert ask(doorman, GUESS, "2001:db8:0:1::1") == "unauthenticated"
    codes = [ask(doorman, GUESS, address) for address in ("192.0.2.1", "::ffff:192.0.2.1") * 2]
    assert codes == ["unauthenticated"] * 3 + ["rate_limited"]


def test_a_proxy_is_many_callers_and_is_believed_whom_it_speaks_for() -> None:
    doorman = authenticator(auth=throttle(proxies=["192.0.2.0/24"]))
    assert {ask(doorman, GUESS) for _ in range(20)} == {"unauthenticated"}

    doorman = authenticator(auth=throttle(proxies=["192.0.2.0/24"], address_header="X-Forwarded-For"))
    told = [("X-Forwarded-For", f"203.0.113.{number}, 198.51.100.1") for number in range(4)]
    # Only what the proxy itself has added counts, so nobody makes up another address for each guess.
    assert [ask(doorman, GUESS, "192.0.2.1", one) for one in told] == ["unauthenticated"] * 3 + ["rate_limited"]
    assert ask(doorman, GUESS, "192.0.2.1", ("X-Forwarded-For", "198.51.100.2")) == "unauthenticated"
    assert {ask(doorman, GUESS, "192.0.2.1", ("X-Forwarded-For", "unknown")) for _ in range(9)} == {"unauthenticated"}
    # From anybody else the header means nothing.
    codes = [ask(doorman, GUESS, "198.51.100.9", ("X-Forwarded-For", f"203.0.113.{n}")) for n in range(4)]
    assert codes == ["unauthenticated"] * 3 + ["rate_limited"]


def test_the_peers_of_the_auth_proxy_are_proxies_and_its_secret_is_not_guessed_from_elsewhere() -> None:
    settings = {**throttle(), "proxy": {"secret": "p" * 40, "peers": ["192.0.2.1"]}}
    doorman = authenticator(auth=settings)
    wrong = ("X-Proxy-Secret", "q" * 40)
    assert {ask(doorman, None, "192.0.2.1", wrong) for _ in range(20)} == {"unauthenticated"}
    assert [ask(doorman, None, "192.0.2.2", wrong) for _ in range(4)][3] == "rate_limited"


def test_what_is_remembered_is_bounded() -> None:
    failures = Failures(
        ThrottleSettings(failures_per_second=1, failure_burst=1, max_tracked=10), (), Clocks().monotonic
    )
    for number in range(1000):
        failures.count(scope(client=(f"10.0.{number // 250}.{number % 250}", 1)))
    assert len(failures.shut) == 10
    remembered: Any = failures._limiter
    assert len(remembered._store._backend._client) == 10


def test_proxies_are_addresses() -> None:
    with pytest.raises(ConfigInvalid, match="throttle: proxies is"):
        auth_settings(throttle(proxies=["nginx"]))


def fetch(service: Running, source: str, key: str) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10, source_address=(source, 0))
    try:
        connection.request("GET", "/v1/sessions", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.load(answer)
    finally:
        connection.close()


def test_a_live_trace_goes_on_whatever_others_at_its_address_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_CHECK_SECONDS", 0.0)
    store = memory()
    _, good = make_key(store)
    limits = throttle(failure_burst=1, key_per_second=1, key_burst=3)
    with running(ServiceSettings(storage="memory", shutdown_seconds=5, auth=limits), storage=store) as service:
        headers = {"Authorization": f"Bearer {good}"}
        with httpx.Client(base_url=service.url, headers=headers, timeout=10) as client:
            path = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).headers["location"]
            with client.stream("GET", f"{path}/trace/live") as answer:
                lines = answer.iter_lines()
                assert next(line for line in lines if line.startswith("data:"))
                assert fetch(service, "127.0.0.1", GUESS)[0] == 401
                assert fetch(service, "127.0.0.1", good)[0] == 429
                tenant = service.app.service.tenancy.get("default")
                assert service.loop is not None
                session_id = path.rpartition("/")[2]
                asyncio.run_coroutine_threadsafe(tenant.runtime.end_session(session_id), service.loop).result(10)
                assert "session.ended" in next(line for line in lines if line.startswith("data:"))


def test_a_service_answers_429_to_who_guesses_and_goes_on_for_others() -> None:
    store = memory()
    _, good = make_key(store)
    settings = ServiceSettings(storage="memory", shutdown_seconds=5, auth=throttle(failure_burst=5))
    with running(settings, storage=store) as service:
        answers = [fetch(service, "127.0.0.1", GUESS) for _ in range(8)]
        assert [status for status, _, _ in answers[:5]] == [401] * 5
        status, headers, problem = answers[5]
        assert (status, headers["content-type"], headers["retry-after"]) == (429, "application/problem+json", "1")
        assert problem["code"] == "rate_limited"
        assert problem["hint"].startswith("wait as long as Retry-After says")
        assert fetch(service, "127.0.0.2", good)[0] == 200
