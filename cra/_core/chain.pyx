"""The hash chain of a session's TRACE events."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Size
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from cra._core.canonical cimport Buffer, copy, copy_text, reserve, write_value
from cra._core.grammar cimport digest_text, event_type_text, uuid_text
from cra._core.number cimport digits_into
from cra._core.sha256 cimport hex_into, sha256_into

from cra._core.verifier import Verdict, Verifier, verify  # no-cython-lint: the reader is found beside the writer
from cra.errors import InvalidInput

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *size) except NULL

cdef enum:
    ID_OFFSET = 35  # of the event's own id in a line
    PREIMAGE_ID_OFFSET = 3
    TAIL_SIZE = 171

cdef int64_t TIME_MAX = 253402300799999999LL  # 9999-12-31T23:59:59.999999Z
cdef str ZEROS = "0" * 64

# What a ledger answers to a batch.
cdef enum:
    _KEPT
    _MISPLACED
    _KNOWN
    _FULL

KEPT, MISPLACED, KNOWN, FULL = _KEPT, _MISPLACED, _KNOWN, _FULL


cdef void _two_digits(int value, char *out) noexcept nogil:
    out[0] = <char> (c"0" + value // 10)
    out[1] = <char> (c"0" + value % 10)


cdef void timestamp_into(int64_t us, char *out) noexcept nogil:
    """Write `YYYY-MM-DDTHH:MM:SS.ffffffZ`; the calendar is counted in 400-year eras that begin on 1 March."""
    cdef int64_t days = us // 86400000000LL
    cdef int64_t rest = us - days * 86400000000LL
    cdef int seconds = <int> (rest // 1000000)
    cdef int fraction = <int> (rest - <int64_t> seconds * 1000000)
    cdef int day = <int> days + 719468
    cdef int era = day // 146097
    cdef int of_era = day - era * 146097
    cdef int year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef int of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef int month = (5 * of_year + 2) // 153
    cdef int of_month = of_year - (153 * month + 2) // 5 + 1
    year += 400 * era + (month >= 10)
    month = month + 3 if month < 10 else month - 9
    _two_digits(year // 100, out)
    _two_digits(year % 100, out + 2)
    out[4] = c"-"
    _two_digits(month, out + 5)
    out[7] = c"-"
    _two_digits(of_month, out + 8)
    out[10] = c"T"
    _two_digits(seconds // 3600, out + 11)
    out[13] = c":"
    _two_digits(seconds // 60 % 60, out + 14)
    out[16] = c":"
    _two_digits(seconds % 60, out + 17)
    out[19] = c"."
    _two_digits(fraction // 10000, out + 20)
    _two_digits(fraction // 100 % 100, out + 22)
    _two_digits(fraction % 100, out + 24)
    out[26] = c"Z"


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
        cdef Py_ssize_t n = 0
        cdef const char *session = PyUnicode_AsUTF8AndSize(self.session_id, &n)
        if memcmp(batch.line_head + batch.line_head_size - 49, session, n) != 0:  # `36 characters","sequence":`
            raise ValueError("batch is of another session")
        if batch.first_sequence != self.sequence or memcmp(batch.first_text, self.head_text, 64) != 0:
            raise ValueError(
                f"batch begins at event {batch.first_sequence}, expected one that begins at the head of the chain, "
                f"event {self.sequence}"
            )
        if batch.payload:
            raise ValueError("batch has an event that was begun and not ended")
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
        self.buf = Buffer.__new__(Buffer)
        self.preimage = Buffer.__new__(Buffer)

    def __init__(self):
        raise TypeError("a batch is made by `Chain.begin`")

    cdef int start(self, Chain chain, int64_t now_us, const uint8_t *entropy, str parent) except -1:
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
        self.id_time = <uint64_t> (now_us // 1000)
        self.now_us = now_us
        self.first_sequence = chain.sequence
        timestamp_into(now_us, self.time_text)
        memcpy(self.first_text, chain.head_text, 64)
        memcpy(self.head_text, chain.head_text, 64)
        self.write_id(self.span_text)

        cdef Py_ssize_t n
        cdef const char *session = PyUnicode_AsUTF8AndSize(chain.session_id, &n)
        cdef const char *trace = PyUnicode_AsUTF8AndSize(chain.trace_id, &n)
        cdef const char *parent_text = NULL
        if parent is not None:
            parent_text = uuid_text(parent, "parent_span_id")
        cdef char *out = self.line_head
        out = copy(out, b'{"trace_version":"1.0","event_id":"', ID_OFFSET) + 36
        out = copy_text(out, b'","trace_id":"')
        out = copy(out, trace, 36)
        out = copy_text(out, b'","span_id":"')
        out = copy(out, self.span_text, 36)
        if parent_text == NULL:
            out = copy_text(out, b'","parent_span_id":null,"session_id":"')
        else:
            out = copy_text(out, b'","parent_span_id":"')
            out = copy(out, parent_text, 36)
            out = copy_text(out, b'","session_id":"')
        out = copy(out, session, 36)
        out = copy_text(out, b'","sequence":')
        self.line_head_size = out - self.line_head

        out = self.preimage.data
        out = copy(out, b"1.0", PREIMAGE_ID_OFFSET) + 36
        out = copy(out, trace, 36)
        out = copy(out, self.span_text, 36)
        if parent_text != NULL:
            out = copy(out, parent_text, 36)
        out = copy(out, session, 36)
        self.preimage_head_size = out - self.preimage.data
        return 0

    cdef void write_id(self, char *out) noexcept:
        """Write the next UUIDv7: its 74 free bits are one more than those of the id before (RFC 9562, method 2)."""
        cdef uint8_t raw[16]
        cdef char text[32]
        cdef uint64_t first = self.id_time << 16 | 0x7000 | self.id_high
        cdef uint64_t second = 0x8000000000000000ULL | self.id_low
        cdef int i
        for i in range(8):
            raw[i] = <uint8_t> (first >> (56 - 8 * i))
            raw[8 + i] = <uint8_t> (second >> (56 - 8 * i))
        hex_into(raw, 16, text)
        memcpy(out, text, 8)
        memcpy(out + 9, text + 8, 4)
        memcpy(out + 14, text + 12, 4)
        memcpy(out + 19, text + 16, 4)
        memcpy(out + 24, text + 20, 12)
        out[8] = out[13] = out[18] = out[23] = c"-"
        self.id_low = (self.id_low + 1) & 0x3FFFFFFFFFFFFFFFULL
        self.id_high += self.id_low == 0

    cdef int begin_event(self, const char *event_type, Py_ssize_t n) except -1:
        cdef char *out
        cdef char *line
        if self.payload:
            self.abandon_event()
        reserve(self.buf, self.line_head_size + n + 128)
        self.event_high = self.id_high
        self.event_low = self.id_low
        line = self.buf.data + self.buf.size
        out = copy(line, self.line_head, self.line_head_size)
        self.write_id(line + ID_OFFSET)
        out += digits_into(self.first_sequence + self.count, out)
        out = copy_text(out, b',"timestamp":"')
        out = copy(out, self.time_text, 27)
        out = copy_text(out, b'","event_type":"')
        out = copy(out, event_type, n)
        out = copy_text(out, b'","payload":')

        # The preimage has the same texts; what is known before the payload goes in now, while the type is at hand.
        self.preimage.size = self.preimage_head_size
        reserve(self.preimage, n + 64)
        memcpy(self.preimage.data + PREIMAGE_ID_OFFSET, line + ID_OFFSET, 36)
        line = self.preimage.data + self.preimage_head_size
        line += digits_into(self.first_sequence + self.count, line)
        line = copy(line, self.time_text, 27)
        line = copy(line, event_type, n)
        self.preimage.size = line - self.preimage.data

        self.payload = self.buf.size = out - self.buf.data
        return 0

    cdef int end_event(self) except -1:
        cdef Py_ssize_t n = self.buf.size - self.payload
        cdef uint8_t digest[32]
        cdef char *out
        reserve(self.preimage, n + 64)
        reserve(self.buf, TAIL_SIZE)
        out = self.preimage.data + self.preimage.size
        out = copy(out, self.buf.data + self.payload, n)
        out = copy(out, self.head_text, 64)
        sha256_into(<const uint8_t *> self.preimage.data, out - self.preimage.data, digest)
        out = self.buf.data + self.buf.size
        out = copy_text(out, b',"event_hash":"')
        hex_into(digest, 32, out)
        out = copy_text(out + 64, b'","previous_event_hash":"')
        out = copy(out, self.head_text, 64)
        out = copy_text(out, b'"}\n')
        memcpy(self.head_text, out - 156, 64)
        self.finished = self.buf.size = out - self.buf.data
        self.payload = 0
        self.count += 1
        self.lines = None
        return 0

    cdef void abandon_event(self) noexcept:
        """Take the event being written back; its id is used again unless another was given out since."""
        self.buf.size = self.finished
        self.payload = 0
        if self.id_low == ((self.event_low + 1) & 0x3FFFFFFFFFFFFFFFULL):
            self.id_high = self.event_high
            self.id_low = self.event_low

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
        reserve(self.buf, size + self.line_head_size + n + 128 + TAIL_SIZE)
        reserve(self.preimage, size + self.preimage_head_size + n + 256)
        self.begin_event(type_text, n)
        memcpy(self.buf.data + self.buf.size, data, size)
        self.buf.size += size
        self.end_event()

    @property
    def data(self) -> bytes:
        """The lines of all finished events, ready to store."""
        if self.lines is None:
            self.lines = PyBytes_FromStringAndSize(self.buf.data, self.finished)
        return self.lines

    @property
    def timestamp(self) -> str:
        """The time of every event of this batch, as the wire has it."""
        return PyUnicode_DecodeASCII(self.time_text, 27, NULL)

    @property
    def span_id(self) -> str:
        """The span that all events of this batch belong to."""
        return PyUnicode_DecodeASCII(self.span_text, 36, NULL)

    @property
    def previous_head(self) -> str:
        """The head of the chain that this batch continues."""
        return PyUnicode_DecodeASCII(self.first_text, 64, NULL)

    @property
    def head(self) -> str:
        """The hash of the last event, or `previous_head` while there is none."""
        return PyUnicode_DecodeASCII(self.head_text, 64, NULL)

    def __repr__(self) -> str:
        return f"EventBatch(first_sequence={self.first_sequence}, count={self.count}, head={self.head!r})"


cdef class Room:
    """What some ledgers share: a lock, how many more events they may keep, and how many resolutions each keeps."""

    def __init__(self, int64_t left, Py_ssize_t most_resolutions):
        self.left = left
        self.most_resolutions = most_resolutions

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self.lock.release()


cdef class Ledger:
    """Keep the batches of one session in memory, and what has been asked and answered. One thread at a time.

    `pieces` has for each batch the sequence of its first event, then its lines; `actions` counts what came with them.
    `requests` and `resolutions` (the newest) are by their ids; None before the first.
    """

    def __init__(
        self, Room room not None, int64_t sequence=0, str head not None=ZEROS, int64_t last_us=0, int64_t actions=0
    ):
        memcpy(self.head_text, digest_text(head, "head"), 64)
        self.room = room
        self.pieces = []
        self.sequence = sequence
        self.last_us = last_us
        self.actions = actions

    @property
    def head(self) -> str:
        """The hash of the last event, 64 zeros before the first."""
        return PyUnicode_DecodeASCII(self.head_text, 64, NULL)

    cdef bint goes_on(self, str expected_head, EventBatch batch) except -1:
        cdef Py_ssize_t n = 0
        cdef const char *expected = PyUnicode_AsUTF8AndSize(expected_head, &n)
        return (
            not self.closed
            and n == 64
            and memcmp(expected, self.head_text, 64) == 0
            and memcmp(batch.first_text, self.head_text, 64) == 0
            and batch.first_sequence == self.sequence
        )

    cdef int keep(
        self, EventBatch batch, int64_t actions, str request_id, str resolution_id, object resolution
    ) except -1:
        # INVARIANT: what can fail, for want of memory, comes first and is undone; nobody sees a part of this.
        cdef Py_ssize_t n = len(self.pieces)
        cdef bytes lines = batch.data
        if request_id is not None and self.requests is None:
            self.requests = set()
        if resolution_id is not None and self.resolutions is None:
            self.resolutions = {}
        try:
            self.pieces.append(self.sequence)
            self.pieces.append(lines)
            if request_id is not None:
                self.requests.add(request_id)
            if resolution_id is not None:
                self.resolutions[resolution_id] = resolution
        except BaseException:
            del self.pieces[n:]
            if request_id is not None:
                self.requests.discard(request_id)
            raise
        self.room.left -= batch.count
        self.sequence += batch.count
        self.last_us = batch.now_us
        self.actions += actions
        memcpy(self.head_text, batch.head_text, 64)
        if resolution_id is not None and PyDict_Size(self.resolutions) > self.room.most_resolutions:
            for oldest in self.resolutions:
                del self.resolutions[oldest]
                break
        return 0

    cdef int take(
        self, str expected_head, EventBatch batch, int64_t actions, str request_id, str resolution_id, object resolution
    ) except -1:
        if not self.goes_on(expected_head, batch):
            return _MISPLACED
        if batch.count > self.room.left:
            return _FULL
        if request_id is not None and self.requests is not None and request_id in self.requests:
            return _KNOWN
        self.keep(batch, actions, request_id, resolution_id, resolution)
        return _KEPT

    def takes(self, str expected_head not None, EventBatch batch not None) -> bool:
        """Say whether the lines end at `expected_head`, and `batch` goes on from there."""
        return self.goes_on(expected_head, batch)

    def knows(self, str request_id=None) -> bool:
        """Say whether a request of that id was kept."""
        return request_id is not None and self.requests is not None and request_id in self.requests

    def append(
        self, str expected_head not None, EventBatch batch not None, int64_t actions=0, str request_id=None,
        str resolution_id=None, object resolution=None, bint held=False
    ) -> int:
        """Keep a batch and what comes with it, or say why not: `MISPLACED`, `KNOWN`, `FULL`; `KEPT` is 0.

        It locks its room, unless that is `held` already. PERF: a `with` of Python's own takes 0.09 us.
        """
        if held:
            return self.take(expected_head, batch, actions, request_id, resolution_id, resolution)
        with self.room.lock:
            return self.take(expected_head, batch, actions, request_id, resolution_id, resolution)

    def add(
        self, EventBatch batch not None, int64_t actions=0, str request_id=None, str resolution_id=None,
        object resolution=None
    ) -> None:
        """Keep a batch that would not be refused."""
        self.keep(batch, actions, request_id, resolution_id, resolution)

    def close(self) -> None:
        """Take no batch any more."""
        self.closed = True
