"""The digest for other compiled modules; one copy of the C code, so `force` holds for all of them."""

from libc.stdint cimport uint8_t

cdef extern from "sha256.h" nogil:
    # What has been hashed so far; plain data, so that a copy can be continued any number of times.
    ctypedef struct cra_sha256_state:
        pass

# Hash a text that begins many messages; then finish a copy of that state with each message's rest.
cdef void sha256_begin(cra_sha256_state *state, const uint8_t *data, size_t n) noexcept nogil
cdef void sha256_finish(const cra_sha256_state *begun, const uint8_t *rest, size_t n, uint8_t *out) noexcept nogil
# End the message of `state` with `n` more bytes, at most 64, and begin the next one: together faster than apart.
cdef void sha256_end_and_begin(
    cra_sha256_state *state, const uint8_t *end, size_t n, uint8_t *out,
    const uint8_t *data, size_t size) noexcept nogil
cdef void sha256_into(const uint8_t *data, size_t n, uint8_t *out) noexcept nogil
# Write a multiple of 16 bytes as lower-case hex digits.
cdef void hex_into(const uint8_t *data, size_t n, char *out) noexcept nogil
