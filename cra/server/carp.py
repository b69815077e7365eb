"""CARP over HTTP: resolve, execute, validate, simulate."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from cra._core.canonical import dumps
from cra.errors import Forbidden, InvalidRequest
from cra.protocol.carp import Goal as GoalText
from cra.protocol.carp import Hint, Operation
from cra.protocol.codec import decode_request
from cra.protocol.fields import ActionId, AtlasId, Identifier, JsonObject, RiskTier, Uuid
from cra.protocol.jsontext import decode
from cra.runtime.calls import Order, response_bytes
from cra.server.call import MAX_BODY_DEPTH, Answer, Call, Response
from cra.server.sessions import absent, check_visible


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


async def execute(call: Call) -> Answer:
    """Answer a CARP execute request."""
    return await _handle(call, Operation.EXECUTE)


async def validate(call: Call) -> Answer:
    """Answer a CARP validate request."""
    return await _handle(call, Operation.VALIDATE)


async def _handle(call: Call, operation: Operation) -> Answer:
    request = decode_request(call.content)
    if request.operation is not operation:
        raise InvalidRequest(
            f"operation is `{request.operation}`, expected `{operation}` on this path",
            pointer="/operation",
            hint=f"send it to /v1/{request.operation}",
        )
    identity = call.identity
    own = identity.agent_id is not None
    if own and not identity.is_for(request.requester.agent_id):
        raise Forbidden(
            f"the credential acts as another agent than `{request.requester.agent_id}`",
            hint="an agent's credential speaks for that agent alone",
        )
    try:
        answer = await call.tenant.runtime.handle(request, actor=identity.subject)
    except InvalidRequest as error:
        if own and error.pointer == "/requester/agent_id":
            # The session is another agent's, which this one is not to know.
            raise absent(request.requester.session_id) from None
        raise
    return _answered(call, operation, answer)


def _answered(call: Call, operation: Operation, answer: bytes) -> Answer:
    call.service.metrics.decision(str(operation), _verdict(operation, answer), call.identity.tenant)
    return Response(answer, media=call.media)


def _verdict(operation: Operation, answer: bytes) -> str:
    """Return the decision's type or the execution's status.

    PERF: without decoding. The answer is canonical: behind the last `"decision":{` come no names but its own, and a
    string has no bare quotation mark; behind the last `"status":"` is the response's own.
    """
    name = b'"type":"' if operation is Operation.RESOLVE else b'"status":"'
    start = answer.rfind(b'"decision":{') if operation is Operation.RESOLVE else 0
    at = answer.find(name, start) if operation is Operation.RESOLVE else answer.rfind(name)
    return answer[at + len(name) : answer.find(b'"', at + len(name))].decode()


# The short forms


async def resolve_goal(call: Call) -> Answer:
    """Resolve a goal in a session."""
    goal = await call.json(Goal)
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    resolution = await call.tenant.runtime.resolve(session_id, goal.goal, **_rest(goal))
    return _answered(call, Operation.RESOLVE, dumps(msgspec.to_builtins(resolution)))


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
    return _answered(call, Operation.EXECUTE, response_bytes(ending.response()))


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
