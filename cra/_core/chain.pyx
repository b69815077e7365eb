"""The hash chain of a session's TRACE events."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from cra._core.canonical cimport (
    MAX_DEPTH,
    Buffer,
    compare_keys,
    digits_into,
    double_into,
    load_word,
    plain_ascii,
    put,
    reserve,
    write_value,
)
from cra._core.sha256 cimport hex_into, sha256_into

from cra.errors import InvalidInput

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *size) except NULL
    double PyOS_string_to_double(const char *text, char **end, PyObject *overflow) except? -1.0

cdef enum:
    EVENT_TYPE_MAX = 64
    ID_OFFSET = 35  # of the event's own id in a line
    PREIMAGE_ID_OFFSET = 3
    TAIL_SIZE = 171

cdef int64_t TIME_MAX = 253402300799999999LL  # 9999-12-31T23:59:59.999999Z
cdef str ZEROS = "0" * 64


# --- grammar ---------------------------------------------------------------------------------------------------------


cdef inline bint _is_hex(uint8_t c) noexcept nogil:
    return c"0" <= c <= c"9" or c"a" <= c <= c"f"


cdef bint _is_uuid(const char *p) noexcept nogil:
    """Whether 36 characters are a lower-case UUID."""
    cdef int i
    for i in range(36):
        if i == 8 or i == 13 or i == 18 or i == 23:
            if p[i] != c"-":
                return False
        elif not _is_hex(p[i]):
            return False
    return True


cdef bint _is_digest(const char *p) noexcept nogil:
    """Whether 64 characters are lower-case hex digits."""
    cdef int i
    for i in range(64):
        if not _is_hex(p[i]):
            return False
    return True


cdef bint _is_event_type(const char *p, Py_ssize_t n) noexcept nogil:
    """Whether `n` characters are `word.word...` of lower-case letters and, after a word's first letter, underscores."""
    cdef Py_ssize_t i
    cdef bint start = True, dotted = False
    if n > EVENT_TYPE_MAX:
        return False
    for i in range(n):
        if c"a" <= p[i] <= c"z":
            start = False
        elif start:
            return False
        elif p[i] == c".":
            start = dotted = True
        elif p[i] != c"_":
            return False
    return dotted and not start


cdef const char *_uuid_text(str text, str name) except NULL:
    cdef Py_ssize_t n = 0
    if not text.isascii():
        raise InvalidInput(f"{name} is `{ascii(text)}`, expected a lower-case UUID of 36 characters")
    cdef const char *p = PyUnicode_AsUTF8AndSize(text, &n)
    if n != 36 or not _is_uuid(p):
        raise InvalidInput(f"{name} is `{text}`, expected a lower-case UUID of 36 characters")
    return p


cdef const char *_digest_text(str text, str name) except NULL:
    cdef Py_ssize_t n = 0
    if not text.isascii():
        raise InvalidInput(f"{name} is `{ascii(text)}`, expected 64 lower-case hex digits")
    cdef const char *p = PyUnicode_AsUTF8AndSize(text, &n)
    if n != 64 or not _is_digest(p):
        raise InvalidInput(f"{name} is `{text}`, expected 64 lower-case hex digits")
    return p


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


# --- writing ---------------------------------------------------------------------------------------------------------


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
        _uuid_text(session_id, "session_id")
        _uuid_text(trace_id, "trace_id")
        if sequence < 0:
            raise InvalidInput(f"sequence is `{sequence}`, expected 0 or more")
        if not 0 <= last_us <= TIME_MAX:
            raise InvalidInput(f"time is `{last_us}` microseconds, expected a time between 1970 and 9999")
        memcpy(self.head_text, _digest_text(head, "head"), 64)
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
        bytes; the 74 free bits of the batch's UUIDs count up from the low 73 bits of its first ten, read as a big-endian
        number.
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


cdef inline char *_put(char *out, const char *text, Py_ssize_t n) noexcept nogil:
    memcpy(out, text, n)
    return out + n


