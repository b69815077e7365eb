"""What the synchronous and the asynchronous runtime have in common."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UnsetType, structs

from cra._core.canonical import dumps
from cra._core.chain import Verdict, verify
from cra.atlas.package import Atlas
from cra.atlas.registry import Registry
from cra.atlas.snapshot import RISK_RANK, Snapshot
from cra.errors import ClockSkew, InvalidRequest, StorageError
from cra.protocol.carp import ExecuteResponse, Operation, Request, Resolution
from cra.protocol.codec import check_request, decode_request
from cra.protocol.fields import RiskTier
from cra.protocol.times import format_timestamp, parse_timestamp
from cra.protocol.trace import ChainVerification, Trace
from cra.runtime.administration import Administration
from cra.runtime.calls import Order, response_bytes
from cra.runtime.catalog import Catalog
from cra.runtime.config import RuntimeConfig
from cra.runtime.engine import Ask, Decided, ask_of
from cra.runtime.execution import Execution
from cra.runtime.executors import ExecutorTable
from cra.runtime.kernel import LONGEST_GOAL, Kernel, check_text, json_object
from cra.runtime.watch import Subscription
from cra.storage.base import SessionRecord
from cra.storage.open import open_storage

if TYPE_CHECKING:
    from cra.runtime.replay import ReplayResult
    from cra.runtime.whatif import WhatIf

F = TypeVar("F", bound=Callable[..., Any])


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What would be answered and recorded; nothing was consumed, executed or written."""

    answer: Resolution | ExecuteResponse
    canonical: bytes
    events: Trace
    simulated: bool = True


