"""Every error CRA raises.

CRAError
├── InvalidInput
│   ├── InvalidJSON                 text that is not strict JSON
│   ├── InvalidRequest              a CARP request that breaks the wire format
│   │   ├── ClockSkew
│   │   └── DuplicateRequest
│   ├── NotCanonical                a value that has no canonical JSON form
│   ├── InvalidTrace                bytes that are not a TRACE document
│   └── ConfigInvalid
├── AtlasError
│   ├── AtlasInvalid                carries every problem found, with JSON pointers
│   ├── AtlasNotFound
│   └── AtlasConflict               already loaded, or still needed by another atlas
├── SessionError
│   ├── SessionNotFound
│   ├── SessionEnded
│   └── SessionExists
├── ResolutionRequired
├── ResolutionExpired
├── ActionDenied
│   ├── InvalidParameters
│   └── LimitExceeded
├── ApprovalRequired
├── ApprovalError
│   ├── ApprovalNotFound
│   └── ApprovalConflict            used, expired, rejected, or bound to something else
├── ActionFailed
│   └── ActionTimeout
├── ExecutorMissing
├── IdempotencyConflict
├── StorageError
│   ├── StaleHead
│   ├── StaleCatalog                decided by atlases that have been replaced meanwhile
│   ├── StorageFull
│   └── StorageCorrupt
├── ServiceError                    what only a service answers
│   ├── Unauthenticated
│   ├── Forbidden
│   ├── TenantNotFound
│   ├── KeyNotFound
│   ├── RoleNotFound
│   ├── AdministrationConflict      there already, or still needed
│   ├── RouteNotFound
│   ├── MethodNotAllowed
│   ├── NotAcceptable
│   ├── MediaTypeUnsupported
│   ├── PayloadTooLarge
│   ├── RequestTimeout
│   ├── CallTimeout
│   ├── RateLimited                 the service's own limit, not a policy's
│   ├── Overloaded
│   └── ServiceUnreachable          raised by the client
└── MissingExtra
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "ActionDenied",
    "ActionFailed",
    "ActionTimeout",
    "AdministrationConflict",
    "ApprovalConflict",
    "ApprovalError",
    "ApprovalNotFound",
    "ApprovalRequired",
    "AtlasConflict",
    "AtlasError",
    "AtlasInvalid",
    "AtlasNotFound",
    "CRAError",
    "CallTimeout",
    "ClockSkew",
    "ConfigInvalid",
    "DuplicateRequest",
    "ExecutorMissing",
    "Forbidden",
    "IdempotencyConflict",
    "InvalidInput",
    "InvalidJSON",
    "InvalidParameters",
    "InvalidRequest",
    "InvalidTrace",
    "KeyNotFound",
    "LimitExceeded",
    "MediaTypeUnsupported",
    "MethodNotAllowed",
    "MissingExtra",
    "NotAcceptable",
    "NotCanonical",
    "Overloaded",
    "PayloadTooLarge",
    "Problem",
    "RateLimited",
    "RequestTimeout",
    "ResolutionExpired",
    "ResolutionRequired",
    "RoleNotFound",
    "RouteNotFound",
    "ServiceError",
    "ServiceUnreachable",
    "SessionEnded",
    "SessionError",
    "SessionExists",
    "SessionNotFound",
    "StaleCatalog",
    "StaleHead",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "TenantNotFound",
    "Unauthenticated",
]


def one_line(text: str) -> str:
    """Return `text` on one line that every terminal and encoder takes: at most 1000 characters, the rest escaped.

    What a message quotes comes from outside, and may have line breaks, control characters or lone surrogates in it.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 303]}...{text[-300:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


_LONGEST = 1000


class CRAError(Exception):
    """The root: a stable `code`, an HTTP `status` and an optional `hint` that says what to do."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        message = one_line(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else one_line(hint)
        self.details: dict[str, Any] = dict(details or {})


class InvalidInput(CRAError):
    """Input that breaks a documented rule; `pointer` is the RFC 6901 JSON pointer of the place, if known."""

    code = "invalid_input"
    status = 400

    def __init__(
        self,
        message: str,
        *,
        pointer: str | None = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.pointer = pointer


class InvalidJSON(InvalidInput):
    """Text that is not strict JSON: syntax, duplicate keys, NaN, lone surrogates, or a bound exceeded."""

    code = "invalid_json"


class InvalidRequest(InvalidInput):
    """A CARP request that breaks the wire format."""

    code = "invalid_request"


class ClockSkew(InvalidRequest):
    """A request timestamp too far from the runtime's clock."""

    code = "clock_skew"


class DuplicateRequest(InvalidRequest):
    """A request_id that this session has already used."""

    code = "duplicate_request"
    status = 409


class NotCanonical(InvalidInput):
    """A value that RFC 8785 gives no canonical form: NaN, infinities, lone surrogates, non-string keys."""

    code = "not_canonical"


class InvalidTrace(InvalidInput):
    """Bytes that are not a TRACE/1.0 document; `details` has the event index and the reason."""

    code = "invalid_trace"
    status = 422


class ConfigInvalid(InvalidInput):
    """A setting outside its documented range."""

    code = "config_invalid"


class Problem:
    """One thing wrong with an atlas: where (`file` and JSON `pointer`), a stable `code`, and words."""

    __slots__ = ("code", "file", "message", "pointer")

    def __init__(self, code: str, message: str, *, pointer: str = "", file: str = "atlas.json") -> None:
        self.code = code
        self.message = message
        self.pointer = pointer
        self.file = file

    def __repr__(self) -> str:
        return f"{self.file}#{self.pointer}: {self.message} [{self.code}]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.code, self.file, self.pointer, self.message))

    def as_dict(self) -> dict[str, str]:
        return {"file": self.file, "pointer": self.pointer, "code": self.code, "message": self.message}


class AtlasError(CRAError):
    """Something about an atlas."""

    code = "atlas_error"
    status = 422


class AtlasInvalid(AtlasError):
    """An atlas with problems; nothing of it was loaded. `problems` holds all of them."""

    code = "atlas_invalid"

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint, details={"problems": [p.as_dict() for p in problems]})
        self.problems = tuple(problems)


class AtlasNotFound(AtlasError):
    """No atlas of that id is loaded, or no atlas is at that path."""

    code = "atlas_not_found"
    status = 404


class AtlasConflict(AtlasError):
    """The atlas is loaded already, or another loaded atlas depends on it."""

    code = "atlas_conflict"
    status = 409


class SessionError(CRAError):
    """Something about a session."""

    code = "session_error"
    status = 409


class SessionNotFound(SessionError):
    """No session of that id."""

    code = "session_not_found"
    status = 404


class SessionEnded(SessionError):
    """The session has ended; it takes no more events."""

    code = "session_ended"


class SessionExists(SessionError):
    """A session of that id exists already."""

    code = "session_exists"


class ResolutionRequired(CRAError):
    """Execute was called without an unexpired resolution that allows the action."""

    code = "resolution_required"
    status = 409


class ResolutionExpired(CRAError):
    """The named resolution is past its time to live."""

    code = "resolution_expired"
    status = 409


class ActionDenied(CRAError):
    """Policy denied the action; `policy_id` names the deciding policy, or is None when none did."""

    code = "action_denied"
    status = 403

    def __init__(
        self,
        message: str,
        *,
        action_id: str,
        policy_id: str | None = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.action_id = action_id
        self.policy_id = policy_id


class InvalidParameters(ActionDenied):
    """The parameters break the action's schema; `pointer` is the place in the parameters."""

    code = "invalid_parameters"
    status = 422

    def __init__(self, message: str, *, action_id: str, pointer: str = "", hint: str | None = None) -> None:
        super().__init__(message, action_id=action_id, hint=hint, details={"pointer": pointer})
        self.pointer = pointer


class LimitExceeded(ActionDenied):
    """A rate limit or budget is used up; `retry_after_s` is None when waiting does not help."""

    code = "limit_exceeded"
    status = 429

    def __init__(
        self, message: str, *, action_id: str, policy_id: str, retry_after_s: int | None, hint: str | None = None
    ) -> None:
        super().__init__(
            message, action_id=action_id, policy_id=policy_id, hint=hint, details={"retry_after_seconds": retry_after_s}
        )
        self.retry_after_s = retry_after_s


class ApprovalRequired(CRAError):
    """The action waits for a person; call again with `approval_id` once it is granted."""

    code = "approval_required"
    status = 403

    def __init__(
        self, message: str, *, action_id: str, approval_id: str, policy_id: str | None, expires_at: str
    ) -> None:
        super().__init__(
            message,
            hint="ask an approver to grant it, then call execute again with this approval_id",
            details={"approval_id": approval_id, "expires_at": expires_at},
        )
        self.action_id = action_id
        self.approval_id = approval_id
        self.policy_id = policy_id
        self.expires_at = expires_at


class ApprovalError(CRAError):
    """Something about an approval."""

    code = "approval_error"
    status = 409


class ApprovalNotFound(ApprovalError):
    """No approval of that id."""

    code = "approval_not_found"
    status = 404


class ApprovalConflict(ApprovalError):
    """The approval is used, expired or rejected, or was given for something else."""

    code = "approval_conflict"


class ActionFailed(CRAError):
    """The executor was started and did not succeed; the failure is recorded."""

    code = "action_failed"
    status = 502

    def __init__(self, message: str, *, action_id: str, execution_id: str, error_code: str = "executor_error") -> None:
        super().__init__(message, details={"execution_id": execution_id, "error_code": error_code})
        self.action_id = action_id
        self.execution_id = execution_id
        self.error_code = error_code


class ActionTimeout(ActionFailed):
    """The executor did not answer in time; whether its work happened is unknown."""

    code = "action_timeout"
    status = 504


class ExecutorMissing(CRAError):
    """The action is allowed, but no executor is registered for it."""

    code = "executor_missing"
    status = 501


class IdempotencyConflict(CRAError):
    """The idempotency key was used for a different call, or its first call has no outcome yet."""

    code = "idempotency_conflict"
    status = 409


class StorageError(CRAError):
    """The record could not be written or read; nothing was allowed."""

    code = "storage_error"
    status = 503


class StaleHead(StorageError):
    """Another writer has extended the chain; reload and decide again."""

    code = "stale_head"
    status = 409


class StaleCatalog(StorageError):
    """The tenant's atlases have changed since the decision; load them and decide again."""

    code = "stale_catalog"
    status = 409


class StorageFull(StorageError):
    """A configured bound of the store is reached; nothing was dropped, nothing was added."""

    code = "storage_full"
    status = 507


class StorageCorrupt(StorageError):
    """What the store returned is not what was written."""

    code = "storage_corrupt"
    status = 500


class ServiceError(CRAError):
    """What a service says about a call before, or instead of, deciding it."""

    code = "service_error"


class Unauthenticated(ServiceError):
    """No credential, or one that is unknown, expired, revoked or malformed; which of these is not said."""

    code = "unauthenticated"
    status = 401


class Forbidden(ServiceError):
    """The credential is good and does not permit this; `details` names the permission."""

    code = "forbidden"
    status = 403


class TenantNotFound(ServiceError):
    """No tenant of that name."""

    code = "tenant_not_found"
    status = 404


class KeyNotFound(ServiceError):
    """The tenant has no key of that id."""

    code = "key_not_found"
    status = 404


class RoleNotFound(ServiceError):
    """The tenant has no role of that name."""

    code = "role_not_found"
    status = 404


class AdministrationConflict(ServiceError):
    """The tenant, key or role is there already, built in, or still needed; nothing was changed."""

    code = "administration_conflict"
    status = 409


class RouteNotFound(ServiceError):
    """The service has no such path."""

    code = "route_not_found"
    status = 404


class MethodNotAllowed(ServiceError):
    """The path takes other methods; `details` has them."""

    code = "method_not_allowed"
    status = 405


class NotAcceptable(ServiceError):
    """The path has no representation of the media types that the caller accepts."""

    code = "not_acceptable"
    status = 406


class MediaTypeUnsupported(ServiceError):
    """The body's media type or encoding is not one that the path takes."""

    code = "media_type_unsupported"
    status = 415


class PayloadTooLarge(ServiceError):
    """The body or the path is longer than the service takes."""

    code = "payload_too_large"
    status = 413


class RequestTimeout(ServiceError):
    """The body did not arrive in time; nothing was done."""

    code = "request_timeout"
    status = 408


class CallTimeout(ServiceError):
    """The call took longer than the service lets any take; what it has recorded stands, and its trace tells."""

    code = "call_timeout"
    status = 504


class RateLimited(ServiceError):
    """A credential, tenant or address has used up its share of the service; `details` has the seconds to wait."""

    code = "rate_limited"
    status = 429


class Overloaded(ServiceError):
    """The service has no room for another call now, or is shutting down; nothing was done."""

    code = "overloaded"
    status = 503


class ServiceUnreachable(ServiceError):
    """No answer from the service; whether the call took effect is unknown unless it was never sent."""

    code = "service_unreachable"
    status = 502


class MissingExtra(CRAError):
    """An optional package is not installed; the hint names the extra."""

    code = "missing_extra"
    status = 501
