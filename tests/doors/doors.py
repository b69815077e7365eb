"""The doors: each opens on a world and a store, and asks in its own way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cra._core.canonical import dumps
from cra.atlas import loader
from cra.client import AsyncCRAClient, CRAClient
from cra.client._problems import problem_of
from cra.errors import CRAError, InvalidInput
from cra.protocol.times import parse_timestamp
from cra.runtime import engine
from cra.runtime.asynchronous import AsyncCRARuntime
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.server.identity import Identity
from cra.server.roles import permissions_of
from cra.server.settings import ServiceSettings
from cra.server.tenancy import Tenant
from cra.storage.base import Storage
from tests.doors.corpus import APPROVER, Door, Json, World, record, register
from tests.server.running import Running, running

# Who calls, and who approves, at the doors that know.
ACTOR = "gateway"


class Methods:
    """The methods of a runtime: of an embedded one, or of what stands for one that is elsewhere."""

    def __init__(self, runtime: Any, *, approver: Any = None, actor: str | None = None) -> None:
        self._runtime = runtime
        self._approver = runtime if approver is None else approver
        # An embedded runtime is told who calls, a service knows.
        self._told = {} if actor is None else {"actor": actor}

    def create(self, session_id: str, step: Json) -> bytes:
        facts = {name: step.get(name) for name in ("context", "metadata")}
        return record(self._runtime.create_session(step["agent_id"], step["goal"], session_id=session_id, **facts))

    def resolve(self, session_id: str, step: Json) -> bytes:
        resolution = self._runtime.resolve(session_id, step["goal"], **_rest(step))
        return engine.canonical_resolution(resolution)

    def execute(self, session_id: str, step: Json) -> bytes:
        return dumps(self._runtime.execute(session_id, step["action_id"], step["parameters"], **self._told))

    def simulate(self, session_id: str, step: Json) -> bytes:
        if "action_id" in step:
            simulated = self._runtime.simulate(session_id, action_id=step["action_id"], parameters=step["parameters"])
        else:
            simulated = self._runtime.simulate(session_id, step["goal"], **_rest(step))
        assert dumps(msgspec.to_builtins(simulated.answer)) == simulated.canonical
        data: bytes = simulated.canonical + b"\n" + simulated.events.data
        return data

    def send(self, request: Json) -> bytes:
        answer: bytes = self._runtime.handle(request, **self._told)
        return answer

    def decide(self, approval_id: str, verb: str, reason: str | None) -> bytes:
        return record(getattr(self._approver.approvals, verb)(approval_id, approver=APPROVER, reason=reason))

    def approvals(self, session_id: str) -> bytes:
        return record(self._runtime.approvals.list(session_id=session_id))

    def show(self, session_id: str) -> bytes:
        return record([self._runtime.get_session(session_id), self._runtime.list_sessions()])

    def end(self, session_id: str) -> bytes:
        return record(self._runtime.end_session(session_id))

    def trace(self, session_id: str) -> bytes:
        assert self._runtime.verify_chain(session_id).ok
        data: bytes = self._runtime.get_trace(session_id).data
        return data


def _rest(step: Json) -> Json:
    return {name: value for name, value in step.items() if name not in ("do", "goal")}


class Awaited:
    """An asynchronous object whose methods are awaited on a loop of the test."""

    def __init__(self, inner: Any, runner: asyncio.Runner) -> None:
        self._inner, self._runner = inner, runner

    @property
    def approvals(self) -> Awaited:
        return Awaited(self._inner.approvals, self._runner)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given, **named: self._runner.run(getattr(self._inner, name)(*given, **named))


class Wire:
    """Plain HTTP, as a program without a client sends it."""

    def __init__(self, caller: httpx.Client, approver: httpx.Client) -> None:
        self._caller, self._approver = caller, approver

    def _ask(self, method: str, path: str, body: Any = None, *, by: httpx.Client | None = None, **more: Any) -> bytes:
        headers = {**more.pop("headers", {}), **({} if body is None else {"content-type": "application/json"})}
        content = None if body is None else dumps(body)
        answer = (by or self._caller).request(method, path, content=content, headers=headers, **more)
        if answer.is_success:
            return answer.content
        assert answer.headers["content-type"] == "application/problem+json"
        error = problem_of(answer.status_code, answer.content)
        assert error is not None and error.status == answer.status_code
        raise error

    def create(self, session_id: str, step: Json) -> bytes:
        body = {name: step[name] for name in ("agent_id", "goal", "context", "metadata") if step.get(name)}
        return _session(json.loads(self._ask("POST", "/v1/sessions", {**body, "session_id": session_id})))

    def resolve(self, session_id: str, step: Json) -> bytes:
        return self._ask("POST", f"/v1/sessions/{session_id}/resolve", _but(step, "do"))

    def execute(self, session_id: str, step: Json) -> bytes:
        body = _but(step, "do", "executor")
        answer = json.loads(self._ask("POST", f"/v1/sessions/{session_id}/execute", body))
        if answer["error"] is not None:
            raise _Told(answer["error"])
        return dumps(answer["result"])

    def simulate(self, session_id: str, step: Json) -> bytes:
        whole = self._ask("POST", f"/v1/sessions/{session_id}/simulate", _but(step, "do"))
        answer, _, events = whole.removeprefix(b'{"answer":').rpartition(b',"events":[')
        lines = events.removesuffix(b'],"simulated":true}').replace(b'},{"trace_version"', b'}\n{"trace_version"')
        return answer + b"\n" + lines + b"\n"

    def send(self, request: Json) -> bytes:
        return self._ask("POST", f"/v1/{request['operation']}", request)

    def decide(self, approval_id: str, verb: str, reason: str | None) -> bytes:
        body = {} if reason is None else {"reason": reason}
        path = f"/v1/approvals/{approval_id}/{verb}"
        return _approval(json.loads(self._ask("POST", path, body, by=self._approver)))

    def approvals(self, session_id: str) -> bytes:
        listed = json.loads(self._ask("GET", f"/v1/approvals?session_id={session_id}"))["approvals"]
        return b"[" + b",".join(map(_approval, listed)) + b"]"

    def show(self, session_id: str) -> bytes:
        one = _session(json.loads(self._ask("GET", f"/v1/sessions/{session_id}")))
        listed = json.loads(self._ask("GET", "/v1/sessions"))["sessions"]
        return b"[" + one + b",[" + b",".join(map(_session, listed)) + b"]]"

    def end(self, session_id: str) -> bytes:
        return _session(json.loads(self._ask("DELETE", f"/v1/sessions/{session_id}")))

    def trace(self, session_id: str) -> bytes:
        path = f"/v1/sessions/{session_id}/trace"
        assert json.loads(self._ask("GET", f"{path}/verify"))["ok"]
        return self._ask("GET", f"{path}?limit=10000", headers={"accept": "application/x-ndjson"})


class _Told(CRAError):
    """An error in an execute response."""

    def __init__(self, error: Json) -> None:
        details = dict(error["details"])
        super().__init__(error["message"], hint=details.pop("hint", None), details=details)
        self.code = error["code"]  # type: ignore[misc]  # whatever the response says


def _but(step: Json, *names: str) -> Json:
    return {name: value for name, value in step.items() if name not in names}


def _session(value: Json) -> bytes:
    value = {"ended_at": None, "end_reason": None, **value}
    value["started_us"] = parse_timestamp(value.pop("started_at"))
    ended = value.pop("ended_at")
    value["ended_us"] = None if ended is None else parse_timestamp(ended)
    return dumps(value)


def _approval(value: Json) -> bytes:
    value["requested_us"] = parse_timestamp(value.pop("requested_at"))
    value["expires_us"] = parse_timestamp(value.pop("expires_at"))
    return dumps(value)


class CommandLine:
    """The command `cra`, run in this process."""

    def __init__(self, run: Callable[..., tuple[int, bytes, bytes]], options: list[str], folder: Path, ids: list[str]):
        self._run, self._options, self._folder, self._ids = run, options, folder, ids

    def _cra(self, *words: str) -> bytes:
        code, out, err = self._run(*words, "--json", *self._options)
        if err.startswith(b'{"error":'):
            error = json.loads(err)["error"]
            raise _Said(error)
        assert code in (0, 1, 6, 7, 8), err
        return out.removesuffix(b"\n")

    def create(self, session_id: str, step: Json) -> bytes:
        words = ["session", "create", step["agent_id"], step["goal"], "--id", session_id]
        for name in ("context", "metadata"):
            if step.get(name):
                words += [f"--{name}", dumps(step[name]).decode()]
        return _session(json.loads(self._cra(*words)))

    def send(self, request: Json) -> bytes:
        if request["operation"] == "resolve":
            path = self._folder / "request.json"
            path.write_bytes(dumps(request))
            return self._cra("resolve", "--request", str(path))
        execution = request["execution"]
        words = ["execute", execution["action_id"], "-p", dumps(execution["parameters"]).decode()]
        words += ["--session", request["requester"]["session_id"], "--executors", "tests.doors.corpus:register"]
        for option, name in _OPTIONS.items():
            if execution.get(name) is not None:
                words += [option, execution[name]]
        self._ids.append(request["request_id"])
        return self._cra(*words)

    def decide(self, approval_id: str, verb: str, reason: str | None) -> bytes:
        words = ["approvals", verb, approval_id, "--approver", APPROVER]
        return _approval(json.loads(self._cra(*words, *([] if reason is None else ["--reason", reason]))))

    def approvals(self, session_id: str) -> bytes:
        words = ["approvals", "list", "--session", session_id, "--status", "all"]
        listed = json.loads(self._cra(*words))["approvals"]
        return b"[" + b",".join(map(_approval, listed)) + b"]"

    def show(self, session_id: str) -> bytes:
        one = json.loads(self._cra("session", "show", session_id))
        one = _session(_but(one, "event_count", "approvals"))
        listed = json.loads(self._cra("session", "list"))["sessions"]
        return b"[" + one + b",[" + b",".join(map(_session, listed)) + b"]]"

    def end(self, session_id: str) -> bytes:
        return _session(json.loads(self._cra("session", "end", session_id)))

    def trace(self, session_id: str) -> bytes:
        return self._cra("trace", "export", session_id) + b"\n"


_OPTIONS = {"--resolution": "resolution_id", "--approval": "approval_id", "--idempotency-key": "idempotency_key"}


class _Said(InvalidInput):
    """An error on standard error."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["message"], hint=error["hint"], pointer=error["pointer"], details=error["details"])
        self.code = error["code"]  # type: ignore[misc]  # whatever was printed


