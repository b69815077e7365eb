"""Keys, tokens and issuers for tests: real keys, and a real server that gives them out."""

from __future__ import annotations

import hmac
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from cra import CRARuntime, RuntimeConfig
from cra.server.auth import issuing
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.settings import AuthSettings, auth_settings
from cra.server.auth.writing import write
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage

NOW_S = 1_790_000_000
ISSUER = "https://login.test/acme"


def memory() -> MemoryStorage:
    return MemoryStorage(max_sessions=100_000, max_events=10_000_000)


class Clocks:
    """A calendar and a stopwatch that a test moves."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)
        self.elapsed_s = 1000.0

    def now_us(self) -> int:
        return int(self.now_s * 1_000_000)

    def monotonic(self) -> float:
        return self.elapsed_s

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds
        self.elapsed_s += seconds


def runtime_of(store: Storage, tenant: str, clock: Callable[[], int] | None = None) -> CRARuntime:
    more: dict[str, Any] = {} if clock is None else {"clock": clock}
    return CRARuntime(RuntimeConfig(storage=store.of_tenant(tenant), **more))


def make_key(
    store: Storage,
    tenant: str = "default",
    *,
    clock: Callable[[], int] | None = None,
    maker: frozenset[str] = issuing.ANYTHING,
    **request: Any,
) -> tuple[str, str]:
    """Make a key as the command line does; return its id and its text."""
    runtime = runtime_of(store, tenant, clock)
    value = {"subject": "dana@example.com", "roles": ["admin"], **request}
    wanted = issuing.KeyRequest(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
    now_us = runtime.config.clock()

    def make() -> tuple[issuing.NewKey, issuing.Write]:
        _, made, change = issuing.create_key(store.of_tenant(tenant), wanted, maker=maker, actor="tests", now_us=now_us)
        return made, change

    made = write(runtime.administration, "tests", make)
    return made.key_id, made.text


def change(store: Storage, tenant: str, make: Callable[[], tuple[Any, issuing.Write | None]]) -> Any:
    return write(runtime_of(store, tenant).administration, "tests", make)


def make_tenant(store: Storage, name: str) -> None:
    system = store.of_tenant("system")
    change(store, "system", lambda: issuing.create_tenant(system, name, actor="tests", now_us=NOW_S * 1_000_000))


def set_role(store: Storage, tenant: str, name: str, *permissions: str) -> None:
    part = store.of_tenant(tenant)
    change(store, tenant, lambda: (None, issuing.set_role(part, name, permissions, maker=issuing.ANYTHING)))


def authenticator(
    store: Storage | None = None, clocks: Clocks | None = None, auth: dict[str, Any] | AuthSettings | None = None
) -> Authenticator:
    clocks = clocks or Clocks()
    made = auth if isinstance(auth, AuthSettings) else auth_settings(auth or {})
    return Authenticator(made, store or memory(), now_us=clocks.now_us, monotonic=clocks.monotonic)


def scope(
    *headers: tuple[str, str | bytes], client: tuple[str, int] | None = ("127.0.0.1", 40000), server: Any = None
) -> dict[str, Any]:
    raw = [(n.lower().encode(), v if isinstance(v, bytes) else v.encode()) for n, v in headers]
    return {"type": "http", "headers": raw, "client": client, "server": server or ("127.0.0.1", 8420)}


def bearer(text: str | bytes) -> dict[str, Any]:
    return scope(("Authorization", b"Bearer " + (text if isinstance(text, bytes) else text.encode())))


# -- tokens -----------------------------------------------------------------------------------------------------------

Key = RSAKey | ECKey | OKPKey | OctKey


@cache
def signing_key(kind: str, kid: str = "k1") -> Key:
    """Return a real key; made once for each name, since RSA takes a while."""
    parameters: Any = {"kid": kid}
    if kind == "RSA":
        return RSAKey.generate_key(2048, parameters)
    if kind == "Ed25519":
        return OKPKey.generate_key("Ed25519", parameters)
    return ECKey.generate_key(kind, parameters)


KIND_OF = {
    "RS256": "RSA", "RS512": "RSA", "PS256": "RSA", "ES256": "P-256", "ES384": "P-384", "ES512": "P-521",
    "EdDSA": "Ed25519", "Ed25519": "Ed25519",
}  # fmt: skip


def public(*keys: Key) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def claims(**more: Any) -> dict[str, Any]:
    value = {
        "iss": ISSUER, "aud": "cra", "sub": "dana", "exp": NOW_S + 600, "iat": NOW_S, "roles": ["developer"],
    }  # fmt: skip
    return {name: item for name, item in {**value, **more}.items() if item is not None}


def sign(
    key: Key | bytes | None,
    payload: dict[str, Any] | bytes,
    header: dict[str, Any] | bytes | None = None,
    alg: str = "ES256",
) -> bytes:
    """Return a token with exactly these bytes as header and claims, signed by `alg` whatever the header says."""
    head = (
        header
        if isinstance(header, bytes)
        else json.dumps(
            {k: v for k, v in {"alg": alg, "typ": "at+jwt", "kid": "k1", **(header or {})}.items() if v is not None}
        ).encode()
    )
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = b64(head) + b"." + b64(body)
    if isinstance(key, bytes):
        # joserfc makes no HMAC key of a public key's text; who attacks does.
        signature = hmac.digest(key, signed, "sha256")
    else:
        signature = b"" if key is None else JWSRegistry.algorithms[alg].sign(signed, key)
    return signed + b"." + b64(signature)


# -- a server of keys -------------------------------------------------------------------------------------------------


class KeyServer:
    """An HTTP server that answers what a test says, and counts; `routes` maps a path to a function."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                route = owner.routes.get(self.path)
                if route is None:
                    self.send_error(404)
                else:
                    route(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def gives(self, path: str, value: Any, status: int = 200, **headers: str) -> None:
        """Answer a path with JSON, or with bytes."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()

        def route(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, text in headers.items():
                request.send_header(name.replace("_", "-"), text)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)

        self.routes[path] = route


@contextmanager
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    server.thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        server.thread.join()
        server.server.server_close()


def self_signed(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1, which nobody has signed, and its key, in one file."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "self.pem"
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(encoding)
    )
    return path
