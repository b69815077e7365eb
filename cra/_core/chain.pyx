"""The hash chain of a session's TRACE events."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cra._core.canonical cimport Buffer, copy, copy_text, put, put_quoted, reserve, write_value
from cra._core.grammar cimport digest_text, event_type_text, uuid_text
from cra._core.number cimport digits_into, id_into, timestamp_into
from cra._core.sha256 cimport hex_into, sha256_begin, sha256_end_and_begin, sha256_finish

from cra._core.verifier import Verdict, Verifier, verify  # no-cython-lint: the reader is found beside the writer
from cra.errors import InvalidInput

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *size) except NULL

cdef enum:
    ID_OFFSET = 35  # of the event's own id in a line
    PREIMAGE_ID_OFFSET = 3
    MOST_SPARE = 1 << 14
    LINE_SIZE = 640  # more than a line has besides its type and its payload
    PACKED = 0  # no line begins with it
    HASH_OFFSET = 48  # of `hash_text` in an EventHead

# A batch as a ledger keeps it: this, the parent span's id if there is one, then its events, each with its sequence, its
# type and its payload behind it. The texts are those that were hashed, each of them once: a line is put together from
# them and from the ids of its session and trace, and nothing is written anew. PERF: half of the lines; what is not kept
# need not be fetched from the system either, and that takes as long as hashing it.
cdef struct BatchHead:
    uint8_t mark
    uint8_t parent_size
    uint16_t none
    uint32_t count
    char time_text[27]
    char span_text[36]
    char first_text[64]

cdef struct EventHead:
    int64_t payload_size
    uint16_t type_size
    uint16_t sequence_size
    char id_text[36]
    char hash_text[64]

cdef int64_t TIME_MAX = 253402300799999999LL  # 9999-12-31T23:59:59.999999Z
cdef str ZEROS = "0" * 64


# PERF: the buffers of a call outgrow what the allocator hands out at once, so those of the call before are kept.
cdef list _spare = []


cdef Buffer borrow():
    cdef Buffer buf
    try:
        buf = <Buffer> _spare.pop()
    except IndexError:
        return Buffer.__new__(Buffer)
    buf.size = 0
    return buf


cdef int give_back(Buffer buf) except -1:
    if buf.capacity <= MOST_SPARE and len(_spare) < 8:
        _spare.append(buf)
    return 0


cdef bytes _lines(const char *p, const char *end, str session_id, str trace_id):
    cdef BatchHead head
    cdef EventHead event
    cdef Buffer out
    cdef char line_head[320]
    cdef char *line
    cdef Py_ssize_t line_head_size
    if end - p < <Py_ssize_t> sizeof(BatchHead):
        raise ValueError("not what a ledger keeps")
    memcpy(&head, p, sizeof(BatchHead))
    p += sizeof(BatchHead)
    if head.parent_size not in (0, 36) or head.parent_size > end - p:
        raise ValueError("not what a ledger keeps")
    line = copy(line_head, b'{"trace_version":"1.0","event_id":"', ID_OFFSET) + 36
    line = copy_text(line, b'","trace_id":"')
    line = copy(line, uuid_text(trace_id, "trace_id"), 36)
    line = copy_text(line, b'","span_id":"')
    line = copy(line, head.span_text, 36)
    if head.parent_size == 0:
        line = copy_text(line, b'","parent_span_id":null,"session_id":"')
    else:
        line = copy_text(line, b'","parent_span_id":"')
        line = copy(line, p, 36)
        line = copy_text(line, b'","session_id":"')
        p += 36
    line = copy(line, uuid_text(session_id, "session_id"), 36)
    line = copy_text(line, b'","sequence":')
    line_head_size = line - line_head
    if head.count > (end - p) // <Py_ssize_t> sizeof(EventHead):
        raise ValueError("not what a ledger keeps")
    out = Buffer()
    reserve(out, end - p + head.count * <Py_ssize_t> LINE_SIZE)
    for _ in range(head.count):
        if end - p < <Py_ssize_t> sizeof(EventHead):
            raise ValueError("not what a ledger keeps")
        memcpy(&event, p, sizeof(EventHead))
        p += sizeof(EventHead)
        if event.payload_size < 0 or event.payload_size > end - p - event.type_size - event.sequence_size:
            raise ValueError("not what a ledger keeps")
        line = copy(out.data + out.size, line_head, line_head_size)
        memcpy(out.data + out.size + ID_OFFSET, event.id_text, 36)
        line = copy(line, p, event.sequence_size)
        p += event.sequence_size
        line = copy_text(line, b',"timestamp":"')
        line = copy(line, head.time_text, 27)
        line = copy_text(line, b'","event_type":"')
        line = copy(line, p, event.type_size)
        p += event.type_size
        line = copy_text(line, b'","payload":')
        line = copy(line, p, event.payload_size)
        p += event.payload_size
        line = copy_text(line, b',"event_hash":"')
        line = copy(line, event.hash_text, 64)
        line = copy_text(line, b'","previous_event_hash":"')
        line = copy(line, head.first_text, 64)
        line = copy_text(line, b'"}\n')
        # The next one's previous hash.
        memcpy(head.first_text, event.hash_text, 64)
        out.size = line - out.data
    if p != end:
        raise ValueError("not what a ledger keeps")
    return PyBytes_FromStringAndSize(out.data, out.size)


def lines_of(bytes kept not None, str session_id not None, str trace_id not None) -> bytes:
    """Return the lines of a batch as a ledger of that session keeps it; lines are as they are."""
    cdef const char *p = PyBytes_AS_STRING(kept)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(kept)
    if n == 0 or p[0] != PACKED:
        return kept
    return _lines(p, p + n, session_id, trace_id)


@cython.final
@cython.no_gc
cdef class Chain:
    """Hold where a session's chain ends. Owned by one session: not for use by two threads at once."""

    def __init__(
        self,
        str session_id not None,
        str trace_id not None,
        int64_t sequence=0,
        str head not None=ZEROS,
        int64_t last_us=0,
    ):
        uuid_text(session_id, "session_id")
        uuid_text(trace_id, "trace_id")
        if sequence < 0:
            raise InvalidInput(f"sequence is `{sequence}`, expected 0 or more")
        if not 0 <= last_us <= TIME_MAX:
            raise InvalidInput(f"time is `{last_us}` microseconds, expected a time between 1970 and 9999")
        memcpy(self.head_text, digest_text(head, "head"), 64)
        self.session_id = session_id
        self.trace_id = trace_id
        self.sequence = sequence
        self.last_us = last_us

    @property
    def head(self) -> str:
        """The hash of the last event, 64 zeros before the first."""
        return PyUnicode_DecodeASCII(self.head_text, 64, NULL)

    def begin(self, int64_t now_us, bytes entropy not None, str parent_span_id=None) -> EventBatch:
        """Return an empty batch of events that continue this chain: one span, one timestamp.

        `now_us` is microseconds since 1970 and is raised to the time of the last event. `entropy` is at least 16 random
        bytes; the 74 free bits of the batch's UUIDs count up from the low 73 bits of its first ten, read as a
        big-endian number.
        """
        cdef EventBatch batch = EventBatch.__new__(EventBatch)
        if now_us < self.last_us:
            now_us = self.last_us
        if not 0 <= now_us <= TIME_MAX:
            raise InvalidInput(f"time is `{now_us}` microseconds, expected a time between 1970 and 9999")
        if PyBytes_GET_SIZE(entropy) < 16:
            raise ValueError(f"entropy has {PyBytes_GET_SIZE(entropy)} bytes, expected at least 16")
        batch.start(self, now_us, <const uint8_t *> PyBytes_AS_STRING(entropy), parent_span_id)
        return batch

    def advance(self, EventBatch batch not None) -> None:
        """Move to the end of `batch`, once the store has accepted it; raise `ValueError` if it does not begin here."""
        if batch.session_id is not self.session_id and batch.session_id != self.session_id:
            raise ValueError("batch is of another session")
        if batch.first_sequence != self.sequence or memcmp(batch.first_text, self.head_text, 64) != 0:
            raise ValueError(
                f"batch begins at event {batch.first_sequence}, expected one that begins at the head of the chain, "
                f"event {self.sequence}"
            )
        if batch.payload:
            raise ValueError("batch has an event that was begun and not ended")
        batch.seal()
        self.sequence += batch.count
        self.last_us = batch.now_us
        memcpy(self.head_text, batch.head_text, 64)

    def __repr__(self) -> str:
        return f"Chain(session_id={self.session_id!r}, sequence={self.sequence}, head={self.head!r})"


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class EventBatch:
    """Collect the events of one request; made by `Chain.begin`."""

    def __cinit__(self):
        self.buf = borrow()
        self.preimage = borrow()

    def __dealloc__(self):
        give_back(self.buf)
        give_back(self.preimage)

    def __init__(self):
        raise TypeError("a batch is made by `Chain.begin`")

    cdef int start(self, Chain chain, int64_t now_us, const uint8_t *entropy, str parent) except -1:
        cdef BatchHead *head
        cdef uint64_t high = 0
        cdef uint64_t low = 0
        cdef int i
        for i in range(2):
            high = high << 8 | entropy[i]
        for i in range(2, 10):
            low = low << 8 | entropy[i]
        # INVARIANT: the topmost of the 74 bits starts as 0, so that no batch can count past the end.
        self.id_high = (high << 2 | low >> 62) & 0x7FF
        self.id_low = low & 0x3FFFFFFFFFFFFFFFULL
        self.now_us = now_us
        self.first_sequence = chain.sequence
        self.unsealed = -1
        self.session_id = chain.session_id
        self.trace_id = chain.trace_id
        timestamp_into(now_us, self.time_text)
        memcpy(self.first_text, chain.head_text, 64)
        memcpy(self.head_text, chain.head_text, 64)

        cdef Py_ssize_t n
        cdef const char *session = PyUnicode_AsUTF8AndSize(chain.session_id, &n)
        cdef const char *trace = PyUnicode_AsUTF8AndSize(chain.trace_id, &n)
        cdef char *out = copy(self.preimage.data, b"1.0", PREIMAGE_ID_OFFSET) + 36
        out = copy(out, trace, 36)
        self.write_id(out)
        # The buffer begins with room for more than this.
        head = <BatchHead *> self.buf.data
        memset(head, 0, sizeof(BatchHead))
        head.mark = PACKED
        memcpy(head.time_text, self.time_text, 27)
        memcpy(head.span_text, out, 36)
        memcpy(head.first_text, self.first_text, 64)
        self.buf.size = sizeof(BatchHead)
        out += 36
        if parent is not None:
            head.parent_size = 36
            put(self.buf, uuid_text(parent, "parent_span_id"), 36)
            out = copy(out, uuid_text(parent, "parent_span_id"), 36)
        self.finished = self.buf.size
        out = copy(out, session, 36)
        self.preimage_head_size = out - self.preimage.data
        return 0

    cdef void write_id(self, char *out) noexcept:
        id_into(self.now_us, self.id_high, self.id_low, self.ids, out)
        self.ids += 1

    cdef int put_time(self, Buffer out) except -1:
        return put_quoted(out, self.time_text, 27)

    cdef int begin_event(self, const char *event_type, Py_ssize_t n) except -1:
        cdef char *out
        cdef char *line
        if self.payload:
            self.abandon_event()
        reserve(self.buf, sizeof(EventHead) + 20 + n)
        self.preimage.size = self.preimage_head_size
        reserve(self.preimage, n + 64)
        self.event_id = self.ids
        self.write_id(self.preimage.data + PREIMAGE_ID_OFFSET)
        # What comes before the payload goes into the preimage now, while the type is at hand.
        line = self.preimage.data + self.preimage_head_size
        self.sequence_size = <uint16_t> digits_into(self.first_sequence + self.count, line)
        out = copy(self.buf.data + self.buf.size + sizeof(EventHead), line, self.sequence_size)
        self.payload = self.buf.size = copy(out, event_type, n) - self.buf.data
        line = copy(line + self.sequence_size, self.time_text, 27)
        self.preimage.size = copy(line, event_type, n) - self.preimage.data
        return 0

    cdef int end_event(self) except -1:
        cdef EventHead event
        cdef uint8_t digest[32]
        cdef Py_ssize_t size
        event.sequence_size = self.sequence_size
        event.type_size = <uint16_t> (self.payload - self.finished - sizeof(EventHead) - self.sequence_size)
        event.payload_size = self.buf.size - self.payload
        memcpy(event.id_text, self.preimage.data + PREIMAGE_ID_OFFSET, 36)
        reserve(self.preimage, event.payload_size)
        memcpy(self.preimage.data + self.preimage.size, self.buf.data + self.payload, event.payload_size)
        size = self.preimage.size + event.payload_size
        # PERF: an event's hash ends with the one before it, so that one's end and this one's beginning go together.
        if self.unsealed >= 0:
            sha256_end_and_begin(
                &self.hashed, <const uint8_t *> self.head_text, 64, digest, <const uint8_t *> self.preimage.data, size)
            self.keep_hash(digest)
        else:
            sha256_begin(&self.hashed, <const uint8_t *> self.preimage.data, size)
        self.unsealed = self.finished
        memcpy(self.buf.data + self.finished, &event, sizeof(EventHead))
        self.finished = self.buf.size
        self.payload = 0
        self.count += 1
        self.lines = None
        return 0

    cdef void seal(self) noexcept:
        cdef uint8_t digest[32]
        (<BatchHead *> self.buf.data).count = <uint32_t> self.count
        if self.unsealed >= 0:
            sha256_finish(&self.hashed, <const uint8_t *> self.head_text, 64, digest)
            self.keep_hash(digest)
            self.unsealed = -1

    cdef void keep_hash(self, const uint8_t *digest) noexcept:
        hex_into(digest, 32, self.head_text)
        memcpy(self.buf.data + self.unsealed + HASH_OFFSET, self.head_text, 64)

    cdef void abandon_event(self) noexcept:
        """Take the event being written back; its id is used again unless another was given out since."""
        self.buf.size = self.finished
        self.payload = 0
        if self.ids == self.event_id + 1:
            self.ids = self.event_id

    cdef bytes packed(self):
        self.seal()
        return PyBytes_FromStringAndSize(self.buf.data, self.finished)

    def new_id(self) -> str:
        """Return the next UUIDv7 of this batch."""
        cdef char text[36]
        self.write_id(text)
        return PyUnicode_DecodeASCII(text, 36, NULL)

    def add(self, str event_type not None, dict payload not None) -> None:
        """Append an event; after an error (`NotCanonical`, `ValueError` for the type) the batch is as it was."""
        cdef Py_ssize_t n = 0
        cdef const char *type_text = event_type_text(event_type, &n)
        self.begin_event(type_text, n)
        try:
            write_value(self.buf, payload)
            self.end_event()
        except BaseException:
            self.abandon_event()
            raise

    def add_canonical(self, str event_type not None, bytes payload not None) -> None:
        """Append an event whose payload is the canonical JSON of an object already; that is trusted, not checked."""
        cdef Py_ssize_t n = 0
        cdef const char *type_text = event_type_text(event_type, &n)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        cdef const char *data = PyBytes_AS_STRING(payload)
        if size < 2 or data[0] != c"{" or data[size - 1] != c"}":
            raise ValueError("payload is not the canonical JSON of an object")
        self.begin_event(type_text, n)
        try:
            put(self.buf, data, size)
            self.end_event()
        except BaseException:
            self.abandon_event()
            raise

    @property
    def data(self) -> bytes:
        """The lines of all finished events, ready to store."""
        if self.lines is None:
            self.seal()
            self.lines = _lines(self.buf.data, self.buf.data + self.finished, self.session_id, self.trace_id)
        return self.lines

    @property
    def timestamp(self) -> str:
        """The time of every event of this batch, as the wire has it."""
        return PyUnicode_DecodeASCII(self.time_text, 27, NULL)

    @property
    def span_id(self) -> str:
        """The span that all events of this batch belong to."""
        cdef char text[36]
        id_into(self.now_us, self.id_high, self.id_low, 0, text)
        return PyUnicode_DecodeASCII(text, 36, NULL)

    @property
    def previous_head(self) -> str:
        """The head of the chain that this batch continues."""
        return PyUnicode_DecodeASCII(self.first_text, 64, NULL)

    @property
    def head(self) -> str:
        """The hash of the last event, or `previous_head` while there is none."""
        self.seal()
        return PyUnicode_DecodeASCII(self.head_text, 64, NULL)

    def __repr__(self) -> str:
        return f"EventBatch(first_sequence={self.first_sequence}, count={self.count}, head={self.head!r})"