# Opening

Open = Callable[[World, Storage], AbstractContextManager[Door]]


@contextmanager
def embedded(world: World, store: Storage, *, actor: str | None = None) -> Iterator[Door]:
    with CRARuntime(_config(world, store)) as runtime:
        for atlas in world.script.atlases:
            runtime.load_atlas(atlas)
        register(runtime)
        yield Methods(runtime, actor=actor)


@contextmanager
def asynchronous(world: World, store: Storage, *, actor: str | None = None) -> Iterator[Door]:
    with asyncio.Runner() as runner:
        runtime = AsyncCRARuntime(_config(world, store))
        for atlas in world.script.atlases:
            runtime.load_atlas(atlas)
        register(runtime)
        try:
            yield Methods(Awaited(runtime, runner), actor=actor)
        finally:
            runner.run(runtime.close())


def _config(world: World, store: Storage) -> RuntimeConfig:
    return RuntimeConfig(storage=store, clock=world.clock, ids=world.ids, **world.script.config)


class Service:
    """The real service on a socket; each world is a tenant of its own, so that one service serves them all."""

    def __init__(self, at: Running) -> None:
        self.url = at.url
        self._loop = at.loop
        self._tenancy = at.app.service.tenancy
        self._count = 0

    @contextmanager
    def tenant(self, world: World, store: Storage) -> Iterator[str]:
        """Give a world's runtime to the service; yields the tenant's name."""
        self._count += 1
        name = f"world-{self._count}"
        runtime = AsyncCRARuntime(_config(world, store))
        for atlas in world.script.atlases:
            runtime.load_atlas(atlas)
        register(runtime)
        # A tenant with a clock and ids of its own is nothing that a setting can ask for.
        self._tenancy._tenants[name] = Tenant(name, runtime)
        try:
            yield name
        finally:
            self._tenancy.forget(name)
            assert self._loop is not None
            asyncio.run_coroutine_threadsafe(runtime.close(), self._loop).result(30)


