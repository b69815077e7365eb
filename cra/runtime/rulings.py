"""Rulings: what was decided about an action, read from events, and how much freedom it leaves."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from cra.runtime.past import APPROVED, EVALUATED, Payload, Told

Grade = Literal["same", "neutral", "stricter", "looser", "mixed", "unknown"]
Word = Literal[
    "allow",
    "approved",
    "requires_approval",
    "deny",
    "rate_limited",
    "budget_exceeded",
    "not_offered",
    "error",
    "unknown",
]

# How much an agent may do; an action that is not offered is as good as denied.
FREEDOM = {"allow": 2, "approved": 1, "requires_approval": 1}


class Ruling(Struct, frozen=True, kw_only=True):
    """One decision: the word, and the policy (`<atlas_id>:<policy_id>`) that decided, if one did.

    `approved` is a call that waited and was granted; `not_offered` an action that the answer does not name; `unknown`
    what cannot be told, because it depends on an input that was not kept.
    """

    decision: Word
    policy: str | None = None


def graded(grades: Sequence[Grade]) -> Grade:
    """Return the grade of several together."""
    found = set(grades)
    if "mixed" in found or {"stricter", "looser"} <= found:
        return "mixed"
    order: tuple[Grade, ...] = ("stricter", "looser", "unknown", "neutral")
    return next((grade for grade in order if grade in found), "same")


def grade_of(before: Ruling, after: Ruling) -> Grade:
    """Grade one change by what the agent may do."""
    if before == after:
        return "same"
    if "unknown" in (before.decision, after.decision):
        return "unknown"
    one, other = FREEDOM.get(before.decision, 0), FREEDOM.get(after.decision, 0)
    if one != other:
        return "looser" if other > one else "stricter"
    return "neutral"


def shown(ruling: Ruling) -> str:
    """Return a ruling in words."""
    return ruling.decision if ruling.policy is None else f"{ruling.decision} by `{ruling.policy}`"


def _policy_of(payload: Payload) -> str:
    return f"{payload.get('atlas_id')}:{payload.get('policy_id')}"


def rulings_of(told: Told, default: dict[str, Ruling]) -> dict[str, Ruling]:
    """Return what a resolve decided about each action, in order."""
    found = dict(default)
    for event_type, payload in told:
        if event_type == EVALUATED:
            found[str(payload.get("action_id"))] = Ruling(decision=payload["result"], policy=_policy_of(payload))
    return found


def ruling_of_call(told: Told) -> Ruling:
    """Return what the events of a call say was decided."""
    types = {event_type for event_type, _ in told}
    evaluated = next((payload for event_type, payload in told if event_type == EVALUATED), None)
    policy = None if evaluated is None else _policy_of(evaluated)
    if APPROVED in types:
        granted = any("approval_id" in payload for event_type, payload in told if event_type == APPROVED)
        return Ruling(decision="approved" if granted else "allow", policy=policy)
    if "action.denied" in types:
        word = None if evaluated is None else evaluated.get("result")
        if word in ("rate_limited", "budget_exceeded"):
            return Ruling(decision=word, policy=policy)
        # An allow or a wait that the parameters' schema or an approval stopped is no policy's denial.
        return Ruling(decision="deny", policy=policy if word == "deny" else None)
    if "error.occurred" in types:
        return Ruling(decision="error")
    if evaluated is not None and evaluated.get("result") == "requires_approval":
        return Ruling(decision="requires_approval", policy=policy)
    # Only action.requested: the answer of an earlier call was given again.
    return Ruling(decision="allow", policy=policy)