class RuntimeBase:
    """Atlases, executors and requests: everything that neither waits nor runs."""

    def __init__(self, config: RuntimeConfig | None = None) -> None:
        self.config = config or RuntimeConfig()
        storage = open_storage(
            self.config.storage, max_sessions=self.config.max_sessions, max_events=self.config.max_events
        )
        self._registry = Registry(self.config.default_decision, stored=self.config.stored_atlases)
        self._kernel = Kernel(self.config, storage, self._registry.snapshot)
        if self.config.stored_atlases:
            self._kernel.catalog = Catalog(storage, self._registry)
        self._executors = ExecutorTable()
        self._execution = Execution(self._kernel, self._executors)
        self._administration = Administration(self._kernel, self._registry)

    # Atlases

    @property
    def snapshot(self) -> Snapshot:
        """What decisions are made from now; replaced as a whole when an atlas is loaded or unloaded."""
        return self._kernel.snapshot

    def load_atlas(self, path: str | Path | Atlas, *, replace: bool = False) -> Atlas:
        """Load a folder, an `atlas.json` or an `.atlas` archive, or an atlas that has been read already.

        Raises `AtlasInvalid` with every problem, or `AtlasConflict` when one of that id is loaded and `replace` is
        false. Nothing changes unless the atlas is good as a whole.
        """
        from cra.atlas import loader

        return self._add(path if isinstance(path, Atlas) else loader.load(path), replace=replace)

    def load_atlas_from_json(
        self,
        document: str | bytes | Mapping[str, Any],
        files: Mapping[str, str | bytes] | None = None,
        *,
        replace: bool = False,
    ) -> Atlas:
        """Load a manifest from JSON; `files` holds the context files that it names."""
        from cra.atlas import loader

        return self._add(loader.load_json(document, files or {}), replace=replace)

    def _add(self, atlas: Atlas, *, replace: bool) -> Atlas:
        self._kernel.swap(lambda: self._registry.add(atlas, replace=replace))
        return atlas

    def unload_atlas(self, atlas_id: str) -> None:
        """Unload an atlas; raises `AtlasNotFound`, or `AtlasConflict` when another one depends on it."""
        self._kernel.swap(lambda: self._registry.remove(atlas_id))

    def list_atlases(self) -> list[Atlas]:
        """Return the loaded atlases in load order; those that are stored as they were last read.

        `administration.atlases` asks the store.
        """
        return list(self.snapshot.atlases)

    # Sessions

    def _end_session(self, session_id: str, reason: str) -> SessionRecord:
        ended = self._kernel.end_session(session_id, reason)
        # The session has ended whatever becomes of older ones, which the next end takes up again.
        with suppress(StorageError):
            self._administration.retain()
        return ended

    def subscribe(self, session_id: str, callback: Callable[[], object]) -> Subscription:
        """Call back after every commit that this runtime makes in a session, until the subscription is closed.

        It is called in the thread that committed, while the session is locked: it should only wake somebody up, who
        then reads the trace. What it raises is dropped. Commits of other processes are not told.
        """
        return self._kernel.watchers.add(session_id, callback)

    # Executors

    def executor(self, *globs: str, inline: bool = False) -> Callable[[F], F]:
        """Register the decorated function for the actions whose executor name (their id) matches a glob.

        It is called with the parameters, or with the parameters and an `ExecutionContext`, and returns JSON. It may
        be async. A synchronous one runs in a worker thread and is left behind at its deadline; with `inline` it runs
        in the caller's thread, which is faster and cannot be interrupted.
        """

        def register(function: F) -> F:
            for glob in globs:
                self._executors.register(glob, function, inline=inline)
            return function

        return register

    def register_executor(self, glob: str, function: Callable[..., Any], *, inline: bool = False) -> None:
        """Register a function as `executor` does."""
        self._executors.register(glob, function, inline=inline)

    # Requests

    def _ask(
        self,
        session: SessionRecord,
        request: Request | Mapping[str, Any] | str,
        risk_tier: RiskTier | str,
        context_hints: Iterable[str],
        required_capabilities: Iterable[str],
        atlas_ids: Iterable[str],
        context: Mapping[str, Any] | None,
    ) -> Ask:
        if isinstance(request, str):
            request = check_text("goal", request, LONGEST_GOAL)
            if not (context_hints or required_capabilities or atlas_ids) and risk_tier == "low" and context is None:
                return Ask(request)
            tier: object = risk_tier
            if not isinstance(tier, str) or tier not in RISK_RANK:
                raise InvalidRequest(
                    f"risk_tier is `{risk_tier}`, expected one of {', '.join(RISK_RANK)}", pointer="/task/risk_tier"
                )
            return Ask(
                goal=request,
                risk=RISK_RANK[risk_tier],
                hints=_texts("context_hints", context_hints),
                capabilities=_texts("required_capabilities", required_capabilities),
                atlas_ids=_texts("atlas_ids", atlas_ids),
                context=json_object("context", context),
            )
        carp = self._request(request)
        self._check(session, carp)
        if carp.operation is not Operation.RESOLVE:
            raise InvalidRequest(f"operation is `{carp.operation}`, expected `resolve`", pointer="/operation")
        return ask_of(carp)

    def _check(self, session: SessionRecord, request: Request) -> None:
        """Raise `InvalidRequest` when a request does not fit its session or the clock."""
        if request.requester.session_id != session.session_id:
            raise InvalidRequest(
                f"requester.session_id is `{request.requester.session_id}`, expected `{session.session_id}`",
                pointer="/requester/session_id",
            )
        if request.requester.agent_id != session.agent_id:
            raise InvalidRequest(
                f"requester.agent_id is `{request.requester.agent_id}`, the session is of another agent",
                pointer="/requester/agent_id",
            )
        stated = parse_timestamp(request.timestamp, pointer="/timestamp")
        now_us = self._kernel.now_us()
        if abs(stated - now_us) > self.config.clock_skew_seconds * 1_000_000:
            raise ClockSkew(
                f"timestamp is `{request.timestamp}`, expected within {self.config.clock_skew_seconds} s of "
                f"{format_timestamp(now_us)}",
                pointer="/timestamp",
                hint="set the sender's clock",
            )

    @property
    def _waits(self) -> bool:
        """Whether the store may make its callers wait."""
        return self._kernel.storage.blocking

    def _answer_here(self, request: Request) -> Decided:
        """Answer a resolve request in the calling thread; it waits for the store."""
        session = self._kernel.live(request.requester.session_id).record
        self._check(session, request)
        return self._kernel.resolve(session.session_id, ask_of(request))

    def _request(self, request: Request | bytes | str | Mapping[str, Any]) -> Request:
        if isinstance(request, Request):
            check_request(request)
            if not request.context:
                return request
            # What later calls are decided by is the runtime's own, whoever else holds the caller's object.
            return structs.replace(request, context=json_object("context", request.context))
        return decode_request(request if isinstance(request, bytes | str) else _text_of(request))

    def _simulate(
        self,
        session_id: str,
        request: Request | Mapping[str, Any] | str | None,
        action_id: str | None,
        parameters: Mapping[str, Any] | None,
        risk_tier: RiskTier | str,
        context_hints: Iterable[str],
        required_capabilities: Iterable[str],
        atlas_ids: Iterable[str],
        context: Mapping[str, Any] | None,
    ) -> Simulation:
        if action_id is not None:
            given = json_object("parameters", parameters)
            order = Order(session_id=session_id, action_id=action_id, parameters=given, simulate=True)
            ending, events = self._execution.preview(order)
            answer = ending.response()
            return Simulation(answer=answer, canonical=response_bytes(answer), events=Trace(events))
        if request is None:
            raise InvalidRequest("simulate takes a request, a goal or an action_id, and got none of them")
        ask = self._ask(
            self._kernel.live(session_id).record,
            request,
            risk_tier,
            context_hints,
            required_capabilities,
            atlas_ids,
            context,
        )
        decided, events = self._kernel.preview(session_id, ask)
        return Simulation(answer=decided.resolution, canonical=decided.canonical, events=Trace(events))

    def _order_of(self, request: Request, actor: str | None) -> Order:
        execution = request.execution
        if isinstance(execution, UnsetType):
            raise InvalidRequest("execution is missing", pointer="/execution")
        if request.context or request.atlas_ids or request.task.required_capabilities:
            raise InvalidRequest(
                "execute takes context, atlas_ids and required_capabilities from its resolution",
                hint="leave them out, or resolve again with them",
            )
        return Order(
            session_id=request.requester.session_id,
            action_id=execution.action_id,
            parameters=execution.parameters,
            resolution_id=_given(execution.resolution_id),
            idempotency_key=_given(execution.idempotency_key),
            approval_id=_given(execution.approval_id),
            request_id=request.request_id,
            risk=RISK_RANK[request.task.risk_tier],
            simulate=request.operation is Operation.VALIDATE,
            actor=actor,
        )

    # The past

    def replay(self, trace: Trace | bytes, atlases: Atlas | Sequence[Atlas] | None = None) -> "ReplayResult":
        """Decide a recorded session again, with the atlases that are given or those that are loaded.

        Raises `InvalidTrace` when its chain is broken. Nothing is executed, counted or written.
        """
        # PERF: imported here and below, because it takes 5 ms that most programs never need.
        from cra.runtime.replay import replay

        loaded = self._newest() if atlases is None else atlases
        return replay(trace, loaded, default_decision=self.config.default_decision)

    def what_if(self, trace: Trace | bytes, atlases: Atlas | Sequence[Atlas]) -> "WhatIf":
        """Return what other atlases would have decided about a recorded session.

        The loaded atlases are taken for the recorded ones where the trace names their digests. Raises `InvalidTrace`
        when the chain is broken.
        """
        from cra.runtime.whatif import what_if

        return what_if(trace, atlases, recorded=self._newest(), default_decision=self.config.default_decision)

    def _newest(self) -> tuple[Atlas, ...]:
        self._kernel.freshen()
        return self.snapshot.atlases


