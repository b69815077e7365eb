"""Actors: who made a call is recorded where it is asked about, and cannot consent to it."""

import asyncio
from typing import Any

import pytest

from cra.errors import ApprovalConflict, ApprovalRequired, InvalidRequest
from cra.storage.base import ApprovalRecord, Storage
from cra.storage.memory import MemoryStorage
from tests.runtime.desk import Desk

MAIL = {"to": "somebody"}


def ask(desk: Desk, session_id: str, *, actor: str | None = "bot-key") -> ApprovalRecord:
    """Call what needs a person's consent, and return what is asked."""
    with pytest.raises(ApprovalRequired) as caught:
        desk.runtime.execute(session_id, "mail.send", MAIL, actor=actor)
    found: ApprovalRecord = desk.runtime.approvals.get(caught.value.approval_id)
    return found


def test_who_made_the_call_is_recorded_with_what_is_asked(desk: Desk) -> None:
    session_id = desk.begin()
    record = ask(desk, session_id)
    assert record.requested_by == "bot-key"
    kind, payload = desk.last(session_id)
    assert (kind, payload["requested_by"]) == ("approval.requested", "bot-key")


def test_a_call_of_nobody_known_is_recorded_as_before(desk: Desk) -> None:
    session_id = desk.begin()
    assert ask(desk, session_id, actor=None).requested_by is None
    assert "requested_by" not in desk.last(session_id)[1]


def test_a_request_on_the_wire_is_made_by_who_the_door_says(desk: Desk) -> None:
    session_id = desk.begin()
    request = desk.request(session_id, "execute", execution={"action_id": "mail.send", "parameters": MAIL})
    desk.runtime.handle(request, actor="bot-key")
    (record,) = desk.runtime.approvals.list()
    assert record.requested_by == "bot-key"


@pytest.mark.parametrize("approver", ["bot-key", " Bot-Key ", "agent-1", "AGENT-1"])
def test_nobody_consents_to_what_they_asked_for(desk: Desk, approver: str) -> None:
    record = ask(desk, desk.begin())
    for decide in (desk.runtime.approvals.grant, desk.runtime.approvals.reject):
        with pytest.raises(ApprovalConflict, match="asked for approval"):
            decide(record.approval_id, approver=approver)
    assert desk.runtime.approvals.get(record.approval_id).status == "pending"


@pytest.mark.parametrize("named", [True, False])
def test_nobody_makes_a_call_by_their_own_consent(desk: Desk, named: bool) -> None:
    """Ann consents to what the bot asked, and cannot make the call in its place; the bot can."""
    session_id = desk.begin()
    record = ask(desk, session_id)
    desk.runtime.approvals.grant(record.approval_id, approver="Ann")
    given = {"approval_id": record.approval_id} if named else {}
    with pytest.raises(ApprovalConflict, match="who granted it makes the call"):
        desk.runtime.execute(session_id, "mail.send", MAIL, actor="ann ", **given)
    assert desk.calls == []
    assert desk.types(session_id)[-2:] == ["action.denied", "policy.violated"]
    assert desk.runtime.execute(session_id, "mail.send", MAIL, actor="bot-key", **given) == {"ok": True}
    replayed = desk.runtime.replay(desk.runtime.get_trace(session_id))
    assert replayed.differences == ()


def test_what_was_asked_and_refused_by_who_they_were_replays_the_same() -> None:
    desk = Desk(MemoryStorage(), capture_parameters="full")
    session_id = desk.begin()
    record = ask(desk, session_id)
    desk.runtime.approvals.grant(record.approval_id, approver="ann")
    with pytest.raises(ApprovalConflict):
        desk.runtime.execute(session_id, "mail.send", MAIL, actor="ann")
    desk.runtime.execute(session_id, "mail.send", MAIL, actor="bot-key")
    replayed = desk.runtime.replay(desk.runtime.get_trace(session_id))
    assert replayed.ok
    assert replayed.complete
    assert replayed.counts()["same"] > 10


@pytest.mark.parametrize("actor", ["", "x" * 256, 7])
def test_an_actor_is_a_bounded_text(desk: Desk, actor: Any) -> None:
    session_id = desk.begin()
    before = desk.types(session_id)
    with pytest.raises(InvalidRequest, match="actor"):
        desk.runtime.execute(session_id, "mail.send", MAIL, actor=actor)
    assert desk.types(session_id) == before


def test_an_actor_is_recorded_from_an_event_loop_too(store: Storage) -> None:
    desk = Desk(store, asynchronous=True)

    async def run() -> None:
        session = await desk.runtime.create_session("agent-1", "goal")
        await desk.runtime.resolve(session.id, "goal")
        with pytest.raises(ApprovalRequired) as caught:
            await desk.runtime.execute(session.id, "mail.send", MAIL, actor="bot-key")
        approvals = desk.runtime.approvals
        with pytest.raises(ApprovalConflict):
            await approvals.grant(caught.value.approval_id, approver="bot-key")
        request = desk.request(session.id, "execute", execution={"action_id": "mail.send", "parameters": {"n": 2}})
        await desk.runtime.handle(request, actor="other-key")
        assert [record.requested_by for record in await approvals.list()] == ["bot-key", "other-key"]

    asyncio.run(run())


# Lists of approvals


def test_approvals_are_listed_in_pages(desk: Desk) -> None:
    session_id = desk.begin()
    asked = []
    for number in range(5):
        with pytest.raises(ApprovalRequired) as caught:
            desk.runtime.execute(session_id, "mail.send", {"number": number})
        asked.append(caught.value.approval_id)
    listed, after = [], None
    while page := desk.runtime.approvals.list(after=after, limit=2):
        assert len(page) <= 2
        listed += [record.approval_id for record in page]
        after = listed[-1]
    assert listed == asked
    assert [record.approval_id for record in desk.runtime.approvals.list(after=asked[2])] == asked[3:]
    desk.runtime.approvals.grant(asked[1], approver="ann")
    pending = desk.runtime.approvals.list(session_id=session_id, status="pending", after=asked[0], limit=2)
    assert [record.approval_id for record in pending] == asked[2:4]
    for wrong in ({"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": "2"}, {"after": "x"}):
        with pytest.raises(InvalidRequest):
            desk.runtime.approvals.list(**wrong)