cdef inline char *_text(char *out, const char *text) noexcept nogil:
    return _put(out, text, strlen(text))


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
            parent_text = _uuid_text(parent, "parent_span_id")
        cdef char *out = self.line_head
        out = _put(out, b'{"trace_version":"1.0","event_id":"', ID_OFFSET) + 36
        out = _text(out, b'","trace_id":"')
        out = _put(out, trace, 36)
        out = _text(out, b'","span_id":"')
        out = _put(out, self.span_text, 36)
        if parent_text == NULL:
            out = _text(out, b'","parent_span_id":null,"session_id":"')
        else:
            out = _text(out, b'","parent_span_id":"')
            out = _put(out, parent_text, 36)
            out = _text(out, b'","session_id":"')
        out = _put(out, session, 36)
        out = _text(out, b'","sequence":')
        self.line_head_size = out - self.line_head

        out = self.preimage.data
        out = _put(out, b"1.0", PREIMAGE_ID_OFFSET) + 36
        out = _put(out, trace, 36)
        out = _put(out, self.span_text, 36)
        if parent_text != NULL:
            out = _put(out, parent_text, 36)
        out = _put(out, session, 36)
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
        out = _put(line, self.line_head, self.line_head_size)
        self.write_id(line + ID_OFFSET)
        out += digits_into(self.first_sequence + self.count, out)
        out = _text(out, b',"timestamp":"')
        out = _put(out, self.time_text, 27)
        out = _text(out, b'","event_type":"')
        out = _put(out, event_type, n)
        out = _text(out, b'","payload":')

        # The preimage has the same texts; what is known before the payload goes in now, while the type is at hand.
        self.preimage.size = self.preimage_head_size
        reserve(self.preimage, n + 64)
        memcpy(self.preimage.data + PREIMAGE_ID_OFFSET, line + ID_OFFSET, 36)
        line = self.preimage.data + self.preimage_head_size
        line += digits_into(self.first_sequence + self.count, line)
        line = _put(line, self.time_text, 27)
        line = _put(line, event_type, n)
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
        out = _put(out, self.buf.data + self.payload, n)
        out = _put(out, self.head_text, 64)
        sha256_into(<const uint8_t *> self.preimage.data, out - self.preimage.data, digest)
        out = self.buf.data + self.buf.size
        out = _text(out, b',"event_hash":"')
        hex_into(digest, 32, out)
        out = _text(out + 64, b'","previous_event_hash":"')
        out = _put(out, self.head_text, 64)
        out = _text(out, b'"}\n')
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
        cdef const char *type_text = _event_type_text(event_type, &n)
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
        cdef const char *type_text = _event_type_text(event_type, &n)
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


cdef const char *_event_type_text(str event_type, Py_ssize_t *n) except NULL:
    cdef const char *text = PyUnicode_AsUTF8AndSize(event_type, n)
    if not _is_event_type(text, n[0]):
        raise ValueError(f"event type is {event_type!a}, expected `word.word` in lower case, at most 64 characters")
    return text


# --- reading ---------------------------------------------------------------------------------------------------------


# A scan of one line. When it fails, `p` is where, `expected` what should be there, and `exact` whether that is the very
# text or a description of it.
cdef struct Scan:
    const char *p
    const char *end
    const char *expected
    bint exact


cdef bint _fail(Scan *s, const char *at, const char *expected) noexcept nogil:
    s.p = at
    s.expected = expected
    s.exact = False
    return False


cdef inline bint _literal(Scan *s, const char *text) noexcept nogil:
    cdef Py_ssize_t n = strlen(text)
    if s.end - s.p < n or memcmp(s.p, text, n) != 0:
        s.expected = text
        s.exact = True
        return False
    s.p += n
    return True


cdef bint _uuid(Scan *s, const char **start) noexcept nogil:
    if s.end - s.p < 36 or not _is_uuid(s.p):
        return _fail(s, s.p, b"a lower-case UUID of 36 characters")
    start[0] = s.p
    s.p += 36
    return True


