"""Calls: the events of one execute, and the copy of its parameters that is decided about."""

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t

from cra._core.assemble cimport Fragments, begin, put_bytes, seconds
from cra._core.canonical cimport Buffer, write_integer, write_string, write_value
from cra._core.chain cimport EventBatch
from cra._core.sha256 cimport hex_into, sha256_into

from cra._core.canonical import dumps


# More than the writer allows, so what the copy gave up on is refused there.
cdef enum:
    MAX_DEPTH = 200


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


def take(object value) -> tuple:
    """Return a copy of JSON data, the SHA-256 of its canonical form, and that form's size in bytes.

    The copy shares only immutable values with the original, so nobody can change what was hashed. Raises
    `NotCanonical`.
    """
    cdef Buffer out = Buffer()
    cdef uint8_t digest[32]
    cdef char text[64]
    # INVARIANT: what is hashed is the copy, so another thread that writes to the original cannot come in between.
    value = _copy(value, 0)
    write_value(out, value)
    sha256_into(<const uint8_t *> out.data, out.size, digest)
    hex_into(digest, 32, text)
    return value, PyUnicode_DecodeASCII(text, 64, NULL), out.size


cdef int _requested(
    EventBatch batch, Fragments f, bytes action_id, str parameters_hash, str request_id, str resolution_id,
    dict parameters, str replay_of, str risk, str approval_id
) except -1:
    cdef Buffer out = batch.buf
    begin(batch, b"action.requested")
    put_bytes(out, b'{"action_id":')
    put_bytes(out, action_id)
    if approval_id is not None:
        put_bytes(out, b',"approval_id":')
        write_string(out, approval_id)
    if parameters is not None:
        put_bytes(out, b',"parameters":')
        write_value(out, parameters)
    put_bytes(out, b',"parameters_hash":')
    write_string(out, parameters_hash)
    if replay_of is not None:
        put_bytes(out, b',"replay_of":')
        write_string(out, replay_of)
    put_bytes(out, b',"request_id":')
    write_string(out, request_id)
    put_bytes(out, b',"resolution_id":')
    write_value(out, resolution_id)
    if risk is not None:
        put_bytes(out, b',"risk_tier":')
        write_string(out, risk)
    # Atlases may have changed since the resolution.
    put_bytes(out, b',"snapshot_digest":"')
    put_bytes(out, f.snapshot_digest)
    put_bytes(out, b'"}')
    return batch.end_event()


cdef int _evaluated_call(
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


def requested(
    EventBatch batch not None, Fragments f not None, str action_id not None, str parameters_hash not None,
    str request_id not None, str resolution_id=None, dict parameters=None, str replay_of=None, str risk=None,
    str approval_id=None
) -> None:
    """Add action.requested; `parameters` only where they are retained, `risk` only where the call raised it.

    `approval_id` is the one that the call named.
    """
    _requested(
        batch, f, dumps(action_id), parameters_hash, request_id, resolution_id, parameters, replay_of, risk,
        approval_id)


def evaluated(
    EventBatch batch not None, Fragments f not None, int action, int policy, str result not None, int64_t wait_us=0
) -> None:
    """Add policy.evaluated for one call that the policy decided; `result` is a word of `policy.DECISIONS`."""
    _check_index(f, action, policy)
    if policy < 0:
        raise IndexError("no policy decided")
    _evaluated_call(batch, f, <bytes> f.action_id[action], policy, dumps(result), wait_us)


def permitted(
    EventBatch batch not None, Fragments f not None, int action, int policy, str parameters_hash not None,
    str request_id not None, str resolution_id not None, str execution_id not None, dict parameters=None,
    str risk=None, str named_approval_id=None, str approval_id=None, str approver=None
) -> None:
    """Add action.requested, policy.evaluated (when `policy` is not -1) and action.approved of an allowed call.

    `approval_id` is the one that is used up, `named_approval_id` the one that the call named. The outcome will name
    `execution_id` too, so that each can be found from the other.
    """
    cdef Buffer out = batch.buf
    cdef bytes name
    _check_index(f, action, policy)
    name = <bytes> f.action_id[action]
    _requested(
        batch, f, name, parameters_hash, request_id, resolution_id, parameters, None, risk, named_approval_id)
    if policy >= 0:
        # A granted approval lets the call pass; the policy still says that it asks for one.
        _evaluated_call(batch, f, name, policy, <bytes> f.policy_result[policy], 0)
    begin(batch, b"action.approved")
    put_bytes(out, b'{"action_id":')
    put_bytes(out, name)
    if approval_id is not None:
        put_bytes(out, b',"approval_id":')
        write_string(out, approval_id)
        put_bytes(out, b',"approver":')
        write_value(out, approver)
    put_bytes(out, b',"execution_id":')
    write_string(out, execution_id)
    put_bytes(out, b',"resolution_id":')
    write_string(out, resolution_id)
    put_bytes(out, b'}')
    batch.end_event()


def executed(
    EventBatch batch not None, str action_id not None, str execution_id not None, str resolution_id not None,
    int64_t duration_ms, str result_hash not None
) -> None:
    """Add action.executed."""
    cdef Buffer out = batch.buf
    begin(batch, b"action.executed")
    put_bytes(out, b'{"action_id":')
    write_string(out, action_id)
    put_bytes(out, b',"duration_ms":')
    write_integer(out, duration_ms)
    put_bytes(out, b',"execution_id":')
    write_string(out, execution_id)
    put_bytes(out, b',"resolution_id":')
    write_string(out, resolution_id)
    put_bytes(out, b',"result_hash":')
    write_string(out, result_hash)
    put_bytes(out, b'}')
    batch.end_event()


cdef int _check_index(Fragments f, int action, int policy) except -1:
    if not 0 <= action < len(f.action_id):
        raise IndexError(f"action index {action} is outside 0..{len(f.action_id) - 1}")
    if not -1 <= policy < len(f.policy_result):
        raise IndexError(f"policy index {policy} is outside -1..{len(f.policy_result) - 1}")
    return 0
