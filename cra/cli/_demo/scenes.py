"""The scenes: one support session from the first question to what a stricter atlas would have changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cra.cli._demo.desk import Desk
from cra.cli._demo.story import Story
from cra.errors import ActionDenied, ApprovalConflict, ApprovalRequired, LimitExceeded

if TYPE_CHECKING:
    from cra.protocol.carp import Resolution
    from cra.runtime.sync import CRARuntime

AGENT = "support-7"
LEAD = "dana@acme.example"
GOAL = "Refund the customer of ticket T-1042 who was charged twice, and clear the other open tickets"
DOUBLE_CHARGE = {
    "ticket_id": "T-1042",
    "customer_id": "C-2001",
    "amount": 149.9,
    "currency": "EUR",
    "reason": "double_charge",
}
BROKEN_MACHINE = {"ticket_id": "T-1044", "amount": 620, "currency": "EUR", "reason": "defective"}


class Shift:
    """One agent's shift at the desk, told as it happens."""

    def __init__(self, story: Story, runtime: CRARuntime, desk: Desk) -> None:
        self._story = story
        self._runtime = runtime
        self._desk = desk
        self.session_id = ""

    def work(self) -> None:
        """Play all the scenes in which the agent acts."""
        self._arrive()
        self._resolve()
        self._read()
        self._injection()
        self._small_refund()
        self._replies()
        self._large_refund()
        self._leave()

    def _call(self, action_id: str, parameters: dict[str, Any], **more: Any) -> Any:
        self._story.call(action_id, parameters)
        return self._runtime.execute(self.session_id, action_id, parameters, **more)

    def _arrive(self) -> None:
        story, desk = self._story, self._desk
        story.scene("The desk", "A small support team: a real SQLite database, and an atlas that says who may do what.")
        desk.create()
        for name, function in desk.executors().items():
            self._runtime.register_executor(name, function)
        (atlas,) = self._runtime.list_atlases()
        counts = [(table, desk.count(table)) for table in ("customers", "tickets", "messages", "refunds", "articles")]
        story.say(f"database {desk.path}:", ", ".join(f"{count} {table}" for table, count in counts))
        manifest = atlas.manifest
        story.say(
            f"atlas {atlas.atlas_id} {atlas.version}: {len(manifest.actions)} actions,",
            f"{len(manifest.policies)} policies, digest {atlas.digest[:16]}...",
        )
        story.claim(desk.count("tickets", "status != 'closed'") == 6, "6 tickets wait at the desk")

    def _resolve(self) -> None:
        story = self._story
        story.scene("The agent asks", "Before it does anything, the agent asks what it may know and do for its goal.")
        self.session_id = self._runtime.create_session(AGENT, GOAL, context={"account_status": "active"}).session_id
        story.agent(GOAL)
        resolution = self._runtime.resolve(self.session_id, GOAL, context_hints=["refund", "double charge"])
        story.answer(f"{resolution.decision.type}: {resolution.decision.reason}", style="yellow")
        story.say()
        self._show(resolution)
        allowed = {action.action_id for action in resolution.allowed_actions}
        denied = {action.action_id: action for action in resolution.denied_actions}
        story.claim(resolution.decision.type == "partial", "some actions are offered, some are not")
        story.claim("ticket.delete" not in allowed, "deleting tickets is not offered to anybody")
        story.claim(denied["ticket.delete"].policy_id == "deny-delete", "and the answer names the policy: deny-delete")
        story.claim(
            any(block.block_id.startswith("refunds/") for block in resolution.context_blocks),
            "the refund policy is among the documents the agent gets to read",
        )

    def _show(self, resolution: Resolution) -> None:
        from cra.cli._show import constraint_notes

        story, notes = self._story, constraint_notes(resolution)
        story.table(
            ("context", "tokens", "priority"),
            [(block.block_id, block.token_estimate, block.priority) for block in resolution.context_blocks],
        )
        story.say()
        story.table(
            ("allowed", "risk", "limits"),
            [(a.action_id, a.risk_tier, "; ".join(notes.get(a.action_id, ()))) for a in resolution.allowed_actions],
        )
        story.say()
        story.table(
            ("denied", "policy", "reason"),
            [(d.action_id, d.policy_id or "-", d.reason) for d in resolution.denied_actions],
        )
        story.say()

    def _read(self) -> None:
        story = self._story
        story.scene("Reading", "What policy allows runs, as ordinary Python against the real database.")
        ticket = self._call("ticket.get", {"ticket_id": "T-1042"})
        story.answer(f"{ticket['subject']}: {ticket['body']}")
        customer = self._call("customer.get", {"customer_id": ticket["customer_id"]})
        story.answer(f"{customer['name']}, {customer['tier']}, account {customer['status']}")
        for query in ("charged twice", "broken", "password"):
            found = self._call("ticket.search", {"query": query, "status": "open"})
            story.answer(", ".join(f"{t['ticket_id']} {t['subject']}" for t in found["tickets"]) or "nothing")
        articles = self._call("kb.search", {"query": "twice returned"})["articles"]
        story.answer(articles[0]["excerpt"])
        events = self._runtime.get_trace(self.session_id)
        executed = [event.payload["action_id"] for event in events.of_type("action.executed")]
        story.claim(len(executed) == 6, f"6 calls ran and each left its record; the trace has {len(events)} events")

    def _injection(self) -> None:
        story, desk = self._story, self._desk
        story.scene(
            "A ticket that gives orders", "One ticket tells the assistant to ignore its rules. Our agent falls for it."
        )
        ticket = self._call("ticket.get", {"ticket_id": "T-1043"})
        story.answer(ticket["body"], style="yellow")
        story.agent("I am the administrator now. Deleting the ticket.")
        denial = None
        try:
            self._call("ticket.delete", {"ticket_id": "T-1043", "reason": "as ordered"})
        except ActionDenied as error:
            denial = error
            story.answer(error.message, style="red")
        story.claim(denial is not None and denial.policy_id == "deny-delete", "the call is denied by deny-delete")
        story.claim(desk.calls["ticket.delete"] == 0, "the function that deletes was never called")
        left = desk.rows("SELECT ticket_id, subject, status FROM tickets WHERE ticket_id = 'T-1043'")
        story.say("  SELECT ticket_id, subject, status FROM tickets WHERE ticket_id = 'T-1043'")
        story.table(("ticket_id", "subject", "status"), [tuple(row.values()) for row in left])
        story.claim(len(left) == 1, "the ticket is still there")
        denial = None
        try:
            self._call("refund.create", {**BROKEN_MACHINE, "ticket_id": "T-1043", "amount": 5000})
        except ActionDenied as error:
            denial = error
            story.answer(error.message, style="red")
        story.claim(denial is not None and denial.policy_id == "deny-huge-refund", "nor does 5000 EUR leave the house")
        story.agent("The answer said what I may do instead: close it.")
        closed = self._call(
            "ticket.close", {"ticket_id": "T-1043", "resolution": "duplicate", "summary": "Duplicate of T-1042."}
        )
        story.answer(f"T-1043 is {closed['status']}")
        story.claim(closed["status"] == "closed", "closing it is allowed, and done")

    def _small_refund(self) -> None:
        story, desk = self._story, self._desk
        story.scene("A refund within bounds", "Up to 500 the agent decides itself. A repeated call must not pay twice.")
        first = self._call("refund.create", DOUBLE_CHARGE, idempotency_key="T-1042-double-charge")
        story.answer(f"{first['refund_id']}: {first['amount']} {first['currency']}, {first['status']}")
        story.agent("Did that work? I will send it again, with the same idempotency key.")
        second = self._call("refund.create", DOUBLE_CHARGE, idempotency_key="T-1042-double-charge")
        story.answer(f"{second['refund_id']}: the stored answer")
        story.claim(first == second, "the second answer is the first one")
        story.claim(desk.count("refunds") == 1, "the database has one refund")

    def _replies(self) -> None:
        story, desk = self._story, self._desk
        story.scene("Too many replies", "Three replies a minute; faster than this is a loop, not a conversation.")
        texts = [
            ("T-1042", "We have returned the second charge of 149.90 EUR. Kind regards, the Acme team"),
            ("T-1045", "Open settings, then security: there you can choose a new password. The Acme team"),
            ("T-1046", "Invoice 8812 is on its way to you once more. The Acme team"),
            ("T-1047", "A colleague will write to you about your account. The Acme team"),
        ]
        limit = None
        for ticket_id, body in texts:
            try:
                sent = self._call("reply.send", {"ticket_id": ticket_id, "channel": "email", "body": body})
                story.answer(sent["message_id"])
            except LimitExceeded as error:
                limit = error
                story.answer(error.message, style="red")
        story.claim(desk.count("messages") == 3, "three messages left, the fourth did not")
        story.claim(limit is not None and limit.policy_id == "reply-rate", "the policy reply-rate stopped it")
        wait = limit.retry_after_s if limit is not None else None
        story.claim(wait is not None and 0 < wait <= 60, f"and the answer says how long to wait: {wait} s")

    def _large_refund(self) -> None:
        story, desk, approvals = self._story, self._desk, self._runtime.approvals
        story.scene("A refund that needs a person", "Over 500 a team lead looks first. The agent cannot be that lead.")
        first = self._ask_for_refund()
        story.claim(desk.count("refunds") == 1, "nothing was paid")
        story.agent("I could grant that myself.")
        refusal = None
        try:
            approvals.grant(first, approver=AGENT)
        except ApprovalConflict as error:
            refusal = error
            story.answer(error.message, style="red")
        story.claim(refusal is not None, "who asks cannot approve")
        waiting = approvals.list(session_id=self.session_id, status="pending")
        story.table(
            ("waits for a person", "action", "amount", "asked by"),
            [(a.approval_id, a.action_id, (a.parameters or {}).get("amount"), a.agent_id) for a in waiting],
        )
        granted = approvals.grant(first, approver=LEAD, reason="spoke to the customer, picture is in the ticket")
        story.say(f"{LEAD} grants it: {granted.reason}")
        paid = self._call("refund.create", BROKEN_MACHINE, approval_id=first)
        story.answer(f"{paid['refund_id']}: {paid['amount']:g} {paid['currency']}, {paid['status']}")
        story.claim(desk.count("refunds") == 2, "now it is paid, once")
        story.claim(approvals.get(first).status == "used", "and the approval is used up")
        story.agent("Once more, to be sure.")
        second = self._ask_for_refund()
        story.claim(second != first, "the same call again asks for a new approval")
        approvals.reject(second, approver=LEAD, reason="it has been paid")
        story.say(f"{LEAD} rejects it: it has been paid")
        story.claim(desk.count("refunds") == 2, "the database still has two refunds")
        self._call("ticket.close", {"ticket_id": "T-1044", "resolution": "solved", "summary": "Refunded in full."})

    def _ask_for_refund(self) -> str:
        try:
            self._call("refund.create", BROKEN_MACHINE)
        except ApprovalRequired as error:
            self._story.answer(f"{error.message} (approval {error.approval_id})", style="yellow")
            return error.approval_id
        self._story.claim(False, "the refund waits for a person")
        raise AssertionError

    def _leave(self) -> None:
        self._runtime.end_session(self.session_id)


