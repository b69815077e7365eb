"""What a proxy says counts from the proxy, and from nobody else; over real sockets, TCP and Unix."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cra.errors import ConfigInvalid, Unauthenticated
from cra.server.app import create_app
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.settings import auth_settings
from cra.server.identity import Identity
from cra.server.settings import ServiceSettings
from tests.server.identities import authenticator, make_key, make_tenant, memory, scope
from tests.server.running import Running, running

SECRET = "p" * 40
TRUSTED = ("X-Proxy-Secret", SECRET)


def proxy(**more: Any) -> dict[str, Any]:
    value = {"secret": SECRET, "peers": ["127.0.0.1"], "roles": ["developer"], **more}
    return {"proxy": {name: item for name, item in value.items() if item is not None}}


def ask(doorman: Authenticator, given: dict[str, Any]) -> Identity:
    return asyncio.run(doorman(given))


def test_the_proxy_names_who_calls() -> None:
    found = ask(authenticator(auth=proxy()), scope(TRUSTED, ("X-Client-Subject", "CN=dana,O=Acme")))
    assert (found.tenant, found.subject, found.roles) == ("default", "CN=dana,O=Acme", ("developer",))
    assert found.credential == "proxy"


def test_the_proxy_names_tenant_roles_and_agent_where_it_may() -> None:
    store = memory()
    make_tenant(store, "acme")
    make_tenant(store, "beta")
    settings = proxy(
        tenants=["acme", "missing"], tenant_header="X-Tenant", roles_header="X-Roles", agent_header="X-Agent"
    )
    doorman = authenticator(store, auth=settings)
    who = ("X-Client-Subject", "dana")
    found = ask(doorman, scope(TRUSTED, who, ("X-Tenant", "acme"), ("X-Roles", "viewer, agent"), ("X-Agent", "bot")))
    assert (found.tenant, found.roles, found.agent_id) == ("acme", ("viewer", "agent"), "bot")
    assert ask(doorman, scope(TRUSTED, who, ("X-Tenant", "acme"))).permissions == frozenset()
    for tenant in ("beta", "default", "system", "missing", ""):
        with pytest.raises(Unauthenticated):
            ask(doorman, scope(TRUSTED, who, ("X-Tenant", tenant)))
    with pytest.raises(Unauthenticated):
        ask(doorman, scope(TRUSTED, who))


WHO = ("X-Client-Subject", "dana")
REFUSED = {
    "from elsewhere": scope(TRUSTED, WHO, client=("10.0.0.9", 1)),
    "from an address that begins alike": scope(TRUSTED, WHO, client=("127.0.0.11", 1)),
    "from what is no address": scope(TRUSTED, WHO, client=("localhost", 1)),
    "from a Unix socket that is not configured": scope(TRUSTED, WHO, client=None, server=("/run/x", None)),
    "without the secret": scope(WHO),
    "with another secret": scope(("X-Proxy-Secret", "q" * 40), WHO),
    "with more than the secret": scope(("X-Proxy-Secret", SECRET + "p"), WHO),
    "with the secret twice": scope(TRUSTED, TRUSTED, WHO),
    "without a subject": scope(TRUSTED),
    "with two subjects": scope(TRUSTED, WHO, ("x-client-subject", "root")),
    "with an empty subject": scope(TRUSTED, ("X-Client-Subject", "")),
    "with a subject that is no text": scope(TRUSTED, ("X-Client-Subject", b"\xff\xfe")),
    "with controls in it": scope(TRUSTED, ("X-Client-Subject", "a\tb")),
    "with a subject too long": scope(TRUSTED, ("X-Client-Subject", "x" * 256)),
    "beside a key": scope(TRUSTED, WHO, ("X-API-Key", "cra_x")),
    "beside a token": scope(TRUSTED, WHO, ("Authorization", "Bearer x.y.z")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_come_from_the_proxy_is_refused(name: str) -> None:
    with pytest.raises(Unauthenticated):
        ask(authenticator(auth=proxy()), REFUSED[name])


def test_a_good_key_does_not_help_who_pretends_to_be_the_proxy() -> None:
    store = memory()
    _, text = make_key(store)
    doorman = authenticator(store, auth=proxy())
    key = ("Authorization", f"Bearer {text}")
    assert ask(doorman, scope(key, client=("10.0.0.9", 1)))
    with pytest.raises(Unauthenticated):
        ask(doorman, scope(key, WHO, client=("10.0.0.9", 1)))


def test_where_no_proxy_is_configured_its_headers_mean_nothing() -> None:
    store = memory()
    _, text = make_key(store)
    assert ask(authenticator(store), scope(("Authorization", f"Bearer {text}"), WHO)).subject == "dana@example.com"


def test_an_ipv4_peer_of_an_ipv6_socket_is_the_same_peer() -> None:
    doorman = authenticator(auth=proxy(peers=["10.1.0.0/16", "fd00::/8"]))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::7"):
        assert ask(doorman, scope(TRUSTED, WHO, client=(address, 1)))
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "fe80::1"):
        with pytest.raises(Unauthenticated):
            ask(doorman, scope(TRUSTED, WHO, client=(address, 1)))


@pytest.mark.parametrize(
    "more",
    [
        {"peers": None},
        {"peers": ["everywhere"]},
        {"secret": "short"},
        {"secret": ""},
        {"secret": None},
        {"tenants": ["a", "b"]},
        {"tenants": []},
        {"subject_header": "Authorization"},
        {"subject_header": "X-Proxy-Secret"},
        {"subject_header": "X Subject"},
        {"trust": True},
    ],
)
def test_settings_that_would_trust_too_much_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        auth_settings(proxy(**more))
    assert SECRET not in str(caught.value)


def test_over_tcp_the_proxy_on_this_machine_is_believed_with_its_secret() -> None:
    settings = ServiceSettings(storage="memory", shutdown_seconds=5, auth=proxy())
    with running(settings) as service:
        assert _get(http.client.HTTPConnection("127.0.0.1", service.port), WHO, TRUSTED)[0] == 200
        status, problem = _get(http.client.HTTPConnection("127.0.0.1", service.port), WHO)
        assert (status, problem["code"]) == (401, "unauthenticated")
        # Who says it was forwarded is not believed to be somebody else.
        forwarded = ("X-Forwarded-For", "10.0.0.9")
        assert _get(http.client.HTTPConnection("127.0.0.1", service.port), WHO, TRUSTED, forwarded)[0] == 200


class Unix(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@contextmanager
def on_unix_socket(path: Path, auth: dict[str, Any]) -> Iterator[None]:
    settings = ServiceSettings(storage="memory", shutdown_seconds=5, auth=auth)
    service = Running(create_app(settings), settings)
    service.socket.close()
    service.socket = socket.socket(socket.AF_UNIX)
    service.socket.bind(str(path))
    service.socket.listen()
    service.start()
    try:
        yield
    finally:
        service.stop()


@pytest.mark.parametrize("trusted", [True, False])
def test_through_a_unix_socket_the_proxy_is_believed_where_it_is_configured(tmp_path: Path, trusted: bool) -> None:
    path = tmp_path / "s"
    auth = proxy(peers=None, unix_socket=True) if trusted else proxy()
    with on_unix_socket(path, auth):
        assert _get(Unix(str(path)), WHO, TRUSTED)[0] == (200 if trusted else 401)
        assert _get(Unix(str(path)), WHO)[0] == 401


def _get(connection: http.client.HTTPConnection, *headers: tuple[str, str]) -> tuple[int, Any]:
    connection.putrequest("GET", "/v1/sessions")
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    value = json.loads(response.read())
    connection.close()
    return response.status, value
