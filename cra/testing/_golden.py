"""Golden scenarios: whole sessions, driven through the wire and held to what a person expects of each step."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cra._core.canonical import digest, dumps
from cra._core.sha256 import hexdigest
from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.errors import CRAError
from cra.protocol.codec import decode_request
from cra.protocol.times import format_timestamp
from cra.protocol.trace import Trace
from cra.runtime import engine
from cra.runtime.config import RuntimeConfig
from cra.runtime.replay import ReplayResult
from cra.runtime.sync import CRARuntime
from cra.runtime.whatif import WhatIf
from cra.testing._vectors import Json, Mismatch, changes_of, same
from cra.testing.clock import FixedClock, SeededIds

PROVING = ("replay", "what_if")


class Door(Protocol):
    """What a scenario needs of an implementation: the wire, sessions, approvals, the record, its clock and hands."""

    def now_us(self) -> int: ...
    def advance(self, seconds: float) -> None: ...
    def tell(self, executor: Json) -> None:
        """Say what an executor does that is started from now on."""
        ...

    def ran(self) -> bool:
        """Return whether an executor was started since then."""
        ...

    def comparable(self, value: Any) -> Any:
        """Return a JSON value without what may differ between two runs at this door."""
        ...

    def create_session(self, agent_id: str, goal: str, context: Json | None) -> str: ...
    def end_session(self, session_id: str) -> Json: ...
    def send(self, request: Json) -> Json:
        """Answer a CARP request; raises `CRAError` for what is no answer."""
        ...

    def decide(self, approval_id: str, approver: str, *, grant: bool) -> str: ...
    def trace(self, session_id: str) -> bytes: ...
    def verify(self, session_id: str) -> str | None:
        """Return what is wrong with the session's chain."""
        ...

    def replay(self, trace: bytes) -> ReplayResult: ...
    def what_if(self, trace: bytes, atlases: list[Atlas]) -> WhatIf: ...
    def close(self) -> None: ...


class Embedded:
    """The runtime of this process, with a clock and ids of its own."""

    def __init__(self, scenario: "Scenario", atlases: list[Atlas]) -> None:
        document = scenario.document
        self._clock = FixedClock(document["clock_us"])
        self._runtime = CRARuntime(RuntimeConfig(clock=self._clock, ids=scenario.ids(), **document["config"]))
        for atlas in atlases:
            self._runtime.load_atlas(atlas)
        self._runtime.register_executor("*", self._execute)
        self._executor: Json = {}
        self._ran = False
        self._release = threading.Event()

    def _execute(self, parameters: Json) -> Any:
        self._ran = True
        told = self._executor
        if "raises" in told:
            raise RuntimeError(told["raises"])
        if told.get("hangs"):
            # Longer than any deadline of a scenario; let go when the scenario is over.
            self._release.wait(60)
        return told.get("returns")

    def now_us(self) -> int:
        return self._clock()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def tell(self, executor: Json) -> None:
        self._executor, self._ran = executor, False

    def ran(self) -> bool:
        return self._ran

    def comparable(self, value: Any) -> Any:
        return value

    def create_session(self, agent_id: str, goal: str, context: Json | None) -> str:
        return self._runtime.create_session(agent_id, goal, context=context).session_id

    def end_session(self, session_id: str) -> Json:
        record = self._runtime.end_session(session_id)
        return {"action_count": record.action_count, "status": record.status}

    def send(self, request: Json) -> Json:
        answer: Json = json.loads(self._runtime.handle(request))
        return answer

    def decide(self, approval_id: str, approver: str, *, grant: bool) -> str:
        approvals = self._runtime.approvals
        decided = (approvals.grant if grant else approvals.reject)(approval_id, approver=approver)
        return decided.status

    def trace(self, session_id: str) -> bytes:
        return self._runtime.get_trace(session_id).data

    def verify(self, session_id: str) -> str | None:
        verdict = self._runtime.verify_chain(session_id)
        return None if verdict.ok else f"event {verdict.index}: {verdict.message}"

    def replay(self, trace: bytes) -> ReplayResult:
        return self._runtime.replay(trace)

    def what_if(self, trace: bytes, atlases: list[Atlas]) -> WhatIf:
        return self._runtime.what_if(trace, atlases)

    def close(self) -> None:
        self._release.set()
        self._runtime.close()


Open = Callable[["Scenario", list[Atlas]], Door]


class Sent(NamedTuple):
    """A resolve or execute: what was asked and what came back."""

    number: int
    request: Json
    answer: Json