cdef bint _digest(Scan *s, const char **start) noexcept nogil:
    if s.end - s.p < 64 or not _is_digest(s.p):
        return _fail(s, s.p, b"64 lower-case hex digits")
    start[0] = s.p
    s.p += 64
    return True


cdef inline int _number_of(const char *p, int n) noexcept nogil:
    """Return the value of `n` digits, negative if one is not a digit."""
    cdef int value = 0
    cdef int i
    for i in range(n):
        if not c"0" <= p[i] <= c"9":
            return -1
        value = 10 * value + (p[i] - c"0")
    return value


cdef bint _is_timestamp(const char *p) noexcept nogil:
    cdef int year = _number_of(p, 4)
    cdef int month = _number_of(p + 5, 2)
    cdef int day = _number_of(p + 8, 2)
    cdef int days = 31
    if p[4] != c"-" or p[7] != c"-" or p[10] != c"T" or p[13] != c":" or p[16] != c":" or p[19] != c"." or p[26] != c"Z":
        return False
    if month == 4 or month == 6 or month == 9 or month == 11:
        days = 30
    elif month == 2:
        days = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return (
        year >= 1
        and 1 <= month <= 12
        and 1 <= day <= days
        and 0 <= _number_of(p + 11, 2) <= 23
        and 0 <= _number_of(p + 14, 2) <= 59
        and 0 <= _number_of(p + 17, 2) <= 59
        and _number_of(p + 20, 6) >= 0
    )


cdef inline bint _continues(const char *p) noexcept nogil:
    return (<uint8_t> p[0] & 0xC0) == 0x80


cdef int _utf8_size(const char *p, const char *end) noexcept nogil:
    """Return the size of the well-formed sequence of two to four bytes at `p`, or 0."""
    cdef uint8_t first = <uint8_t> p[0]
    cdef uint8_t second
    if end - p < 2 or not _continues(p + 1):
        return 0
    second = <uint8_t> p[1]
    if 0xC2 <= first <= 0xDF:
        return 2
    if end - p < 3 or not _continues(p + 2):
        return 0
    if 0xE0 <= first <= 0xEF:
        # Neither longer than needed (E0 80..9F) nor a surrogate (ED A0..BF).
        return 0 if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F) else 3
    if end - p < 4 or not _continues(p + 3):
        return 0
    if 0xF0 <= first <= 0xF4:
        return 0 if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F) else 4
    return 0


cdef int _escaped(const char *p, const char *end, int *size) noexcept nogil:
    """Return the character that the canonical escape at `p` means, and its size; negative if it is not canonical."""
    cdef int high, low
    size[0] = 2
    if end - p < 2:
        return -1
    if p[1] == c'"' or p[1] == c"\\":
        return p[1]
    if p[1] == c"b":
        return 8
    if p[1] == c"t":
        return 9
    if p[1] == c"n":
        return 10
    if p[1] == c"f":
        return 12
    if p[1] == c"r":
        return 13
    if end - p < 6 or memcmp(p + 1, b"u00", 3) != 0 or not (p[4] == c"0" or p[4] == c"1") or not _is_hex(p[5]):
        return -1
    high = p[4] - c"0"
    low = p[5] - c"0" if p[5] <= c"9" else p[5] - c"a" + 10
    size[0] = 6
    low += 16 * high
    return -1 if low == 8 or low == 9 or low == 10 or low == 12 or low == 13 else low


