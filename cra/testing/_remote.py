"""A service as a door of the golden scenarios, and the vectors that have a form over HTTP."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from cra._core.canonical import dumps
from cra.atlas.package import Atlas
from cra.client import CRAClient
from cra.errors import AtlasInvalid, ConfigInvalid, CRAError, Forbidden, InvalidInput, SessionNotFound
from cra.protocol.times import format_timestamp, parse_timestamp
from cra.protocol.trace import Trace
from cra.runtime.config import system_clock
from cra.runtime.replay import ReplayResult
from cra.runtime.whatif import WhatIf
from cra.testing._golden import Scenario
from cra.testing._vectors import Json, Mismatch, Skip, same
from cra.testing.executors import mark_of

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_RETRY = re.compile(r"\bretry in (\d+) s\b")
_KEY_LIFE_S = 3600


class Service:
    """The service under test: its client, and the people who approve there."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.client = CRAClient(url, api_key)
        # Limits count per agent, so no two runs have the same ones.
        self.run = secrets.token_hex(4)
        self._url = url
        self._people: dict[str, CRAClient] = {}
        self._keys: list[str] = []

    def check(self) -> str:
        """Return the service's version; raises `ConfigInvalid` unless nothing but the suite would bind its calls."""
        health = self.client.call("GET", "/v1/health/live")
        loaded = [atlas.atlas_id for atlas in self.client.list_atlases()]
        if loaded:
            raise ConfigInvalid(
                f"the tenant has atlases that would bind the scenarios: {', '.join(loaded[:5])}",
                hint="use a tenant of its own for conformance, of a service without --atlas",
            )
        return str(health.get("version", "unknown"))

    def person(self, name: str) -> CRAClient:
        """Return a client of a person who may approve, with a key made for this run."""
        if name not in self._people:
            until = format_timestamp(system_clock() + _KEY_LIFE_S * 1_000_000)
            # Only what it is for: a key of an administrator is more than a test should leave behind.
            scopes = ["approvals.read", "approvals.decide"]
            wish = {"subject": name, "roles": ["admin"], "scopes": scopes, "expires_at": until}
            try:
                made = self.client.call("POST", "/v1/keys", wish)
            except Forbidden as error:
                raise Skip("approvers need keys of their own, and the credential may not make any") from error
            self._keys.append(made["key_id"])
            self._people[name] = CRAClient(self._url, made["key"])
        return self._people[name]

    def close(self) -> None:
        """Revoke the keys of the run and close the connections."""
        for person in self._people.values():
            person.close()
        for key_id in self._keys:
            with suppress(CRAError):
                self.client.call("DELETE", f"/v1/keys/{key_id}")
        self.client.close()


def obstacle(scenario: Scenario) -> str | None:
    """Return why a scenario cannot be driven at a service, None when it can."""
    document = scenario.document
    if document["config"]:
        return f"needs {', '.join(sorted(document['config']))}, which only the service's own settings can say"
    if any(step["do"] == "advance_clock" for step in document["steps"]):
        return "moves the clock, which a service takes from its system"
    return None


class Remote:
    """A service for one scenario: its atlases are loaded while it runs, and its agents are of this run alone."""

    def __init__(self, service: Service, scenario: Scenario, atlases: list[Atlas]) -> None:
        self._service = service
        self._client = service.client
        self._mark = mark_of(scenario.name)
        self._suffix = f"-{service.run}-{self._mark}"
        self._agents: set[str] = set()
        self._session_id = ""
        self._before = 0
        self._loaded: list[str] = []
        try:
            for atlas in atlases:
                self._client.load_atlas(atlas)
                self._loaded.append(atlas.atlas_id)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for atlas_id in reversed(self._loaded):
            self._client.unload_atlas(atlas_id)

    def now_us(self) -> int:
        return system_clock()

    def advance(self, seconds: float) -> None:
        raise Skip("moves the clock, which a service takes from its system")

    def tell(self, executor: Json) -> None:
        self._before = self._runs()

    def ran(self) -> bool:
        return self._runs() > self._before

    def _runs(self) -> int:
        return len(self._client.get_trace(self._session_id).of_type("action.executed", "action.failed"))

    def comparable(self, value: Any) -> Any:
        return comparable(value)

    def _name(self, agent_id: str) -> str:
        self._agents.add(agent_id)
        return agent_id + self._suffix

    def create_session(self, agent_id: str, goal: str, context: Json | None) -> str:
        tail = secrets.token_hex(9)
        mark = self._mark
        session_id = f"{mark[:8]}-{mark[8:]}-8{tail[:3]}-8{tail[3:6]}-{tail[6:18]}"
        made = self._client.create_session(self._name(agent_id), goal, session_id=session_id, context=context)
        self._session_id = made.session_id
        return made.session_id

    def end_session(self, session_id: str) -> Json:
        record = self._client.end_session(session_id)
        return {"action_count": record.action_count, "status": record.status}

    def send(self, request: Json) -> Json:
        # The request that is compared and digested afterwards is the one that was sent.
        request["requester"]["agent_id"] = self._name(request["requester"]["agent_id"])
        answer: Json = json.loads(self._client.handle(request))
        if (answer.get("error") or {}).get("code") == "executor_missing":
            raise Skip("the service has no executors: start it with --executors cra.testing.executors:register")
        return answer

    def decide(self, approval_id: str, approver: str, *, grant: bool) -> str:
        # An agent that approves for itself has this run's name.
        known = approver in self._agents
        approvals = self._service.person(self._name(approver) if known else approver).approvals
        return (approvals.grant if grant else approvals.reject)(approval_id).status

    def trace(self, session_id: str) -> bytes:
        return self._client.get_trace(session_id).data

    def verify(self, session_id: str) -> str | None:
        theirs = self._client.verify_chain(session_id)
        ours = self._client.verify_chain(session_id, locally=True)
        same(msgspec.to_builtins(ours), msgspec.to_builtins(theirs), "what verifying says here and there")
        return None if theirs.ok else f"event {theirs.index}: {theirs.message}"

    def replay(self, trace: bytes) -> ReplayResult:
        session_id = Trace(trace)[0].session_id
        value = self._client.call("POST", f"/v1/sessions/{session_id}/trace/replay", {})
        fields = {field.name for field in msgspec.structs.fields(ReplayResult)}
        return msgspec.convert({name: part for name, part in value.items() if name in fields}, ReplayResult)

    def what_if(self, trace: bytes, atlases: list[Atlas]) -> WhatIf:
        raise Skip("the step `what_if` has no form over HTTP")

    def named(self, text: str) -> str:
        """Return text with the agents as the scenario calls them."""
        return text.replace(self._suffix, "")


