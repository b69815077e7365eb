"""API keys: their text, and what is kept of one."""

import hashlib
import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hmac import compare_digest
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from cra._core.sha256 import sha256
from cra.protocol.fields import Digest, Record, Timestamp
from cra.protocol.times import parse_timestamp
from cra.storage.base import Document

KIND = "key"
MAX_TEXT = 160

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 16
_SECRET_BYTES = 32
_TEXT = re.compile(rb"cra_([a-z][a-z0-9-]{0,62})_([a-z0-9]{16})_([A-Za-z0-9_-]{43})\Z")
# Compared with where no key is, so that it takes as long.
_NO_DIGEST = hashlib.sha256(os.urandom(_SECRET_BYTES)).digest()

KeyId = Annotated[str, Meta(pattern="^[a-z0-9]{16}$(?!\\n)")]
Subject = Annotated[str, Meta(min_length=1, max_length=255, pattern="^[^\\x00-\\x1f\\x7f]+$(?!\\n)")]
RoleName = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,62}$(?!\\n)")]
Permission = Annotated[str, Meta(min_length=1, max_length=64)]


class KeyDocument(Record, frozen=True, omit_defaults=True):
    """What is kept of a key; the secret is not, only its digest.

    After a rotation with an overlap the secret before it is good until `previous_until`.
    """

    key_id: KeyId
    subject: Subject
    roles: tuple[RoleName, ...]
    digest: Digest
    created_at: Timestamp
    created_by: str | None = None
    agent_id: Subject | None = None
    scopes: tuple[Permission, ...] | None = None
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None
    rotated_at: Timestamp | None = None
    previous_digest: Digest | None = None
    previous_until: Timestamp | None = None

    def body(self) -> bytes:
        """Return the document as it is stored."""
        return msgspec.json.encode(self)

    def is_good(self, now_us: int) -> bool:
        """Say whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or parse_timestamp(self.expires_at) > now_us)


_decoder = msgspec.json.Decoder(KeyDocument)


def key_of(document: Document) -> KeyDocument:
    """Return what a stored document says of a key; raises `msgspec.ValidationError`."""
    return _decoder.decode(document.body)


class Presented(Struct, frozen=True, gc=False):
    """A key as somebody presents it: nothing of it has been checked but its form."""

    tenant: str
    key_id: str
    secret_digest: bytes


def read_key(text: bytes) -> Presented | None:
    """Return what a key's text says, None when it is no key."""
    match = _TEXT.match(text)
    if match is None:
        return None
    tenant, key_id, secret = match.groups()
    # The text itself is not kept: from here on there is only the secret's digest.
    return Presented(tenant.decode("ascii"), key_id.decode("ascii"), sha256(secret))


class NewKey(NamedTuple):
    """A key that was just made: the only time that its text is known."""

    key_id: str
    text: str
    digest: str

    def __repr__(self) -> str:
        return f"NewKey({self.key_id})"


def new_key(tenant: str, *, key_id: str | None = None, entropy: Callable[[int], bytes] = os.urandom) -> NewKey:
    """Make a key, or another secret for the key `key_id`."""
    name = key_id or "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = urlsafe_b64encode(entropy(_SECRET_BYTES)).rstrip(b"=")
    return NewKey(name, f"cra_{tenant}_{name}_{secret.decode()}", hashlib.sha256(secret).hexdigest())


class Lock:
    """What opens to a key: its digests and until when they are good, ready to compare."""

    __slots__ = ("_digest", "_expires_us", "_previous", "_previous_us", "document", "revision")

    def __init__(self, document: KeyDocument, revision: int) -> None:
        self.document = document
        self.revision = revision
        self._digest = bytes.fromhex(document.digest)
        self._expires_us = parse_timestamp(document.expires_at) if document.expires_at else None
        self._previous = bytes.fromhex(document.previous_digest) if document.previous_digest else _NO_DIGEST
        self._previous_us = parse_timestamp(document.previous_until) if document.previous_until else 0

    @property
    def expires_us(self) -> int | None:
        """When the key stops being good."""
        return self._expires_us

    def opens(self, secret_digest: bytes, now_us: int) -> bool:
        """Say whether the secret is the key's, now."""
        # INVARIANT: both are compared, whatever the first says, and neither stops at the first difference.
        current = compare_digest(secret_digest, self._digest)
        previous = compare_digest(secret_digest, self._previous) and now_us < self._previous_us
        return (current or previous) and (self._expires_us is None or now_us < self._expires_us)


def opens_nothing(secret_digest: bytes) -> None:
    """Take as long as a comparison with a key takes."""
    compare_digest(secret_digest, _NO_DIGEST)
    compare_digest(secret_digest, _NO_DIGEST)