@contextmanager
def serving() -> Iterator[Service]:
    """Run the service for as long as the block."""
    settings = ServiceSettings(storage="memory", shutdown_seconds=5)
    with running(settings, authenticate=_authenticate) as at:
        yield Service(at)


async def _authenticate(scope: Any) -> Identity:
    """Take any credential at its word: `TENANT/SUBJECT`."""
    bearer = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
    tenant, _, subject = bearer.partition("/")
    permissions = permissions_of(["admin"], tenant)
    return Identity(
        tenant=tenant, subject=subject, roles=("admin",), permissions=permissions, credential=f"key:{subject}"
    )


@contextmanager
def wire(service: Service, world: World, store: Storage) -> Iterator[Door]:
    with service.tenant(world, store) as name:
        signed = partial(httpx.Client, base_url=service.url, trust_env=False, verify=False)
        with (
            signed(headers={"authorization": f"Bearer {name}/{ACTOR}"}) as caller,
            signed(headers={"authorization": f"Bearer {name}/{APPROVER}"}) as approver,
        ):
            yield Wire(caller, approver)


@contextmanager
def client(service: Service, world: World, store: Storage) -> Iterator[Door]:
    with (
        service.tenant(world, store) as name,
        CRAClient(service.url, f"{name}/{ACTOR}") as caller,
        CRAClient(service.url, f"{name}/{APPROVER}") as approver,
    ):
        yield Methods(caller, approver=approver)