class Recording(NamedTuple):
    """Everything a scenario gave: answers in order, and the traces of its sessions."""

    sent: tuple[Sent, ...]
    traces: tuple[bytes, ...]

    def files(self) -> dict[str, str]:
        """Return the recording as files of `expected/`, with what is dynamic replaced."""
        names: dict[str, str] = {}
        files: dict[str, str] = {}
        for sent in self.sent:
            kind = {"resolve": "resolution", "execute": "response"}[sent.request["operation"]]
            answer = _without_durations(sent.answer)
            text = json.dumps(answer, indent=1, ensure_ascii=True, sort_keys=True) + "\n"
            files[f"{kind}-{sent.number:02d}.json"] = _named(text, names)
        for number, trace in enumerate(self.traces, 1):
            name = "trace.jsonl" if len(self.traces) == 1 else f"trace-{number}.jsonl"
            files[name] = _named("".join(_lines(trace)), names)
        return files


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASHES = ("event_hash", "previous_event_hash", "request_hash", "resolution_hash")


def _named(text: str, names: dict[str, str]) -> str:
    return _UUID.sub(lambda match: names.setdefault(match[0], f"id-{len(names) + 1}"), text)


def _without_durations(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: 0 if name == "duration_ms" else "*" if name in _HASHES else _without_durations(member)
            for name, member in value.items()
        }
    return [_without_durations(member) for member in value] if isinstance(value, list) else value


def _lines(trace: bytes) -> Iterator[str]:
    for line in trace.splitlines():
        yield json.dumps(_without_durations(json.loads(line)), ensure_ascii=True, separators=(", ", ": ")) + "\n"


