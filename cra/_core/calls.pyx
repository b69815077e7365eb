"""Calls: a decided resolve, and an execute from what it asks to how it ended; the events of both."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t

from cra._core.assemble cimport (
    Fragments, Prefix, begin, check_blocks, check_outcome, put_bytes, put_evaluated, write_denied, write_evaluated,
)
from cra._core.canonical cimport Buffer, put_quoted, write_integer, write_string, write_value
from cra._core.chain cimport EventBatch, borrow, give_back
from cra._core.policy cimport ALLOW, APPROVAL, Outcome, PolicyTable
from cra._core.sha256 cimport hex_into, sha256_finish, sha256_into
from cra._core.value cimport plain

from cra._core.canonical import dumps
from cra._core.policy import DECISIONS as _DECISIONS

cdef extern from "Python.h":
    const char *PyUnicode_DATA(str text)
    Py_ssize_t PyUnicode_GET_LENGTH(str text)


cdef int put_hash(Buffer out, const char *data, Py_ssize_t size) except -1:
    # `data` must not point into `out`: that may move.
    cdef uint8_t digest[32]
    sha256_into(<const uint8_t *> data, size, digest)
    return put_digest(out, digest)


cdef int put_digest(Buffer out, const uint8_t *digest) except -1:
    cdef char text[64]
    hex_into(digest, 32, text)
    return put_quoted(out, text, 64)

# How a call is judged.
cdef enum:
    _PERMITTED
    _UNOFFERED
    _REFUSED
    _WAITING
    _INVALID

PERMITTED, UNOFFERED, REFUSED, WAITING, INVALID = _PERMITTED, _UNOFFERED, _REFUSED, _WAITING, _INVALID

# What is known of a person's consent: not asked for yet, there is none, given.
cdef enum:
    _UNASKED
    _ABSENT
    _GRANTED

UNASKED, ABSENT, GRANTED = _UNASKED, _ABSENT, _GRANTED

# More than the writer allows, so what the copy gave up on is refused there.
cdef enum:
    MAX_DEPTH = 200


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Call:
    """One execute: the action, its own copy of the parameters and their digest; and the ids of the try that is made.

    `risk` is the tier that the request raised it to, `approval_id` the one that it names; with `capture` its events
    keep the parameters. `decision` and `policy` are what was last judged.
    """
    cdef readonly str action_id
    cdef readonly dict parameters
    cdef readonly str parameters_hash
    cdef readonly Py_ssize_t size
    cdef readonly str request_id
    cdef readonly str execution_id
    cdef readonly int64_t started_us
    cdef readonly int policy
    cdef int code
    cdef str risk
    cdef str approval_id
    cdef bint capture

    def __init__(
        self, str action_id not None, dict parameters not None, str parameters_hash not None, str risk=None,
        str approval_id=None, bint capture=False
    ):
        self.action_id = action_id
        self.parameters = parameters
        self.parameters_hash = parameters_hash
        self.risk = risk
        self.approval_id = approval_id
        self.capture = capture
        self.policy = -1

    def begin(self, EventBatch batch not None, str request_id=None) -> None:
        """Take the ids of a try from its batch; a missing `request_id` is made too."""
        self.request_id = request_id or batch.new_id()
        self.execution_id = batch.new_id()
        self.started_us = batch.now_us

    @property
    def decision(self) -> str:
        """The word of `policy.DECISIONS`."""
        return <str> (<tuple> _DECISIONS)[self.code]


@cython.final
cdef class Answer:
    """What a resolve was answered; `data` is the resolution as canonical JSON."""
    cdef readonly Prefix prefix
    cdef bytes rest

    @property
    def data(self) -> bytes:
        """The resolution as canonical JSON, the bytes that were hashed into the trace."""
        if self.prefix is None:
            raise ValueError("only `resolve` makes an answer")
        return self.prefix.data + self.rest


cdef object _copy(object value, int depth):
    cdef dict copied
    cdef list items
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        copied = {}
        for key, member in (<dict> value).items():
            copied[_copy(key, depth + 1)] = _copy(member, depth + 1)
        return copied
    if isinstance(value, (list, tuple)):
        items = []
        for member in value:
            items.append(_copy(member, depth + 1))
        return items
    # What is hashed is the plain value, whatever a subclass makes of it.
    if isinstance(value, (str, int, float)) and type(value) not in (str, int, float, bool):
        return plain(value)
    return value


cdef str _digest(object value, Py_ssize_t *size):
    cdef Buffer out = borrow()
    cdef uint8_t digest[32]
    cdef char text[64]
    write_value(out, value)
    size[0] = out.size
    sha256_into(<const uint8_t *> out.data, out.size, digest)
    give_back(out)
    hex_into(digest, 32, text)
    return PyUnicode_DecodeASCII(text, 64, NULL)


def take(
    str action_id not None, dict parameters not None, str risk=None, str approval_id=None, bint capture=False
) -> Call:
    """Return a call with a copy of its parameters, the SHA-256 of their canonical form, and that form's size in bytes.

    The copy shares only immutable values with the original, so nobody can change what was hashed. Raises
    `NotCanonical`.
    """
    cdef Py_ssize_t size = 0
    # INVARIANT: what is hashed is the copy, so another thread that writes to the original cannot come in between.
    cdef dict copied = _copy(parameters, 0)
    cdef Call call = Call(action_id, copied, _digest(copied, &size), risk, approval_id, capture)
    call.size = size
    return call


def weigh(object result) -> tuple[str, int]:
    """Return the SHA-256 of the canonical form of JSON data and that form's size in bytes; raises `NotCanonical`."""
    cdef Py_ssize_t size = 0
    cdef str digest = _digest(result, &size)
    return digest, size


