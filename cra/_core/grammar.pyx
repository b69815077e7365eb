"""The grammar of a TRACE line: one form for every field, canonical JSON for the payload."""

from cpython.object cimport PyObject
from libc.math cimport isfinite
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, strlen

from cra._core.canonical cimport MAX_DEPTH, compare_keys, load_word, plain_ascii
from cra._core.number cimport double_into

from cra.errors import InvalidInput

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *size) except NULL
    bint PyUnicode_IS_ASCII(str text)
    double PyOS_string_to_double(const char *text, char **end, PyObject *overflow) except? -1.0

cdef enum:
    EVENT_TYPE_MAX = 64


cdef inline bint _is_hex(uint8_t c) noexcept nogil:
    return c"0" <= c <= c"9" or c"a" <= c <= c"f"


cdef bint is_uuid(const char *p) noexcept nogil:
    """Whether 36 characters are a lower-case UUID."""
    cdef int i
    for i in range(36):
        if i == 8 or i == 13 or i == 18 or i == 23:
            if p[i] != c"-":
                return False
        elif not _is_hex(p[i]):
            return False
    return True


cdef bint is_digest(const char *p) noexcept nogil:
    """Whether 64 characters are lower-case hex digits."""
    cdef int i
    for i in range(64):
        if not _is_hex(p[i]):
            return False
    return True


cdef bint is_event_type(const char *p, Py_ssize_t n) noexcept nogil:
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


cdef const char *uuid_text(str text, str name) except NULL:
    cdef Py_ssize_t n = 0
    if not PyUnicode_IS_ASCII(text):
        raise InvalidInput(f"{name} is `{ascii(text)}`, expected a lower-case UUID of 36 characters")
    cdef const char *p = PyUnicode_AsUTF8AndSize(text, &n)
    if n != 36 or not is_uuid(p):
        raise InvalidInput(f"{name} is `{text}`, expected a lower-case UUID of 36 characters")
    return p


cdef const char *digest_text(str text, str name) except NULL:
    cdef Py_ssize_t n = 0
    if not PyUnicode_IS_ASCII(text):
        raise InvalidInput(f"{name} is `{ascii(text)}`, expected 64 lower-case hex digits")
    cdef const char *p = PyUnicode_AsUTF8AndSize(text, &n)
    if n != 64 or not is_digest(p):
        raise InvalidInput(f"{name} is `{text}`, expected 64 lower-case hex digits")
    return p


cdef const char *event_type_text(str event_type, Py_ssize_t *n) except NULL:
    cdef const char *text = PyUnicode_AsUTF8AndSize(event_type, n)
    if not is_event_type(text, n[0]):
        raise ValueError(f"event type is {event_type!a}, expected `word.word` in lower case, at most 64 characters")
    return text


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
    if s.end - s.p < 36 or not is_uuid(s.p):
        return _fail(s, s.p, b"a lower-case UUID of 36 characters")
    start[0] = s.p
    s.p += 36
    return True


cdef bint _digest(Scan *s, const char **start) noexcept nogil:
    if s.end - s.p < 64 or not is_digest(s.p):
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
    if p[4] != c"-" or p[7] != c"-" or p[10] != c"T" or p[13] != c":" or p[16] != c":":
        return False
    if month == 4 or month == 6 or month == 9 or month == 11:
        days = 30
    elif month == 2:
        days = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return (
        p[19] == c"."
        and p[26] == c"Z"
        and year >= 1
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


cdef bint parse_line(Scan *s, Line *line) except -1:
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
    if not is_event_type(line.event_type, line.event_type_size):
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
