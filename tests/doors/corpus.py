"""The corpus: what is asked at every door, and the drive that asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple, Protocol

import msgspec

from cra._core.canonical import dumps
from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.errors import CRAError, InvalidInput
from cra.protocol.times import format_timestamp
from cra.testing import conformance
from cra.testing._golden import Scenario
from cra.testing.clock import FixedClock, SeededIds
from tests.proof.generator import PARAMETERS, pair, request_of, world
from tests.runtime.desk import ATLAS

Json = dict[str, Any]

APPROVER = "dana"
_SEEDS = (2, 3, 5, 7)
_START_US = 1_767_623_400_000_000


class Script(NamedTuple):
    """What is asked in one world; `short` when some of it has no form on the wire, and so not at every door."""

    name: str
    atlases: tuple[Atlas, ...]
    config: Json
    clock_us: int
    steps: tuple[Json, ...]
    short: bool = False


class Hands:
    """What executors do, wherever they are: what the step says."""

    def __init__(self) -> None:
        self.told: Json = {}

    def __call__(self, parameters: Json) -> Any:
        if "raises" in self.told:
            raise RuntimeError(self.told["raises"])
        return self.told.get("returns", {"ok": True})


# One at a time, so that the executors that a command line names are found too.
HANDS = Hands()


def register(runtime: Any) -> None:
    """Register the executors of the corpus; a command line names it."""
    runtime.register_executor("*", HANDS, inline=True)


class Door(Protocol):
    """A way to ask: each returns bytes that are the same at every door, or raises the runtime's error."""

    def create(self, session_id: str, step: Json) -> bytes: ...
    def resolve(self, session_id: str, step: Json) -> bytes: ...
    def execute(self, session_id: str, step: Json) -> bytes: ...
    def simulate(self, session_id: str, step: Json) -> bytes: ...
    def send(self, request: Json) -> bytes: ...
    def decide(self, approval_id: str, verb: str, reason: str | None) -> bytes: ...
    def approvals(self, session_id: str) -> bytes: ...
    def show(self, session_id: str) -> bytes: ...
    def end(self, session_id: str) -> bytes: ...
    def trace(self, session_id: str) -> bytes: ...


class World(NamedTuple):
    """What a door is opened on: the same for each of them."""

    script: Script
    clock: FixedClock
    ids: SeededIds

    @classmethod
    def of(cls, script: Script) -> World:
        return cls(script, FixedClock(script.clock_us), SeededIds(len(script.name)))


def drive(world: World, door: Door) -> list[bytes]:
    """Ask everything; returns what came back, and last the traces."""
    script, clock = world.script, world.clock
    names = SeededIds(7)
    agent, goal, sessions = "", "", []
    approval_id = resolution_id = None
    found: list[bytes] = []
    for step in script.steps:
        do = step["do"]
        HANDS.told = step.get("executor", {})
        session_id = sessions[-1] if sessions else ""
        try:
            if do == "create":
                agent, goal = step["agent_id"], step["goal"]
                sessions.append(_uuid(names))
                answer = door.create(sessions[-1], step)
            elif do == "send":
                request = _request(step, agent, goal, session_id, _uuid(names), clock)
                if step.get("approval"):
                    request["execution"]["approval_id"] = approval_id
                if step.get("resolution"):
                    request["execution"]["resolution_id"] = resolution_id
                answer = door.send(request)
                if step.get("twice"):
                    found.append(answer)
                    answer = door.send(request)
            elif do == "decide":
                answer = door.decide(str(approval_id), step["verb"], step.get("reason"))
            elif do == "advance":
                clock.advance(step["seconds"])
                continue
            else:
                answer = getattr(door, do)(session_id, step) if do in _WITH_STEP else getattr(door, do)(session_id)
        except CRAError as error:
            answer = failed(error)
            approval_id = error.details.get("approval_id", approval_id)
        if do in ("send", "resolve"):
            approval_id, resolution_id = _named(answer, approval_id, resolution_id)
        found.append(answer)
    return found + [door.trace(session_id) for session_id in sessions]