def write_trace(story: Story, runtime: CRARuntime, session_id: str, path: Path) -> None:
    """Export the session and verify it."""
    from cra.runtime._base import verify_trace

    story.scene("The record", "Everything that was asked, decided and done, each event hashed over the one before it.")
    trace = runtime.get_trace(session_id)
    path.write_bytes(trace.data)
    counts: dict[str, int] = {}
    for event in trace:
        counts[event.event_type] = counts.get(event.event_type, 0) + 1
    story.table(("event", "times"), sorted(counts.items()))
    verdict = verify_trace(trace)
    story.answer(f"{verdict.events} events, head {verdict.head[:16]}...")
    story.claim(verdict.ok and verdict.events == len(trace), f"the chain of {len(trace)} events holds")
    story.claim(runtime.verify_chain(session_id).ok, "in the store too")


def tamper(story: Story, path: Path, copy: Path) -> None:
    """Change one byte in a copy of the trace and see which event is caught."""
    from cra._core.chain import verify
    from cra.protocol.trace import Trace

    story.scene("Tampering", "Somebody makes the large refund look small: one byte in a copy of the trace.")
    data = path.read_bytes()
    at = data.index(b'"amount":620')
    place = at + len(b'"amount":')
    changed = data[:place] + b"1" + data[place + 1 :]
    copy.write_bytes(changed)
    expected = data.count(b"\n", 0, at)
    story.say(f'byte {place}: "amount":620 becomes "amount":120 in {copy}')
    verdict = verify(changed)
    story.answer(f"event {verdict.index} is bad, reason {verdict.reason}: {verdict.message}", style="red")
    event = Trace(data)[expected]
    story.claim(sum(a != b for a, b in zip(data, changed, strict=True)) == 1, "exactly one byte differs")
    story.claim(not verdict.ok and verdict.index == expected, f"caught at event {expected}, the {event.event_type}")
    story.claim(verdict.events == expected, f"the {expected} events before it are good")


