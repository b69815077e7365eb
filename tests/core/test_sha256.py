"""SHA-256: every code path this machine has, against hashlib and the NIST vectors."""

import hashlib
import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra._core import canonical, sha256
from cra._core.chain import Chain
from specs.reference import chain as reference

# FIPS 180-4 examples and the short-message file of the NIST CAVP.
NIST = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
    b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu": (
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"
    ),
    bytes.fromhex("d3"): "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1",
    bytes.fromhex("11af"): "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98",
    bytes.fromhex("b4190e"): "dff2e73091f6c05e528896c4c831b9448653dc2ff043528f6769437bc7b975c2",
    bytes.fromhex("74ba2521"): "b16aa56be3880d18cd41e68384cf1ec8c17680c45a02b1575dc1518923ae8b0e",
    b"a" * 1_000_000: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
}


@pytest.fixture(params=["best", "portable", "x86-sha", "armv8"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each code path in turn; skips those of other machines."""
    try:
        sha256.force(request.param)
    except ValueError:
        pytest.skip("this machine does not have it")
    yield request.param
    sha256.force("best")


def test_the_nist_vectors_hold_on_every_path(path: str) -> None:
    for message, expected in NIST.items():
        assert sha256.hexdigest(message) == expected
        assert sha256.sha256(message).hex() == expected


def test_every_length_up_to_300_agrees_with_hashlib_on_every_path(path: str) -> None:
    data = random.Random(path).randbytes(300)
    for n in range(301):
        assert sha256.sha256(data[:n]) == hashlib.sha256(data[:n]).digest(), n


def test_a_mebibyte_agrees_with_hashlib_on_every_path(path: str) -> None:
    data = random.Random(path).randbytes(1 << 20)
    assert sha256.hexdigest(data) == hashlib.sha256(data).hexdigest()


def test_events_that_are_hashed_side_by_side_have_the_hashes_they_have_alone_on_every_path(path: str) -> None:
    chain = Chain("018f2b4e-7e1b-7c3a-8d2e-000000000001", "018f2b4e-7e1b-7c3a-8d2e-000000000002")
    batch = chain.begin(1_750_000_000_000_000, bytes(16))
    dice = random.Random(path)
    for size in [*range(140), *(dice.randrange(600) for _ in range(400))]:
        batch.add("error.occurred", {"text": "x" * size})
        if size % 7 == 0:
            assert len(batch.head) == 64  # asking for it in between changes nothing
    before = "0" * 64
    for line in batch.data.splitlines():
        event = json.loads(line)
        assert event["previous_event_hash"] == before
        before = event["event_hash"]
        assert before == hashlib.sha256(reference.preimage(event)).hexdigest()
    assert batch.head == before


@given(st.binary(max_size=2000))
def test_any_bytes_agree_with_hashlib(data: bytes) -> None:
    assert sha256.sha256(data) == hashlib.sha256(data).digest()


def test_forcing_a_path_holds_for_the_other_modules_too() -> None:
    expected = hashlib.sha256(b"{}").hexdigest()
    try:
        sha256.force("portable")
        assert sha256.implementation() == "portable"
        assert canonical.digest({}) == expected
    finally:
        sha256.force("best")
    assert canonical.digest({}) == expected


def test_an_unknown_or_missing_path_is_refused_and_changes_nothing() -> None:
    before = sha256.implementation()
    with pytest.raises(ValueError, match="code path `md5`: expected `best`"):
        sha256.force("md5")
    missing = [name for name in ("x86-sha", "armv8") if name != before]
    for name in missing:
        with pytest.raises(ValueError, match="this machine does not have it"):
            sha256.force(name)
    assert sha256.implementation() == before


@pytest.mark.parametrize("function", [sha256.sha256, sha256.hexdigest, sha256.force])
def test_the_doors_refuse_none(function: object) -> None:
    with pytest.raises(TypeError):
        function(None)  # type: ignore[operator]