_WITH_STEP = {"resolve", "execute", "simulate"}


def failed(error: CRAError) -> bytes:
    """Return an error as every door has to give it."""
    pointer = error.pointer if isinstance(error, InvalidInput) else None
    return b"error " + dumps([error.code, error.message, error.hint, pointer])


def record(value: Any) -> bytes:
    """Return a record of the store as bytes."""
    return dumps(msgspec.to_builtins(value))


def _named(answer: bytes, approval_id: str | None, resolution_id: str | None) -> tuple[str | None, str | None]:
    """Return the newest approval and resolution that an answer names."""
    if b'"decision":' in answer:
        resolution_id = json.loads(answer)["resolution_id"]
    elif b'"pending_approval"' in answer:
        approval_id = json.loads(answer)["error"]["details"]["approval_id"]
    return approval_id, resolution_id


def _uuid(ids: SeededIds) -> str:
    text = ids(16).hex()
    return f"{text[:8]}-{text[8:12]}-7{text[13:16]}-8{text[17:20]}-{text[20:]}"


def _request(step: Json, agent: str, goal: str, session_id: str, request_id: str, clock: FixedClock) -> Json:
    request: Json = {
        "carp_version": "1.0",
        "request_id": request_id,
        "timestamp": format_timestamp(clock() + step.get("skew_us", 0)),
        "operation": step["operation"],
        "requester": {"agent_id": agent, "session_id": session_id},
        "task": {"goal": goal, **step.get("task", {})},
    }
    for name in ("atlas_ids", "context", "execution"):
        if name in step:
            request[name] = dict(step[name]) if isinstance(step[name], dict) else step[name]
    return request


# What is asked


def golden() -> Iterator[Script]:
    """Yield the golden scenarios but for the one that waits for a deadline, which is real time."""
    for place in conformance.scenarios(conformance.data_folder()):
        scenario = Scenario(place)
        steps = [made for step in scenario.document["steps"] if (made := _golden_step(step)) is not None]
        if any(step.get("executor", {}).get("hangs") for step in steps):
            continue
        atlases = tuple(scenario.atlas(file) for file in scenario.document["atlases"])
        document = scenario.document
        yield Script(f"golden {scenario.name}", atlases, document["config"], document["clock_us"], tuple(steps))


def _golden_step(step: Json) -> Json | None:
    do = step["do"]
    if do == "create_session":
        return {**step, "do": "create"}
    if do == "resolve":
        asked = step["request"]
        task = {name: asked[name] for name in _TASK if name in asked}
        more = {name: asked[name] for name in ("atlas_ids", "context") if name in asked}
        return {"do": "send", "operation": "resolve", "task": task, **more}
    if do == "execute":
        execution = {name: step[name] for name in ("action_id", "parameters", "idempotency_key") if name in step}
        made = {"do": "send", "operation": "execute", "execution": execution, "executor": step.get("executor", {})}
        return made | {name: True for name in ("approval", "resolution") if step.get(name) == "last"}
    if do in ("grant", "reject"):
        return {"do": "decide", "verb": do} if step["approver"] == APPROVER else None
    return {"advance_clock": {**step, "do": "advance"}, "end_session": {"do": "end"}}.get(do)


_TASK = ("goal", "risk_tier", "context_hints", "required_capabilities")


