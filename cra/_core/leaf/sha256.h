/* SHA-256 (FIPS 180-4) in plain C: no Python.h, no libc; the same file serves WebAssembly and C users. */
#ifndef CRA_SHA256_H
#define CRA_SHA256_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CRA_SHA256_BEST = 0, CRA_SHA256_PORTABLE = 1, CRA_SHA256_X86 = 2, CRA_SHA256_ARMV8 = 3 };

typedef struct {
    uint32_t h[8];
    uint64_t length;
    uint8_t block[64];
} cra_sha256_state;

/* Choose an implementation for all later calls; returns what is now in use, which differs from `wanted` when this
   machine lacks it. Not thread-safe: call it before the first hash, or never (the first hash chooses the best). */
int cra_sha256_select(int wanted);
int cra_sha256_selected(void);

void cra_sha256(const uint8_t *data, size_t n, uint8_t out[32]);

void cra_sha256_init(cra_sha256_state *state);
void cra_sha256_update(cra_sha256_state *state, const uint8_t *data, size_t n);
void cra_sha256_final(cra_sha256_state *state, uint8_t out[32]);

/* End a message with `n` more bytes, at most 64, and begin the next one: both together, which on x86 takes little longer
   than the longer of them alone. */
void cra_sha256_final_and_begin(cra_sha256_state *state, const uint8_t *end, size_t n, uint8_t out[32],
                                cra_sha256_state *next, const uint8_t *data, size_t size);

/* Write `n` bytes, a multiple of 16, as 2 * n lower-case hex digits. */
void cra_hex(const uint8_t *data, size_t n, char *out);

#ifdef __cplusplus
}
#endif
#endif
