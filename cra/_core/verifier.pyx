"""The verifier of stored traces."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy, memset

from cra._core.canonical cimport Buffer, copy, copy_text, put, reserve
from cra._core.grammar cimport Line, Scan, digest_text, parse_line, uuid_text
from cra._core.number cimport digits_into
from cra._core.sha256 cimport hex_into, sha256_into

from cra.errors import InvalidInput

cdef str ZEROS = "0" * 64


cdef int _hash(Buffer preimage, const Line *line, Py_ssize_t n, uint8_t *digest) except -1:
    """Join the fields of a line of `n` bytes, which are fewer, and hash them."""
    cdef char *out
    preimage.size = 0
    reserve(preimage, n)
    out = copy_text(preimage.data, b"1.0")
    out = copy(out, line.event_id, 36)
    out = copy(out, line.trace_id, 36)
    out = copy(out, line.span_id, 36)
    if line.parent != NULL:
        out = copy(out, line.parent, 36)
    out = copy(out, line.session_id, 36)
    out = copy(out, line.sequence, line.sequence_size)
    out = copy(out, line.timestamp, 27)
    out = copy(out, line.event_type, line.event_type_size)
    out = copy(out, line.payload, line.payload_size)
    out = copy(out, line.previous_hash, 64)
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
        memcpy(self.head, digest_text(previous_head, "previous_head"), 64)
        if session_id is not None:
            memcpy(self.session_id, uuid_text(session_id, "session_id"), 36)
            self.has_session = True
        self.sequence = start_sequence
        memset(self.timestamp, c"0", 27)

    def feed(self, bytes data not None) -> bool:
        """Take the next bytes; return whether all is well so far. What follows the first bad event is not read."""
        cdef const char *p = PyBytes_AS_STRING(data)
        cdef const char *end = p + PyBytes_GET_SIZE(data)
        cdef const char *stop
        cdef int lines = 0
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
            lines += 1
            if lines % 1024 == 0:  # about a millisecond: let other threads have their turn
                with nogil:
                    pass
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
        if not parse_line(&s, &line):
            wanted = f"`{s.expected.decode()}`" if s.exact else s.expected.decode()
            return self.refuse("grammar", f"expected {wanted} at byte {s.p - text} of the line, "
                                          f"found {_show(s.p, s.end)}")
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