cdef int _put_id(Buffer buf, str text, bint made) except -1:
    # An id that the batch made needs no escaping; PERF: copied as it is, it takes a fifth of the time.
    if not made:
        return write_string(buf, text)
    return put_quoted(buf, PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))


cdef int _request(
    Buffer buf, EventBatch batch, str request_id, bint made, str timestamp, str agent_id, str parent_session_id,
    str goal, str risk, tuple hints, tuple capabilities, tuple atlas_ids, dict context
) except -1:
    # The canonical request: every default filled in, absent optionals left out.
    put_bytes(buf, b'{"atlas_ids":')
    write_value(buf, atlas_ids)
    put_bytes(buf, b',"carp_version":"1.0","context":')
    write_value(buf, context)
    put_bytes(buf, b',"operation":"resolve","request_id":')
    _put_id(buf, request_id, made)
    put_bytes(buf, b',"requester":{"agent_id":')
    write_string(buf, agent_id)
    if parent_session_id is not None:
        put_bytes(buf, b',"parent_session_id":')
        write_string(buf, parent_session_id)
    put_bytes(buf, b',"session_id":')
    _put_id(buf, batch.session_id, True)
    put_bytes(buf, b'},"task":{"context_hints":')
    write_value(buf, hints)
    put_bytes(buf, b',"goal":')
    write_string(buf, goal)
    put_bytes(buf, b',"required_capabilities":')
    write_value(buf, capabilities)
    put_bytes(buf, b',"risk_tier":')
    write_string(buf, risk)
    put_bytes(buf, b'},"timestamp":')
    if timestamp is None:
        batch.put_time(buf)
    else:
        write_string(buf, timestamp)
    put_bytes(buf, b'}')
    return 0


cdef int _received(
    EventBatch batch, Buffer request, str request_id, bint made, str goal, str risk, tuple hints, tuple capabilities,
    tuple atlas_ids, dict context, bint capture
) except -1:
    cdef Buffer out = batch.buf
    cdef Buffer scratch
    begin(batch, b"carp.request.received")
    put_bytes(out, b'{"atlas_ids":')
    write_value(out, atlas_ids)
    if context:
        if capture:
            put_bytes(out, b',"context":')
            write_value(out, context)
        else:
            scratch = Buffer()
            write_value(scratch, context)
            put_bytes(out, b',"context_hash":')
            put_hash(out, scratch.data, scratch.size)
    if hints:
        put_bytes(out, b',"context_hints":')
        write_value(out, hints)
    put_bytes(out, b',"goal":')
    write_string(out, goal)
    put_bytes(out, b',"operation":"resolve","request_hash":')
    put_hash(out, request.data, request.size)
    put_bytes(out, b',"request_id":')
    _put_id(out, request_id, made)
    if capabilities:
        put_bytes(out, b',"required_capabilities":')
        write_value(out, capabilities)
    if risk != "low":
        put_bytes(out, b',"risk_tier":')
        write_string(out, risk)
    put_bytes(out, b'}')
    return batch.end_event()


