"""AsyncCRAClient: the methods of `AsyncCRARuntime`, answered by a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cra.atlas.package import Atlas
from cra.client import _plans as plans
from cra.client._base import ClientBase
from cra.client._calls import Call, Plan
from cra.client._exchange import Again, Exchange, Gathered, Late
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


class AsyncCRAClient(ClientBase):
    """Ask a service what `AsyncCRARuntime` would answer in this process; the methods of `CRAClient`, awaited.

    Use it as an asynchronous context manager, or call `close`, so that connections are closed.
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
        self._http = self._httpx.AsyncClient(**self._options)
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.approvals = AsyncClientApprovals(self)

    async def __aenter__(self) -> AsyncCRAClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._http.aclose()

    async def _run(self, plan: Plan[T]) -> T:
        """Make the calls of a plan, and return what they come to."""
        try:
            call = next(plan)
            while True:
                call = plan.send(await self._send(call))
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _send(self, call: Call[T]) -> T:
        exchange = self._exchange(call)
        while True:
            answer: Any
            try:
                # The parts have their time-outs; this bounds them together.
                async with asyncio.timeout(max(exchange.left_s, 0.001)):
                    status, headers, body = await self._exchanged(exchange)
            except TimeoutError:
                answer = exchange.lost(Late("the answer did not arrive in time"), sent=True)
            except self._httpx.TransportError as error:
                answer = exchange.lost(error, sent=self._sent(error))
            else:
                answer = exchange.answered(status, headers, body)
            if not isinstance(answer, Again):
                value: T = answer
                return value
            await self._sleep(answer.wait_s)

    async def _exchanged(self, exchange: Exchange[Any]) -> tuple[int, Mapping[str, str], bytes]:
        async with self._http.stream(**self._parts(exchange.call, exchange.begin())) as response:
            return response.status_code, response.headers, await _gathered(response)

    # Sessions

    async def create_session(
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
        return await self._run(
            plans.create_session(agent_id, goal, session_id, trace_id, parent_session_id, context, metadata)
        )

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return a session as the store has it; raises `SessionNotFound`."""
        return await self._run(plans.get_session(session_id))

    async def list_sessions(
        self,
        *,
        agent_id: str | None = None,
        status: Literal["active", "ended"] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[SessionRecord]:
        """Return up to `limit` sessions in the order of their ids, starting behind the id `after`."""
        return await self._run(plans.list_sessions(agent_id, status, after, limit))

    async def end_session(
        self, session_id: str, reason: Literal["completed", "timeout", "error", "cancelled"] = "completed"
    ) -> SessionRecord:
        """End a session; it takes no more calls."""
        return await self._run(plans.end_session(session_id, reason))

    # Deciding

    async def resolve(
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
        return await self._run(
            plans.resolve(session_id, request, risk_tier, context_hints, required_capabilities, atlas_ids, context)
        )

    async def execute(
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
        return await self._run(
            plans.execute(session_id, action_id, parameters, resolution_id, idempotency_key, approval_id)
        )

    # The wire

    async def handle(self, request: Request | bytes | str | Mapping[str, Any]) -> bytes:
        """Answer a CARP request with the canonical JSON of its response; see `CRARuntime.handle`."""
        return await self._run(plans.handle(request))

    async def simulate(
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
        return await self._run(
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

    async def get_trace(self, session_id: str, first: int = 0, count: int | None = None) -> Trace:
        """Return the session's events from sequence `first`, as they are stored."""
        return await self._run(plans.get_trace(session_id, first, count))

    async def verify_chain(self, session_id: str, *, locally: bool = False) -> ChainVerification:
        """Verify a session's chain over the stored bytes: at the service, or over the bytes that it gives."""
        if locally:
            return verify_trace(await self.get_trace(session_id))
        return await self._run(plans.verify_chain(session_id))

    async def follow(self, session_id: str, first: int = 0) -> AsyncIterator[Event]:
        """Yield the session's events from sequence `first` as they are written, until it ends.

        A broken connection is made again, and goes on with the next event: none is left out, none comes twice.
        """
        follower = self._follower(session_id, first)
        while not follower.has_ended():
            timeouts = follower.begin()
            try:
                async with self._http.stream(**self._parts(follower.call(), timeouts)) as response:
                    if response.status_code != 200:
                        answer = follower.refused(response.status_code, response.headers, await _gathered(response))
                    else:
                        async for piece in response.aiter_raw():
                            for event in follower.take(piece):
                                yield event
                            if follower.has_ended():
                                return
                        if await self._run(plans.is_over(session_id, follower.next)):
                            return
                        answer = follower.broke(None, sent=True)
            except self._httpx.TransportError as error:
                answer = follower.broke(error, sent=self._sent(error))
            await self._sleep(answer.wait_s)

    # Atlases

    async def load_atlas(self, path: str | Path | Atlas, *, replace: bool = False) -> Atlas:
        """Load an atlas of this machine's into the service; see `CRARuntime.load_atlas`."""
        return await self._run(plans.load_atlas(plans.read_atlas(path), replace))

    async def load_atlas_from_json(
        self,
        document: str | bytes | Mapping[str, Any],
        files: Mapping[str, str | bytes] | None = None,
        *,
        replace: bool = False,
    ) -> Atlas:
        """Load a manifest from JSON; `files` holds the context files that it names."""
        return await self._run(plans.load_atlas(plans.read_document(document, files), replace))

    async def unload_atlas(self, atlas_id: str) -> None:
        """Unload an atlas; raises `AtlasNotFound`, or `AtlasConflict` when another one depends on it."""
        await self._run(plans.unload_atlas(atlas_id))

    async def list_atlases(self) -> list[Atlas]:
        """Return the loaded atlases in load order; those that are known by their digests are not sent again."""
        return await self._run(plans.list_atlases(self._known))

    # The past

    async def replay(self, trace: Trace | bytes, atlases: Atlas | Sequence[Atlas] | None = None) -> ReplayResult:
        """Decide a recorded session again here, with the atlases that are given or those that the service has loaded.

        Raises `InvalidTrace` when its chain is broken; see `CRARuntime.replay`.
        """
        from cra.runtime.replay import replay

        return replay(trace, await self.list_atlases() if atlases is None else atlases)

    async def what_if(self, trace: Trace | bytes, atlases: Atlas | Sequence[Atlas]) -> WhatIf:
        """Return what other atlases would have decided about a recorded session; see `CRARuntime.what_if`."""
        from cra.runtime.whatif import what_if

        return what_if(trace, atlases, recorded=await self.list_atlases())

    # Everything else

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make a call that the runtime has no method for, such as `GET /v1/keys`; takes and returns JSON.

        Only a GET is sent again when its answer is lost.
        """
        return await self._run(plans.call(method, path, body))


async def _gathered(response: Any) -> bytes:
    gathered = Gathered(None)
    async for piece in response.aiter_raw():
        gathered.add(piece)
    return gathered.body


class AsyncClientApprovals:
    """The approvals of the service's sessions; see `AsyncApprovals`."""

    def __init__(self, client: AsyncCRAClient) -> None:
        self._client = client

    async def list(
        self,
        *,
        session_id: str | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Records:
        """Return approvals, oldest first: up to `limit` of them, those after the approval `after`."""
        return await self._client._run(plans.list_approvals(session_id, status, after, limit))

    async def get(self, approval_id: str) -> ApprovalRecord:
        """Return one approval; raises `ApprovalNotFound`."""
        return await self._client._run(plans.get_approval(approval_id))

    async def grant(
        self, approval_id: str, *, approver: str | None = None, reason: str | None = None
    ) -> ApprovalRecord:
        """Record that whom the credential belongs to agrees.

        `approver` is taken so that code can move here, and is not sent: the service goes by the credential. Raises
        `ApprovalConflict` as `Approvals.grant` does, `Forbidden` when the credential may not decide.
        """
        return await self._client._run(plans.decide(approval_id, "grant", reason))

    async def reject(
        self, approval_id: str, *, approver: str | None = None, reason: str | None = None
    ) -> ApprovalRecord:
        """Record that whom the credential belongs to does not agree; as `grant`."""
        return await self._client._run(plans.decide(approval_id, "reject", reason))

    async def wait(self, approval_id: str, seconds: float) -> ApprovalRecord:
        """Return an approval as soon as it is decided, over or used, and after `seconds` (0 to 3600) as it is then."""
        return await self._client._run(plans.wait_for_approval(approval_id, seconds, self._client._clock))
