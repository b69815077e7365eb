"""What commands are given: JSON, `key=value` pairs, and files."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cra.cli._exit import FileNotFound, FileTrouble, UsageError
from cra.errors import InvalidInput, InvalidJSON
from cra.protocol.jsontext import decode

MAX_FILE_BYTES = 1 << 30


def read_file(path: str, *, what: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return a file's bytes; `-` is standard input."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise FileNotFound(
            f"there is no file at `{path}` for {what}", hint="check the path; - is standard input"
        ) from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise FileTrouble(f"{what} `{path}` cannot be read: {words.lower()}") from None
    if len(data) > max_bytes:
        raise FileTrouble(f"{what} `{path}` has more than {max_bytes} bytes")
    return data


def write_file(path: str, data: bytes) -> None:
    """Write a file, replacing one that is there."""
    try:
        Path(path).write_bytes(data)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise FileTrouble(f"file `{path}` cannot be written: {words.lower()}") from None


def read_json(text: str, *, what: str) -> Any:
    """Return the value of JSON text; `@path` reads a file and `-` standard input."""
    data: bytes | str = text
    if text == "-" or text.startswith("@"):
        data = read_file(text.removeprefix("@"), what=what)
    try:
        return decode(data)
    except InvalidJSON as error:
        raise InvalidJSON(
            f"{what}: {error.message}",
            pointer=error.pointer,
            hint="strict JSON, such as '{\"id\": 7}'; @file reads a file, - standard input",
        ) from None


def read_object(text: str | None, *, what: str) -> dict[str, Any]:
    """Return a JSON object, empty when nothing was given."""
    if text is None:
        return {}
    value = read_json(text, what=what)
    if not isinstance(value, dict):
        raise InvalidInput(f"{what}: JSON of another kind found, expected an object", hint="such as '{\"id\": 7}'")
    return value


def read_parameters(text: str | None, words: Iterable[str]) -> dict[str, Any]:
    """Return call parameters: a JSON object, then `key=text` and `key:=json` laid over it."""
    result = read_object(text, what="parameters")
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip(":"):
            raise UsageError(
                f"parameter is `{word}`, expected key=text or key:=json",
                hint="such as ticket_id=T-1042 or amount:=49.90",
            )
        if key.endswith(":"):
            result[key[:-1]] = read_json(value, what=f"parameter `{key[:-1]}`")
        else:
            result[key] = value
    return result
