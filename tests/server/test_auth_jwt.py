"""Tokens of issuers: who gets in by one, and a corpus of those that must not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import OctKey

from cra.errors import ConfigInvalid, Unauthenticated
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.settings import ASYMMETRIC, auth_settings
from cra.server.identity import Identity
from cra.server.roles import ROLES
from tests.server.identities import (
    ISSUER,
    KIND_OF,
    NOW_S,
    Clocks,
    authenticator,
    b64,
    bearer,
    claims,
    make_tenant,
    memory,
    public,
    scope,
    set_role,
    sign,
    signing_key,
)

SECRET = "s" * 40


@pytest.fixture(scope="module")
def jwks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file with one key of each kind; the kid is the kind."""
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    kinds = sorted(set(KIND_OF.values()))
    keys = [signing_key(kind, kind) for kind in kinds] + [signing_key("P-256")]
    path.write_text(json.dumps(public(*keys)))
    return str(path)


def issuer(jwks: str, **more: Any) -> dict[str, Any]:
    value = {"issuer": ISSUER, "audience": ["cra"], "tenants": ["default"], "jwks_file": jwks, **more}
    return {"issuers": [{name: item for name, item in value.items() if item is not None}]}


@pytest.fixture
def doorman(jwks: str) -> Authenticator:
    return authenticator(auth=issuer(jwks, algorithms=[*ASYMMETRIC]))


def ask(doorman: Authenticator, token: bytes) -> Identity:
    return asyncio.run(doorman(bearer(token)))


def refused(doorman: Authenticator, token: bytes) -> None:
    with pytest.raises(Unauthenticated):
        ask(doorman, token)


@pytest.mark.parametrize("algorithm", KIND_OF)
def test_a_token_of_every_algorithm_is_who_it_says(doorman: Authenticator, algorithm: str) -> None:
    kind = KIND_OF[algorithm]
    token = sign(signing_key(kind, kind), claims(), {"alg": algorithm, "kid": kind}, algorithm)
    found = ask(doorman, token)
    assert (found.tenant, found.subject, found.roles) == ("default", "dana", ("developer",))
    assert found.permissions == ROLES["developer"]
    assert found.credential == f"jwt:{ISSUER}"
    assert found.expires_us == (NOW_S + 630) * 1_000_000
    assert ask(doorman, token) == found