def generated() -> Iterator[Script]:
    """Yield random worlds, the same in every run, with what is asked and called in them."""
    for seed in _SEEDS:
        random = Random(seed)
        made = world(random, documents=True)
        atlases = tuple(_loaded(atlas, made.files[atlas["atlas_id"]]) for atlas in made.atlases)
        context = random.choice(made.session_contexts)
        steps: list[Json] = [
            {"do": "create", "agent_id": "agent-1", "goal": "g\u00e9n\u00e9r\u00e9 \U0001f600", "context": context}
        ]
        for number in range(8):
            asked = request_of(made, pair(random, made), number)
            steps.append({"do": "send"} | {name: asked[name] for name in _ASKED if name in asked})
            for _ in range(2):
                action_id = random.choice(made.action_ids or ["file.read"])
                execution = {"action_id": action_id, "parameters": random.choice(PARAMETERS)}
                steps.append({"do": "send", "operation": "execute", "execution": execution})
            steps.append({"do": "advance", "seconds": random.choice((0, 1, 61))})
        steps.append({"do": "end"})
        config = {"default_decision": made.default_decision}
        yield Script(f"generated {seed}", atlases, config, _START_US, tuple(steps))


def _loaded(manifest: Json, files: dict[str, str]) -> Atlas:
    """Load a generated atlas without those of its parts that no loader takes: the engine is tested with them too."""
    files = {path: json.dumps(text) if path.endswith(".json") else text for path, text in files.items()}
    bad: set[tuple[str, int]] = set()
    for problem in loader.inspect_json(manifest, files).problems:
        _, room, number, *_ = problem.pointer.split("/")
        bad.add((room, int(number)))
    kept = {
        room: [part for number, part in enumerate(manifest[room]) if (room, number) not in bad]
        for room in ("policies", "capabilities", "context_packs")
        if room in manifest
    }
    return loader.load_json({**manifest, **kept}, files)


_ASKED = ("operation", "task", "atlas_ids", "context")


def _resolve(goal: str, **more: Any) -> Json:
    return {"do": "send", "operation": "resolve", "task": {"goal": goal, **more.pop("task", {})}, **more}


def _call(action_id: str, parameters: Json, returns: Any = None, **more: Any) -> Json:
    execution = {"action_id": action_id, "parameters": parameters, **more.pop("execution", {})}
    executor = {"executor": {"returns": returns}} if returns is not None else {}
    return {"do": "send", "operation": "execute", "execution": execution, **executor, **more}


_DESK = loader.load_json(ATLAS)
_BEGIN: tuple[Json, ...] = (
    {
        "do": "create",
        "agent_id": "agent-1",
        "goal": "help a customer",
        "context": {"tier": "gold", "n": 2**80, "f": 1e21},
        "metadata": {"text": "na\u00efve \u2028 \U0001f600", "big": -(2**70)},
    },
)

# Everything that can be said on the wire, good and bad.
DESK = Script(
    "desk",
    (_DESK,),
    {"capture_parameters": "full"},
    _START_US,
    (
        *_BEGIN,
        _call("ticket.get", {"id": "too early"}),
        _resolve("r\u00e9sum\u00e9 of tickets \U0001f600", twice=True),
        _resolve("refund", task={"risk_tier": "high", "required_capabilities": ["money"]}),
        _resolve("hints", task={"context_hints": ["tickets", "tickets"]}, atlas_ids=["com.example.desk"]),
        _resolve("nothing", atlas_ids=["com.example.other"]),
        _resolve("late", skew_us=-301_000_000),
        _resolve("early", skew_us=301_000_000),
        _resolve("edge", skew_us=300_000_000, context={"tier": "silver", "x": [1, 2.5, None, 2**70]}),
        _call("ticket.get", {"id": "\u00fc"}, {"ticket": {"id": "\u00fc", "n": 2**90, "f": 0.1}}, twice=True),
        _call("ticket.get", {"id": 5}),
        _call("ticket.delete", {}),
        _call("no.such_action", {}),
        _call("note.add", {}, {"id": 7}),
        _call("note.add", {}, {"id": "not an integer"}),
        _call("ticket.get", {"id": "raises"}, executor={"raises": "a secret of the executor"}),
        _call("refund.create", {"amount": 20.5}, {"refund": 1}),
        _call("refund.create", {"amount": 20.5}, {"refund": 2}, execution={"idempotency_key": "k-1"}),
        _call("refund.create", {"amount": 20.5}, {"refund": 3}, execution={"idempotency_key": "k-1"}),
        _call("refund.create", {"amount": 21.5}, {"refund": 4}, execution={"idempotency_key": "k-1"}),
        _call("refund.create", {"amount": 900}),
        {"do": "decide", "verb": "grant", "reason": "looks right \u2713"},
        {"do": "decide", "verb": "grant"},
        _call("refund.create", {"amount": 901}, approval=True),
        _call("refund.create", {"amount": 900}, {"refund": 5}, approval=True),
        _call("refund.create", {"amount": 900}, {"refund": 6}, approval=True),
        _call("mail.send", {"to": "a"}),
        {"do": "decide", "verb": "reject", "reason": "no"},
        _call("mail.send", {"to": "a"}, approval=True),
        _call("mail.send", {"to": "b"}),
        {"do": "approvals"},
        {"do": "advance", "seconds": 3601},
        _call("mail.send", {"to": "b"}, approval=True),
        {"do": "decide", "verb": "grant"},
        _call("ticket.get", {"id": "x"}, {"ok": 1}, resolution=True),
        _resolve("again"),
        _call("ticket.close", {"id": 1}),
        _call("ticket.close", {"id": 2}),
        _call("ticket.close", {"id": 3}),
        _call("ticket.close", {"id": 4}),
        _resolve("limits are used up"),
        {"do": "advance", "seconds": 60},
        _call("ticket.close", {"id": 5}, resolution=True),
        {"do": "show"},
        {"do": "end"},
        {"do": "end"},
        _resolve("after the end"),
        _call("ticket.get", {"id": "x"}),
        {"do": "show"},
    ),
)