cdef bint _string(Scan *s, bint *has_escapes) noexcept nogil:
    """Pass a canonical JSON string, both quotes included."""
    cdef const char *p = s.p
    cdef const char *end = s.end
    cdef uint8_t c
    cdef int size = 0
    if p == end or p[0] != c'"':
        return _fail(s, p, b"text")
    p += 1
    while True:
        while end - p >= 8 and plain_ascii(load_word(p)):
            p += 8
        while p < end:
            c = <uint8_t> p[0]
            if c < 0x20 or c == c'"' or c == c"\\" or c >= 0x80:
                break
            p += 1
        if p == end:
            return _fail(s, p, b"the end of the text")
        c = <uint8_t> p[0]
        if c == c'"':
            s.p = p + 1
            return True
        if c == c"\\":
            if _escaped(p, end, &size) < 0:
                return _fail(s, p, b"the shortest escape of a character that needs one")
            has_escapes[0] = True
            p += size
        elif c >= 0x80:
            while p < end and <uint8_t> p[0] >= 0x80:
                size = _utf8_size(p, end)
                if size == 0:
                    return _fail(s, p, b"valid UTF-8")
                p += size
        else:
            return _fail(s, p, b"an escape for the control character")


cdef int _next_byte(const char **p, const char *end) noexcept nogil:
    cdef int size = 1
    cdef int c = <uint8_t> p[0][0]
    if c == c"\\":
        c = _escaped(p[0], end, &size)
    p[0] += size
    return c


cdef int _compare_escaped(const char *a, Py_ssize_t na, const char *b, Py_ssize_t nb) noexcept nogil:
    """Order two keys by what their escapes mean."""
    cdef const char *a_end = a + na
    cdef const char *b_end = b + nb
    cdef char x, y
    cdef int order
    while a < a_end and b < b_end:
        x = <char> _next_byte(&a, a_end)
        y = <char> _next_byte(&b, b_end)
        order = compare_keys(&x, 1, &y, 1)
        if order:
            return order
    return (a < a_end) - (b < b_end)


cdef bint _number(Scan *s) except -1:
    """Pass a canonical number: an integer written exactly, or the ECMAScript form of a double."""
    cdef const char *start = s.p
    cdef const char *p = start
    cdef const char *end = s.end
    cdef const char *digits
    cdef char text[32]
    cdef char again[32]
    cdef double value
    cdef Py_ssize_t n
    if p < end and p[0] == c"-":
        p += 1
    digits = p
    while p < end and c"0" <= p[0] <= c"9":
        p += 1
    if p == digits:
        return _fail(s, start, b"a value")
    if digits[0] == c"0" and p - digits > 1:
        return _fail(s, start, b"a number without leading zeros")
    if p == end or not (p[0] == c"." or p[0] == c"e"):
        if digits[0] == c"0" and digits != start:
            return _fail(s, start, b"`0` for zero")
        s.p = p
        return True
    while p < end and (c"0" <= p[0] <= c"9" or p[0] == c"." or p[0] == c"e" or p[0] == c"-" or p[0] == c"+"):
        p += 1
    n = p - start
    if n < 32:
        memcpy(text, start, n)
        text[n] = 0
        try:
            value = PyOS_string_to_double(text, NULL, NULL)
        except ValueError:
            return _fail(s, start, b"a number")
        if isfinite(value) and double_into(value, again) == n and memcmp(text, again, n) == 0:
            s.p = p
            return True
    return _fail(s, start, b"a number in its shortest ECMAScript form")


cdef bint _object(Scan *s, int depth) except -1:
    """Pass a canonical object; `s.p` stands at its brace."""
    cdef const char *key = NULL
    cdef const char *previous
    cdef Py_ssize_t n = 0, previous_n
    cdef bint has_escapes = False, previous_has_escapes, late
    if depth == MAX_DEPTH:
        return _fail(s, s.p, b"at most 128 levels")
    s.p += 1
    if s.p < s.end and s.p[0] == c"}":
        s.p += 1
        return True
    while True:
        previous, previous_n, previous_has_escapes = key, n, has_escapes
        key = s.p
        has_escapes = False
        if not _string(s, &has_escapes):
            return False
        n = s.p - key - 2
        if previous != NULL:
            if has_escapes or previous_has_escapes:
                late = _compare_escaped(previous + 1, previous_n, key + 1, n) >= 0
            else:
                late = compare_keys(previous + 1, previous_n, key + 1, n) >= 0
            if late:
                return _fail(s, key, b"a key that sorts after the one before it")
        if not _literal(s, b":") or not _value(s, depth + 1):
            return False
        if s.p < s.end and s.p[0] == c",":
            s.p += 1
        elif s.p < s.end and s.p[0] == c"}":
            s.p += 1
            return True
        else:
            return _fail(s, s.p, b"`,` or `}`")


