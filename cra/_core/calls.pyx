"""Calls: what an execute asks, how it is decided, and its events."""

cimport cython
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t

from cra._core.assemble cimport Fragments, begin, put_bytes, seconds
from cra._core.canonical cimport Buffer, write_integer, write_string, write_value
from cra._core.chain cimport EventBatch
from cra._core.policy cimport ALLOW, APPROVAL, PolicyTable
from cra._core.sha256 cimport hex_into, sha256_into

from cra._core.canonical import dumps
from cra._core.policy import DECISIONS as _DECISIONS

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


cdef object _copy(object value, int depth):
    cdef dict copied
    cdef list items
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        copied = {}
        for key, member in (<dict> value).items():
            copied[key] = _copy(member, depth + 1)
        return copied
    if isinstance(value, (list, tuple)):
        items = []
        for member in value:
            items.append(_copy(member, depth + 1))
        return items
    return value


cdef str _digest(object value, Py_ssize_t *size):
    cdef Buffer out = Buffer()
    cdef uint8_t digest[32]
    cdef char text[64]
    write_value(out, value)
    size[0] = out.size
    sha256_into(<const uint8_t *> out.data, out.size, digest)
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


cdef int _evaluated(
    EventBatch batch, Fragments f, bytes action_id, int policy, bytes result, int64_t wait_us
) except -1:
    cdef Buffer out = batch.buf
    begin(batch, b"policy.evaluated")
    put_bytes(out, b'{"action_id":')
    put_bytes(out, action_id)
    put_bytes(out, <bytes> f.policy_identity[policy])
    put_bytes(out, result)
    if wait_us > 0:
        put_bytes(out, b',"retry_after_seconds":')
        write_integer(out, seconds(wait_us))
    put_bytes(out, b'}')
    return batch.end_event()


cdef int _permitted(
    EventBatch batch, Fragments f, Call call, int action, str resolution_id, str approval_id, str approver
) except -1:
    cdef Buffer out = batch.buf
    cdef bytes name = <bytes> f.action_id[action]
    _requested(batch, f, call, name, resolution_id, None)
    if call.policy >= 0:
        # A granted approval lets the call pass; the policy still says that it asks for one.
        _evaluated(batch, f, name, call.policy, <bytes> f.policy_result[call.policy], 0)
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
    _evaluated(batch, f, <bytes> f.action_id[action], policy, dumps(result), wait_us)


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
