"""Calls: what goes over the wire, and how the answer is read; nothing here waits or sends."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

T = TypeVar("T")

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARCHIVE = "application/vnd.cra.atlas+zip"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call: what is sent, and what makes its answer of the bytes that come back.

    A `repeatable` one does no harm when it arrives twice, so it is sent again even when nobody knows what became of
    it; every other only when it surely was not taken. `long_s` is how long the service may take beyond what the
    network does. `action_id` is what an error of a call is about. `unfinished` says of an answer that the call is still
    being worked on.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    media: str = JSON
    accept: str = JSON
    repeatable: bool = False
    executes: bool = False
    long_s: float = 0.0
    action_id: str = ""
    unfinished: Callable[[T], bool] | None = None


# Several calls, one after the other: it yields each, is sent its answer, and returns what they come to.
Plan = Generator[Call[Any], Any, T]


def query(**parameters: object) -> tuple[tuple[str, str], ...]:
    """Return the parameters of a query; those that are None are left out."""
    return tuple((name, str(value)) for name, value in parameters.items() if value is not None)


def segment(text: str) -> str:
    """Return text as one segment of a path."""
    return quote(text, safe="")


def present(**fields: object) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
