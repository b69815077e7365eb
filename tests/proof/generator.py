"""Random worlds and what is asked in them: atlases, requests, calls, clocks and counted limits, all from one seed.

A world is an atlas set with small pools of everything a request can vary, so that many requests share the work of
preparing it. The words are few and overlap on purpose: globs meet actions, policies of different atlases share their
ids, claims meet conditions at their edges.
"""

from random import Random
from typing import Any, NamedTuple

Json = dict[str, Any]

ACTIONS = (
    "ticket.get", "ticket.gets", "ticket.delete", "ticket.comment.add", "file.read", "file.delete", "file.read_all",
    "db.get", "db.drop", "mail.send", "mail.get",
)  # fmt: skip
ACTION_GLOBS = (
    "*", "*", "ticket.*", "file.*", "db.*", "mail.*", "*.get", "*.delete", "*get*", "ticket.get?", "?b.*", "file.read*",
    "*.*.*", "ticket.get", "file.read", "db.drop", "mail.send", "*.GET", "no.such", "t*t.*",
)  # fmt: skip
NARROW_GLOBS = ("*.delete", "db.*", "ticket.get", "file.read*", "mail.*", "*.drop", "ticket.get?")
ATLASES = ("com.acme.support", "com.acme.files", "org.example.data")
AGENTS = ("agent-1", "agent-", "bot", "агент-1", "Agent-1")
AGENT_GLOBS = ("agent-?", "agent-*", "*", "b*", "агент-?", "nobody", "?gent-1")
CAPABILITIES = ("read", "write", "admin")
POLICY_IDS = tuple(f"policy-{n}" for n in range(12))
TIERS = ("low", "medium", "high", "critical")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
KEYS = ("env", "plan", "count", "flag")
KEY_GLOBS = ("prod", "pr*", "*", "?", "1*", "true", "null", "1.5", "free")
VALUES: tuple[Any, ...] = ("prod", "pre", "free", "", 1, 10, 1.5, 1.0, True, None, ["prod"], {"a": "prod"}, "1")
SCHEMAS: tuple[Any, ...] = (
    {"properties": {"amount": {"maximum": 5}}},
    {"required": ["amount"]},
    {"properties": {"amount": {"type": "integer", "minimum": 3}}, "required": ["amount"]},
    {"properties": {"to": {"enum": ["a", "b"]}}},
    True,
    False,
    {},
)
PARAMETERS: tuple[Json, ...] = (
    {}, {"amount": 1}, {"amount": 5}, {"amount": 9.5}, {"amount": -1}, {"amount": "5"}, {"amount": True},
    {"amount": 3, "to": "a"}, {"to": "c"}, {"a/b": {"c": 2}}, {"amount": 0}, {"amount": 0.0000001}, {"amount": 10**30},
)  # fmt: skip
COSTS = (None, None, "/amount", "/a~1b/c")
ZONES = (None, "UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Africa/Monrovia")
CLOCKS = ("00:00", "08:00", "12:30", "14:30", "17:00", "23:59")
# Monday 2026-01-05 14:30:00 and edges around it; a clock change; eight o'clock in a Monrovia 44 min 30 s behind.
MONDAY = 1_767_623_400_000_000
HOUR = 3_600_000_000
NOWS = (
    MONDAY, MONDAY - 1, MONDAY - 2 * HOUR, MONDAY + 10 * HOUR, MONDAY + 5 * 24 * HOUR, MONDAY + 6 * 24 * HOUR,
    MONDAY + 9 * HOUR + HOUR // 2 - 60_000_000, MONDAY - HOUR, 1_774_746_000_000_000, 31_470_000_000,
    31_470_000_000 - 1,
)  # fmt: skip
WORDS = (
    "refund",
    "ticket",
    "policy",
    "read",
    "Straße",
    "STRASSE",
    "café",
    "database",
    "delete",
    "ignore",
    "previous",
    "instructions",
    "allow",
    "ÉTÉ",
    "x1",
)


class World(NamedTuple):
    """An atlas set in wire form, and the pools its requests draw from."""

    atlases: list[Json]
    files: dict[str, dict[str, str]]
    default_decision: str
    contexts: list[Json]
    session_contexts: list[Json]
    usages: list[Json]

    @property
    def action_ids(self) -> list[str]:
        return [action["action_id"] for atlas in self.atlases for action in atlas["actions"]]


class Call(NamedTuple):
    """What makes a request an execute: an action's place, the index of its parameters, and a granted approval."""

    action: int
    parameters: int
    approved: bool


class Pair(NamedTuple):
    """One request to a world; `context`, `session_context` and `usage` are places in the world's pools."""

    agent: str
    tier: str
    context: int
    session_context: int
    usage: int
    now: int
    atlas_ids: tuple[str, ...]
    capabilities: tuple[str, ...]
    call: Call | None


