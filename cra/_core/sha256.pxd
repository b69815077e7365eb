"""The digest for other compiled modules; one copy of the C code, so `force` holds for all of them."""

from libc.stdint cimport uint8_t

cdef void sha256_into(const uint8_t *data, size_t n, uint8_t *out) noexcept nogil
cdef void hex_into(const uint8_t *data, size_t n, char *out) noexcept nogil
