"""What the parts of a snapshot look like to modules that write events from them."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from cra._core.canonical cimport Buffer, put
from cra._core.chain cimport EventBatch
from cra._core.policy cimport Outcome
from cra._core.sha256 cimport cra_sha256_state


@cython.final
cdef class Fragments:
    cdef tuple action_id
    cdef tuple allowed_head
    cdef tuple allowed_tail
    cdef tuple default_tail
    cdef tuple denied_tail
    cdef tuple policy_identity
    cdef tuple policy_result
    cdef tuple constraint_head
    cdef tuple constraint_tail
    cdef tuple block
    cdef tuple injected
    cdef tuple redacted
    cdef bytes snapshot_digest
    cdef dict prefixes
    cdef Py_ssize_t prefix_bytes

    cdef Prefix _write_prefix(self, Outcome outcome, list chosen)


@cython.final
cdef class Prefix:
    cdef bytes data
    cdef cra_sha256_state begun
    cdef bytes completed
    cdef tuple evaluated
    cdef Py_ssize_t size
    cdef readonly bint limited
    cdef readonly str decision_type
    cdef readonly str reason
    cdef public object note


cdef inline int put_bytes(Buffer buf, bytes text) except -1:
    return put(buf, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline int begin(EventBatch batch, bytes event_type) except -1:
    return batch.begin_event(PyBytes_AS_STRING(event_type), PyBytes_GET_SIZE(event_type))


cdef inline int64_t seconds(int64_t wait_us) noexcept nogil:
    # Rounded up: who waits that long finds room.
    return (wait_us + 999_999) // 1_000_000


# Raise when an outcome or blocks are not of the snapshot.
cdef int check_outcome(Fragments f, Outcome outcome) except -1
cdef int check_blocks(Fragments f, list blocks) except -1

# Write what policy.evaluated says of an action, with the result as JSON.
cdef int put_evaluated(
    Buffer out, Fragments f, Py_ssize_t action, int policy, bytes result, int64_t wait_us) except -1

# Do so for an action of an outcome; return False, and write nothing, where no policy decided.
cdef int write_evaluated(Buffer out, Fragments f, Outcome outcome, Py_ssize_t action) except -1

# Write the denied actions of a resolution.
cdef int write_denied(Buffer out, Fragments f, Outcome outcome) except -1
