"""Seeded inputs: atlases of several sizes, a world of globs, an event."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

SEED = 38
AGENT = "agent-1"
CALL = {"id": "x"}

_SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}


def action(action_id: str) -> dict[str, Any]:
    """Return an action that takes an id."""
    return {
        "action_id": action_id,
        "name": f"Test {action_id}",
        "description": "does it",
        "parameters_schema": _SCHEMA,
        "returns_schema": {},
    }


def five_actions(atlas_id: str = "com.test.bench", prefix: str = "test") -> dict[str, Any]:
    """Return the benchmark atlas: five actions, of which `*.delete` is denied, so a resolve is seven events."""
    return {
        "atlas_version": "1.0",
        "atlas_id": atlas_id,
        "version": "1.0.0",
        "name": "Bench",
        "policies": [
            {"policy_id": "deny-delete", "type": "deny", "actions": [f"{prefix}.delete"], "reason": "no deletes"},
            {"policy_id": "allow-all", "type": "allow", "actions": ["*"]},
        ],
        "actions": [action(f"{prefix}.{verb}") for verb in ("get", "list", "create", "update", "delete")],
    }


def with_context(document: dict[str, Any], total_bytes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the atlas with five documents of `total_bytes` in all, and the documents."""
    words = [
        "policy",
        "ticket",
        "refund",
        "customer",
        "order",
        "limit",
        "approve",
        "escalate",
        "region",
        "account",
        "invoice",
        "status",
    ]
    pick = random.Random(SEED)
    files = {}
    for number in range(5):
        text = ""
        while len(text) < total_bytes // 5:
            text += pick.choice(words) + (".\n" if pick.random() < 0.1 else " ")
        files[f"context/part-{number}.md"] = text[: total_bytes // 5]
    pack = {"pack_id": "guide", "name": "Guide", "files": list(files)}
    return {**document, "context_packs": [pack]}, files


def sized(actions: int, policies: int) -> dict[str, Any]:
    """Return an atlas with that many actions and policies, in the shares of the world of globs."""
    world = glob_world()
    names = world.actions[:: len(world.actions) // actions][:actions]
    document = {**five_actions("com.test.sized"), "actions": [action(name) for name in names]}
    if policies == 1:
        document["policies"] = [{"policy_id": "allow-all", "type": "allow", "actions": ["*"]}]
    else:
        share = policies / 100
        document["policies"] = _policies(
            world.deny[: round(20 * share)],
            world.approval[: round(20 * share)],
            [*world.allow[: round(60 * share) - 1], "*"],
        )
    return document


class World(NamedTuple):
    """200 actions, 100 globs, and the answers: deny before approval before allow, nothing matching is deny."""

    actions: list[str]
    deny: list[str]
    approval: list[str]
    allow: list[str]
    answers: dict[str, str]

    def atlas(self) -> dict[str, Any]:
        """Return the same as an atlas."""
        return {
            **five_actions("com.test.globs"),
            "policies": _policies(self.deny, self.approval, self.allow),
            "actions": [action(name) for name in self.actions],
        }


def _policies(deny: list[str], approval: list[str], allow: list[str]) -> list[dict[str, Any]]:
    return [
        {"policy_id": f"{kind.replace('_', '-')}-{number}", "type": kind, "actions": [glob]}
        for kind, globs in (("deny", deny), ("require_approval", approval), ("allow", allow))
        for number, glob in enumerate(globs)
    ]


VERBS = ("get", "list", "create", "update", "delete", "export", "share", "archive")


@cache
def glob_world() -> World:
    """Return 25 namespaces of 8 verbs and 100 globs: prefix, suffix, middle and exact."""
    pick = random.Random(SEED)
    spaces = [f"{a}{b}" for a in ("ticket", "order", "invoice", "user", "report") for b in ("", "s", "eu", "us", "qa")]
    actions = [f"{space}.{verb}" for space in spaces for verb in VERBS]

    taken: set[str] = set()

    def globs(count: int, shares: tuple[float, float, float, float]) -> list[str]:
        """Exact, prefix, suffix, middle and, for what is left, whole namespaces; no glob twice in the world."""
        found: list[str] = []
        while len(found) < count:
            space, verb, dice = pick.choice(spaces), pick.choice(VERBS), pick.random()
            if dice < shares[0]:
                glob = f"{space}.{verb}"
            elif dice < shares[1]:
                glob = f"{space}.{verb[:2]}*"
            elif dice < shares[2]:
                glob = f"*{space[-3:]}.{verb}"
            elif dice < shares[3]:
                glob = f"{space[:3]}*.{verb}"
            else:
                glob = f"{space}.*"
            if glob not in taken:
                taken.add(glob)
                found.append(glob)
        return found

    deny = globs(20, (0.3, 0.5, 0.8, 0.9))
    approval = globs(20, (0.3, 0.5, 0.7, 0.85))
    allow = globs(60, (0.3, 0.5, 0.7, 0.8))
    answers = {name: _answer(name, deny, approval, allow) for name in actions}
    return World(actions, deny, approval, allow, answers)


def _answer(name: str, deny: list[str], approval: list[str], allow: list[str]) -> str:
    for answer, globs in (("deny", deny), ("approval", approval), ("allow", allow)):
        if any(_matches(glob, name) for glob in globs):
            return answer
    return "deny"


def _matches(glob: str, name: str) -> bool:
    """One star at most: what every engine here can say in its own words."""
    head, star, tail = glob.partition("*")
    if not star:
        return glob == name
    return name.startswith(head) and name.endswith(tail) and len(name) >= len(head) + len(tail)


def counts(answers: dict[str, str]) -> Counter[str]:
    """Return how many of each answer there are."""
    return Counter(answers.values())


def event() -> dict[str, Any]:
    """Return an event of 421 bytes as canonical JSON; with its envelope a hand-written record has 597."""
    return {
        "action_id": "ticket.update",
        "agent_id": "agent-1",
        "decision": "allow",
        "parameters": {"amount": 125, "currency": "EUR", "id": "T-20260101-000042", "urgent": False},
        "policy_id": "allow-ticket-updates",
        "reason": "the agent may update tickets of its own region while the session's budget lasts",
        "resolution_id": "018f5a3e-7c1b-7d20-9a44-3f1e2b6c7d80",
        "session_id": "018f5a3e-7c1b-7d20-9a44-3f1e2b6c7d81",
        "tags": ["support", "emea", "tier2"],
    }