@contextmanager
def asynchronous_client(service: Service, world: World, store: Storage) -> Iterator[Door]:
    with service.tenant(world, store) as name, asyncio.Runner() as runner:
        caller = AsyncCRAClient(service.url, f"{name}/{ACTOR}")
        approver = AsyncCRAClient(service.url, f"{name}/{APPROVER}")
        try:
            yield Methods(Awaited(caller, runner), approver=Awaited(approver, runner))
        finally:
            runner.run(caller.close())
            runner.run(approver.close())


@contextmanager
def command_line(
    world: World, url: str, folder: Path, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Door]:
    """Run `cra` with the world's clock and ids in the place of the system's; nothing in the package takes them."""
    from cra.cli import _runtime, main

    made, ids = _runtime.make_config, list[str]()
    patch.setattr(_runtime, "make_config", lambda *words: made(*words, clock=world.clock, ids=world.ids))
    patch.setattr(_runtime, "uuid4", ids.pop)
    options = ["--storage", url]
    for number, atlas in enumerate(world.script.atlases):
        path = folder / f"{number}.atlas"
        path.write_bytes(loader.archive_of(atlas))
        patch.setenv("CRA_ATLASES", ":".join(str(folder / f"{n}.atlas") for n in range(number + 1)))
    patch.setenv("CRA_SET", " ".join(f"{name}={value}" for name, value in world.script.config.items()))

    def run(*words: str) -> tuple[int, bytes, bytes]:
        capfd.readouterr()
        code = main(list(words))
        out, err = capfd.readouterr()
        return int(code), out.encode(), err.encode()

    yield CommandLine(run, options, folder, ids)