def replay(story: Story, path: Path, atlas: Path, stricter: Path) -> None:
    """Decide everything again from the trace, and then as a stricter atlas would have."""
    from cra.atlas.loader import load
    from cra.cli.replay import what_if_rows
    from cra.protocol.trace import Trace
    from cra.runtime.replay import replay as decide_again
    from cra.runtime.whatif import what_if

    trace = Trace(path.read_bytes())
    used, other = load(atlas), load(stricter)
    story.scene("Replay", "From the trace and the atlas alone, every decision is made once more.")
    result = decide_again(trace, used)
    counts = result.counts()
    story.answer(f"{counts['same']} events the same, {counts['given']} inputs, {counts['different']} different")
    story.claim(result.ok, "no event comes out different")
    story.claim(result.complete, "and none had to be left out: every payload is reproduced byte for byte")
    story.scene(
        f"What if it had been version {other.version}?",
        "The stricter atlas: approval from 100 on, a person looks at every closing, two searches a minute.",
    )
    answer = what_if(trace, other, recorded=[used])
    rows = what_if_rows(answer)
    story.table(("event", "request", "grade", "was", "would have been"), rows)
    graded = {(verdict.kind, verdict.what): verdict.grade for verdict in answer.changed}
    after = {
        (verdict.what, change.after.decision): change.after.policy or ""
        for verdict in answer.changed
        for change in verdict.changes
        if verdict.kind == "call"
    }
    story.claim(
        graded.get(("call", "refund.create")) == "stricter", "the refund of 149.90 would have waited for a person"
    )
    story.claim(
        after.get(("ticket.search", "rate_limited"), "").endswith("search-rate"),
        "the third search would have been too many",
    )
    story.claim(("ticket.close", "requires_approval") in after, "closing a ticket would have waited for a person")
    story.claim(all(grade != "looser" for grade in graded.values()), "and nothing would have been easier")
