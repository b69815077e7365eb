"""CRAClient: the methods of `CRARuntime`, answered by a service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cra.atlas.package import Atlas
from cra.client import _plans as plans
from cra.client._base import ClientBase
from cra.client._calls import Call, Plan
from cra.client._exchange import Again, Gathered, Late
from cra.client._settings import Credential
from cra.protocol.carp import Request, Resolution
from cra.protocol.fields import RiskTier
from cra.protocol.trace import ChainVerification, Event, Trace
from cra.runtime._base import Simulation, verify_trace
from cra.runtime.approvals import Records, Status
from cra.storage.base import ApprovalRecord, SessionRecord

if TYPE_CHECKING:
    import ssl

    from cra.runtime.replay import ReplayResult
    from cra.runtime.whatif import WhatIf

T = TypeVar("T")


class CRAClient(ClientBase):
    """Ask a service what `CRARuntime` would answer in this process; safe to call from any thread.

    `api_key` is a key, a bearer token, or a function that returns one; without it CRA_API_KEY counts. Every call has
    `timeout_s`, an execute `execute_timeout_s`, for all of its attempts together. `verify` is a TLS context, for a
    certificate authority of one's own. Use it as a context manager, or call `close`, so that connections are closed.
    """

    def __init__(
        self,
        base_url: str,
        api_key: Credential | None = None,
        *,
        timeout_s: float = 30.0,
        execute_timeout_s: float = 330.0,
        max_attempts: int = 5,
        max_connections: int = 100,
        allow_plain_http: bool = False,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        super().__init__(
            base_url,
            api_key,
            timeout_s=timeout_s,
            execute_timeout_s=execute_timeout_s,
            max_attempts=max_attempts,
            max_connections=max_connections,
            allow_plain_http=allow_plain_http,
            verify=verify,
        )
        self._http = self._httpx.Client(**self._options)
        self._sleep: Callable[[float], None] = time.sleep
        self.approvals = ClientApprovals(self)

    def __enter__(self) -> CRAClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        self._http.close()

    def _run(self, plan: Plan[T]) -> T:
        """Make the calls of a plan, and return what they come to."""
        try:
            call = next(plan)
            while True:
                call = plan.send(self._send(call))
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _send(self, call: Call[T]) -> T:
        exchange = self._exchange(call)
        while True:
            answer: Any
            try:
                with self._http.stream(**self._parts(call, exchange.begin())) as response:
                    gathered = Gathered(exchange)
                    for piece in response.iter_raw():
                        gathered.add(piece)
            except (self._httpx.TransportError, Late) as error:
                answer = exchange.lost(error, sent=self._sent(error))
            else:
                answer = exchange.answered(response.status_code, response.headers, gathered.body)
            if not isinstance(answer, Again):
                value: T = answer
                return value
            self._sleep(answer.wait_s)

    # Sessions

    def create_session(
        self,
        agent_id: str,
        goal: str,
        *,
        session_id: str | None = None,
        trace_id: str | None = None,
        parent_session_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Start a session; see `CRARuntime.create_session`."""
        return self._run(
            plans.create_session(agent_id, goal, session_id, trace_id, parent_session_id, context, metadata)
        )

    def get_session(self, session_id: str) -> SessionRecord:
        """Return a session as the store has it; raises `SessionNotFound`."""
        return self._run(plans.get_session(session_id))

    def list_sessions(
        self,
        *,
        agent_id: str | None = None,
        status: Literal["active", "ended"] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[SessionRecord]:
        """Return up to `limit` sessions in the order of their ids, starting behind the id `after`."""
        return self._run(plans.list_sessions(agent_id, status, after, limit))

    def end_session(
        self, session_id: str, reason: Literal["completed", "timeout", "error", "cancelled"] = "completed"
    ) -> SessionRecord:
        """End a session; it takes no more calls."""
        return self._run(plans.end_session(session_id, reason))

    # Deciding

    def resolve(
        self,
        session_id: str,
        request: Request | Mapping[str, Any] | str,
        *,
        risk_tier: RiskTier | str = "low",
        context_hints: Iterable[str] = (),
        required_capabilities: Iterable[str] = (),
        atlas_ids: Iterable[str] = (),
        context: Mapping[str, Any] | None = None,
    ) -> Resolution:
        """Answer what the session may know and do; see `CRARuntime.resolve`."""
        return self._run(
            plans.resolve(session_id, request, risk_tier, context_hints, required_capabilities, atlas_ids, context)
        )

    def execute(
        self,
        session_id: str,
        action_id: str,
        parameters: dict[str, Any],
        resolution_id: str | None = None,
        *,
        idempotency_key: str | None = None,
        approval_id: str | None = None,
    ) -> Any:
        """Run an action if policy allows it, where the service is, and return its result; see `CRARuntime.execute`.

        Raises the same exceptions, and `ServiceUnreachable` when there is no answer. Without an `idempotency_key` the
        client makes one, so that the call runs at most once however often it has to be sent.
        """
        return self._run(plans.execute(session_id, action_id, parameters, resolution_id, idempotency_key, approval_id))

    # The wire

    def handle(self, request: Request | bytes | str | Mapping[str, Any]) -> bytes:
        """Answer a CARP request with the canonical JSON of its response; see `CRARuntime.handle`."""
        return self._run(plans.handle(request))

    def simulate(
        self,
        session_id: str,
        request: Request | Mapping[str, Any] | str | None = None,
        *,
        action_id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        risk_tier: RiskTier | str = "low",
        context_hints: Iterable[str] = (),
        required_capabilities: Iterable[str] = (),
        atlas_ids: Iterable[str] = (),
        context: Mapping[str, Any] | None = None,
    ) -> Simulation:
        """Answer as `resolve` or `execute` would, and do nothing; see `CRARuntime.simulate`."""
        return self._run(
            plans.simulate(
                session_id,
                request,
                action_id,
                parameters,
                risk_tier,
                context_hints,
                required_capabilities,
                atlas_ids,
                context,
            )
        )

    # The record

    def get_trace(self, session_id: str, first: int = 0, count: int | None = None) -> Trace:
        """Return the session's events from sequence `first`, as they are stored."""
        return self._run(plans.get_trace(session_id, first, count))

    def verify_chain(self, session_id: str, *, locally: bool = False) -> ChainVerification:
        """Verify a session's chain over the stored bytes: at the service, or over the bytes that it gives."""
        if locally:
            return verify_trace(self.get_trace(session_id))
        return self._run(plans.verify_chain(session_id))

    def follow(self, session_id: str, first: int = 0) -> Iterator[Event]:
        """Yield the session's events from sequence `first` as they are written, until it ends.

        A broken connection is made again, and goes on with the next event: none is left out, none comes twice.
        """
        follower = self._follower(session_id, first)
        while not follower.has_ended():
            timeouts = follower.begin()
            try:
                with self._http.stream(**self._parts(follower.call(), timeouts)) as response:
                    if response.status_code != 200:
                        gathered = Gathered(None)
                        for piece in response.iter_raw():
                            gathered.add(piece)
                        answer = follower.refused(response.status_code, response.headers, gathered.body)
                    else:
                        for piece in response.iter_raw():
                            yield from follower.take(piece)
                            if follower.has_ended():
                                return
                        if self._run(plans.is_over(session_id, follower.next)):
                            return
                        answer = follower.broke(None, sent=True)
            except self._httpx.TransportError as error:
                answer = follower.broke(error, sent=self._sent(error))
            self._sleep(answer.wait_s)

    # Atlases

    def load_atlas(self, path: str | Path | Atlas, *, replace: bool = False) -> Atlas:
        """Load an atlas of this machine's into the service; see `CRARuntime.load_atlas`."""
        return self._run(plans.load_atlas(plans.read_atlas(path), replace))

    def load_atlas_from_json(
        self,
        document: str | bytes | Mapping[str, Any],
        files: Mapping[str, str | bytes] | None = None,
        *,
        replace: bool = False,
    ) -> Atlas:
        """Load a manifest from JSON; `files` holds the context files that it names."""
        return self._run(plans.load_atlas(plans.read_document(document, files), replace))

    def unload_atlas(self, atlas_id: str) -> None:
        """Unload an atlas; raises `AtlasNotFound`, or `AtlasConflict` when another one depends on it."""
        self._run(plans.unload_atlas(atlas_id))

    def list_atlases(self) -> list[Atlas]:
        """Return the loaded atlases in load order; those that are known by their digests are not sent again."""
        return self._run(plans.list_atlases(self._known))

    # The past

    def replay(self, trace: Trace | bytes, atlases: Atlas | Sequence[Atlas] | None = None) -> ReplayResult:
        """Decide a recorded session again here, with the atlases that are given or those that the service has loaded.

        Raises `InvalidTrace` when its chain is broken; see `CRARuntime.replay`.
        """
        from cra.runtime.replay import replay

        return replay(trace, self.list_atlases() if atlases is None else atlases)

    def what_if(self, trace: Trace | bytes, atlases: Atlas | Sequence[Atlas]) -> WhatIf:
        """Return what other atlases would have decided about a recorded session; see `CRARuntime.what_if`."""
        from cra.runtime.whatif import what_if

        return what_if(trace, atlases, recorded=self.list_atlases())

    # Everything else

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make a call that the runtime has no method for, such as `GET /v1/keys`; takes and returns JSON.

        Only a GET is sent again when its answer is lost.
        """
        return self._run(plans.call(method, path, body))


class ClientApprovals:
    """The approvals of the service's sessions; see `Approvals`."""

    def __init__(self, client: CRAClient) -> None:
        self._client = client

    def list(
        self,
        *,
        session_id: str | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Records:
        """Return approvals, oldest first: up to `limit` of them, those after the approval `after`."""
        return self._client._run(plans.list_approvals(session_id, status, after, limit))

    def get(self, approval_id: str) -> ApprovalRecord:
        """Return one approval; raises `ApprovalNotFound`."""
        return self._client._run(plans.get_approval(approval_id))

    def grant(self, approval_id: str, *, approver: str | None = None, reason: str | None = None) -> ApprovalRecord:
        """Record that whom the credential belongs to agrees.

        `approver` is taken so that code can move here, and is not sent: the service goes by the credential. Raises
        `ApprovalConflict` as `Approvals.grant` does, `Forbidden` when the credential may not decide.
        """
        return self._client._run(plans.decide(approval_id, "grant", reason))

    def reject(self, approval_id: str, *, approver: str | None = None, reason: str | None = None) -> ApprovalRecord:
        """Record that whom the credential belongs to does not agree; as `grant`."""
        return self._client._run(plans.decide(approval_id, "reject", reason))

    def wait(self, approval_id: str, seconds: float) -> ApprovalRecord:
        """Return an approval as soon as it is decided, over or used, and after `seconds` (0 to 3600) as it is then."""
        return self._client._run(plans.wait_for_approval(approval_id, seconds, self._client._clock))
