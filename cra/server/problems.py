"""Errors as RFC 9457 problem documents."""

from typing import Any

from cra._core.canonical import dumps
from cra.errors import CRAError, InvalidInput, InvalidParameters, MethodNotAllowed, NotCanonical
from cra.server.call import Response

PROBLEM = "application/problem+json"

# What a caller should wait who is told to come back and not when.
RETRY_SECONDS = 1


def problem_of(error: CRAError, request_id: str) -> Response:
    """Return the answer that says what is wrong and what to do; `instance` is the request's id."""
    document: dict[str, Any] = {
        "type": f"urn:cra:error:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "instance": request_id,
    }
    if error.hint is not None:
        document["hint"] = error.hint
    pointer = error.pointer if isinstance(error, InvalidInput | InvalidParameters) else None
    if pointer is not None:
        document["pointer"] = pointer
    details = dict(error.details)
    policy_id = getattr(error, "policy_id", None)
    if policy_id is not None:
        details["policy_id"] = policy_id
    if details:
        document["details"] = details
    try:
        body = dumps(document)
    except NotCanonical:
        # What the details quote came from outside.
        document.pop("details")
        body = dumps(document)
    return Response(body, error.status, media=PROBLEM, headers=_headers(error))


def unexpected(request_id: str) -> Response:
    """Return the answer to what must not happen; its words are in the log and not in here."""
    return problem_of(CRAError("the service failed; nothing is known about the call", hint=_REPORT), request_id)


_REPORT = "this is a defect, please report it with the request id; the log has the rest"


def _headers(error: CRAError) -> list[tuple[bytes, bytes]]:
    if error.status == 401:
        return [(b"www-authenticate", b'Bearer realm="cra"')]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.details.get("allow", ())).encode())]
    if error.status in (429, 503):
        seconds = error.details.get("retry_after_seconds")
        return [(b"retry-after", str(_whole(seconds)).encode())]
    if error.status == 408:
        return [(b"connection", b"close")]
    return []


def _whole(seconds: object) -> int:
    if isinstance(seconds, int | float) and seconds >= 0:
        return max(RETRY_SECONDS, -int(-seconds // 1))
    return RETRY_SECONDS
