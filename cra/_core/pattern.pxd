cdef class Pattern:
    cdef readonly str source
    cdef int *code
    cdef int *ranges
    cdef int *sets
    cdef int size
    cdef bint anchored
    cdef int search(self, str text, long long *steps) except -1