def resolve(
    EventBatch batch not None, Fragments f not None, Outcome outcome not None, Prefix prefix not None,
    str agent_id not None, str goal not None, str risk not None, tuple hints not None, tuple capabilities not None,
    tuple atlas_ids not None, dict context not None, bint capture, int ttl_seconds, list chosen not None,
    list skipped not None, str request_id=None, str timestamp=None, str parent_session_id=None
) -> tuple[Answer, str, str, str]:
    """Add the events of a decided resolve to `batch`; return the answer, the ids of request and resolution, the time.

    `prefix` is the one of `outcome` and `chosen`. A missing `request_id` or `timestamp` is made by the batch. `chosen`
    and `skipped` are block indexes.
    """
    cdef Buffer scratch = Buffer()
    cdef Buffer out = batch.buf
    cdef Answer result = Answer.__new__(Answer)
    cdef Py_ssize_t number
    cdef uint8_t digest[32]
    cdef bint made = request_id is None
    cdef str resolution_id
    check_outcome(f, outcome)
    check_blocks(f, chosen)
    check_blocks(f, skipped)
    if prefix.data is None:
        raise ValueError("only `Fragments.prefix` makes a prefix")
    if made:
        request_id = batch.new_id()
    resolution_id = batch.new_id()
    _request(
        scratch, batch, request_id, made, timestamp, agent_id, parent_session_id, goal, risk, hints, capabilities,
        atlas_ids, context)
    _received(batch, scratch, request_id, made, goal, risk, hints, capabilities, atlas_ids, context, capture)
    for payload in prefix.evaluated:
        begin(batch, b"policy.evaluated")
        put_bytes(out, <bytes> payload)
        batch.end_event()
    scratch.size = 0
    if prefix.limited:
        for number in range(outcome.size):
            begin(batch, b"policy.evaluated")
            if write_evaluated(out, f, outcome, number):
                batch.end_event()
            else:
                batch.abandon_event()
        write_denied(scratch, f, outcome)
    for number in chosen:
        begin(batch, b"context.injected")
        put_bytes(out, <bytes> f.injected[number])
        batch.end_event()
    for number in skipped:
        begin(batch, b"context.redacted")
        put_bytes(out, <bytes> f.redacted[number])
        batch.end_event()

    put_bytes(scratch, b'],"request_id":')
    _put_id(scratch, request_id, made)
    put_bytes(scratch, b',"resolution_id":')
    _put_id(scratch, resolution_id, True)
    put_bytes(scratch, b',"timestamp":')
    batch.put_time(scratch)
    put_bytes(scratch, b',"trace_id":')
    _put_id(scratch, batch.trace_id, True)
    put_bytes(scratch, b',"ttl_seconds":')
    write_integer(scratch, ttl_seconds)
    put_bytes(scratch, b'}')
    result.prefix = prefix
    result.rest = PyBytes_FromStringAndSize(scratch.data, scratch.size)
    sha256_finish(&prefix.begun, <const uint8_t *> scratch.data, scratch.size, digest)

    begin(batch, b"carp.resolution.completed")
    put_bytes(out, prefix.completed)
    _put_id(out, request_id, made)
    put_bytes(out, b',"resolution_hash":')
    put_digest(out, digest)
    put_bytes(out, b',"resolution_id":')
    _put_id(out, resolution_id, True)
    put_bytes(out, b',"snapshot_digest":"')
    put_bytes(out, f.snapshot_digest)
    put_bytes(out, b'","ttl_seconds":')
    write_integer(out, ttl_seconds)
    put_bytes(out, b'}')
    batch.end_event()
    return result, request_id, resolution_id, batch.timestamp


cdef int _requested(
    EventBatch batch, Fragments f, Call call, bytes action_id, str resolution_id, str replay_of
) except -1:
    cdef Buffer out = batch.buf
    begin(batch, b"action.requested")
    put_bytes(out, b'{"action_id":')
    put_bytes(out, action_id)
    if call.approval_id is not None:
        put_bytes(out, b',"approval_id":')
        write_string(out, call.approval_id)
    if call.capture:
        put_bytes(out, b',"parameters":')
        write_value(out, call.parameters)
    put_bytes(out, b',"parameters_hash":')
    write_string(out, call.parameters_hash)
    if replay_of is not None:
        put_bytes(out, b',"replay_of":')
        write_string(out, replay_of)
    put_bytes(out, b',"request_id":')
    write_string(out, call.request_id)
    put_bytes(out, b',"resolution_id":')
    write_value(out, resolution_id)
    if call.risk is not None:
        put_bytes(out, b',"risk_tier":')
        write_string(out, call.risk)
    # Atlases may have changed since the resolution.
    put_bytes(out, b',"snapshot_digest":"')
    put_bytes(out, f.snapshot_digest)
    put_bytes(out, b'"}')
    return batch.end_event()


