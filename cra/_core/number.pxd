"""Numbers, times and ids as canonical text, for other compiled modules."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

# Write the decimal digits at `out`, at most 20; return how many.
cdef Py_ssize_t digits_into(uint64_t value, char *out) noexcept nogil

# Write the ECMAScript form of a finite number at `out`, at most 25 bytes; return how many.
cdef Py_ssize_t double_into(double value, char *out) except -1

# Return the digits of an int of any size, whatever Python's limit for that is.
cdef str decimal(object value)

# Write microseconds since 1970, up to the year 9999, as `YYYY-MM-DDTHH:MM:SS.ffffffZ`: 27 characters at `out`.
cdef void timestamp_into(int64_t us, char *out) noexcept nogil

# Write a UUIDv7 of that time as 36 characters at `out`. Its 74 free bits, in `high` and the lower 62 of `low`, are
# `number` more than those of the first (RFC 9562, section 6.2, method 2).
cdef void id_into(int64_t now_us, uint64_t high, uint64_t low, uint32_t number, char *out) noexcept nogil
