"""Approvals in numbers: a call reads what was asked for it, and nothing of what was asked for others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cra.errors import ApprovalRequired, LimitExceeded
from cra.storage.base import ApprovalRecord, Storage
from tests.runtime.desk import Desk
from tests.storage.reading import Reading


@pytest.fixture
def store(store: Storage) -> Reading:
    return Reading(store)


def ask(desk: Desk, session_id: str, number: int) -> str:
    with pytest.raises(ApprovalRequired) as asked:
        desk.runtime.execute(session_id, "mail.send", {"number": number})
    return str(asked.value.approval_id)


def test_a_call_reads_no_approvals_that_were_asked_for_others(desk: Desk, store: Reading) -> None:
    session_id = desk.begin()
    ids = [ask(desk, session_id, number) for number in range(200)]
    assert len(set(ids)) == 200
    assert store.read == []
    # Asked again, a call finds its own.
    assert ask(desk, session_id, 150) == ids[150]
    assert [record.approval_id for record in store.read] == [ids[150]]
    for approval_id in ids[:100]:
        desk.runtime.approvals.grant(approval_id, approver="ann")
    store.read.clear()
    assert desk.runtime.execute(session_id, "mail.send", {"number": 50}) == {"ok": True}
    assert [record.approval_id for record in store.read] == [ids[50]]
    # What was used is not read either.
    store.read.clear()
    assert ask(desk, session_id, 50) not in ids
    assert store.read == []


def test_what_is_changed_in_an_approval_that_was_returned_changes_nothing(desk: Desk) -> None:
    session_id = desk.begin()
    approval_id = ask(desk, session_id, 1)
    approvals = desk.runtime.approvals
    reads: tuple[Callable[[], ApprovalRecord], ...] = (
        lambda: approvals.get(approval_id),
        lambda: approvals.list()[0],
        lambda: approvals.grant(approval_id, approver="ann"),
        lambda: approvals.wait(approval_id, 0),
    )
    for read in reads:
        parameters = read().parameters
        assert parameters is not None
        parameters["number"] = 2
        assert approvals.get(approval_id).parameters == {"number": 1}


def test_a_session_has_no_more_approvals_pending_than_it_may_have(store: Reading) -> None:
    desk = Desk(store, max_pending_approvals=3, capture_parameters="full")
    session_id = desk.begin()
    ids = [ask(desk, session_id, number) for number in range(3)]
    for _ in range(2):
        store.read.clear()
        with pytest.raises(LimitExceeded, match="as many pending as it may have") as refused:
            desk.runtime.execute(session_id, "mail.send", {"number": 3})
        assert refused.value.retry_after_s is None
        assert store.read == []
    answer = desk.runtime.simulate(session_id, action_id="mail.send", parameters={"number": 3}).answer
    assert (answer.status, answer.error.code) == ("denied", "limit_exceeded")
    kinds = [kind for kind, _ in desk.events(session_id)[-4:]]
    assert kinds == ["action.requested", "policy.evaluated", "action.denied", "policy.violated"]
    assert desk.last(session_id)[1]["violation_type"] == "rate_limit"
    assert [record.approval_id for record in store.approvals(session_id=session_id)] == ids
    # Another session has its own, and what was asked for already is still found.
    ask(desk, desk.begin(), 3)
    assert ask(desk, session_id, 1) == ids[1]
    # One that is decided or expired makes room for another.
    desk.runtime.approvals.reject(ids[0], approver="ann")
    ids.append(ask(desk, session_id, 3))
    with pytest.raises(LimitExceeded):
        desk.runtime.execute(session_id, "mail.send", {"number": 4})
    desk.runtime.approvals.grant(ids[1], approver="ann")
    assert desk.runtime.execute(session_id, "mail.send", {"number": 1}) == {"ok": True}
    ask(desk, session_id, 4)
    desk.clock.advance(3601)
    desk.runtime.resolve(session_id, "help a customer")
    ask(desk, session_id, 5)
    # What was refused is refused again where nobody knows the setting.
    replayed = desk.runtime.replay(desk.runtime.get_trace(session_id))
    assert replayed.ok
    assert replayed.complete