def world(random: Random, *, documents: bool = False) -> World:
    """Make an atlas set of one to three atlases, rarely of none; with context packs if `documents`."""
    actions = list(ACTIONS)
    random.shuffle(actions)
    count = random.choice((0, *(1, 2, 3) * 6))
    atlases = []
    for number, atlas_id in enumerate(random.sample(ATLASES, count)):
        mine, actions = actions[: random.randint(1, 4)], actions[4:]
        atlases.append(_atlas(random, atlas_id, mine, number, documents))
    files = {
        atlas["atlas_id"]: {file: _text(random) for pack in atlas.get("context_packs", []) for file in pack["files"]}
        for atlas in atlases
    }
    return World(
        atlases=atlases,
        files=files,
        default_decision="deny" if random.random() < 0.15 else "allow",
        contexts=[{}, *(_context(random) for _ in range(5))],
        session_contexts=[{}, {}, _context(random)],
        usages=[{}, *(_usage(random, atlases) for _ in range(3))],
    )


def pair(random: Random, made: World) -> Pair:
    """Make a request to a world: two of three ask for a resolution, one for an execution."""
    loaded = [atlas["atlas_id"] for atlas in made.atlases]
    call = None
    ids = made.action_ids
    if ids and random.random() < 1 / 3:
        call = Call(random.randrange(len(ids)), random.randrange(len(PARAMETERS)), random.random() < 0.3)
    return Pair(
        agent=random.choice(AGENTS),
        tier=random.choice(TIERS) if random.random() < 0.6 else "low",
        context=random.randrange(len(made.contexts)),
        session_context=random.randrange(len(made.session_contexts)),
        usage=random.randrange(len(made.usages)),
        now=random.choice(NOWS),
        atlas_ids=tuple(random.sample(loaded, random.randint(1, len(loaded)))) if loaded and _rarely(random, 5) else (),
        capabilities=tuple(random.sample(CAPABILITIES, random.randint(1, 2))) if _rarely(random, 5) else (),
        call=call,
    )


def request_of(made: World, asked: Pair, number: int = 0) -> Json:
    """Return the CARP request of a pair, in wire form; its timestamp is the pair's clock."""
    from specs.reference.resolution import timestamp

    goal = f"{WORDS[number % len(WORDS)]} {WORDS[asked.now % len(WORDS)]} {asked.agent}"
    request: Json = {
        "carp_version": "1.0",
        "request_id": f"01920000-0000-7000-8000-{number:012x}",
        "timestamp": timestamp(asked.now),
        "operation": "resolve",
        "requester": {"agent_id": asked.agent, "session_id": SESSION},
        "task": {"goal": goal, "risk_tier": asked.tier},
    }
    if asked.atlas_ids:
        request["atlas_ids"] = list(asked.atlas_ids)
    if asked.capabilities:
        request["task"]["required_capabilities"] = list(asked.capabilities)
    if number % 3 == 0:
        request["task"]["context_hints"] = [WORDS[number % 5], WORDS[number % 7] + " " + WORDS[number % 11]]
    if made.contexts[asked.context]:
        request["context"] = made.contexts[asked.context]
    return request


SESSION = "01920000-0000-7000-8000-00000000000a"


def policy(random: Random, policy_id: str, kind: str | None = None) -> Json:
    """Make a policy of a random type, or of the type `kind`."""
    if kind is None:
        kind = random.choice(("allow",) * 8 + KINDS)
    globs = ACTION_GLOBS if kind in ("allow", "rate_limit", "budget") else (*NARROW_GLOBS, *ACTION_GLOBS[::3])
    made: Json = {
        "policy_id": policy_id,
        "type": kind,
        "actions": random.sample(globs, random.choice((1, 1, 2, 0) if _rarely(random, 10) else (1, 1, 2))),
    }
    if _rarely(random, 2):
        made["priority"] = random.choice((-3, 0, 1, 1, 7))
    conditions = _conditions(random, parameters=True, often=2 if kind == "deny" else 4)
    if conditions:
        made["conditions"] = conditions
    if _rarely(random, 4):
        made["reason"] = random.choice(("ask a colleague", "", 'say "why"\n', "нельзя"))
    given = _parameters(random, kind)
    if kind != "scope" and _rarely(random, 5):
        given["reason"] = random.choice(("because", "of `x`"))
    if given:
        made["parameters"] = given
    return made


KINDS = ("deny", "deny", "scope", "require_approval", "requires_approval", "rate_limit", "budget", "budget")
RESTRICTIONS = ("deny", "scope", "require_approval", "requires_approval", "rate_limit", "budget")


def _atlas(random: Random, atlas_id: str, action_ids: list[str], number: int, documents: bool) -> Json:
    made: Json = {
        "atlas_version": "1.0",
        "atlas_id": atlas_id,
        "version": f"1.{number}.0",
        "name": "An atlas",
        "actions": [_action(random, action_id) for action_id in action_ids],
        "capabilities": [
            {
                "capability_id": capability,
                "name": capability,
                "actions": random.sample(ACTION_GLOBS, random.randint(0, 2)),
            }
            for capability in random.sample(CAPABILITIES, random.randint(0, 3))
        ],
    }
    ids = random.sample(POLICY_IDS, random.choice((0, 1, 3, 5, 8)))
    made["policies"] = [policy(random, policy_id) for policy_id in ids]
    if documents:
        _add_packs(random, made)
    return made