def _text_of(request: object) -> bytes:
    if not isinstance(request, Mapping):
        raise InvalidRequest(f"request is `{type(request).__name__}`, expected an object or its JSON", pointer="")
    return dumps(dict(request))


def _given(value: str | UnsetType) -> str | None:
    return None if isinstance(value, UnsetType) else value


def _texts(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidRequest(f"{name} is `{type(values).__name__}`, expected a list of strings", pointer=f"/{name}")
    result = tuple(values)
    items: tuple[object, ...] = result
    for number, value in enumerate(items):
        if not isinstance(value, str) or not 1 <= len(value) <= 1000:
            raise InvalidRequest(
                f"{name}: item {number} is not a string of 1 to 1000 characters", pointer=f"/{name}/{number}"
            )
    if len(result) > 100:
        raise InvalidRequest(f"{name} has {len(result)} items, expected at most 100", pointer=f"/{name}")
    return result


def verify_trace(data: bytes | Trace) -> ChainVerification:
    """Verify a trace's chain over its bytes, and say which event is the first bad one and why."""
    return verification_of(verify(data.data if isinstance(data, Trace) else data))


def verification_of(verdict: Verdict) -> ChainVerification:
    """Return the wire form of a verdict."""
    return ChainVerification(
        ok=verdict.ok,
        events=verdict.events,
        index=verdict.index,
        reason=verdict.reason,
        message=verdict.message,
        offset=verdict.offset,
        head=verdict.head,
    )
