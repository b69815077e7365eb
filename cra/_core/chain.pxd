"""The chain and its batches, for modules that write events straight into the buffer."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cra._core.canonical cimport Buffer
from cra._core.sha256 cimport cra_sha256_state


# Take an empty buffer, and give it back when nobody else has it.
cdef Buffer borrow()
cdef int give_back(Buffer buf) except -1


@cython.final
cdef class Chain:
    cdef readonly str session_id
    cdef readonly str trace_id
    cdef readonly int64_t sequence
    cdef readonly int64_t last_us
    cdef char head_text[64]


@cython.final
cdef class EventBatch:
    cdef Buffer buf  # what a ledger keeps, then the event being written
    cdef Buffer preimage  # what every preimage begins with, then the rest of the one being hashed
    cdef str session_id
    cdef str trace_id
    cdef bytes lines
    cdef readonly int64_t now_us
    cdef readonly int64_t first_sequence
    cdef readonly int64_t count
    cdef cra_sha256_state hashed  # of the event that ended last: its preimage up to the previous hash
    cdef Py_ssize_t unsealed  # where that event begins in `buf`; -1 when its hash is known
    cdef Py_ssize_t finished  # where the finished events end in `buf`
    cdef Py_ssize_t payload  # where the payload of the event being written begins; 0 when there is none
    cdef Py_ssize_t preimage_head_size
    cdef uint64_t id_high  # of the first id, which is the span's
    cdef uint64_t id_low
    cdef uint32_t ids  # how many there have been
    cdef uint32_t event_id  # the number of the id of the event being written
    cdef uint16_t sequence_size  # how many digits its sequence has
    cdef char time_text[27]  # the timestamp of the batch
    cdef char first_text[64]
    cdef char head_text[64]

    cdef int start(self, Chain chain, int64_t now_us, const unsigned char *entropy, str parent) except -1

    # Write the next id of the batch, 36 characters, at `out`.
    cdef void write_id(self, char *out) noexcept

    # Append the batch's timestamp as a JSON string.
    cdef int put_time(self, Buffer out) except -1

    # An event is begin_event, then its canonical payload (an object) appended to `buf`, then end_event. One that was
    # begun and not ended leaves no trace: the next begin_event, or abandon_event, takes it back.
    cdef int begin_event(self, const char *event_type, Py_ssize_t n) except -1
    cdef int end_event(self) except -1
    cdef void abandon_event(self) noexcept

    # Work out the hash of the event that ended last.
    cdef void seal(self) noexcept
    cdef void keep_hash(self, const uint8_t *digest) noexcept

    # Return the finished events, as a ledger keeps them.
    cdef bytes packed(self)
