"""Canonical JSON (RFC 8785), with integers of any size written exactly."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.list cimport PyList_Check
from cpython.long cimport PyLong_Check
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.tuple cimport PyTuple_Check
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeASCII
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from cra._core.number cimport decimal, digits_into, double_into
from cra._core.sha256 cimport hex_into, sha256_into

from cra.errors import NotCanonical

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(PyObject *text, Py_ssize_t *size) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(PyObject *text)
    const char *PyUnicode_DATA(PyObject *text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *text)
    bint PyDict_Check(object value)
    void Py_INCREF(PyObject *value)
    void Py_DECREF(PyObject *value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    # PERF: the largest that glibc hands out and takes back without looking further; then as much as a call's events.
    FIRST_CAPACITY = 1024 - 8
    NEXT_CAPACITY = 4096 - 8
    FIRST_MEMBERS = 32

cdef object _TEN = 10
cdef const char *_HEX = "0123456789abcdef"


# Where the writer stands, from the value outwards; read only to build the pointer of an error.
cdef struct Place:
    const Place *parent
    PyObject *name  # the key in an object, or NULL in an array
    Py_ssize_t index
    int depth


@cython.final
@cython.freelist(8)
cdef class Buffer:
    """Own a growing run of bytes, and the scratch space for sorting members."""

    def __cinit__(self):
        self.data = <char *> PyMem_Malloc(FIRST_CAPACITY)
        if self.data == NULL:
            raise MemoryError
        self.capacity = FIRST_CAPACITY

    def __dealloc__(self):
        PyMem_Free(self.data)
        PyMem_Free(self.members)

    cdef int grow(self, Py_ssize_t extra) except -1:
        if extra > PY_SSIZE_T_MAX // 2 - self.size:
            raise MemoryError
        cdef Py_ssize_t capacity = max(2 * self.capacity, self.size + extra, <Py_ssize_t> NEXT_CAPACITY)
        cdef char *data = <char *> PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        self.data = data
        self.capacity = capacity
        return 0

    cdef int grow_members(self, Py_ssize_t extra) except -1:
        if extra > PY_SSIZE_T_MAX // (4 * <Py_ssize_t> sizeof(Member)) - self.members_used:
            raise MemoryError
        cdef Py_ssize_t capacity = max(2 * self.members_capacity, self.members_used + extra, FIRST_MEMBERS)
        cdef Member *members = <Member *> PyMem_Realloc(self.members, capacity * sizeof(Member))
        if members == NULL:
            raise MemoryError
        self.members = members
        self.members_capacity = capacity
        return 0


cdef object _pointer(const Place *place):
    """Return the RFC 6901 pointer of `place`; what cannot be encoded is escaped, so that it can be shown."""
    cdef list parts = []
    while place.parent != NULL:
        if place.name == NULL:
            parts.append(str(place.index))
        else:
            key = str.__str__(<object> place.name)
            parts.append(key.encode("utf-8", "backslashreplace").decode().replace("~", "~0").replace("/", "~1"))
        place = place.parent
    return "".join(["/" + part for part in reversed(parts)])


cdef int _refuse(const Place *place, str message, str hint) except -1:
    raise NotCanonical(message, pointer=_pointer(place), hint=hint)


# --- text ------------------------------------------------------------------------------------------------------------


cdef inline bint _clean(uint64_t word) noexcept nogil:
    """Whether none of eight bytes needs escaping: below 0x20, `"` or `\\`. The usual zero-byte tests, a byte a lane."""
    cdef uint64_t ones = 0x0101010101010101ULL
    cdef uint64_t quote = word ^ (ones * 0x22)
    cdef uint64_t slash = word ^ (ones * 0x5C)
    cdef uint64_t found = (
        ((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)
    )
    return not (found & (ones * 0x80))


cdef inline Py_ssize_t _clean_run(const char *text, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Return where the first byte that needs escaping stands, from `start` on, or `n`."""
    cdef Py_ssize_t i = start
    cdef uint8_t c
    while n - i >= 8 and _clean(load_word(text + i)):
        i += 8
    while i < n:
        c = <uint8_t> text[i]
        if c < 0x20 or c == c'"' or c == c"\\":
            break
        i += 1
    return i


