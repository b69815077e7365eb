"""CARP over HTTP: resolve, execute, validate, simulate."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from cra._core.canonical import dumps
from cra.errors import CRAError, Forbidden, InvalidRequest
from cra.protocol.carp import Goal as GoalText
from cra.protocol.carp import Hint, Operation, Request
from cra.protocol.codec import decode_request
from cra.protocol.fields import ActionId, AtlasId, Identifier, JsonObject, RiskTier, Uuid
from cra.protocol.jsontext import decode
from cra.runtime.calls import Order, response_bytes
from cra.server.call import MAX_BODY_DEPTH, Answer, Call, Response
from cra.server.sessions import absent, check_visible

_RESOLVE, _EXECUTE = str(Operation.RESOLVE), str(Operation.EXECUTE)


class Goal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a session's agent wants to do now."""

    goal: GoalText
    risk_tier: RiskTier = RiskTier.LOW
    context_hints: Annotated[tuple[Hint, ...], Meta(max_length=100)] = ()
    required_capabilities: Annotated[tuple[Identifier, ...], Meta(max_length=100)] = ()
    atlas_ids: Annotated[tuple[AtlasId, ...], Meta(max_length=100)] = ()
    context: JsonObject = field(default_factory=dict)


class ShortCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call by the newest resolution that offers the action, or by the one that is named."""

    action_id: ActionId
    parameters: JsonObject
    resolution_id: Uuid | UnsetType = UNSET
    idempotency_key: Identifier | UnsetType = UNSET
    approval_id: Uuid | UnsetType = UNSET


# The wire


async def resolve(call: Call) -> Answer:
    """Answer a CARP resolve request."""
    return await _handle(call, Operation.RESOLVE)


def resolve_at_once(call: Call) -> Response:
    """Answer a CARP resolve request without waiting for anything but the store, which is one that does not wait."""
    request = _asked(call, Operation.RESOLVE)
    try:
        decided = call.tenant.runtime._answer_here(request)
    except InvalidRequest as error:
        raise _told(call, request, error) from None
    return _answered(call, _RESOLVE, decided.canonical, decided.answer.prefix.decision_type)


async def execute(call: Call) -> Answer:
    """Answer a CARP execute request."""
    return await _handle(call, Operation.EXECUTE)


async def validate(call: Call) -> Answer:
    """Answer a CARP validate request."""
    return await _handle(call, Operation.VALIDATE)


async def _handle(call: Call, operation: Operation) -> Response:
    request = _asked(call, operation)
    try:
        answer = await call.tenant.runtime.handle(request, actor=call.identity.subject)
    except InvalidRequest as error:
        raise _told(call, request, error) from None
    return _answered(call, str(operation), answer)


def _asked(call: Call, operation: Operation) -> Request:
    """Return the request in a call's body; raises what keeps the caller from making it on this path."""
    request = decode_request(call.content)
    if request.operation is not operation:
        raise InvalidRequest(
            f"operation is `{request.operation}`, expected `{operation}` on this path",
            pointer="/operation",
            hint=f"send it to /v1/{request.operation}",
        )
    if not call.identity.is_for(request.requester.agent_id):
        raise Forbidden(
            f"the credential acts as another agent than `{request.requester.agent_id}`",
            hint="an agent's credential speaks for that agent alone",
        )
    return request


def _told(call: Call, request: Request, error: InvalidRequest) -> CRAError:
    """Return what the caller may know of an error."""
    if call.identity.agent_id is not None and error.pointer == "/requester/agent_id":
        # The session is another agent's, which this one is not to know.
        return absent(request.requester.session_id)
    return error


def _answered(call: Call, operation: str, answer: bytes, verdict: str | None = None) -> Response:
    call.service.metrics.decision(operation, verdict or _verdict(operation, answer), call.identity.tenant)
    return Response(answer, media=call.media)


def _verdict(operation: str, answer: bytes) -> str:
    """Return the decision's type or the execution's status.

    PERF: without decoding. The answer is canonical: behind the last `"decision":{` come no names but its own, and a
    string has no bare quotation mark; behind the last `"status":"` is the response's own.
    """
    if operation == _RESOLVE:
        name = b'"type":"'
        at = answer.find(name, answer.rfind(b'"decision":{'))
    else:
        name = b'"status":"'
        at = answer.rfind(name)
    return answer[at + len(name) : answer.find(b'"', at + len(name))].decode()


# The short forms


async def resolve_goal(call: Call) -> Answer:
    """Resolve a goal in a session."""
    goal = await call.json(Goal)
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    resolution = await call.tenant.runtime.resolve(session_id, goal.goal, **_rest(goal))
    return _answered(call, _RESOLVE, dumps(msgspec.to_builtins(resolution)))


async def execute_call(call: Call) -> Answer:
    """Execute an action in a session."""
    short = await call.json(ShortCall)
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    order = Order(
        session_id=session_id,
        action_id=short.action_id,
        parameters=short.parameters,
        resolution_id=_given(short.resolution_id),
        idempotency_key=_key(call, short),
        approval_id=_given(short.approval_id),
        actor=call.identity.subject,
    )
    ending = await call.tenant.runtime._execute(order)
    return _answered(call, _EXECUTE, response_bytes(ending.response()))


async def simulate(call: Call) -> Answer:
    """Say what a goal or a call would be answered, and do nothing."""
    value: Any = decode(call.content, max_depth=MAX_BODY_DEPTH)
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    runtime = call.tenant.runtime
    if isinstance(value, dict) and "action_id" in value:
        short = call.struct(value, ShortCall)
        simulation = await runtime.simulate(session_id, action_id=short.action_id, parameters=short.parameters)
    else:
        goal = call.struct(value, Goal)
        simulation = await runtime.simulate(session_id, goal.goal, **_rest(goal))
    events = b",".join(simulation.events.data.splitlines())
    # The answer is canonical already, and so are the events' payloads: they are shown as they would be stored.
    return Response(b'{"answer":%b,"events":[%b],"simulated":true}' % (simulation.canonical, events))


def _rest(goal: Goal) -> dict[str, Any]:
    return {
        "risk_tier": str(goal.risk_tier),
        "context_hints": goal.context_hints,
        "required_capabilities": goal.required_capabilities,
        "atlas_ids": goal.atlas_ids,
        "context": goal.context or None,
    }


def _key(call: Call, short: ShortCall) -> str | None:
    header = call.header(b"idempotency-key")
    body = _given(short.idempotency_key)
    if header is None:
        return body
    if body is not None and body != header:
        raise InvalidRequest(
            "the header Idempotency-Key and `idempotency_key` differ",
            pointer="/idempotency_key",
            hint="send one of them, or the same in both",
        )
    return header


def _given(value: str | UnsetType) -> str | None:
    return None if isinstance(value, UnsetType) else value
