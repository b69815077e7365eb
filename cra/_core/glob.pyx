"""Glob patterns: `*`, `?` and nothing else."""

cdef extern from "glob.h" nogil:
    int cra_glob(const char *pat, size_t np, const char *text, size_t nt)

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *size) except NULL


def glob_match(str pattern not None, str text not None) -> bool:
    """Say whether all of `text` matches `pattern`.

    `*` is any run of characters, dots too; `?` is one code point; everything else, brackets too, is itself. Case
    matters. The time is linear in the text for a given pattern. Lone surrogates raise `UnicodeEncodeError`.
    """
    cdef Py_ssize_t np = 0
    cdef Py_ssize_t nt = 0
    cdef const char *p = PyUnicode_AsUTF8AndSize(pattern, &np)
    cdef const char *t = PyUnicode_AsUTF8AndSize(text, &nt)
    return cra_glob(p, np, t, nt) != 0


def matching(tuple patterns not None, list texts not None) -> list[int]:
    """Return the indexes of the texts that match one of the patterns, in their order; see `glob_match`."""
    cdef list found = []
    cdef Py_ssize_t np = 0
    cdef Py_ssize_t nt = 0
    cdef Py_ssize_t number = 0
    cdef const char *p
    cdef const char *t
    for text in texts:
        t = PyUnicode_AsUTF8AndSize(text, &nt)
        for pattern in patterns:
            p = PyUnicode_AsUTF8AndSize(pattern, &np)
            if cra_glob(p, np, t, nt):
                found.append(number)
                break
        number += 1
    return found
