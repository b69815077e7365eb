"""SHA-256 with the processor's own instructions where it has them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t

cdef extern from "sha256.h" nogil:
    enum:
        CRA_SHA256_BEST
        CRA_SHA256_PORTABLE
        CRA_SHA256_X86
        CRA_SHA256_ARMV8
    int cra_sha256_select(int wanted)
    int cra_sha256_selected()
    void cra_sha256(const uint8_t *data, size_t n, uint8_t *out)
    void cra_sha256_init(cra_sha256_state *state)
    void cra_sha256_update(cra_sha256_state *state, const uint8_t *data, size_t n)
    void cra_sha256_final(cra_sha256_state *state, uint8_t *out)
    void cra_sha256_final_and_begin(
        cra_sha256_state *state, const uint8_t *end, size_t n, uint8_t *out, cra_sha256_state *next,
        const uint8_t *data, size_t size)
    void cra_hex(const uint8_t *data, size_t n, char *out)

cdef dict _NAMES = {"best": CRA_SHA256_BEST, "portable": CRA_SHA256_PORTABLE, "x86-sha": CRA_SHA256_X86,
                    "armv8": CRA_SHA256_ARMV8}

# Chosen once, while the import lock holds, so that no two threads ever choose at the same time.
cra_sha256_select(CRA_SHA256_BEST)


cdef void sha256_into(const uint8_t *data, size_t n, uint8_t *out) noexcept nogil:
    cra_sha256(data, n, out)


cdef void sha256_begin(cra_sha256_state *state, const uint8_t *data, size_t n) noexcept nogil:
    cra_sha256_init(state)
    cra_sha256_update(state, data, n)


cdef void sha256_finish(const cra_sha256_state *begun, const uint8_t *rest, size_t n, uint8_t *out) noexcept nogil:
    cdef cra_sha256_state state = begun[0]
    cra_sha256_update(&state, rest, n)
    cra_sha256_final(&state, out)


cdef void sha256_end_and_begin(
    cra_sha256_state *state, const uint8_t *end, size_t n, uint8_t *out, const uint8_t *data, size_t size
) noexcept nogil:
    cdef cra_sha256_state ended = state[0]
    cra_sha256_final_and_begin(&ended, end, n, out, state, data, size)


cdef void hex_into(const uint8_t *data, size_t n, char *out) noexcept nogil:
    cra_hex(data, n, out)


def sha256(bytes data not None) -> bytes:
    """Return the 32-byte digest of `data`."""
    cdef uint8_t out[32]
    cra_sha256(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), out)
    return PyBytes_FromStringAndSize(<char *> out, 32)


def hexdigest(bytes data not None) -> str:
    """Return the digest of `data` as 64 lower-case hex digits."""
    cdef uint8_t out[32]
    cdef char text[64]
    cra_sha256(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), out)
    hex_into(out, 32, text)
    return PyUnicode_DecodeASCII(text, 64, NULL)


def implementation() -> str:
    """Return the code path in use: `x86-sha`, `armv8` or `portable`."""
    cdef int used = cra_sha256_selected()
    return "x86-sha" if used == CRA_SHA256_X86 else "armv8" if used == CRA_SHA256_ARMV8 else "portable"


def force(str name not None) -> None:
    """Use the code path `name` from now on, in every module of the core; `best` undoes it. For tests, one thread only.

    Raise `ValueError` when the name is unknown or this machine lacks the instructions.
    """
    wanted = _NAMES.get(name)
    if wanted is None:
        raise ValueError(f"code path `{name}`: expected `best`, `portable`, `x86-sha` or `armv8`")
    cdef int before = cra_sha256_selected()
    cdef int used = cra_sha256_select(wanted)
    if wanted != CRA_SHA256_BEST and used != wanted:
        cra_sha256_select(before)
        raise ValueError(f"code path `{name}`: this machine does not have it")
