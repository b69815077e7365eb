"""Errors of the service as the exceptions that the runtime raises."""

from collections.abc import Callable, Mapping
from typing import Any

from cra import errors
from cra.errors import (
    ActionDenied,
    ActionFailed,
    ActionTimeout,
    ApprovalRequired,
    AtlasInvalid,
    CRAError,
    InvalidInput,
    InvalidJSON,
    InvalidParameters,
    LimitExceeded,
    Problem,
    ServiceError,
)
from cra.protocol.carp import ExecuteResponse
from cra.protocol.jsontext import decode

_KINDS: dict[str, type[CRAError]] = {
    kind.code: kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, CRAError)
}
_MAX_PROBLEM_BYTES = 4 << 20

Details = dict[str, Any]


def problem_of(status: int, body: bytes, *, action_id: str = "") -> CRAError | None:
    """Return the error that a problem document is about, None when the body is none: a proxy may have answered."""
    try:
        document = decode(body, max_bytes=_MAX_PROBLEM_BYTES)
    except InvalidJSON:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("code"), str):
        return None
    details = document.get("details")
    return _error(
        document["code"],
        _text(document.get("detail")) or _text(document.get("title")) or f"the service answered with status {status}",
        _text(document.get("hint")),
        _text(document.get("pointer")),
        dict(details) if isinstance(details, Mapping) else {},
        action_id,
        status,
    )


def error_of(response: ExecuteResponse, action_id: str) -> CRAError | None:
    """Return what stands in the place of an execution's result, None when it has one."""
    if response.error is None:
        return None
    details = dict(response.error.details)
    hint = details.pop("hint", None)
    code, pointer = response.error.code, details.get("pointer")
    return _error(code, response.error.message, _text(hint), _text(pointer), details, action_id, None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _error(
    code: str,
    message: str,
    hint: str | None,
    pointer: str | None,
    details: Details,
    action_id: str,
    status: int | None,
) -> CRAError:
    kind = _KINDS.get(code)
    if kind is None:
        # A service that is newer than this client.
        return ServiceError(message, hint=hint, details={**details, "code": code, "status": status})
    make = _OWN.get(kind)
    if make is not None:
        return make(message, hint, details, action_id)
    if issubclass(kind, InvalidInput):
        return kind(message, pointer=pointer, hint=hint, details=details)
    return kind(message, hint=hint, details=details)


def _denied(message: str, hint: str | None, details: Details, action_id: str) -> CRAError:
    policy_id = _text(details.pop("policy_id", None))
    return ActionDenied(message, action_id=action_id, policy_id=policy_id, hint=hint, details=details)


def _parameters(message: str, hint: str | None, details: Details, action_id: str) -> CRAError:
    return InvalidParameters(message, action_id=action_id, pointer=_text(details.get("pointer")) or "", hint=hint)


def _limited(message: str, hint: str | None, details: Details, action_id: str) -> CRAError:
    wait = details.get("retry_after_seconds")
    return LimitExceeded(
        message,
        action_id=action_id,
        policy_id=_text(details.get("policy_id")) or "",
        retry_after_s=wait if isinstance(wait, int) else None,
        hint=hint,
    )


def _waiting(message: str, hint: str | None, details: Details, action_id: str) -> CRAError:
    return ApprovalRequired(
        message,
        action_id=action_id,
        approval_id=_text(details.get("approval_id")) or "",
        policy_id=_text(details.get("policy_id")),
        expires_at=_text(details.get("expires_at")) or "",
    )


def _failed(message: str, hint: str | None, details: Details, action_id: str) -> CRAError:
    code = _text(details.get("error_code")) or "executor_error"
    kind = ActionTimeout if code == "timeout" else ActionFailed
    return kind(message, action_id=action_id, execution_id=_text(details.get("execution_id")) or "", error_code=code)


def _atlas(message: str, hint: str | None, details: Details, action_id: str) -> CRAError:
    listed = details.get("problems")
    problems = [
        Problem(
            str(one.get("code", "")),
            str(one.get("message", "")),
            pointer=str(one.get("pointer", "")),
            file=str(one.get("file", "")),
        )
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, Mapping)
    ]
    return AtlasInvalid(message, problems=problems, hint=hint)


# Those whose constructors take more than words.
_OWN: dict[type[CRAError], Callable[[str, str | None, Details, str], CRAError]] = {
    ActionDenied: _denied,
    InvalidParameters: _parameters,
    LimitExceeded: _limited,
    ApprovalRequired: _waiting,
    ActionFailed: _failed,
    ActionTimeout: _failed,
    AtlasInvalid: _atlas,
}
