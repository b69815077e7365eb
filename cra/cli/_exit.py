"""Exit codes: stable, and documented in docs/cli.md."""

from enum import IntEnum

from cra import errors


class Exit(IntEnum):
    """What a command's end says to a script."""

    OK = 0
    VERDICT = 1  # the answer is no: denied, invalid, different, not verified
    USAGE = 2
    INPUT = 3
    NOT_FOUND = 4
    STORAGE = 5
    PENDING = 6  # a person has to approve first
    STATE = 7  # something else has to happen first: resolve, a new session, a new key
    FAILED = 8  # allowed, started, and not done
    UNAVAILABLE = 69  # a package is missing, or a service cannot be reached or has no room
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE = 141  # whoever read the output has gone


_BY_CLASS: dict[type[errors.CRAError], Exit] = {
    errors.InvalidInput: Exit.INPUT,
    errors.DuplicateRequest: Exit.STATE,
    errors.AtlasError: Exit.INPUT,
    errors.AtlasNotFound: Exit.NOT_FOUND,
    errors.AtlasConflict: Exit.STATE,
    errors.SessionError: Exit.STATE,
    errors.SessionNotFound: Exit.NOT_FOUND,
    errors.ResolutionRequired: Exit.STATE,
    errors.ResolutionExpired: Exit.STATE,
    errors.ActionDenied: Exit.VERDICT,
    errors.ApprovalRequired: Exit.PENDING,
    errors.ApprovalError: Exit.STATE,
    errors.ApprovalNotFound: Exit.NOT_FOUND,
    errors.ActionFailed: Exit.FAILED,
    errors.ExecutorMissing: Exit.FAILED,
    errors.IdempotencyConflict: Exit.STATE,
    errors.StorageError: Exit.STORAGE,
    errors.Unauthenticated: Exit.VERDICT,
    errors.Forbidden: Exit.VERDICT,
    errors.ServiceUnreachable: Exit.UNAVAILABLE,
    errors.Overloaded: Exit.UNAVAILABLE,
    errors.RateLimited: Exit.UNAVAILABLE,
    errors.TenantNotFound: Exit.NOT_FOUND,
    errors.KeyNotFound: Exit.NOT_FOUND,
    errors.RoleNotFound: Exit.NOT_FOUND,
    errors.AdministrationConflict: Exit.STATE,
    errors.MissingExtra: Exit.UNAVAILABLE,
    errors.CRAError: Exit.INTERNAL,
}


class UsageError(errors.CRAError):
    """A command line that makes no sense, although each of its words does."""

    code = "usage_error"
    status = 400
    exit = Exit.USAGE


class FileNotFound(errors.InvalidInput):
    """A file that a command was to read is not there."""

    code = "file_not_found"
    status = 404
    exit = Exit.NOT_FOUND


class FileTrouble(errors.InvalidInput):
    """A file can be neither read nor written."""

    code = "file_error"
    exit = Exit.INPUT


def exit_of(error: errors.CRAError) -> Exit:
    """Return the exit code for an error."""
    own = getattr(error, "exit", None)
    return own if isinstance(own, Exit) else exit_of_class(type(error))


def exit_of_class(kind: type[errors.CRAError]) -> Exit:
    """Return the exit code for a class of errors: that of its nearest ancestor."""
    return next(_BY_CLASS[base] for base in kind.__mro__ if base in _BY_CLASS)


def exit_of_code(code: str) -> Exit:
    """Return the exit code for an error code as it stands in a response."""
    kinds = (getattr(errors, name) for name in errors.__all__)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, errors.CRAError) and kind.code == code:
            return exit_of_class(kind)
    return Exit.INTERNAL
