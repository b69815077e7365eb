#include "sha256.h"

#if defined(__x86_64__) || defined(_M_X64)
#define X86 1
#include <immintrin.h>
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define TARGET_SHA
#else
#include <cpuid.h>
#define TARGET_SHA __attribute__((target("sha,sse4.1,ssse3")))
#endif
#endif

/* NOTE: clang before 16 declares the Armv8 intrinsics only when the whole file is compiled for them. */
#if defined(__aarch64__) || defined(_M_ARM64)
#if defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO) || defined(_MSC_VER) || !defined(__clang__) || \
    __clang_major__ >= 16
#define ARMV8 1
#include <arm_neon.h>
#if defined(_MSC_VER) && !defined(__clang__)
#define TARGET_ARM
#elif defined(__clang__)
#define TARGET_ARM __attribute__((target("sha2")))
#else
#define TARGET_ARM __attribute__((target("+crypto")))
#endif
#if defined(_WIN32)
#include <windows.h>
#elif defined(__linux__) && __STDC_HOSTED__
#include <sys/auxv.h>
#endif
#endif
#endif

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define ROTR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

static void blocks_portable(uint32_t h[8], const uint8_t *p, size_t blocks)
{
    uint32_t w[64];
    for (; blocks; blocks--, p += 64) {
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = ROTR(w[i - 15], 7) ^ ROTR(w[i - 15], 18) ^ (w[i - 15] >> 3);
            uint32_t s1 = ROTR(w[i - 2], 17) ^ ROTR(w[i - 2], 19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = k + (ROTR(e, 6) ^ ROTR(e, 11) ^ ROTR(e, 25)) + (g ^ (e & (f ^ g))) + K[i] + w[i];
            uint32_t t2 = (ROTR(a, 2) ^ ROTR(a, 13) ^ ROTR(a, 22)) + ((a & b) | (c & (a | b)));
            k = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += k;
    }
}

#ifdef X86
/* The instructions keep the state as ABEF and CDGH; a message is four vectors of four words, written M0..M3 in the
   order of use. Four rounds a step; steps 3..14 also finish the next four words, steps 1..12 begin those after. */
#define X86_LOAD(S0, S1, h)                                                                    \
    do {                                                                                       \
        __m128i t_ = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(h)), 0xB1); \
        S1 = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)((h) + 4)), 0x1B);   \
        S0 = _mm_alignr_epi8(t_, S1, 8);                                                       \
        S1 = _mm_blend_epi16(S1, t_, 0xF0);                                                    \
    } while (0)
#define X86_STORE(S0, S1, h)                                                                   \
    do {                                                                                       \
        __m128i t_ = _mm_shuffle_epi32(S0, 0x1B);                                              \
        S1 = _mm_shuffle_epi32(S1, 0xB1);                                                      \
        _mm_storeu_si128((__m128i *)(void *)(h), _mm_blend_epi16(t_, S1, 0xF0));               \
        _mm_storeu_si128((__m128i *)(void *)((h) + 4), _mm_alignr_epi8(S1, t_, 8));            \
    } while (0)
#define X86_WORDS(p, i) \
    _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)((p) + 16 * (i))), swap)
#define X86_K(i) _mm_loadu_si128((const __m128i *)(const void *)(K + 4 * (i)))
#define X86_FINISH(M0, M1, M3) M1 = _mm_sha256msg2_epu32(_mm_add_epi32(M1, _mm_alignr_epi8(M0, M3, 4)), M0)
#define X86_BEGIN(M0, M3) M3 = _mm_sha256msg1_epu32(M3, M0)
#define X86_NOTHING ((void)0)
#define X86_STEP(i, S0, S1, M0, FINISH, BEGIN)                   \
    do {                                                         \
        __m128i k_ = _mm_add_epi32(M0, X86_K(i));                \
        S1 = _mm_sha256rnds2_epu32(S1, S0, k_);                  \
        FINISH;                                                  \
        S0 = _mm_sha256rnds2_epu32(S0, S1, _mm_shuffle_epi32(k_, 0x0E)); \
        BEGIN;                                                   \
    } while (0)
