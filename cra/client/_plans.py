"""Plans: each method of the runtime as the calls it takes over HTTP; both drivers run the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

from cra._core.canonical import dumps
from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.client import _answers as answers
from cra.client._answers import AtlasSummary
from cra.client._calls import ARCHIVE, JSON, NDJSON, Call, Plan, present, query, segment
from cra.client._problems import error_of
from cra.errors import AtlasNotFound, InvalidRequest, NotCanonical, ServiceError, SessionNotFound
from cra.protocol.carp import Operation, Request, Resolution
from cra.protocol.codec import check_request, decode_request
from cra.protocol.fields import ATLAS_ID_PATTERN, RiskTier
from cra.protocol.trace import ChainVerification, Trace
from cra.runtime import engine
from cra.runtime._base import Simulation
from cra.runtime.approvals import check_wait
from cra.runtime.kernel import check_uuid
from cra.storage.base import ApprovalRecord, SessionRecord

T = TypeVar("T")

PAGE = 1000
LONGEST_POLL_S = 30
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_ATLAS_ID = re.compile(ATLAS_ID_PATTERN)
_PATH = re.compile(r"(?:/[A-Za-z0-9_:~-][A-Za-z0-9_.:~-]*)+(?:\?[\x21-\x7e]*)?\Z")
_WIRE = {Operation.RESOLVE: "/v1/resolve", Operation.EXECUTE: "/v1/execute", Operation.VALIDATE: "/v1/validate"}


def _one(call: Call[T]) -> Plan[T]:
    """Return the plan of a single call."""
    answer: T = yield call
    return answer


# Sessions


def create_session(
    agent_id: str,
    goal: str,
    session_id: str | None,
    trace_id: str | None,
    parent_session_id: str | None,
    context: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> Plan[SessionRecord]:
    body = {"agent_id": agent_id, "goal": goal}
    body |= present(
        session_id=session_id,
        trace_id=trace_id,
        parent_session_id=parent_session_id,
        context=_object("context", context),
        metadata=_object("metadata", metadata),
    )
    return _one(Call("POST", "/v1/sessions", answers.session, body=dumps(body)))


def get_session(session_id: str) -> Plan[SessionRecord]:
    return _one(Call("GET", session_path(session_id), answers.session, repeatable=True))


def list_sessions(agent_id: str | None, status: str | None, after: str | None, limit: int) -> Plan[list[SessionRecord]]:
    found: list[SessionRecord] = []
    while len(found) < limit:
        asked = query(agent_id=agent_id, status=status, after=after, limit=min(PAGE, limit - len(found)))
        page, after = yield Call("GET", "/v1/sessions", answers.session_page, query=asked, repeatable=True)
        found += page
        if after is None:
            break
    return found


def end_session(session_id: str, reason: str) -> Plan[SessionRecord]:
    return _one(Call("DELETE", session_path(session_id), answers.session, query=query(reason=reason)))


# Deciding


def resolve(
    session_id: str,
    request: Request | Mapping[str, Any] | str,
    risk_tier: RiskTier | str,
    context_hints: Iterable[str],
    required_capabilities: Iterable[str],
    atlas_ids: Iterable[str],
    context: Mapping[str, Any] | None,
) -> Plan[Resolution]:
    # A resolve consumes and runs nothing, so one that arrives twice is only recorded twice.
    if isinstance(request, str):
        body = _goal(request, risk_tier, context_hints, required_capabilities, atlas_ids, context)
        path = session_path(session_id, "/resolve")
    else:
        body = _asked(session_id, request)
        path = "/v1/resolve"
    return _one(Call("POST", path, answers.resolution, body=body, repeatable=True))


def execute(
    session_id: str,
    action_id: str,
    parameters: dict[str, Any],
    resolution_id: str | None,
    idempotency_key: str | None,
    approval_id: str | None,
) -> Plan[Any]:
    body = {
        "action_id": action_id,
        "parameters": _parameters(parameters),
        # With a key of its own the call may be sent again, and runs once all the same.
        "idempotency_key": str(uuid4()) if idempotency_key is None else idempotency_key,
    }
    body |= present(resolution_id=resolution_id, approval_id=approval_id)
    response = yield Call(
        "POST",
        session_path(session_id, "/execute"),
        answers.execution,
        body=_written(body),
        repeatable=True,
        executes=True,
        action_id=action_id,
        unfinished=answers.is_unfinished,
    )
    error = error_of(response, action_id)
    if error is not None:
        raise error
    return response.result


def handle(request: Request | bytes | str | Mapping[str, Any]) -> Plan[bytes]:
    if isinstance(request, bytes | str):
        carp, body = decode_request(request), request.encode() if isinstance(request, str) else request
    else:
        carp, body = _carp(request)
    # Its request_id lets it in once, however often it is sent.
    return _one(
        Call(
            "POST",
            _WIRE[carp.operation],
            answers.carp,
            body=body,
            repeatable=True,
            executes=carp.operation is Operation.EXECUTE,
        )
    )


def simulate(
    session_id: str,
    request: Request | Mapping[str, Any] | str | None,
    action_id: str | None,
    parameters: Mapping[str, Any] | None,
    risk_tier: RiskTier | str,
    context_hints: Iterable[str],
    required_capabilities: Iterable[str],
    atlas_ids: Iterable[str],
    context: Mapping[str, Any] | None,
) -> Plan[Simulation]:
    path = session_path(session_id, "/simulate")
    if action_id is not None:
        body = _written({"action_id": action_id, "parameters": _parameters(parameters or {})})
        return _one(Call("POST", path, answers.simulated_call, body=body, repeatable=True))
    if request is None:
        raise InvalidRequest("simulate takes a request, a goal or an action_id, and got none of them")
    if not isinstance(request, str):
        asked = decode_request(_asked(session_id, request))
        # The short form is all there is; what a whole request has beyond it decides nothing.
        task = asked.task
        request, risk_tier, context_hints = task.goal, task.risk_tier, task.context_hints
        required_capabilities, atlas_ids, context = task.required_capabilities, asked.atlas_ids, asked.context
    body = _goal(request, risk_tier, context_hints, required_capabilities, atlas_ids, context)
    return _one(Call("POST", path, answers.simulated_resolve, body=body, repeatable=True))


def _goal(
    goal: str,
    risk_tier: RiskTier | str,
    context_hints: Iterable[str],
    required_capabilities: Iterable[str],
    atlas_ids: Iterable[str],
    context: Mapping[str, Any] | None,
) -> bytes:
    body: dict[str, Any] = {"goal": goal}
    if risk_tier != "low":
        body["risk_tier"] = str(risk_tier)
    for name, values in (
        ("context_hints", context_hints),
        ("required_capabilities", required_capabilities),
        ("atlas_ids", atlas_ids),
    ):
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InvalidRequest(f"{name} is `{type(values).__name__}`, expected a list of strings", pointer=f"/{name}")
        if listed := list(values):
            body[name] = listed
    if context is not None:
        body["context"] = _object("context", context)
    return dumps(body)


def _asked(session_id: str, request: Request | Mapping[str, Any]) -> bytes:
    """Return the bytes of a request to resolve in a session; raises what the runtime would."""
    carp, body = _carp(request)
    if carp.requester.session_id != session_id:
        raise InvalidRequest(
            f"requester.session_id is `{carp.requester.session_id}`, expected `{session_id}`",
            pointer="/requester/session_id",
        )
    if carp.operation is not Operation.RESOLVE:
        raise InvalidRequest(f"operation is `{carp.operation}`, expected `resolve`", pointer="/operation")
    return body


def _carp(request: object) -> tuple[Request, bytes]:
    if isinstance(request, Request):
        check_request(request)
        return request, engine.canonical_request(request)
    if not isinstance(request, Mapping):
        raise InvalidRequest(f"request is `{type(request).__name__}`, expected an object or its JSON", pointer="")
    body = dumps(dict(request))
    return decode_request(body), body


def _parameters(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"parameters are `{type(value).__name__}`, expected an object", pointer="/execution/parameters"
        )
    return dict(value)


def _written(body: dict[str, Any]) -> bytes:
    try:
        return dumps(body)
    except NotCanonical as error:
        place = (error.pointer or "").removeprefix("/parameters")
        raise InvalidRequest(f"parameters{place}: {error.message}", pointer=f"/execution/parameters{place}") from error


def _object(name: str, value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} is `{type(value).__name__}`, expected an object", pointer=f"/{name}")
    return dict(value)


# The record


def get_trace(session_id: str, first: int, count: int | None) -> Plan[Trace]:
    path, pieces = session_path(session_id, "/trace"), []
    while count is None or count > 0:
        wanted = PAGE if count is None else min(PAGE, count)
        found: bytes = yield Call(
            "GET",
            path,
            answers.lines,
            query=query(first=first, limit=wanted),
            accept=NDJSON,
            repeatable=True,
        )
        pieces.append(found)
        got = found.count(b"\n")
        first += got
        count = None if count is None else count - got
        if got < wanted:
            break
    return Trace(b"".join(pieces))


def is_over(session_id: str, first: int) -> Plan[bool]:
    """Say whether a session has ended and has no event from `first` on."""
    record = yield from get_session(session_id)
    return record.status == "ended" and not (yield from get_trace(session_id, first, 1)).data


def verify_chain(session_id: str) -> Plan[ChainVerification]:
    return _one(Call("GET", session_path(session_id, "/trace/verify"), answers.verification, repeatable=True))


# Atlases


def load_atlas(atlas: Atlas, replace: bool) -> Plan[Atlas]:
    summary: AtlasSummary = yield Call(
        "POST",
        "/v1/atlases",
        answers.atlas_summary,
        query=query(replace="true" if replace else None),
        body=loader.archive_of(atlas),
        media=ARCHIVE,
    )
    if summary.digest != atlas.digest:
        raise ServiceError(
            f"the service took `{atlas.atlas_id}` with the digest {summary.digest}, expected {atlas.digest}",
            hint="unload it; something between has changed it",
        )
    return atlas


def unload_atlas(atlas_id: str) -> Plan[None]:
    return _one(Call("DELETE", f"/v1/atlases/{_atlas_segment(atlas_id)}", answers.nothing))


def list_atlases(known: dict[str, Atlas]) -> Plan[list[Atlas]]:
    """Read the loaded atlases; of those in `known`, by digest, only the digest."""
    summaries = yield Call("GET", "/v1/atlases", answers.atlas_summaries, repeatable=True)
    found: list[Atlas] = []
    for summary in summaries:
        atlas = known.get(summary.digest)
        if atlas is None:
            path = f"/v1/atlases/{_atlas_segment(summary.atlas_id)}"
            atlas = yield Call("GET", path, answers.atlas, accept=ARCHIVE, repeatable=True)
        found.append(atlas)
    known.clear()
    known.update({atlas.digest: atlas for atlas in found})
    return found


def read_atlas(path: str | Path | Atlas) -> Atlas:
    """Return an atlas of this machine's; raises `AtlasInvalid` with every problem."""
    return path if isinstance(path, Atlas) else loader.load(path)


