"""Exit codes say the same about every error, wherever it comes from."""

import inspect

import pytest

from cra import errors
from cra.cli._exit import Exit, exit_of_class, exit_of_code

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CRAError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code_and_its_code_in_a_response_has_the_same(kind: type[errors.CRAError]) -> None:
    found = exit_of_class(kind)
    assert found not in (Exit.OK, Exit.USAGE)
    assert exit_of_code(kind.code) == found


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ActionDenied, 1),
        (errors.LimitExceeded, 1),
        (errors.InvalidParameters, 1),
        (errors.InvalidJSON, 3),
        (errors.InvalidTrace, 3),
        (errors.AtlasInvalid, 3),
        (errors.AtlasNotFound, 4),
        (errors.SessionNotFound, 4),
        (errors.ApprovalNotFound, 4),
        (errors.StorageFull, 5),
        (errors.StaleHead, 5),
        (errors.ApprovalRequired, 6),
        (errors.SessionEnded, 7),
        (errors.ResolutionRequired, 7),
        (errors.IdempotencyConflict, 7),
        (errors.ApprovalConflict, 7),
        (errors.DuplicateRequest, 7),
        (errors.ActionTimeout, 8),
        (errors.ExecutorMissing, 8),
        (errors.MissingExtra, 69),
        (errors.Unauthenticated, 1),
        (errors.ServiceUnreachable, 69),
        (errors.CRAError, 70),
    ],
)
def test_the_documented_codes_do_not_change(kind: type[errors.CRAError], code: int) -> None:
    assert exit_of_class(kind) == code
