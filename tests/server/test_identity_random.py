"""Random operations of twenty tenants, predicted by a model: nothing of one tenant is ever seen by another."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cra.atlas import loader
from cra.protocol.times import format_timestamp
from cra.runtime.config import system_clock
from cra.runtime.kernel import administration_id
from cra.server.app import Application, create_app
from cra.server.routes import ROUTES
from cra.server.settings import ServiceSettings
from cra.storage.base import Storage
from tests.server.identities import make_key, make_tenant, memory, set_role

# The model's own table, written by hand: what the service is compared with.
READ = "sessions.read traces.read atlases.read approvals.read"
ACT = f"{READ} sessions.create sessions.end carp.resolve carp.execute"
MAY = {
    "developer": f"{ACT} traces.verify atlases.load service.metrics",
    "agent": ACT,
    "auditor": f"{READ} traces.verify keys.read retention.read service.metrics",
    "viewer": READ,
    "approver": "approvals.read approvals.decide",
    "admin": f"{ACT} traces.verify atlases.load service.metrics approvals.decide keys.read keys.manage roles.manage "
    "retention.read retention.manage",
}
IN_SYSTEM = frozenset(
    ("keys.read", "keys.manage", "roles.manage", "service.metrics", "sessions.read", "traces.read", "traces.verify")
)
AGENTS = ("left", "right")
# Everything that a tenant's rows are made of carries its mark; a mark of another tenant in an answer is a leak.
MARK = re.compile(rb"mk[0-9]{2}z")
UUIDS = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
KEY_IDS = re.compile(rb"(?<![a-z0-9])[a-z0-9]{16}(?![a-z0-9])")
# Some ids are taken by several tenants on purpose.
POOL = [str(UUID(int=(7 << 76) | (2 << 62) | number)) for number in range(0x1000, 0x1040)]


def atlas(atlas_id: str, words: str, prefix: str) -> dict[str, Any]:
    action = {"parameters_schema": {"type": "object"}, "risk_tier": "low"}
    return {
        "atlas_version": "1.0",
        "atlas_id": atlas_id,
        "version": "1.0.0",
        "name": words,
        "description": words,
        "actions": [
            {"action_id": f"{prefix}.{verb}", "name": verb, "description": words, **action}
            for verb in ("look", "pay", "drop")
        ],
        "policies": [
            {"policy_id": f"{prefix}-pay", "name": "p", "description": words, "type": "require_approval",
             "actions": [f"{prefix}.pay"]},
            {"policy_id": f"{prefix}-drop", "name": "d", "description": words, "type": "deny",
             "actions": [f"{prefix}.drop"], "reason": words},
        ],
    }  # fmt: skip


class Who:
    """A credential, and what the model knows of it."""

    def __init__(self, tenant: str, subject: str, text: str, may: str, agent: str | None = None) -> None:
        self.tenant = tenant
        self.subject = subject
        self.text = text
        self.may = frozenset(may.split())
        self.agent = agent

    def sees(self, agent: str) -> bool:
        return self.agent is None or self.agent == agent


class Part:
    """What the model knows of a tenant."""

    def __init__(self, number: int, name: str) -> None:
        self.name = name
        self.mark = f"mk{number:02}z"
        self.people: list[Who] = []
        self.sessions: dict[str, tuple[str, str]] = {}
        self.approvals: dict[str, tuple[str, str, str, str]] = {}
        self.atlases = {"cra.base"}
        self.keys: dict[str, str] = {}
        self.roles = {"approver", "admin", "developer", "agent", "auditor", "viewer"}
        self.holds: set[str] = set()
        self.purged: set[str] = set()


class Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class World:
    """Twenty tenants in one store, a service on it, and a model of both."""

    def __init__(self, store: Storage, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.parts: list[Part] = []
        self.owners: dict[bytes, set[str]] = {}
        for number in range(20):
            part = Part(number, ["default", "system"][number] if number < 2 else f"tenant-{number:02}")
            self.parts.append(part)
            if number >= 2:
                make_tenant(store, part.name)
            self._people(store, part)
        base = loader.load_json(json.dumps(atlas("cra.base", "for all", "base")).encode(), source="test")
        self.app: Application = create_app(
            ServiceSettings(storage="memory"), storage=store, atlases=(base,), register=self._executors
        )

    def _people(self, store: Storage, part: Part) -> None:
        set_role(store, part.name, "approver", *MAY["approver"].split())
        for role, permitted in MAY.items():
            for agent in AGENTS if role == "agent" else (None,):
                subject = f"{role}-{agent or 'x'}-{part.mark}"
                key_id, text = make_key(store, part.name, subject=subject, roles=[role], agent_id=agent)
                may = permitted
                if part.name == "system":
                    may = " ".join(p for p in may.split() if p in IN_SYSTEM)
                    may += " tenants.manage" if role == "admin" else ""
                part.people.append(Who(part.name, subject, text, may, agent))
                part.keys[key_id] = "fixed"
                self.own(part, key_id)
        self.own(part, administration_id(part.name))

    def _executors(self, runtime: Any) -> None:
        mark = next(part.mark for part in self.parts if part.name == runtime.config.storage.tenant)
        for action in ("base.*", "own.*"):
            runtime.executor(action)(lambda parameters: {"done": mark})

    def own(self, part: Part, name: str) -> None:
        self.owners.setdefault(name.encode(), set()).add(part.name)

    # One call, and what holds for every answer

    async def ask(
        self, who: Who | None, method: str, path: str, body: Any = None, query: str = "", text: str | None = None
    ) -> Answer:
        data = b"" if body is None else json.dumps(body).encode()
        headers = [(b"host", b"service"), (b"content-length", b"%d" % len(data))]
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        secret = text or (who.text if who is not None else None)
        if secret is not None:
            headers.append((b"authorization", b"Bearer " + secret.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        coming = [{"type": "http.request", "body": data, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            return coming.pop() if coming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.ensure_future(self.app(scope, receive, send))
        start = next(message for message in sent if message["type"] == "http.response.start")
        answer = Answer(start["status"], list(start["headers"]), b"".join(m.get("body", b"") for m in sent))
        self.check(who, answer, path.encode() + b" " + query.encode() + b" " + data)
        return answer

    def check(self, who: Who | None, answer: Answer, asked: bytes) -> None:
        """Look for marks and ids of other tenants in everything that was answered."""
        assert answer.status < 500, answer.body
        text = answer.body + b"".join(b"\n%b: %b" % header for header in answer.headers)
        own = next((part for part in self.parts if who is not None and part.name == who.tenant), None)
        marks = set(MARK.findall(text)) - set(MARK.findall(asked))
        assert marks <= {own.mark.encode() if own else b""}, (own and own.name, marks, answer.body[:2000])
        if own is not None and own.name == "system" and (b'"tenants"' in text or b"# TYPE cra_" in text):
            return  # who runs the service sees which tenants there are, and how much they do
        for found in {*UUIDS.findall(text), *KEY_IDS.findall(text)}:
            owners = self.owners.get(found)
            # What was asked for is named in the refusal; who asked knew it already.
            if owners is not None and found not in asked:
                assert own is not None and own.name in owners, (own and own.name, found, answer.body[:2000])
        for part in self.parts[2:]:
            if own is not part and part.name.encode() in text and part.name.encode() not in asked:
                raise AssertionError((own and own.name, part.name, answer.body[:2000]))

    async def expect(
        self, who: Who, permission: str, status: int, method: str, path: str, body: Any = None, query: str = ""
    ) -> Answer | None:
        """Ask, and compare the status; None when it was not the one of success."""
        wanted = status if permission in who.may else 403
        answer = await self.ask(who, method, path, body, query)
        if answer.status != wanted:
            raise AssertionError(
                f"{who.tenant} {who.subject} {method} {path}: {answer.status}, {wanted} expected: {answer.body!r}"
            )
        self.done[f"{method} {answer.status}"] += 1
        return answer if answer.status < 300 else None

    # Choices

    def someone(self) -> tuple[Part, Who]:
        part = self.random.choice(self.parts)
        return part, self.random.choice(part.people)

    def session(self, part: Part) -> str:
        """Return a session: mostly one's own, or a foreign one, a purged one, or none at all."""
        chance = self.random.random()
        source = part if chance < 0.75 else self.random.choice(self.parts)
        if chance > 0.95 or not source.sessions:
            return self.random.choice([*POOL, *part.purged])
        return self.random.choice(list(source.sessions))

    def status_of(self, part: Part, who: Who, session_id: str, *, active: bool = False) -> int:
        found = part.sessions.get(session_id)
        if found is None or not who.sees(found[0]):
            return 404
        return 409 if active and found[1] == "ended" else 200

    def visible(self, part: Part, who: Who) -> set[str]:
        return {name for name, (agent, _) in part.sessions.items() if who.sees(agent)}

    # Operations

    async def create(self) -> None:
        part, who = self.someone()
        agent = self.random.choice(AGENTS)
        body = {"agent_id": agent, "goal": f"goal {part.mark}", "metadata": {"mark": part.mark}}
        status = 201
        if self.random.random() < 0.4:
            body["session_id"] = self.random.choice(POOL)
            status = 409 if body["session_id"] in part.sessions else 201
        if part.name == "system" or not who.sees(agent):
            status = 403
        answer = await self.expect(who, "sessions.create", status, "POST", "/v1/sessions", body)
        if answer is not None:
            made = answer.json
            part.sessions[made["session_id"]] = (agent, "active")
            part.purged.discard(made["session_id"])
            self.own(part, made["session_id"])
            self.own(part, made["trace_id"])

    async def list_sessions(self) -> None:
        part, who = self.someone()
        answer = await self.expect(who, "sessions.read", 200, "GET", "/v1/sessions", query="limit=1000")
        if answer is not None:
            found = {row["session_id"] for row in answer.json["sessions"]}
            assert found - {administration_id(part.name)} == self.visible(part, who)

    async def get_session(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        await self.expect(who, "sessions.read", self.status_of(part, who, name), "GET", f"/v1/sessions/{name}")

    async def end(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        status = self.status_of(part, who, name, active=True)
        if await self.expect(who, "sessions.end", status, "DELETE", f"/v1/sessions/{name}") is not None:
            part.sessions[name] = (part.sessions[name][0], "ended")

    async def resolve(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        status = self.status_of(part, who, name, active=True)
        verb = self.random.choice(["resolve", "simulate"])
        answer = await self.expect(
            who, "carp.resolve", status, "POST", f"/v1/sessions/{name}/{verb}", {"goal": f"see {part.mark}"}
        )
        if answer is not None and verb == "resolve":
            offered = {action["action_id"] for action in answer.json["allowed_actions"]}
            wanted = {"base.look", "base.pay"} | ({"own.look", "own.pay"} if len(part.atlases) > 1 else set())
            assert offered == wanted
            self.own(part, answer.json["resolution_id"])

    async def carp(self) -> None:
        part, who = self.someone()
        name, agent = self.session(part), self.random.choice(AGENTS)
        found = part.sessions.get(name)
        if not who.sees(agent):
            status = 403
        elif found is None or not who.sees(found[0]):
            status = 404
        elif found[0] != agent:
            status = 400
        else:
            status = 409 if found[1] == "ended" else 200
        body = {
            "carp_version": "1.0",
            "request_id": str(UUID(int=self.random.getrandbits(128), version=4)),
            "timestamp": format_timestamp(system_clock()),
            "operation": "resolve",
            "requester": {"agent_id": agent, "session_id": name},
            "task": {"goal": f"carp {part.mark}"},
        }
        await self.expect(who, "carp.resolve", status, "POST", "/v1/resolve", body)

    async def execute(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        status = self.status_of(part, who, name, active=True)
        prefix = "own" if len(part.atlases) > 1 and self.random.random() < 0.5 else "base"
        action = f"{prefix}.{self.random.choice(['look', 'pay', 'drop'])}"
        body = {"action_id": action, "parameters": {"mark": part.mark}}
        permitted = "carp.execute" in who.may
        if permitted and status == 200:
            await self.ask(who, "POST", f"/v1/sessions/{name}/resolve", {"goal": "go"})
        answer = await self.expect(who, "carp.execute", status, "POST", f"/v1/sessions/{name}/execute", body)
        if answer is None:
            return
        value = answer.json
        wanted = {"look": "success", "pay": "pending_approval", "drop": "denied"}[action.partition(".")[2]]
        if wanted == "pending_approval" and value["status"] == "success":
            # An approval of this very call was granted before, and is used up by it.
            wanted = "success"
            await self.used(part, name)
        if value["status"] == "denied" and value["error"]["code"] == "approval_conflict":
            # One was granted, under atlases that have changed since.
            assert any(status == "granted" and at == name for _, status, _, at in part.approvals.values())
            return
        assert value["status"] == wanted, value
        if wanted == "success":
            assert value["result"] == {"done": part.mark}
        if wanted == "pending_approval":
            approval_id = value["error"]["details"]["approval_id"]
            self.own(part, approval_id)
            part.approvals.setdefault(approval_id, (part.sessions[name][0], "pending", who.subject, name))

    async def used(self, part: Part, session_id: str) -> None:
        listed = await self.ask(part.people[-1], "GET", "/v1/approvals", query="limit=1000")
        now = {row["approval_id"]: row["status"] for row in listed.json["approvals"]}
        changed = [name for name, (_, status, *_rest) in part.approvals.items() if now[name] != status]
        assert len(changed) == 1
        before = part.approvals[changed[0]]
        assert (before[1], before[3], now[changed[0]]) == ("granted", session_id, "used")
        part.approvals[changed[0]] = (before[0], "used", *before[2:])

    async def trace(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        verb, permission = self.random.choice(
            [("", "traces.read"), ("/live", "traces.read"), ("/verify", "traces.verify")]
        )
        status = self.status_of(part, who, name)
        if status == 200 and verb == "/live" and part.sessions[name][1] == "active":
            verb = ""  # it would go on
        answer = await self.expect(who, permission, status, "GET", f"/v1/sessions/{name}/trace{verb}")
        if answer is not None and verb == "":
            assert {event["session_id"] for event in answer.json["events"]} == {name}

    async def replay(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        status = self.status_of(part, who, name)
        await self.expect(who, "traces.verify", status, "POST", f"/v1/sessions/{name}/trace/replay", {})

    async def diff(self) -> None:
        part, who = self.someone()
        left, right = self.session(part), self.session(part)
        status = max(self.status_of(part, who, name) for name in (left, right))
        await self.expect(who, "traces.read", status, "POST", "/v1/traces/diff", {"left": left, "right": right})

    async def approvals(self) -> None:
        part, who = self.someone()
        answer = await self.expect(who, "approvals.read", 200, "GET", "/v1/approvals", query="limit=1000")
        if answer is not None:
            found = {row["approval_id"]: row["status"] for row in answer.json["approvals"]}
            assert found == {n: status for n, (agent, status, *_) in part.approvals.items() if who.sees(agent)}

    async def judge(self) -> None:
        part, who = self.someone()
        source = part if self.random.random() < 0.8 else self.random.choice(self.parts)
        name = self.random.choice(list(source.approvals) or POOL)
        verb = self.random.choice(["", "/grant", "/reject"])
        found = part.approvals.get(name)
        status = 404 if found is None or not who.sees(found[0]) else 200
        if found is not None and status == 200 and verb:
            own = who.subject in (found[0], found[2])
            ended = found[1] != "pending" or part.sessions[found[3]][1] == "ended"
            status = 409 if own or ended else 200
        permission = "approvals.decide" if verb else "approvals.read"
        answer = await self.expect(who, permission, status, "POST" if verb else "GET", f"/v1/approvals/{name}{verb}")
        if answer is not None and verb and found is not None:
            part.approvals[name] = (found[0], "granted" if verb == "/grant" else "rejected", *found[2:])

    async def atlases(self) -> None:
        part, who = self.someone()
        answer = await self.expect(who, "atlases.read", 200, "GET", "/v1/atlases")
        if answer is not None:
            assert {row["atlas_id"] for row in answer.json["atlases"]} == part.atlases
        target = self.random.choice(self.parts)
        name = f"own.{target.mark}"
        status = 200 if name in part.atlases else 404
        way = self.random.choice(["", "/digest"])
        await self.expect(who, "atlases.read", status, "GET", f"/v1/atlases/{name}{way}")

    async def load(self) -> None:
        part, who = self.someone()
        name = f"own.{part.mark}"
        if self.random.random() < 0.6:
            body = atlas(name, f"words {part.mark}", "own")
            status = 409 if name in part.atlases else 201
            if await self.expect(who, "atlases.load", status, "POST", "/v1/atlases", body) is not None:
                part.atlases.add(name)
            return
        target = self.random.choice([name, name, "cra.base", f"own.{self.random.choice(self.parts).mark}"])
        status = 409 if target == "cra.base" else 204 if target in part.atlases else 404
        if await self.expect(who, "atlases.load", status, "DELETE", f"/v1/atlases/{target}") is not None:
            part.atlases.discard(target)

    async def keys(self) -> None:
        part, who = self.someone()
        answer = await self.expect(who, "keys.read", 200, "GET", "/v1/keys", query="limit=1000")
        if answer is not None:
            assert {row["key_id"] for row in answer.json["keys"]} == part.keys.keys()
        source = self.random.choice([part, part, self.random.choice(self.parts)])
        name = self.random.choice(list(source.keys))
        status = 200 if name in part.keys else 404
        await self.expect(who, "keys.read", status, "GET", f"/v1/keys/{name}")

    async def make_key(self) -> None:
        part, who = self.someone()
        if len(part.keys) > 40:
            return
        body = {"subject": f"new {part.mark}", "roles": ["viewer"]}
        answer = await self.expect(who, "keys.manage", 201, "POST", "/v1/keys", body)
        if answer is not None:
            made = answer.json
            part.keys[made["key_id"]] = made["key"]
            self.own(part, made["key_id"])
            got = await self.ask(who, "GET", "/v1/approvals", text=made["key"])
            assert got.status == (403 if part.name == "system" else 200)
            # The same secret at another tenant is nobody's.
            other = self.random.choice([p for p in self.parts if p is not part])
            text = made["key"].replace(f"cra_{part.name}_", f"cra_{other.name}_")
            assert (await self.ask(None, "GET", "/v1/sessions", text=text)).status == 401

    async def end_key(self) -> None:
        part, who = self.someone()
        source = self.random.choice([part, part, self.random.choice(self.parts)])
        loose = [name for name, text in source.keys.items() if text != "fixed"]
        if not loose:
            return
        name = self.random.choice(loose)
        text = part.keys.get(name)
        if self.random.random() < 0.5:
            status = 404 if text is None else 409 if text == "revoked" else 200
            answer = await self.expect(who, "keys.manage", status, "POST", f"/v1/keys/{name}/rotate", {})
            if answer is not None and text is not None:
                assert (await self.ask(None, "GET", "/v1/sessions", text=text)).status == 401
                part.keys[name] = answer.json["key"]
            return
        status = 404 if text is None else 200
        if await self.expect(who, "keys.manage", status, "DELETE", f"/v1/keys/{name}") is not None:
            if text not in (None, "revoked"):
                assert (await self.ask(None, "GET", "/v1/sessions", text=text)).status == 401
            part.keys[name] = "revoked"

    async def roles(self) -> None:
        part, who = self.someone()
        name = f"role-{self.random.choice([part, self.random.choice(self.parts)]).mark}"
        what = self.random.random()
        if what < 0.4:
            answer = await self.expect(who, "keys.read", 200, "GET", "/v1/roles")
            if answer is not None:
                assert {row["name"] for row in answer.json["roles"]} == part.roles
        elif what < 0.7 and part.mark in name:
            body = {"permissions": ["sessions.read"]}
            if await self.expect(who, "roles.manage", 200, "PUT", f"/v1/roles/{name}", body) is not None:
                part.roles.add(name)
        else:
            status = 204 if name in part.roles else 404
            if await self.expect(who, "roles.manage", status, "DELETE", f"/v1/roles/{name}") is not None:
                part.roles.discard(name)

    async def tenants(self) -> None:
        _, who = self.someone()
        method = self.random.choice(["GET", "POST", "DELETE"])
        name = self.random.choice(self.parts[2:]).name
        if method == "GET":
            answer = await self.expect(who, "tenants.manage", 200, "GET", "/v1/tenants", query="limit=1000")
            if answer is not None:
                assert {row["name"] for row in answer.json["tenants"]} == {part.name for part in self.parts}
        elif method == "POST":
            await self.expect(who, "tenants.manage", 409, "POST", "/v1/tenants", {"name": name})
        elif "tenants.manage" not in who.may:
            await self.expect(who, "tenants.manage", 200, "DELETE", f"/v1/tenants/{name}")

    async def hold(self) -> None:
        part, who = self.someone()
        name = self.session(part)
        path = f"/v1/sessions/{name}/hold"
        there = self.status_of(part, who, name)
        what = self.random.random()
        if what < 0.5:
            body = {"reason": f"court {part.mark}"}
            if await self.expect(who, "retention.manage", there, "PUT", path, body) is not None:
                part.holds.add(name)
            return
        held = there if there != 200 or name in part.holds else 404
        if what < 0.75:
            await self.expect(who, "retention.read", held, "GET", path)
        elif await self.expect(who, "retention.manage", 204 if held == 200 else held, "DELETE", path) is not None:
            part.holds.discard(name)

    async def retention(self) -> None:
        part, who = self.someone()
        answer = await self.expect(who, "retention.read", 200, "GET", "/v1/retention")
        if answer is not None:
            assert {hold["session_id"] for hold in answer.json["holds"]} == part.holds
        keep = self.random.randrange(2, 10)
        body = {"keep_ended": keep}
        if await self.expect(who, "retention.manage", 200, "PUT", "/v1/retention", body) is None:
            return
        answer = await self.expect(who, "retention.manage", 200, "POST", "/v1/retention/purge")
        assert answer is not None
        ended = {name for name, (_, status) in part.sessions.items() if status == "ended"}
        purged = set(answer.json["purged"])
        assert purged <= ended - part.holds
        # The newest stay, and those of the others that are held.
        excess = max(0, len(ended) - keep)
        assert excess - len(ended & part.holds) <= len(purged) <= excess
        for name in purged:
            del part.sessions[name]
        part.purged |= purged
        if purged:
            # An approval goes with its session.
            listed = await self.ask(part.people[-1], "GET", "/v1/approvals", query="limit=1000")
            left = {row["approval_id"] for row in listed.json["approvals"]}
            assert left <= part.approvals.keys()
            part.approvals = {name: value for name, value in part.approvals.items() if name in left}

    async def metrics(self) -> None:
        part, who = self.someone()
        answer = await self.expect(who, "service.metrics", 200, "GET", "/metrics")
        if answer is not None and part.name != "system":
            for line in answer.body.splitlines():
                assert line.startswith(b"#") or b'tenant="%b"' % part.name.encode() in line

    async def nobody(self) -> None:
        route = self.random.choice(ROUTES)
        path = re.sub(r"\{[^}]*\}", self.random.choice(POOL), route.path)
        answer = await self.ask(None, route.method, path)
        assert answer.status == (200 if route.permission is None else 401), (route.path, answer.body)

    async def run(self, count: int) -> None:
        often: list[tuple[Callable[[], Coroutine[Any, Any, None]], int]] = [
            (self.create, 8), (self.list_sessions, 2), (self.get_session, 6), (self.end, 4), (self.resolve, 6),
            (self.carp, 5), (self.execute, 8), (self.trace, 5), (self.replay, 1), (self.diff, 2), (self.approvals, 3),
            (self.judge, 8), (self.atlases, 3), (self.load, 2), (self.keys, 2), (self.make_key, 2), (self.end_key, 2),
            (self.roles, 3), (self.tenants, 2), (self.hold, 4), (self.retention, 1), (self.metrics, 1),
            (self.nobody, 3),
        ]  # fmt: skip
        operations, weights = zip(*often, strict=True)
        for operation in self.random.choices(operations, weights, k=count):
            await operation()


def play(store: Storage, seed: int, count: int) -> World:
    world = World(store, seed)
    asyncio.run(world.run(count))
    world.app.service.tenancy.storage.close()
    return world


def _sqlite(folder: Path) -> Storage:
    pytest.importorskip("apsw")
    from cra.storage.sqlite import SQLiteStorage

    return SQLiteStorage(str(folder / "cra.db"), durability="batched")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_twenty_tenants_see_what_the_model_says_and_nothing_of_each_other(kind: str, tmp_path: Path, seed: int) -> None:
    store = memory() if kind == "memory" else _sqlite(tmp_path)
    world = play(store, seed, 2000 if kind == "memory" else 700)
    assert world.done["POST 200"] and world.done["GET 404"] and world.done["GET 403"] and world.done["POST 201"]


@pytest.mark.slow
def test_twenty_tenants_see_nothing_of_each_other_on_postgresql(seed: int) -> None:
    pytest.importorskip("psycopg")
    from cra.storage.open import open_storage
    from cra.testing.postgres import Server, programs

    if programs() is None:
        pytest.skip("there is no PostgreSQL here")
    server = Server()
    try:
        server.start()
        play(open_storage(server.database(), max_sessions=1_000_000, max_events=100_000_000), seed, 5000)
    finally:
        server.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_hundred_thousand_operations_leak_nothing(kind: str, tmp_path: Path, seed: int) -> None:
    store = memory() if kind == "memory" else _sqlite(tmp_path)
    world = play(store, seed, 100_000 if kind == "memory" else 20_000)
    print(sum(world.done.values()), "calls:", dict(world.done.most_common()))


@pytest.mark.parametrize("hole", ["agents", "tenants", "permissions", "rows", "metrics"])
def test_the_model_notices_a_hole(hole: str, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    from cra.server import metrics, sessions
    from cra.server.identity import Identity
    from cra.server.tenancy import Tenancy

    if hole == "agents":
        monkeypatch.setattr(Identity, "is_for", lambda self, agent_id: True)
    elif hole == "tenants":
        get = Tenancy.get
        monkeypatch.setattr(Tenancy, "get", lambda self, name: get(self, name[:-1] + "2" if name[-1] == "3" else name))
    elif hole == "permissions":
        monkeypatch.setattr(Identity, "require", lambda self, permission: None)
    elif hole == "rows":
        shown = sessions.session_value
        monkeypatch.setattr(sessions, "session_value", lambda record: {**shown(record), "metadata": {"mark": "mk05z"}})
    else:
        monkeypatch.setattr(metrics, "_OneTenant", lambda registry, tenant: registry)
    with pytest.raises(AssertionError):
        play(memory(), seed, 3000)