def read_document(document: str | bytes | Mapping[str, Any], files: Mapping[str, str | bytes] | None) -> Atlas:
    """Return the atlas of a manifest and the files that it names; raises `AtlasInvalid` with every problem."""
    return loader.load_json(document, files or {})


def _atlas_segment(atlas_id: object) -> str:
    if not isinstance(atlas_id, str) or len(atlas_id) > 255 or not _ATLAS_ID.match(atlas_id):
        raise AtlasNotFound(f"no atlas `{str(atlas_id)[:100]}` is loaded")
    return segment(atlas_id)


# Approvals


def list_approvals(
    session_id: str | None, status: str | None, after: str | None, limit: int | None
) -> Plan[list[ApprovalRecord]]:
    if after is not None:
        check_uuid("after", after)
    found: list[ApprovalRecord] = []
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        asked = query(session_id=session_id, status=status, after=after, limit=size)
        page, after = yield Call("GET", "/v1/approvals", answers.approval_page, query=asked, repeatable=True)
        found += page
        if after is None:
            break
    return found


def get_approval(approval_id: str, wait_s: int | None = None) -> Plan[ApprovalRecord]:
    return _one(
        Call(
            "GET",
            _approval(approval_id),
            answers.approval,
            query=query(wait_seconds=wait_s),
            repeatable=True,
            long_s=float(wait_s or 0),
        )
    )