cdef bint _array(Scan *s, int depth) except -1:
    if depth == MAX_DEPTH:
        return _fail(s, s.p, b"at most 128 levels")
    s.p += 1
    if s.p < s.end and s.p[0] == c"]":
        s.p += 1
        return True
    while True:
        if not _value(s, depth + 1):
            return False
        if s.p < s.end and s.p[0] == c",":
            s.p += 1
        elif s.p < s.end and s.p[0] == c"]":
            s.p += 1
            return True
        else:
            return _fail(s, s.p, b"`,` or `]`")


cdef bint _value(Scan *s, int depth) except -1:
    """Pass a canonical value that has `depth` containers around it."""
    cdef bint has_escapes = False
    cdef char c = s.p[0] if s.p < s.end else 0
    if c == c'"':
        return _string(s, &has_escapes)
    if c == c"{":
        return _object(s, depth)
    if c == c"[":
        return _array(s, depth)
    if c == c"t":
        return _literal(s, b"true")
    if c == c"f":
        return _literal(s, b"false")
    if c == c"n":
        return _literal(s, b"null")
    return _number(s)


# The fields of one line that passed the grammar.
cdef struct Line:
    const char *event_id
    const char *trace_id
    const char *span_id
    const char *parent  # NULL when the event has none
    const char *session_id
    const char *sequence
    const char *timestamp
    const char *event_type
    const char *payload
    const char *event_hash
    const char *previous_hash
    Py_ssize_t sequence_size
    Py_ssize_t event_type_size
    Py_ssize_t payload_size


cdef bint _parse(Scan *s, Line *line) except -1:
    """Split a line by position; every byte of it is accounted for."""
    if not (
        _literal(s, b'{"trace_version":"1.0","event_id":"')
        and _uuid(s, &line.event_id)
        and _literal(s, b'","trace_id":"')
        and _uuid(s, &line.trace_id)
        and _literal(s, b'","span_id":"')
        and _uuid(s, &line.span_id)
        and _literal(s, b'","parent_span_id":')
    ):
        return False
    line.parent = NULL
    if s.p < s.end and s.p[0] == c"n":
        if not _literal(s, b'null,"session_id":"'):
            return False
    elif not (_literal(s, b'"') and _uuid(s, &line.parent) and _literal(s, b'","session_id":"')):
        return False
    if not (_uuid(s, &line.session_id) and _literal(s, b'","sequence":')):
        return False

    line.sequence = s.p
    while s.p < s.end and c"0" <= s.p[0] <= c"9":
        s.p += 1
    line.sequence_size = s.p - line.sequence
    if line.sequence_size == 0 or (line.sequence[0] == c"0" and line.sequence_size > 1):
        return _fail(s, line.sequence, b"a number without sign or leading zeros")

    if not _literal(s, b',"timestamp":"'):
        return False
    line.timestamp = s.p
    if s.end - s.p < 27 or not _is_timestamp(s.p):
        return _fail(s, s.p, b"a time as YYYY-MM-DDTHH:MM:SS.ffffffZ that is in the calendar")
    s.p += 27

    if not _literal(s, b'","event_type":"'):
        return False
    line.event_type = s.p
    while s.p < s.end and (c"a" <= s.p[0] <= c"z" or s.p[0] == c"_" or s.p[0] == c"."):
        s.p += 1
    line.event_type_size = s.p - line.event_type
    if not _is_event_type(line.event_type, line.event_type_size):
        return _fail(s, line.event_type, b"`word.word` in lower case, at most 64 characters")

    if not _literal(s, b'","payload":'):
        return False
    line.payload = s.p
    if s.p == s.end or s.p[0] != c"{":
        return _fail(s, s.p, b"an object")
    if not _object(s, 0):
        return False
    line.payload_size = s.p - line.payload

    if not (
        _literal(s, b',"event_hash":"')
        and _digest(s, &line.event_hash)
        and _literal(s, b'","previous_event_hash":"')
        and _digest(s, &line.previous_hash)
        and _literal(s, b'"}')
    ):
        return False
    return True if s.p == s.end else _fail(s, s.p, b"the end of the line")


