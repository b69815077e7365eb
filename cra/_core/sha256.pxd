"""The digest for other compiled modules; one copy of the C code, so `force` holds for all of them."""

from libc.stdint cimport uint8_t, uint32_t

cdef void sha256_into(const uint8_t *data, size_t n, uint8_t *out) noexcept nogil
cdef void sha256_start(uint32_t *h) noexcept nogil
cdef void sha256_blocks(uint32_t *h, const uint8_t *data, size_t blocks) noexcept nogil
cdef void sha256_blocks_pair(
    uint32_t *h1, const uint8_t *data1, uint32_t *h2, const uint8_t *data2, size_t blocks
) noexcept nogil
cdef void hex_into(const uint8_t *data, size_t n, char *out) noexcept nogil