def _action(random: Random, action_id: str) -> Json:
    made: Json = {"action_id": action_id, "name": action_id.title()}
    if _rarely(random, 2):
        made["risk_tier"] = random.choice(TIERS)
    if _rarely(random, 8):
        made["requires_confirmation"] = True
    if _rarely(random, 6):
        made["rate_limit"] = {"max_calls": random.randint(1, 3), "window_seconds": 60}
    if _rarely(random, 4):
        made["parameters_schema"] = {"type": "object", "properties": {"amount": {"type": "number"}}}
    if _rarely(random, 6):
        made["description"] = _text(random)
        made["idempotent"] = True
    return made


def _parameters(random: Random, kind: str) -> Json:
    if kind == "rate_limit":
        made: Json = {"max_calls": random.randint(1, 3), "window_seconds": random.choice((1, 60))}
    elif kind == "budget":
        made = {"limit": random.choice((1, 2.5, 10, 0.000001, 100.0)), "unit": "EUR"}
        made["window"] = random.choice((60, "session"))
        cost = random.choice(COSTS)
        if cost is not None:
            made["cost"] = cost
    elif kind == "scope":
        return {"schema": random.choice(SCHEMAS)}
    else:
        return {}
    if _rarely(random, 3):
        made["per"] = random.choice(("session", "agent", "tenant"))
    return made


def _conditions(random: Random, *, parameters: bool, often: int) -> Json:
    made: Json = {}
    if _rarely(random, often):
        made["risk_tiers"] = random.sample(TIERS, random.choice((0, 1, 1, 2, 2, 3, 4)))
    if _rarely(random, 2 * often):
        made["agents"] = random.sample(AGENT_GLOBS, random.choice((0, 1, 1, 2)))
    if _rarely(random, 2 * often):
        made["capabilities"] = random.sample(CAPABILITIES, random.choice((0, 1, 1, 2)))
    if _rarely(random, 2 * often):
        keys = random.sample(KEYS, random.choice((0, 1, 1, 1, 2)))
        made["context_matches"] = {key: random.choice(KEY_GLOBS) for key in keys}
    if _rarely(random, 2 * often):
        made["time_window"] = _window(random)
    if parameters and _rarely(random, 2 * often):
        made["parameters"] = random.choice(SCHEMAS)
    return made


def _window(random: Random) -> Json:
    made: Json = {"start": random.choice(CLOCKS), "end": random.choice(CLOCKS)}
    zone = random.choice(ZONES)
    if zone is not None:
        made["timezone"] = zone
    if _rarely(random, 3):
        made["days"] = random.sample(DAYS, random.randint(0, 4))
    return made


def _add_packs(random: Random, atlas: Json) -> None:
    packs = []
    for number in range(random.randint(0, 3)):
        pack: Json = {
            "pack_id": f"pack-{number}",
            "name": "A pack",
            "files": [f"context/{number}-{file}{random.choice(SUFFIXES)}" for file in range(random.randint(0, 4))],
        }
        conditions = _conditions(random, parameters=False, often=5)
        if conditions:
            pack["conditions"] = conditions
        if _rarely(random, 2):
            pack["priority"] = random.choice((0, 100, 500, 1000))
        if _rarely(random, 3):
            pack["max_tokens"] = random.randint(1, 20)
        packs.append(pack)
    atlas["context_packs"] = packs
    for capability in atlas["capabilities"]:
        if packs and _rarely(random, 2):
            capability["context_packs"] = [random.choice(packs)["pack_id"]]


SUFFIXES = (".md", ".json", ".txt", ".MD", "")


def _text(random: Random) -> str:
    return random.choice(("", " ", "\n", ".")).join(random.choices(WORDS, k=random.randint(0, 12)))


def _context(random: Random) -> Json:
    return {key: random.choice(VALUES) for key in random.sample(KEYS, random.randint(1, 3))}


def _usage(random: Random, atlases: list[Json]) -> Json:
    """Make what limits have counted, in the reference's form."""
    usage: Json = {}
    for atlas in atlases:
        limits = [
            *(
                (item["policy_id"], item["type"])
                for item in atlas["policies"]
                if item["type"] in ("rate_limit", "budget")
            ),
            *((f"{item['action_id']}:rate_limit", "rate_limit") for item in atlas["actions"] if "rate_limit" in item),
        ]
        for policy_id, kind in limits:
            key = f"{atlas['atlas_id']}:{policy_id}"
            if kind == "rate_limit" and _rarely(random, 3):
                usage[key] = {"wait_us": random.choice((0, 1, 1_000_000, 1_500_001))}
            elif kind == "budget" and _rarely(random, 2):
                left = random.choice((None, 1, 59_999_999))
                usage[key] = {"spent": random.choice((0, 1, 1_000_000, 2_000_000, 10_000_000)), "left_us": left}
    return usage


def _rarely(random: Random, one_in: int) -> bool:
    return random.random() < 1 / one_in