cdef int _hash(Buffer preimage, const Line *line, Py_ssize_t n, uint8_t *digest) except -1:
    """Join the fields of a line of `n` bytes, which are fewer, and hash them."""
    cdef char *out
    preimage.size = 0
    reserve(preimage, n)
    out = _text(preimage.data, b"1.0")
    out = _put(out, line.event_id, 36)
    out = _put(out, line.trace_id, 36)
    out = _put(out, line.span_id, 36)
    if line.parent != NULL:
        out = _put(out, line.parent, 36)
    out = _put(out, line.session_id, 36)
    out = _put(out, line.sequence, line.sequence_size)
    out = _put(out, line.timestamp, 27)
    out = _put(out, line.event_type, line.event_type_size)
    out = _put(out, line.payload, line.payload_size)
    out = _put(out, line.previous_hash, 64)
    sha256_into(<const uint8_t *> preimage.data, out - preimage.data, digest)
    return 0


@cython.final
@cython.no_gc
cdef class Verdict:
    """Say whether a trace is intact, and if not, where it first is not and why; true when it is intact.

    Events missing at the end cannot be seen in the bytes: compare `head` or `events` with what the store promised.
    """

    def __init__(self):
        raise TypeError("a verdict is made by `verify` or `Verifier.finish`")

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        if self.ok:
            return f"Verdict(ok=True, events={self.events}, head={self.head!r})"
        return (
            f"Verdict(ok=False, events={self.events}, index={self.index}, reason={self.reason!r}, "
            f"offset={self.offset}, message={self.message!r})"
        )


