"""Numbers as canonical text, for other compiled modules."""

from libc.stdint cimport uint64_t

# Write the decimal digits at `out`, at most 20; return how many.
cdef Py_ssize_t digits_into(uint64_t value, char *out) noexcept nogil

# Write the ECMAScript form of a finite number at `out`, at most 25 bytes; return how many.
cdef Py_ssize_t double_into(double value, char *out) except -1

# Return the digits of an int of any size, whatever Python's limit for that is.
cdef str decimal(object value)