#define X86_MIDDLE(i, S0, S1, M0, M1, M3) X86_STEP(i, S0, S1, M0, X86_FINISH(M0, M1, M3), X86_BEGIN(M0, M3))
#define X86_STEPS(X)                                                                             \
    X(0, 0, 1, 3) X(1, 1, 2, 0) X(2, 2, 3, 1) X(3, 3, 0, 2) X(4, 0, 1, 3) X(5, 1, 2, 0) X(6, 2, 3, 1) X(7, 3, 0, 2) \
    X(8, 0, 1, 3) X(9, 1, 2, 0) X(10, 2, 3, 1) X(11, 3, 0, 2) X(12, 0, 1, 3) X(13, 1, 2, 0) X(14, 2, 3, 1) X(15, 3, 0, 2)

TARGET_SHA static void blocks_x86(uint32_t h[8], const uint8_t *p, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i s0, s1, m[4];
    X86_LOAD(s0, s1, h);
    for (; blocks; blocks--, p += 64) {
        const __m128i old0 = s0, old1 = s1;
        m[0] = X86_WORDS(p, 0), m[1] = X86_WORDS(p, 1), m[2] = X86_WORDS(p, 2), m[3] = X86_WORDS(p, 3);
#define ONE(i, a, b, d)                                                                  \
    X86_STEP(i, s0, s1, m[a], if (i >= 3 && i < 15) X86_FINISH(m[a], m[b], m[d]),        \
             if (i >= 1 && i < 13) X86_BEGIN(m[a], m[d]));
        X86_STEPS(ONE)
        s0 = _mm_add_epi32(s0, old0);
        s1 = _mm_add_epi32(s1, old1);
    }
    X86_STORE(s0, s1, h);
}

/* PERF: each round waits for the one before it; those of another message fit in between. Two blocks take a third more
   time than one. */
TARGET_SHA static void pairs_x86(uint32_t h[8], const uint8_t *p, uint32_t g[8], const uint8_t *q, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i s0, s1, m[4], t0, t1, n[4];
    X86_LOAD(s0, s1, h);
    X86_LOAD(t0, t1, g);
    for (; blocks; blocks--, p += 64, q += 64) {
        const __m128i olds0 = s0, olds1 = s1, oldt0 = t0, oldt1 = t1;
        m[0] = X86_WORDS(p, 0), m[1] = X86_WORDS(p, 1), m[2] = X86_WORDS(p, 2), m[3] = X86_WORDS(p, 3);
        n[0] = X86_WORDS(q, 0), n[1] = X86_WORDS(q, 1), n[2] = X86_WORDS(q, 2), n[3] = X86_WORDS(q, 3);
#define BOTH(i, a, b, d)                                                                 \
    ONE(i, a, b, d)                                                                      \
    X86_STEP(i, t0, t1, n[a], if (i >= 3 && i < 15) X86_FINISH(n[a], n[b], n[d]),        \
             if (i >= 1 && i < 13) X86_BEGIN(n[a], n[d]));
        X86_STEPS(BOTH)
        s0 = _mm_add_epi32(s0, olds0);
        s1 = _mm_add_epi32(s1, olds1);
        t0 = _mm_add_epi32(t0, oldt0);
        t1 = _mm_add_epi32(t1, oldt1);
    }
    X86_STORE(s0, s1, h);
    X86_STORE(t0, t1, g);
}

static int have_x86(void)
{
    unsigned leaf1[4], leaf7[4];
#if defined(_MSC_VER) && !defined(__clang__)
    __cpuid((int *)leaf1, 0);
    if (leaf1[0] < 7)
        return 0;
    __cpuid((int *)leaf1, 1);
    __cpuidex((int *)leaf7, 7, 0);
#else
    if (!__get_cpuid(1, &leaf1[0], &leaf1[1], &leaf1[2], &leaf1[3]) ||
        !__get_cpuid_count(7, 0, &leaf7[0], &leaf7[1], &leaf7[2], &leaf7[3]))
        return 0;
#endif
    return (leaf1[2] >> 9 & 1) && (leaf1[2] >> 19 & 1) && (leaf7[1] >> 29 & 1); /* ssse3, sse4.1, sha */
}
#endif