cdef int _write_text(Buffer buf, const char *text, Py_ssize_t n) except -1:
    """Write valid UTF-8 as a JSON string."""
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end = _clean_run(text, 0, n)
    cdef char *out
    cdef uint8_t c
    reserve(buf, n + 8)
    buf.data[buf.size] = c'"'
    buf.size += 1
    while True:
        reserve(buf, end - start + 7)
        out = buf.data + buf.size
        memcpy(out, text + start, end - start)
        out += end - start
        buf.size += end - start
        if end == n:
            break
        c = <uint8_t> text[end]
        out[0] = c"\\"
        if c == c'"' or c == c"\\":
            out[1] = c
            buf.size += 2
        elif c == 8 or c == 9 or c == 10 or c == 12 or c == 13:
            out[1] = c"b" if c == 8 else c"t" if c == 9 else c"n" if c == 10 else c"f" if c == 12 else c"r"
            buf.size += 2
        else:
            memcpy(out + 1, b"u00", 3)
            out[4] = _HEX[c >> 4]
            out[5] = _HEX[c & 15]
            buf.size += 6
        start = end + 1
        end = _clean_run(text, start, n)
    out[0] = c'"'
    buf.size += 1
    return 0


cdef inline const char *_utf8(PyObject *text, Py_ssize_t *size, const Place *place) except NULL:
    if PyUnicode_IS_COMPACT_ASCII(text):
        size[0] = PyUnicode_GET_LENGTH(text)
        return PyUnicode_DATA(text)
    return _encoded(text, size, place)


cdef const char *_encoded(PyObject *text, Py_ssize_t *size, const Place *place) except NULL:
    try:
        return PyUnicode_AsUTF8AndSize(text, size)
    except UnicodeEncodeError as error:
        _refuse(place, f"text has a lone surrogate at index {error.start}, expected valid Unicode",
                "replace the surrogate or send the bytes in another encoding")


cdef int write_integer(Buffer buf, int64_t value) except -1:
    reserve(buf, 21)
    cdef uint64_t size = <uint64_t> value
    if value < 0:
        buf.data[buf.size] = c"-"
        buf.size += 1
        size = 0 - size
    buf.size += digits_into(size, buf.data + buf.size)
    return 0


