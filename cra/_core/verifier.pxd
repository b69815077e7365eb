"""The verifier's state."""

cimport cython
from libc.stdint cimport int64_t

from cra._core.canonical cimport Buffer


@cython.final
cdef class Verdict:
    cdef readonly bint ok
    cdef readonly int64_t events
    cdef readonly object index
    cdef readonly object offset
    cdef readonly str reason
    cdef readonly str message
    cdef readonly str head
    cdef readonly str session_id
    cdef readonly str trace_id


@cython.final
cdef class Verifier:
    cdef Buffer rest  # the beginning of a line whose end has not come yet
    cdef Buffer preimage
    cdef str reason
    cdef str message
    cdef Verdict verdict
    cdef int64_t sequence
    cdef int64_t events
    cdef int64_t offset
    cdef bint has_session
    cdef char head[64]
    cdef char timestamp[27]
    cdef char session_id[36]
    cdef char trace_id[36]

    cdef int refuse(self, str reason, str message) except -1
    cdef int check(self, const char *text, Py_ssize_t n) except -1