class Scenario:
    """One scenario, read from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.document: Json = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))

    def atlas(self, file: str) -> Atlas:
        """Return an atlas of the scenario with the context files beside it."""
        manifest = json.loads((self.folder / file).read_text(encoding="utf-8"))
        named = [path for pack in manifest.get("context_packs", []) for path in pack.get("files", [])]
        return loader.load_json(manifest, {path: (self.folder / path).read_bytes() for path in named})

    def expected(self) -> dict[str, str]:
        """Return what was recorded, by file."""
        place = self.folder / "expected"
        if not place.is_dir():
            return {}
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(place.iterdir())}

    def ids(self) -> SeededIds:
        """Return the entropy that the scenario names."""
        return SeededIds(int.from_bytes(sha256(self.document["entropy_seed"].encode()).digest()[:8]))

    def run(self, *, proving: bool = True, at: Open = Embedded) -> Recording:
        """Drive the scenario and check what a person wrote; raises `Mismatch` naming the step."""
        return _Run(self, proving=proving, at=at).run()


class _Run:
    """One drive through a scenario."""

    def __init__(self, scenario: Scenario, *, proving: bool, at: Open) -> None:
        self._scenario = scenario
        self._proving = proving
        self._ids = scenario.ids()
        self._files: list[str] = scenario.document["atlases"]
        self._atlases = [scenario.atlas(file) for file in self._files]
        self._door = at(scenario, self._atlases)
        self._agent_id = ""
        self._sessions: list[str] = []
        self._sent: list[Sent] = []
        self._resolution_id: str | None = None
        self._approval_id: str | None = None

    def run(self) -> Recording:
        steps: dict[str, Callable[[int, Json], Json]] = {
            "create_session": self._create_session,
            "resolve": self._resolve,
            "execute": self._call,
            "grant": lambda number, step: self._decide(step, grant=True),
            "reject": lambda number, step: self._decide(step, grant=False),
            "advance_clock": self._advance,
            "end_session": lambda number, step: self._door.end_session(self._sessions[-1]),
            "replay": self._replay,
            "what_if": self._what_if,
        }
        try:
            for number, step in enumerate(self._scenario.document["steps"], 1):
                if step["do"] in PROVING and not self._proving:
                    continue
                expect = step.get("expect", {})
                try:
                    found = steps[step["do"]](number, step)
                except CRAError as error:
                    found = {"error": error.code, "message": error.message}
                    if "error" not in expect:
                        raise Mismatch(expect, found, f"step {number}, {step['do']}") from error
                for name, value in expect.items():
                    if name == "reasons":
                        # Only those that are mentioned.
                        found[name] = {action_id: found[name].get(action_id) for action_id in value}
                    wanted, got = self._door.comparable({name: value}), self._door.comparable({name: found.get(name)})
                    same(wanted, got, f"step {number}, {step['do']}: {name}")
            recording = Recording(tuple(self._sent), tuple(self._door.trace(one) for one in self._sessions))
            for session_id in self._sessions:
                same(None, self._door.verify(session_id), "the chain")
            _check_digests(recording)
            return recording
        finally:
            self._door.close()

    def _uuid(self) -> str:
        data = self._ids(16).hex()
        return f"{data[:8]}-{data[8:12]}-7{data[13:16]}-8{data[17:20]}-{data[20:]}"

    def _create_session(self, number: int, step: Json) -> Json:
        self._agent_id = step["agent_id"]
        self._sessions.append(self._door.create_session(step["agent_id"], step["goal"], step.get("context")))
        return {}

    def _advance(self, number: int, step: Json) -> Json:
        self._door.advance(step["seconds"])
        return {}

    def _request(self, operation: str, task: Json, more: Json) -> Json:
        return {
            "carp_version": "1.0",
            "request_id": self._uuid(),
            "timestamp": format_timestamp(self._door.now_us()),
            "operation": operation,
            "requester": {"agent_id": self._agent_id, "session_id": self._sessions[-1]},
            "task": task,
            **more,
        }

    def _send(self, number: int, request: Json) -> Json:
        answer = self._door.send(request)
        self._sent.append(Sent(number, request, answer))
        return answer

    def _events(self) -> Trace:
        return Trace(self._door.trace(self._sessions[-1]))

    def _resolve(self, number: int, step: Json) -> Json:
        asked = step["request"]
        task = {name: asked[name] for name in _TASK if name in asked}
        more = {name: asked[name] for name in ("atlas_ids", "context") if name in asked}
        before = len(self._events())
        answer = self._send(number, self._request("resolve", task, more))
        self._resolution_id = answer["resolution_id"]
        redacted = [e.payload["block_id"] for e in self._events()[before:] if e.event_type == "context.redacted"]
        return {
            "decision": answer["decision"]["type"],
            "allowed": [one["action_id"] for one in answer["allowed_actions"] if not one["requires_confirmation"]],
            "confirm": [one["action_id"] for one in answer["allowed_actions"] if one["requires_confirmation"]],
            "denied": {one["action_id"]: one.get("policy_id") for one in answer["denied_actions"]},
            "reasons": {one["action_id"]: one["reason"] for one in answer["denied_actions"]},
            "blocks": [one["block_id"] for one in answer["context_blocks"]],
            "redacted": redacted,
            "constraints": [one["constraint_id"] for one in answer["constraints"]],
        }

    def _call(self, number: int, step: Json) -> Json:
        self._door.tell(step.get("executor", {}))
        execution: Json = {"action_id": step["action_id"], "parameters": step["parameters"]}
        if "idempotency_key" in step:
            execution["idempotency_key"] = step["idempotency_key"]
        if step.get("approval") == "last":
            execution["approval_id"] = self._approval_id
        if step.get("resolution") == "last":
            execution["resolution_id"] = self._resolution_id
        request = self._request("execute", {"goal": "call an action"}, {"execution": execution})
        answer = self._send(number, request)
        error = answer["error"] or {}
        details = error.get("details", {})
        approval_id = details.get("approval_id")
        known = self._approval_id
        self._approval_id = approval_id or known
        return {
            "status": answer["status"],
            "result": answer["result"],
            "error": error.get("code"),
            "policy_id": None if answer["status"] == "pending_approval" else details.get("policy_id"),
            "ran": self._door.ran(),
            "same_approval": approval_id == known,
            "retry_after_seconds": details.get("retry_after_seconds"),
            "pointer": details.get("pointer"),
        }

    def _decide(self, step: Json, *, grant: bool) -> Json:
        if self._approval_id is None:
            raise Mismatch("an approval", None, "no answer named one")
        return {"status": self._door.decide(self._approval_id, step["approver"], grant=grant)}

    def _replay(self, number: int, step: Json) -> Json:
        results = [self._door.replay(self._door.trace(session_id)) for session_id in self._sessions]
        found = [event for result in results for event in result.differences]
        if found and step.get("expect", {}).get("reproduced"):
            raise Mismatch([], [_shown(event) for event in found], f"step {number}, replay")
        return {"reproduced": not found}

    def _what_if(self, number: int, step: Json) -> Json:
        other = self._scenario.atlas(step["atlas"])
        atlases = [other if atlas.atlas_id == other.atlas_id else atlas for atlas in self._atlases]
        found = self._door.what_if(self._door.trace(self._sessions[-1]), atlases)
        return {"changes": changes_of(found), "not_retained": list(found.not_retained)}


_TASK = ("goal", "risk_tier", "context_hints", "required_capabilities")


def _shown(event: Any) -> Json:
    return {name: str(getattr(event, name)) for name in ("index", "event_type", "pointer", "recorded", "reproduced")}


def _check_digests(recording: Recording) -> None:
    """Check that each digest in the record is that of the document it is of."""
    lines = [json.loads(line) for trace in recording.traces for line in trace.splitlines()]
    for sent in recording.sent:
        request, answer = sent.request, sent.answer
        of_request = [e["payload"] for e in lines if e["payload"].get("request_id") == request["request_id"]]
        if request["operation"] == "resolve":
            asked = hexdigest(engine.canonical_request(decode_request(dumps(request))))
            same([asked, digest(answer)], [of_request[0]["request_hash"], of_request[-1]["resolution_hash"]], "digests")
            continue
        same(digest(request["execution"]["parameters"]), of_request[0]["parameters_hash"], "parameters_hash")
        executed = [
            e["payload"]
            for e in lines
            if e["event_type"] == "action.executed" and e["payload"]["execution_id"] == answer["execution_id"]
        ]
        if executed:
            same(digest(answer["result"]), executed[0]["result_hash"], "result_hash")
