/* Globs over UTF-8 in plain C: no Python.h, no libc; the same file serves WebAssembly and C users. */
#ifndef CRA_GLOB_H
#define CRA_GLOB_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the whole of `text` matches `pat`: `*` is any run of characters, `?` one code point, all else itself. */
int cra_glob(const char *pat, size_t np, const char *text, size_t nt);

#ifdef __cplusplus
}
#endif
#endif