P256 = "P-256"
PAYLOAD = json.dumps(claims())
HOSTILE: dict[str, Callable[[], bytes]] = {
    "none": lambda: sign(None, claims(), {"alg": "none"}),
    "None with capitals": lambda: sign(None, claims(), {"alg": "nOnE"}),
    "none with a signature": lambda: sign(signing_key(P256), claims(), {"alg": "none"}),
    "no algorithm": lambda: sign(signing_key(P256), claims(), {"alg": None}),
    "an algorithm that is a list": lambda: sign(signing_key(P256), claims(), {"alg": ["ES256"]}),
    "a public key as HMAC secret": lambda: sign(
        signing_key("RSA", "RSA").as_pem(private=False), claims(), {"alg": "HS256", "kid": "RSA"}, "HS256"
    ),
    "a public key in JSON as HMAC secret": lambda: sign(
        json.dumps(signing_key("RSA", "RSA").as_dict(private=False)).encode(),
        claims(), {"alg": "HS256", "kid": "RSA"}, "HS256",
    ),
    "an RSA signature said to be EC": lambda: sign(
        signing_key("RSA", "RSA"), claims(), {"alg": "ES256", "kid": P256}, "RS256"
    ),
    "an RSA key for an EC algorithm": lambda: sign(signing_key(P256), claims(), {"alg": "ES256", "kid": "RSA"}),
    "another curve": lambda: sign(signing_key("P-384", "P-384"), claims(), {"alg": "ES256", "kid": "P-384"}, "ES384"),
    "another key of the issuer": lambda: sign(signing_key(P256, P256), claims(), {"kid": "k1"}),
    "a stranger's key": lambda: sign(signing_key(P256, "stranger"), claims()),
    "an unknown kid": lambda: sign(signing_key(P256), claims(), {"kid": "k2"}),
    "no kid": lambda: sign(signing_key(P256), claims(), {"kid": None}),
    "a kid that is a path": lambda: sign(signing_key(P256), claims(), {"kid": "../../../dev/null"}),
    "a kid that is a number": lambda: sign(signing_key(P256), claims(), {"kid": 1}),
    "a kid that is empty": lambda: sign(signing_key(P256), claims(), {"kid": ""}),
    "an enormous kid": lambda: sign(signing_key(P256), claims(), {"kid": "k" * 300}),
    "jku": lambda: sign(signing_key(P256), claims(), {"jku": "https://evil.test/jwks"}),
    "x5u": lambda: sign(signing_key(P256), claims(), {"x5u": "https://evil.test/cert"}),
    "x5c": lambda: sign(signing_key(P256), claims(), {"x5c": ["MII="]}),
    "jwk": lambda: sign(
        signing_key(P256, "own"), claims(), {"jwk": signing_key(P256, "own").as_dict(private=False), "kid": "own"}
    ),
    "crit": lambda: sign(signing_key(P256), claims(), {"crit": ["exp"]}),
    "crit that is empty": lambda: sign(signing_key(P256), claims(), {"crit": []}),
    "b64": lambda: sign(signing_key(P256), claims(), {"b64": False, "crit": ["b64"]}),
    "zip": lambda: sign(signing_key(P256), claims(), {"zip": "DEF"}),
    "cty": lambda: sign(signing_key(P256), claims(), {"cty": "JWT"}),
    "no typ": lambda: sign(signing_key(P256), claims(), {"typ": None}),
    "an ID token's typ": lambda: sign(signing_key(P256), claims(), {"typ": "JWT"}),
    "a logout token's typ": lambda: sign(signing_key(P256), claims(), {"typ": "logout+jwt"}),
    "a typ that is a list": lambda: sign(signing_key(P256), claims(), {"typ": ["at+jwt"]}),
    "a header with alg twice": lambda: sign(
        signing_key(P256), claims(), b'{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}'
    ),
    "a header with kid twice": lambda: sign(
        signing_key(P256), claims(), b'{"alg":"ES256","typ":"at+jwt","kid":"k9","kid":"k1"}'
    ),
    "a header that is a list": lambda: sign(signing_key(P256), claims(), b'["ES256"]'),
    "a header that is not JSON": lambda: sign(signing_key(P256), claims(), b'{"alg":"ES256"'),
    "a header with NaN": lambda: sign(
        signing_key(P256), claims(), b'{"alg":"ES256","typ":"at+jwt","kid":"k1","a":NaN}'
    ),
    "a header too long": lambda: sign(signing_key(P256), claims(), {"more": "x" * 2000}),
    "claims with sub twice": lambda: sign(
        signing_key(P256), PAYLOAD.replace('"sub": "dana"', '"sub": "root", "sub": "dana"').encode()
    ),
    "claims with iss twice": lambda: sign(
        signing_key(P256), PAYLOAD.replace('"sub"', '"iss": "https://evil.test", "sub"').encode()
    ),
    "claims too deep": lambda: sign(signing_key(P256), claims(deep=json.loads("[" * 30 + "]" * 30))),
    "claims that are a list": lambda: sign(signing_key(P256), b"[1]"),
    "claims that are no UTF-8": lambda: sign(signing_key(P256), b'{"iss":"\xff"}'),
    "claims with a lone surrogate": lambda: sign(
        signing_key(P256), PAYLOAD.replace("dana", "\\ud800").encode()
    ),
    "another issuer": lambda: sign(signing_key(P256), claims(iss="https://login.test/other")),
    "an issuer with a slash more": lambda: sign(signing_key(P256), claims(iss=ISSUER + "/")),
    "an issuer that is a list": lambda: sign(signing_key(P256), claims(iss=[ISSUER])),
    "no issuer": lambda: sign(signing_key(P256), claims(iss=None)),
    "another audience": lambda: sign(signing_key(P256), claims(aud="billing")),
    "an audience that begins alike": lambda: sign(signing_key(P256), claims(aud="cra2")),
    "an audience that is an object": lambda: sign(signing_key(P256), claims(aud={"cra": 1})),
    "an audience within a list in a list": lambda: sign(signing_key(P256), claims(aud=[["cra"]])),
    "no audience": lambda: sign(signing_key(P256), claims(aud=None)),
    "no exp": lambda: sign(signing_key(P256), claims(exp=None)),
    "expired": lambda: sign(signing_key(P256), claims(exp=NOW_S - 31)),
    "exp that is a text": lambda: sign(signing_key(P256), claims(exp=str(NOW_S + 600))),
    "exp that is true": lambda: sign(signing_key(P256), claims(exp=True)),
    "exp that is enormous": lambda: sign(signing_key(P256), claims(exp=10**300)),
    "exp that is infinite": lambda: sign(
        signing_key(P256), PAYLOAD.replace(str(NOW_S + 600), "1e999").encode()
    ),
    "exp that is negative": lambda: sign(signing_key(P256), claims(exp=-1)),
    "no iat": lambda: sign(signing_key(P256), claims(iat=None)),
    "iat to come": lambda: sign(signing_key(P256), claims(iat=NOW_S + 31)),
    "iat long ago": lambda: sign(signing_key(P256), claims(iat=NOW_S - 86_500)),
    "nbf to come": lambda: sign(signing_key(P256), claims(nbf=NOW_S + 31)),
    "nbf that is a text": lambda: sign(signing_key(P256), claims(nbf="now")),
    "no subject": lambda: sign(signing_key(P256), claims(sub=None)),
    "an empty subject": lambda: sign(signing_key(P256), claims(sub="")),
    "a subject that is a number": lambda: sign(signing_key(P256), claims(sub=7)),
    "a subject with a line break": lambda: sign(signing_key(P256), claims(sub="a\nb")),
    "a subject too long": lambda: sign(signing_key(P256), claims(sub="x" * 256)),
    "roles that are an object": lambda: sign(signing_key(P256), claims(roles={"admin": True})),
    "roles that are numbers": lambda: sign(signing_key(P256), claims(roles=[1])),
    "too many roles": lambda: sign(signing_key(P256), claims(roles=["viewer"] * 101)),
    "an agent that is a list": lambda: sign(signing_key(P256), claims(agent_id=["a"])),
    "an agent that is empty": lambda: sign(signing_key(P256), claims(agent_id="")),
    "too long": lambda: sign(signing_key(P256), claims(more="x" * 9000)),
    "no signature": lambda: sign(None, claims()),
    "two parts": lambda: sign(signing_key(P256), claims()).rsplit(b".", 1)[0],
    "four parts": lambda: sign(signing_key(P256), claims()) + b".e30",
    "five parts, as if encrypted": lambda: b".".join([b64(b'{"alg":"dir","enc":"A128GCM"}'), b"", b"aa", b"aa", b"aa"]),
    "padding": lambda: sign(signing_key(P256), claims()) + b"=",
    "the other alphabet": lambda: sign(signing_key(P256), claims()).replace(b"-", b"+").replace(b"_", b"/") + b"+",
    "white space": lambda: sign(signing_key(P256), claims()).replace(b".", b". ", 1),
    "a signature of zeros": lambda: sign(None, claims()) + b64(bytes(64)),
    "a signature cut short": lambda: sign(signing_key(P256), claims())[:-2],
    "JSON serialisation": lambda: json.dumps({"payload": "e30", "signatures": []}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_token_is_refused(jwks: str, name: str) -> None:
    doorman = authenticator(auth=issuer(jwks))
    refused(doorman, HOSTILE[name]())
    assert ask(doorman, sign(signing_key(P256), claims()))


@given(data=st.data())
@settings(max_examples=60)
def test_a_token_with_any_byte_changed_is_refused(jwks_path: str, data: st.DataObject) -> None:
    doorman = authenticator(auth=issuer(jwks_path))
    token = bytearray(sign(signing_key(P256), claims()))
    at = data.draw(st.integers(0, len(token) - 1))
    old = token[at]
    token[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != old))
    refused(doorman, bytes(token))


@pytest.fixture(scope="module")
def jwks_path(jwks: str) -> str:
    return jwks


@given(token=st.binary(max_size=300) | st.lists(st.binary(max_size=80).map(b64), max_size=6).map(b".".join))
@settings(max_examples=100)
def test_anything_else_is_refused_too(jwks_path: str, token: bytes) -> None:
    refused(authenticator(auth=issuer(jwks_path)), token)


def test_an_issuer_with_a_secret_takes_hmac_and_no_public_key_algorithm() -> None:
    config = issuer("", jwks_file=None, secret=SECRET, algorithms=["HS256"])
    doorman = authenticator(auth=config)
    key = OctKey.import_key(SECRET.encode())
    assert ask(doorman, sign(key, claims(), {"alg": "HS256", "kid": None}, "HS256")).subject == "dana"
    refused(doorman, sign(key, claims(), {"alg": "HS512", "kid": None}, "HS512"))
    refused(doorman, sign(signing_key(P256), claims(), {"kid": None}))
    refused(doorman, sign(OctKey.import_key(SECRET.encode() + b"x"), claims(), {"alg": "HS256"}, "HS256"))
    assert SECRET not in repr(auth_settings(config))


BAD_SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"algorithms": ["none"]},
    "HMAC without a secret": {"algorithms": ["HS256"]},
    "both kinds": {"jwks_file": None, "secret": SECRET, "algorithms": ["HS256", "RS256"]},
    "a public key as the secret": {
        "jwks_file": None, "secret": signing_key("RSA", "RSA").as_pem(private=False).decode(), "algorithms": ["HS256"]
    },
    "asymmetric with a secret": {"jwks_file": None, "secret": SECRET},
    "a short secret": {"jwks_file": None, "secret": "short", "algorithms": ["HS256"]},
    "a secret too short for HS512": {"jwks_file": None, "secret": SECRET, "algorithms": ["HS512"]},
    "two sources": {"secret": SECRET, "algorithms": ["HS256"]},
    "no audience": {"audience": []},
    "no tenant": {"tenants": []},
    "a tenant that cannot be": {"tenants": ["Acme"]},
    "two tenants and no claim": {"tenants": ["default", "acme"]},
    "no algorithm": {"algorithms": []},
    "no type": {"types": []},
    "too much leeway": {"leeway_seconds": 301},
    "an unknown setting": {"verify": False},
    "a secret that the environment has not": {"jwks_file": None, "secret": "env:CRA_NO_SUCH", "algorithms": ["HS256"]},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_that_would_let_in_too_much_are_refused(jwks: str, name: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        authenticator(auth=issuer(jwks, **BAD_SETTINGS[name]))
    assert SECRET not in str(caught.value)


def test_the_same_issuer_cannot_be_configured_twice(jwks: str) -> None:
    with pytest.raises(ConfigInvalid):
        auth_settings({"issuers": issuer(jwks)["issuers"] * 2})


@pytest.mark.parametrize(
    "url",
    [
        "http://login.test/jwks",
        "http://127.0.0.1.evil.test/",
        "ftp://127.0.0.1/",
        "https://",
        "https://a b/",
        "file:///x",
        "https://u:p@h/",
        "https://h:port/",
        "https://h/#x",
    ],
)
def test_keys_are_only_fetched_over_https(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        authenticator(auth=issuer("", jwks_file=None, jwks_uri=url))


def test_an_issuer_speaks_only_for_its_tenants(jwks: str) -> None:
    store = memory()
    for name in ("acme", "beta", "gamma"):
        make_tenant(store, name)
    config = issuer(jwks, tenants=["acme", "beta", "missing"], tenant_claim="tenant")
    doorman = authenticator(store, auth=config)
    assert ask(doorman, sign(signing_key(P256), claims(tenant="beta"))).tenant == "beta"
    for tenant in ("gamma", "default", "system", "missing", "", "ACME", ["acme"], None):
        refused(doorman, sign(signing_key(P256), claims(tenant=tenant)))


def test_two_issuers_with_the_same_kid_do_not_speak_for_each_other(jwks: str, tmp_path: Path) -> None:
    store = memory()
    make_tenant(store, "acme")
    path = tmp_path / "other.json"
    path.write_text(json.dumps(public(signing_key("P-256", "other"))).replace('"other"', '"k1"'))
    other = {"issuer": "https://other.test", "audience": ["cra"], "tenants": ["acme"], "jwks_file": str(path)}
    doorman = authenticator(store, auth={"issuers": [*issuer(jwks)["issuers"], other]})
    theirs = signing_key("P-256", "other")
    assert ask(doorman, sign(theirs, claims(iss="https://other.test"))).tenant == "acme"
    refused(doorman, sign(theirs, claims()))
    refused(doorman, sign(signing_key(P256), claims(iss="https://other.test")))


def test_claims_are_mapped_as_the_issuer_is_configured(jwks: str) -> None:
    store = memory()
    set_role(store, "default", "approver", "approvals.read", "approvals.decide")
    config = issuer(
        jwks,
        roles_claim="/realm_access/roles",
        roles_map={"boss": ["approver"], "all": ["viewer"]},
        subject_claim="email",
        agent_claim="azp",
        scope_claim="scope",
        types=["JWT"],
    )
    doorman = authenticator(store, auth=config)
    more = {"email": "d@x.test", "realm_access": {"roles": ["boss", "admin"]}, "scope": "approvals.decide keys.manage"}
    found = ask(doorman, sign(signing_key(P256), claims(**more), {"typ": "application/JWT"}))
    assert (found.subject, found.roles) == ("d@x.test", ("approver",))
    assert found.permissions == {"approvals.decide"}
    agent = ask(doorman, sign(signing_key(P256), claims(**more, azp="bot"), {"typ": "jwt"}))
    assert agent.agent_id == "bot" and agent.permissions == frozenset()
    refused(doorman, sign(signing_key(P256), claims(**{**more, "scope": None}), {"typ": "jwt"}))


def test_a_remembered_token_ends_with_its_time_and_with_its_tenants_roles(jwks: str) -> None:
    store, clocks = memory(), Clocks()
    set_role(store, "default", "approver", "approvals.decide")
    doorman = authenticator(store, clocks, issuer(jwks))
    token = sign(signing_key(P256), claims(roles=["approver"]))
    assert ask(doorman, token).permissions == {"approvals.decide"}
    set_role(store, "default", "approver", "approvals.read")
    clocks.pass_(2)
    assert ask(doorman, token).permissions == {"approvals.read"}
    clocks.now_s += 627
    assert ask(doorman, token)
    clocks.now_s += 1
    refused(doorman, token)


def test_what_is_remembered_of_tokens_is_bounded(jwks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cra.server.auth import jwt

    monkeypatch.setattr(jwt, "_MAX_VERIFIED", 5)
    doorman = authenticator(auth=issuer(jwks))
    for number in range(20):
        ask(doorman, sign(signing_key(P256), claims(sub=f"s{number}")))
        refused(doorman, sign(signing_key(P256, "stranger"), claims(sub=f"s{number}")))
    assert doorman._tokens is not None
    assert len(doorman._tokens._verified) == 5


def test_a_token_is_refused_where_no_issuer_is_configured() -> None:
    refused(authenticator(), sign(signing_key(P256), claims()))


def test_a_token_in_the_header_for_keys_is_refused(doorman: Authenticator) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(doorman(scope(("x-api-key", sign(signing_key(P256), claims())))))