cdef int _write_int(Buffer buf, object value) except -1:
    cdef int overflow = 0
    cdef long long small = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef bytes text
    if not overflow:
        return write_integer(buf, small)
    text = decimal(int.__int__(value)).encode()
    return put(buf, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef int write_float(Buffer buf, double value) except -1:
    reserve(buf, 32)
    buf.size += double_into(value, buf.data + buf.size)
    return 0


# --- objects ---------------------------------------------------------------------------------------------------------


cdef int compare_keys(const char *a, Py_ssize_t na, const char *b, Py_ssize_t nb) noexcept nogil:
    """Compare UTF-8 texts as UTF-16.

    The two orders differ only where U+E000..U+FFFF (lead bytes EE, EF) meets what UTF-16 writes as surrogates (F0..F4).
    """
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t n = na if na < nb else nb
    cdef int x, y
    while n - i >= 8 and load_word(a + i) == load_word(b + i):
        i += 8
    while i < n:
        x = <uint8_t> a[i]
        y = <uint8_t> b[i]
        if x != y:
            if x >= 0xEE and y >= 0xEE:
                x += 16 if x < 0xF0 else 0
                y += 16 if y < 0xF0 else 0
            return x - y
        i += 1
    return -1 if na < nb else na > nb


cdef inline uint64_t _prefix(const char *key, Py_ssize_t n) noexcept nogil:
    """Return the first eight bytes as a number that sorts as `compare_keys` does."""
    cdef const uint8_t *k = <const uint8_t *> key
    cdef uint64_t prefix = 0
    cdef uint8_t c
    cdef int i
    if n >= 8 and plain_ascii(load_word(key)):  # PERF: one load and one byte swap
        return (
            <uint64_t> k[0] << 56 | <uint64_t> k[1] << 48 | <uint64_t> k[2] << 40 | <uint64_t> k[3] << 32
            | <uint64_t> k[4] << 24 | <uint64_t> k[5] << 16 | <uint64_t> k[6] << 8 | k[7]
        )
    for i in range(8):
        c = <uint8_t> key[i] if i < n else 0
        if c >= 0xEE:
            c = c + 16 if c < 0xF0 else c - 2
        prefix = prefix << 8 | c
    return prefix


cdef inline bint _before(const Member *a, const Member *b) noexcept nogil:
    if a.prefix != b.prefix:
        return a.prefix < b.prefix
    return compare_keys(a.key, a.size, b.key, b.size) < 0


cdef void _insertion_sort(Member *members, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef Member held
    for i in range(1, n):
        if not _before(&members[i], &members[i - 1]):
            continue
        held = members[i]
        j = i
        while j > 0 and _before(&held, &members[j - 1]):
            members[j] = members[j - 1]
            j -= 1
        members[j] = held


cdef void _merge_sort(Member *members, Member *spare, Py_ssize_t n) noexcept nogil:
    """Sort `n` members; `spare` has room for as many."""
    if n <= 24:
        _insertion_sort(members, n)
        return
    cdef Py_ssize_t half = n // 2
    cdef Py_ssize_t i = 0, j = half, k = 0
    _merge_sort(members, spare, half)
    _merge_sort(members + half, spare, n - half)
    memcpy(spare, members, half * sizeof(Member))
    while i < half:
        if j < n and _before(&members[j], &spare[i]):
            members[k] = members[j]
            j += 1
        else:
            members[k] = spare[i]
            i += 1
        k += 1


cdef Py_ssize_t _collect(Buffer buf, dict value, const Place *place) except -1:
    """Push the members of `value`, with strong references, and return how many."""
    cdef Py_ssize_t n = 0, at = 0, size = 0
    cdef Py_ssize_t base = buf.members_used
    cdef PyObject *name = NULL
    cdef PyObject *item = NULL
    cdef const char *key
    cdef Member *member
    while PyDict_Next(value, &at, &name, &item):
        if not PyUnicode_Check(<object> name):
            _refuse(place, f"object key has type `{type(<object> name).__name__}`, expected text",
                    "convert the keys to text first")
        key = _utf8(name, &size, place)
        if buf.members_used == buf.members_capacity:
            buf.grow_members(max(PyDict_Size(value) - n, 1))
        member = &buf.members[buf.members_used]
        member.prefix = _prefix(key, size)
        member.key = key
        member.size = size
        member.name = name
        member.value = item
        Py_INCREF(name)
        Py_INCREF(item)
        buf.members_used += 1
        n += 1
    if n > 24:
        if buf.members_capacity - buf.members_used < n:
            buf.grow_members(n)
        _merge_sort(&buf.members[base], &buf.members[base + n], n)
    else:
        _insertion_sort(&buf.members[base], n)
    return n


cdef int _release(Buffer buf, Py_ssize_t base) except -1:
    """Drop the members from `base` on."""
    while buf.members_used > base:
        buf.members_used -= 1
        Py_DECREF(buf.members[buf.members_used].name)
        Py_DECREF(buf.members[buf.members_used].value)
    return 0


cdef int _write_members(Buffer buf, Py_ssize_t base, Py_ssize_t n, Place *here) except -1:
    cdef Py_ssize_t i
    cdef Member member
    for i in range(base, base + n):
        member = buf.members[i]  # a copy: writing the value may move the array
        here.name = member.name
        if i > base:
            reserve(buf, 1)
            buf.data[buf.size] = c","
            buf.size += 1
            if (
                member.prefix == buf.members[i - 1].prefix
                and compare_keys(member.key, member.size, buf.members[i - 1].key, buf.members[i - 1].size) == 0
            ):
                _refuse(here, "object has this key twice", "keys must differ as text, not only as Python objects")
        _write_text(buf, member.key, member.size)
        reserve(buf, 1)
        buf.data[buf.size] = c":"
        buf.size += 1
        _write(buf, member.value, here)
    return 0


cdef int _write_dict(Buffer buf, dict value, const Place *place) except -1:
    cdef Py_ssize_t base = buf.members_used
    cdef Py_ssize_t n
    cdef Place here
    here.parent = place
    here.index = 0
    here.depth = place.depth + 1
    reserve(buf, 2)
    buf.data[buf.size] = c"{"
    buf.size += 1
    try:
        with cython.critical_section(value):
            n = _collect(buf, value, place)
        _write_members(buf, base, n, &here)
    finally:
        _release(buf, base)
    reserve(buf, 1)
    buf.data[buf.size] = c"}"
    buf.size += 1
    return 0


cdef int _write_sequence(Buffer buf, object value, const Place *place) except -1:
    cdef Place here
    here.parent = place
    here.name = NULL
    here.index = 0
    here.depth = place.depth + 1
    reserve(buf, 2)
    buf.data[buf.size] = c"["
    buf.size += 1
    if PyList_Check(value):
        for item in <list> value:
            if here.index:
                put(buf, b",", 1)
            _write(buf, <PyObject *> item, &here)
            here.index += 1
    else:
        for item in <tuple> value:
            if here.index:
                put(buf, b",", 1)
            _write(buf, <PyObject *> item, &here)
            here.index += 1
    put(buf, b"]", 1)
    return 0


cdef int _write(Buffer buf, PyObject *pointer, const Place *place) except -1:
    cdef object value = <object> pointer
    cdef double number
    cdef Py_ssize_t size = 0
    cdef const char *text
    if PyUnicode_Check(value):
        text = _utf8(pointer, &size, place)
        return _write_text(buf, text, size)
    if value is True:
        return put(buf, b"true", 4)
    if value is False:
        return put(buf, b"false", 5)
    if value is None:
        return put(buf, b"null", 4)
    if PyLong_Check(value):
        return _write_int(buf, value)
    if PyFloat_Check(value):
        number = PyFloat_AS_DOUBLE(value)
        if not isfinite(number):
            _refuse(place, f"number is `{number}`, expected a finite number", "write null or text instead")
        return write_float(buf, number)
    if not (PyDict_Check(value) or PyList_Check(value) or PyTuple_Check(value)):
        _refuse(place, f"value has type `{type(value).__name__}`, expected a JSON value",
                "convert it to a JSON type first")
    if place.depth == MAX_DEPTH:
        _refuse(place, "value is nested more than 128 deep", "flatten the value")
    if PyDict_Check(value):
        return _write_dict(buf, <dict> value, place)
    return _write_sequence(buf, value, place)


cdef int write_value(Buffer buf, object value) except -1:
    """Append the canonical form of `value`; after an error the buffer holds a part of it."""
    cdef Place root
    root.parent = NULL
    root.name = NULL
    root.index = 0
    root.depth = 0
    return _write(buf, <PyObject *> value, &root)


cdef int write_string(Buffer buf, str text) except -1:
    """Append `text` as a JSON string."""
    cdef Place root
    root.parent = NULL
    root.name = NULL
    root.index = 0
    root.depth = 0
    cdef Py_ssize_t size = 0
    cdef const char *data = _utf8(<PyObject *> text, &size, &root)
    return _write_text(buf, data, size)


def dumps(value: object) -> bytes:
    """Return the canonical JSON of `value`: None, bool, int, float, str, dict, list, tuple, and subclasses of these.

    Raise `NotCanonical` with the JSON pointer of the place for anything else, NaN and infinities, lone surrogates, keys
    that are not text, and more than 128 levels.
    """
    cdef Buffer buf = Buffer.__new__(Buffer)
    write_value(buf, value)
    return PyBytes_FromStringAndSize(buf.data, buf.size)


def digest(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, as 64 lower-case hex digits."""
    cdef Buffer buf = Buffer.__new__(Buffer)
    cdef uint8_t out[32]
    cdef char text[64]
    write_value(buf, value)
    sha256_into(<const uint8_t *> buf.data, buf.size, out)
    hex_into(out, 32, text)
    return PyUnicode_DecodeASCII(text, 64, NULL)
