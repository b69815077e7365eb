"""The growing buffer and the canonical JSON writer, for modules that write straight into it."""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, strlen

cdef enum:
    MAX_DEPTH = 128

# One member of an object that is being written: the key's UTF-8 bytes and strong references to both halves.
cdef struct Member:
    uint64_t prefix
    const char *key
    Py_ssize_t size
    PyObject *name
    PyObject *value

cdef extern from "Python.h":
    ctypedef struct PyObject


@cython.final
cdef class Buffer:
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity
    cdef Member *members
    cdef Py_ssize_t members_used
    cdef Py_ssize_t members_capacity

    cdef int grow(self, Py_ssize_t extra) except -1
    cdef int grow_members(self, Py_ssize_t extra) except -1


cdef inline int reserve(Buffer buf, Py_ssize_t extra) except -1:
    """Make room for `extra` more bytes at `buf.data + buf.size`; pointers into the buffer become invalid."""
    if extra > buf.capacity - buf.size:
        buf.grow(extra)
    return 0


cdef inline int put(Buffer buf, const char *text, Py_ssize_t n) except -1:
    """Append `n` raw bytes."""
    reserve(buf, n)
    memcpy(buf.data + buf.size, text, n)
    buf.size += n
    return 0


cdef inline int put_quoted(Buffer buf, const char *text, Py_ssize_t n) except -1:
    """Append `n` characters that need no escaping as a JSON string."""
    reserve(buf, n + 2)
    buf.data[buf.size] = buf.data[buf.size + n + 1] = c'"'
    memcpy(buf.data + buf.size + 1, text, n)
    buf.size += n + 2
    return 0


cdef inline char *copy(char *out, const char *text, Py_ssize_t n) noexcept nogil:
    """Copy `n` bytes to `out`, which has room for them, and return where they end."""
    memcpy(out, text, n)
    return out + n


cdef inline char *copy_text(char *out, const char *text) noexcept nogil:
    return copy(out, text, strlen(text))


cdef inline uint64_t load_word(const char *p) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, p, 8)
    return word


cdef inline bint plain_ascii(uint64_t word) noexcept nogil:
    """Whether eight bytes are ASCII of which none needs escaping: no control, no `"`, no `\\`, a byte a lane."""
    cdef uint64_t ones = 0x0101010101010101ULL
    cdef uint64_t quote = word ^ (ones * 0x22)
    cdef uint64_t slash = word ^ (ones * 0x5C)
    return not ((word | (word - ones * 0x20) | (quote - ones) | (slash - ones)) & (ones * 0x80))


cdef int write_value(Buffer buf, object value) except -1
cdef int write_string(Buffer buf, str text) except -1
cdef int write_integer(Buffer buf, int64_t value) except -1
cdef int write_float(Buffer buf, double value) except -1

# Orders two UTF-8 texts by their UTF-16 code units, as RFC 8785 sorts keys: negative, 0 or positive.
cdef int compare_keys(const char *a, Py_ssize_t na, const char *b, Py_ssize_t nb) noexcept nogil