cdef int _permitted(
    EventBatch batch, Fragments f, Call call, int action, str resolution_id, str approval_id, str approver
) except -1:
    cdef Buffer out = batch.buf
    cdef bytes name = <bytes> f.action_id[action]
    _requested(batch, f, call, name, resolution_id, None)
    if call.policy >= 0:
        # A granted approval lets the call pass; the policy still says that it asks for one.
        begin(batch, b"policy.evaluated")
        put_evaluated(out, f, action, call.policy, <bytes> f.policy_result[call.policy], 0)
        batch.end_event()
    begin(batch, b"action.approved")
    put_bytes(out, b'{"action_id":')
    put_bytes(out, name)
    if approval_id is not None:
        put_bytes(out, b',"approval_id":')
        write_string(out, approval_id)
        put_bytes(out, b',"approver":')
        write_value(out, approver)
    put_bytes(out, b',"execution_id":')
    write_string(out, call.execution_id)
    put_bytes(out, b',"resolution_id":')
    write_string(out, resolution_id)
    put_bytes(out, b'}')
    return batch.end_event()


def judge(
    EventBatch batch not None, PolicyTable table not None, Fragments f not None, Call call not None, int action,
    str agent_id not None, int risk, str resolution_id not None, frozenset offered not None, object matches not None,
    bint record, dict context=None, bytes windows=None, dict usage=None, int consent=_UNASKED, str approval_id=None,
    str approver=None
) -> int:
    """Decide about a call by policy, by what its resolution offers and by its parameters; a permitted one is recorded.

    Returns `PERMITTED`; `UNOFFERED` by the resolution; `REFUSED` by policy; `WAITING` for a person's consent, with
    `UNASKED` before the parameters are looked at; or `INVALID` when `matches` refuses the parameters. Only with
    `record` does `PERMITTED` add action.requested, policy.evaluated (when a policy decided) and action.approved;
    `approval_id` is the one that is used up. The outcome will name the execution's id too, so that each can be found
    from the other.
    """
    cdef int policy = -1
    _check_index(f, action, -1)
    cdef int code = table.judge(
        action, agent_id, risk, context, windows, usage, call.parameters, consent == _GRANTED, &policy)
    _check_index(f, action, policy)
    # INVARIANT: whatever raises here leaves the caller without an answer, never with a permission.
    call.code = code
    call.policy = policy
    if code != ALLOW and code != APPROVAL:
        return _REFUSED
    if call.action_id not in offered:
        return _UNOFFERED
    if code == APPROVAL and consent == _UNASKED:
        return _WAITING
    if matches(call.parameters) is not True:
        return _INVALID
    if code == APPROVAL:
        return _WAITING
    if record:
        _check_begun(call)
        _permitted(batch, f, call, action, resolution_id, approval_id, approver)
    return _PERMITTED


def requested(
    EventBatch batch not None, Fragments f not None, Call call not None, str resolution_id=None, str replay_of=None
) -> None:
    """Add action.requested."""
    _check_begun(call)
    _requested(batch, f, call, dumps(call.action_id), resolution_id, replay_of)


def evaluated(
    EventBatch batch not None, Fragments f not None, int action, int policy, str result not None, int64_t wait_us=0
) -> None:
    """Add policy.evaluated for one call that the policy decided; `result` is a word of `policy.DECISIONS`."""
    _check_index(f, action, policy)
    if policy < 0:
        raise IndexError("no policy decided")
    begin(batch, b"policy.evaluated")
    put_evaluated(batch.buf, f, action, policy, dumps(result), wait_us)
    batch.end_event()


def executed(
    EventBatch batch not None, Call call not None, str resolution_id not None, str result_hash not None
) -> None:
    """Add action.executed."""
    cdef Buffer out = batch.buf
    cdef int64_t duration_us = batch.now_us - call.started_us
    _check_begun(call)
    begin(batch, b"action.executed")
    put_bytes(out, b'{"action_id":')
    write_string(out, call.action_id)
    put_bytes(out, b',"duration_ms":')
    write_integer(out, duration_us // 1000 if duration_us > 0 else 0)
    put_bytes(out, b',"execution_id":')
    write_string(out, call.execution_id)
    put_bytes(out, b',"resolution_id":')
    write_string(out, resolution_id)
    put_bytes(out, b',"result_hash":')
    write_string(out, result_hash)
    put_bytes(out, b'}')
    batch.end_event()


cdef int _check_begun(Call call) except -1:
    if call.execution_id is None:
        raise ValueError("the call has no ids: `begin` gives them")
    return 0


cdef int _check_index(Fragments f, int action, int policy) except -1:
    if not 0 <= action < len(f.action_id):
        raise IndexError(f"action index {action} is outside 0..{len(f.action_id) - 1}")
    if not -1 <= policy < len(f.policy_result):
        raise IndexError(f"policy index {policy} is outside -1..{len(f.policy_result) - 1}")
    return 0