# What differs between two runs


def comparable(value: Any) -> Any:
    """Return a value without what a service's own clock and callers put into it.

    Times count from the value's own `timestamp`, in minutes; seconds to wait are rounded up to tens; who asked for an
    approval is left out.
    """
    start = value.get("timestamp") if isinstance(value, dict) else None
    return _without(value, start if isinstance(start, str) else None)


def _without(value: Any, start: str | None) -> Any:
    if isinstance(value, dict):
        kept = {name: member for name, member in value.items() if name != "requested_by"}
        if isinstance(wait := kept.get("retry_after_seconds"), int):
            kept["retry_after_seconds"] = _tens(wait)
        return {name: _without(member, start) for name, member in kept.items()}
    if isinstance(value, list):
        return [_without(member, start) for member in value]
    if isinstance(value, str):
        text = _RETRY.sub(lambda match: f"retry in {_tens(int(match[1]))} s", value)
        return _TIME.sub(lambda match: _since(match[0], start), text)
    return value


def _tens(seconds: int) -> int:
    return math.ceil(seconds / 10) * 10


def _since(text: str, start: str | None) -> str:
    if start is None:
        return "time"
    minutes = round((parse_timestamp(text) - parse_timestamp(start)) / 60_000_000)
    return f"time{minutes:+}min" if minutes else "time"


def comparable_file(text: str) -> str:
    """Return a file of a recording so that two runs can be compared: one JSON value, or one on each line."""
    try:
        values = [json.loads(text)]
    except json.JSONDecodeError:
        values = [json.loads(line) for line in text.splitlines()]
    return "".join(json.dumps(comparable(value), sort_keys=True) + "\n" for value in values)


def compare(service: Service, scenario: Scenario, *, proving: bool) -> None:
    """Drive a scenario at a service; raises `Mismatch` unless what comes out is what was recorded."""
    from cra.testing.conformance import check_recording

    opened: list[Remote] = []

    def at(scenario: Scenario, atlases: list[Atlas]) -> Remote:
        opened.append(Remote(service, scenario, atlases))
        return opened[0]

    files = scenario.run(proving=proving, at=at).files()
    found = {name: comparable_file(opened[0].named(text)) for name, text in files.items()}
    check_recording({name: comparable_file(text) for name, text in scenario.expected().items()}, found)


# Vectors


def check(service: Service, suite: str, case: Json) -> None:
    """Put a case to a service; raises `Skip` when it has no form over HTTP, `Mismatch` when what comes out differs."""
    form = _FORMS.get(suite)
    if form is None:
        raise Skip(f"suite `{suite}` has no form over HTTP")
    form(service.client, case)


def _schema_validity(client: CRAClient, case: Json) -> None:
    if case["kind"] != "request":
        raise Skip(f"a document of kind {case['kind']} is not what a service is sent")
    operation = case["document"].get("operation")
    path = f"/v1/{operation}" if operation in ("resolve", "execute", "validate") else "/v1/resolve"
    try:
        client.call("POST", path, case["document"])
    except SessionNotFound:
        # It was read, and is about a session that nobody has.
        same(case["valid"], True, "the service takes it")
    except InvalidInput as error:
        same(case["valid"], False, f"the service refuses it: {error.message}")
        if error.pointer is None:
            raise Mismatch(case["pointer"], None, "the error names no place") from None


def _atlas_validation(client: CRAClient, case: Json) -> None:
    from cra.atlas._archive import write_archive

    files = {path: text.encode() for path, text in case.get("files", {}).items()}
    archive = write_archive({"atlas.json": dumps(case["manifest"]), **files})
    try:
        summary = client.call("POST", "/v1/atlases", archive)
    except AtlasInvalid as error:
        found = sorted((one.file, one.pointer, one.code) for one in error.problems)
        wanted = sorted((one["file"], one["pointer"], one["code"]) for one in case["expected"])
        same([list(one) for one in wanted], [list(one) for one in found], "problems")
        return
    client.unload_atlas(summary["atlas_id"])
    same(case["expected"], [], "it loads")


_FORMS: dict[str, Callable[[CRAClient, Json], None]] = {
    "schema-validity": _schema_validity,
    "atlas-validation": _atlas_validation,
}