# The short forms, where the runtime makes request ids, and what has no command.
SHORT = Script(
    "short",
    (_DESK,),
    {},
    _START_US,
    (
        *_BEGIN,
        {"do": "resolve", "goal": "help"},
        {"do": "resolve", "goal": "refund", "risk_tier": "high", "required_capabilities": ["money"]},
        {"do": "resolve", "goal": "hints", "context_hints": ["a", "b"], "context": {"n": 2**80, "tier": "x"}},
        {"do": "execute", "action_id": "ticket.get", "parameters": {"id": "x"}, "executor": {"returns": [2**80]}},
        {"do": "execute", "action_id": "ticket.delete", "parameters": {}},
        {"do": "execute", "action_id": "refund.create", "parameters": {}},
        {"do": "execute", "action_id": "refund.create", "parameters": {"amount": 900}},
        {"do": "decide", "verb": "grant"},
        {"do": "execute", "action_id": "no.such_action", "parameters": {}},
        {"do": "execute", "action_id": "note.add", "parameters": {}, "executor": {"returns": 5}},
        {"do": "execute", "action_id": "ticket.get", "parameters": {}, "executor": {"raises": "boom"}},
        {"do": "simulate", "goal": "what may I do", "risk_tier": "critical"},
        {"do": "simulate", "action_id": "ticket.get", "parameters": {"id": "x", "n": 2**70}},
        {"do": "simulate", "action_id": "refund.create", "parameters": {"amount": 901}},
        {"do": "simulate", "action_id": "ticket.delete", "parameters": {}},
        {"do": "send", "operation": "validate", "execution": {"action_id": "ticket.get", "parameters": {"id": "x"}}},
        {"do": "send", "operation": "validate", "execution": {"action_id": "ticket.delete", "parameters": {}}},
        {"do": "create", "agent_id": "agent-2", "goal": "another"},
        {"do": "execute", "action_id": "ticket.get", "parameters": {}},
        {"do": "end"},
        {"do": "resolve", "goal": "after the end"},
        {"do": "simulate", "goal": "after the end"},
    ),
    short=True,
)


SCRIPTS = (*golden(), *generated(), DESK, SHORT)
# Enough of it for what is slow.
FEW = tuple(script for script in SCRIPTS if script.name in ("desk", "short", "generated 3", "golden multi-atlas"))