#ifdef ARMV8
TARGET_ARM static void blocks_armv8(uint32_t h[8], const uint8_t *p, size_t blocks)
{
    uint32x4_t s0 = vld1q_u32(h), s1 = vld1q_u32(h + 4), m[4];
    for (; blocks; blocks--, p += 64) {
        const uint32x4_t old0 = s0, old1 = s1;
        for (int i = 0; i < 4; i++)
            m[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
        for (int i = 0; i < 16; i++) {
            const uint32x4_t k = vaddq_u32(m[i & 3], vld1q_u32(K + 4 * i)), before = s0;
            if (i < 12)
                m[i & 3] = vsha256su1q_u32(vsha256su0q_u32(m[i & 3], m[(i + 1) & 3]), m[(i + 2) & 3], m[(i + 3) & 3]);
            s0 = vsha256hq_u32(s0, s1, k);
            s1 = vsha256h2q_u32(s1, before, k);
        }
        s0 = vaddq_u32(s0, old0);
        s1 = vaddq_u32(s1, old1);
    }
    vst1q_u32(h, s0);
    vst1q_u32(h + 4, s1);
}

static int have_armv8(void)
{
#if defined(__APPLE__)
    return 1;
#elif defined(_WIN32)
    return IsProcessorFeaturePresent(30) != 0; /* PF_ARM_V8_CRYPTO_INSTRUCTIONS_AVAILABLE */
#elif defined(__linux__) && __STDC_HOSTED__
    return (getauxval(16) >> 6 & 1) != 0; /* AT_HWCAP, HWCAP_SHA2 */
#elif defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)
    return 1;
#else
    return 0;
#endif
}
#endif

static int selected;

int cra_sha256_select(int wanted)
{
    int best = CRA_SHA256_PORTABLE;
#if defined(X86)
    if (have_x86())
        best = CRA_SHA256_X86;
#elif defined(ARMV8)
    if (have_armv8())
        best = CRA_SHA256_ARMV8;
#endif
    return selected = wanted == CRA_SHA256_PORTABLE ? CRA_SHA256_PORTABLE : best;
}

int cra_sha256_selected(void)
{
    return selected ? selected : cra_sha256_select(CRA_SHA256_BEST);
}

static void start(uint32_t h[8])
{
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (int i = 0; i < 8; i++)
        h[i] = first[i];
}

static void fold(uint32_t h[8], const uint8_t *data, size_t blocks)
{
    switch (cra_sha256_selected()) {
#ifdef X86
    case CRA_SHA256_X86:
        blocks_x86(h, data, blocks);
        return;
#endif
#ifdef ARMV8
    case CRA_SHA256_ARMV8:
        blocks_armv8(h, data, blocks);
        return;
#endif
    default:
        blocks_portable(h, data, blocks);
    }
}

#if defined(_MSC_VER) && !defined(__clang__)
#include <string.h>
#define COPY8(to, from) memcpy(to, from, 8) /* always inline */
#else
#define COPY8(to, from) __builtin_memcpy(to, from, 8)
#endif

/* PERF: the end of a short text takes as long as a block, so bytes go eight at a time where they can. */
static void copy(uint8_t *to, const uint8_t *from, size_t n)
{
    for (; n >= 8; n -= 8, to += 8, from += 8)
        COPY8(to, from);
    for (; n; n--)
        *to++ = *from++;
}

static void put32(uint8_t *out, uint32_t word)
{
    out[0] = (uint8_t)(word >> 24), out[1] = (uint8_t)(word >> 16), out[2] = (uint8_t)(word >> 8), out[3] = (uint8_t)word;
}

/* Pad the last `n` bytes of a message of `length` bytes in place; return how many blocks they are then. */
static size_t pad(uint8_t *last, size_t n, uint64_t length)
{
    const size_t size = (n + 9 + 63) / 64 * 64;
    last[n] = 0x80;
    for (size_t i = n + 1; i < size - 8; i++)
        last[i] = 0;
    put32(last + size - 8, (uint32_t)(length >> 29));
    put32(last + size - 4, (uint32_t)(length << 3));
    return size / 64;
}

static void write_digest(const uint32_t h[8], uint8_t out[32])
{
    for (int i = 0; i < 8; i++)
        put32(out + 4 * i, h[i]);
}

/* Fold in the last `n` < 64 bytes of a message of `length` bytes and write the digest. */
static void finish(uint32_t h[8], const uint8_t *rest, size_t n, uint64_t length, uint8_t out[32])
{
    uint8_t last[128];
    copy(last, rest, n);
    fold(h, last, pad(last, n, length));
    write_digest(h, out);
}

void cra_sha256(const uint8_t *data, size_t n, uint8_t out[32])
{
    uint32_t h[8];
    start(h);
    fold(h, data, n / 64);
    finish(h, data + (n & ~(size_t)63), n % 64, n, out);
}

void cra_sha256_init(cra_sha256_state *state)
{
    start(state->h);
    state->length = 0;
}

void cra_sha256_update(cra_sha256_state *state, const uint8_t *data, size_t n)
{
    size_t held = (size_t)(state->length % 64);
    state->length += n;
    if (held) {
        for (; n && held < 64; n--)
            state->block[held++] = *data++;
        if (held < 64)
            return;
        fold(state->h, state->block, 1);
    }
    fold(state->h, data, n / 64);
    data += n & ~(size_t)63;
    copy(state->block, data, n % 64);
}

void cra_sha256_final(cra_sha256_state *state, uint8_t out[32])
{
    finish(state->h, state->block, (size_t)(state->length % 64), state->length, out);
}

void cra_sha256_final_and_begin(cra_sha256_state *state, const uint8_t *end, size_t n, uint8_t out[32],
                                cra_sha256_state *next, const uint8_t *data, size_t size)
{
    const size_t held = (size_t)(state->length % 64), rest = size % 64;
    size_t blocks, others = size / 64;
    uint8_t last[192];
    const uint8_t *p = last;
    copy(last, state->block, held);
    copy(last + held, end, n);
    blocks = pad(last, held + n, state->length + n);
    cra_sha256_init(next);
    next->length = size;
    copy(next->block, data + size - rest, rest);
#ifdef X86
    if (cra_sha256_selected() == CRA_SHA256_X86) {
        const size_t both = blocks < others ? blocks : others;
        pairs_x86(state->h, p, next->h, data, both);
        p += 64 * both, blocks -= both;
        data += 64 * both, others -= both;
    }
#endif
    fold(state->h, p, blocks);
    fold(next->h, data, others);
    write_digest(state->h, out);
}

void cra_hex(const uint8_t *data, size_t n, char *out)
{
#ifdef X86
    /* PERF: a call writes some twenty ids and digests; SSE2, which every such processor has, does 16 bytes at a time. */
    const __m128i low = _mm_set1_epi8(15), nine = _mm_set1_epi8(9), zero = _mm_set1_epi8('0');
    const __m128i letters = _mm_set1_epi8('a' - 10 - '0');
    for (size_t i = 0; i < n; i += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(data + i));
        __m128i a = _mm_and_si128(_mm_srli_epi16(bytes, 4), low), b = _mm_and_si128(bytes, low);
        a = _mm_add_epi8(_mm_add_epi8(a, zero), _mm_and_si128(_mm_cmpgt_epi8(a, nine), letters));
        b = _mm_add_epi8(_mm_add_epi8(b, zero), _mm_and_si128(_mm_cmpgt_epi8(b, nine), letters));
        _mm_storeu_si128((__m128i *)(void *)(out + 2 * i), _mm_unpacklo_epi8(a, b));
        _mm_storeu_si128((__m128i *)(void *)(out + 2 * i + 16), _mm_unpackhi_epi8(a, b));
    }
#else
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
#endif
}
