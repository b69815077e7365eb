"""Media types: what a body is in, and what an answer is wanted in."""

import re

from cra.errors import MediaTypeUnsupported, NotAcceptable

CARP = "application/vnd.cra.carp+json"
ATLAS_JSON = "application/vnd.cra.atlas+json"
ATLAS_ZIP = "application/vnd.cra.atlas+zip"
TRACE = "application/vnd.cra.trace+jsonl"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"\s*({_WORD}/{_WORD})\s*")
_PARAMETER = re.compile(rf';\s*({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|{_WORD})\s*')
_LONGEST = 1000


def check_content_type(value: bytes | None, takes: tuple[str, ...]) -> str:
    """Return which of `takes` a Content-Type names, or raise `MediaTypeUnsupported`.

    A charset other than UTF-8 is refused; other parameters mean nothing here.
    """
    expected = f"expected {' or '.join(takes)}"
    if value is None:
        raise MediaTypeUnsupported(f"the body has no Content-Type, {expected}", hint=f"send `Content-Type: {takes[0]}`")
    text = value.decode("latin-1")
    found = _TYPE.match(text)
    at = found.end() if found else 0
    charset = "utf-8"
    while found and at < len(text):
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            found = None
            break
        if parameter[1].lower() == "charset":
            charset = parameter[2].strip('"').lower()
        at = parameter.end()
    if found is None or found[1].lower() not in takes:
        raise MediaTypeUnsupported(f"Content-Type is `{text[:100]}`, {expected}")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise MediaTypeUnsupported(f"charset is `{charset[:40]}`, expected utf-8")
    return found[1].lower()


def check_encoding(value: bytes) -> None:
    """Raise `MediaTypeUnsupported` for a body that is compressed."""
    if value.strip().lower() not in (b"", b"identity"):
        raise MediaTypeUnsupported(
            f"Content-Encoding is `{value[:40].decode('latin-1')}`, expected none", hint="send the body as it is"
        )


def choose(accept: bytes | None, gives: tuple[str, ...]) -> str:
    """Return which of `gives` the caller likes best, the first among equals; raises `NotAcceptable`.

    No Accept, and one that cannot be read, mean that anything will do.
    """
    if accept is None:
        return gives[0]
    wanted = _ranges(accept.decode("latin-1")[:_LONGEST])
    if not wanted:
        return gives[0]
    best = max(gives, key=lambda media: _quality(media, wanted))
    if _quality(best, wanted) <= 0:
        raise NotAcceptable(f"this path gives {', '.join(gives)}, and Accept has none of them")
    return best


def _ranges(text: str) -> dict[str, float]:
    """Return the media ranges of an Accept header with their qualities; an unreadable one is left out."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = min(1.0, max(0.0, float(value)))  # of NaN this makes 0
                except ValueError:
                    quality = 0.0
        if "/" in name:
            found[name.lower()] = quality
    return found


def _quality(media: str, wanted: dict[str, float]) -> float:
    for name in (media, f"{media.partition('/')[0]}/*", "*/*"):
        if name in wanted:
            return wanted[name]
    return 0.0