def wait_for_approval(approval_id: str, seconds: float, clock: Callable[[], float]) -> Plan[ApprovalRecord]:
    end = clock() + check_wait(seconds)
    while True:
        began = clock()
        asked = min(LONGEST_POLL_S, max(0, ceil(end - began)))
        record = yield from get_approval(approval_id, asked)
        # A service that has not waited knows that nobody can decide any more, or is shutting down.
        if record.status != "pending" or clock() >= end or clock() - began < asked / 2:
            return record


def decide(approval_id: str, verb: Literal["grant", "reject"], reason: str | None) -> Plan[ApprovalRecord]:
    path = f"{_approval(approval_id)}/{verb}"
    return _one(Call("POST", path, answers.approval, body=dumps(present(reason=reason))))


def _approval(approval_id: str) -> str:
    check_uuid("approval_id", approval_id)
    return f"/v1/approvals/{approval_id}"


def session_path(session_id: object, rest: str = "") -> str:
    """Return a path in a session; what cannot be a session's id is that of no session, and leads nowhere else."""
    if not isinstance(session_id, str):
        raise SessionNotFound(f"session_id is `{type(session_id).__name__}`, expected a string")
    if not _UUID.match(session_id):
        raise SessionNotFound(f"session `{session_id}` does not exist")
    return f"/v1/sessions/{session_id}{rest}"


# Everything else


def call(method: str, path: str, body: Any) -> Plan[Any]:
    """Return the plan of a call that the runtime has no method for; a body of bytes is an atlas archive."""
    if method not in ("GET", "POST", "PUT", "DELETE") or not _PATH.match(path):
        raise InvalidRequest(
            f"call is `{method} {path}`, expected GET, POST, PUT or DELETE and a path such as /v1/keys"
        )
    archive = isinstance(body, bytes)
    data = None if body is None else body if archive else dumps(body)
    return _one(
        Call(
            method,
            path,
            answers.value_or_none,
            body=data,
            media=ARCHIVE if archive else JSON,
            repeatable=method == "GET",
        )
    )