@cython.final
@cython.no_gc
cdef class Verifier:
    """Check a trace that arrives in pieces, cut anywhere. For one thread.

    The checks of an event run in this order, and the first that fails names the reason: its grammar, the session, the
    sequence, the link to the event before, the time, the hash.
    """

    def __cinit__(self):
        self.rest = Buffer.__new__(Buffer)
        self.preimage = Buffer.__new__(Buffer)

    def __init__(self, int64_t start_sequence=0, str previous_head not None=ZEROS, str session_id=None):
        if start_sequence < 0:
            raise InvalidInput(f"start_sequence is `{start_sequence}`, expected 0 or more")
        memcpy(self.head, _digest_text(previous_head, "previous_head"), 64)
        if session_id is not None:
            memcpy(self.session_id, _uuid_text(session_id, "session_id"), 36)
            self.has_session = True
        self.sequence = start_sequence
        memset(self.timestamp, c"0", 27)

    def feed(self, bytes data not None) -> bool:
        """Take the next bytes; return whether all is well so far. What follows the first bad event is not read."""
        cdef const char *p = PyBytes_AS_STRING(data)
        cdef const char *end = p + PyBytes_GET_SIZE(data)
        cdef const char *stop
        if self.verdict is not None:
            raise ValueError("the verifier has given its verdict")
        while p < end and self.reason is None:
            stop = <const char *> memchr(p, c"\n", end - p)
            if stop == NULL:
                put(self.rest, p, end - p)
                break
            if self.rest.size:
                put(self.rest, p, stop - p)
                self.check(self.rest.data, self.rest.size)
                self.rest.size = 0
            else:
                self.check(p, stop - p)
            p = stop + 1
        return self.reason is None

    def finish(self) -> Verdict:
        """Return the verdict on everything fed; bytes after the last line feed are a truncated event."""
        cdef Verdict verdict = self.verdict
        if verdict is not None:
            return verdict
        if self.reason is None and self.rest.size:
            self.refuse("grammar", f"line ends after {self.rest.size} bytes, expected a line feed")
        verdict = Verdict.__new__(Verdict)
        verdict.ok = self.reason is None
        verdict.events = self.events
        verdict.index = None if verdict.ok else self.events
        verdict.offset = None if verdict.ok else self.offset
        verdict.reason = self.reason
        verdict.message = self.message
        verdict.head = PyUnicode_DecodeASCII(self.head, 64, NULL)
        verdict.session_id = PyUnicode_DecodeASCII(self.session_id, 36, NULL) if self.has_session else None
        verdict.trace_id = PyUnicode_DecodeASCII(self.trace_id, 36, NULL) if self.events else None
        self.verdict = verdict
        return verdict

    cdef int refuse(self, str reason, str message) except -1:
        self.reason = reason
        self.message = f"event {self.events}: {message}"
        return 0

    cdef int check(self, const char *text, Py_ssize_t n) except -1:
        """Check one line, without its line feed, and move past it if it is good."""
        cdef Scan s
        cdef Line line
        cdef uint8_t digest[32]
        cdef char hash_text[64]
        cdef char expected[20]
        cdef Py_ssize_t size = digits_into(self.sequence, expected)
        s.p = text
        s.end = text + n
        if not _parse(&s, &line):
            wanted = f"`{s.expected.decode()}`" if s.exact else s.expected.decode()
            return self.refuse("grammar", f"expected {wanted} at byte {s.p - text} of the line, found {_show(s.p, s.end)}")
        if not self.has_session:
            memcpy(self.session_id, line.session_id, 36)
            self.has_session = True
        if memcmp(line.session_id, self.session_id, 36) != 0:
            return self.refuse("session", f"session_id is {_ascii(line.session_id, 36)}, "
                                          f"expected {_ascii(self.session_id, 36)}")
        if line.sequence_size != size or memcmp(line.sequence, expected, size) != 0:
            return self.refuse("sequence", f"sequence is {_show(line.sequence, line.sequence + line.sequence_size)}, "
                                           f"expected `{self.sequence}`")
        if memcmp(line.previous_hash, self.head, 64) != 0:
            return self.refuse("link", f"previous_event_hash is {_ascii(line.previous_hash, 64)}, "
                                       f"expected {_ascii(self.head, 64)}, the hash of the event before")
        if memcmp(line.timestamp, self.timestamp, 27) < 0:
            return self.refuse("time", f"timestamp is {_ascii(line.timestamp, 27)}, "
                                       f"expected {_ascii(self.timestamp, 27)} or later")
        _hash(self.preimage, &line, n, digest)
        hex_into(digest, 32, hash_text)
        if memcmp(line.event_hash, hash_text, 64) != 0:
            return self.refuse("hash", f"event_hash is {_ascii(line.event_hash, 64)}, "
                                       f"expected {_ascii(hash_text, 64)} for these fields")
        if self.events == 0:
            memcpy(self.trace_id, line.trace_id, 36)
        memcpy(self.head, hash_text, 64)
        memcpy(self.timestamp, line.timestamp, 27)
        self.sequence += 1
        self.events += 1
        self.offset += n + 1
        return 0


cdef str _ascii(const char *text, Py_ssize_t n):
    return f"`{PyUnicode_DecodeASCII(text, n, NULL)}`"


cdef str _show(const char *p, const char *end):
    """Return up to 40 bytes of the line in backticks, with everything unprintable escaped."""
    if p == end:
        return "the end of the line"
    cdef Py_ssize_t n = min(end - p, 40)
    cdef str shown = repr(PyBytes_FromStringAndSize(p, n))
    return f"`{shown[2 : len(shown) - 1]}`"


def verify(bytes data not None, int64_t start_sequence=0, str previous_head not None=ZEROS) -> Verdict:
    """Check a trace, or the part of one that begins at event `start_sequence` after the hash `previous_head`."""
    cdef Verifier verifier = Verifier(start_sequence, previous_head)
    verifier.feed(data)
    return verifier.finish()
