"""Context assembly: which blocks a goal gets, in which order, within a token budget."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_READ_CHAR, PyUnicode_GET_LENGTH
from libc.stdlib cimport qsort

cimport cython

import math


cdef struct Rank:
    long long score
    int priority
    int block


cdef int _better(const void *left, const void *right) noexcept nogil:
    cdef const Rank *a = <const Rank *> left
    cdef const Rank *b = <const Rank *> right
    if a.priority != b.priority:
        return -1 if a.priority > b.priority else 1
    if a.score != b.score:
        return -1 if a.score > b.score else 1
    return -1 if a.block < b.block else (a.block > b.block)


def words(str text not None) -> list[str]:
    """Return the casefolded runs of alphanumeric characters (`str.isalnum`), in order."""
    cdef list result = []
    cdef Py_ssize_t i, start = -1, n
    text = text.casefold()
    n = PyUnicode_GET_LENGTH(text)
    for i in range(n):
        if _is_word(PyUnicode_READ_CHAR(text, i)):
            if start < 0:
                start = i
        elif start >= 0:
            result.append(text[start:i])
            start = -1
    if start >= 0:
        result.append(text[start:])
    return result


cdef inline bint _is_word(Py_UCS4 c):
    if c < 128:
        return c >= 97 and c <= 122 or c >= 48 and c <= 57 or c >= 65 and c <= 90
    return c.isalnum()


def _weights(list documents not None) -> dict[str, list[tuple[int, int]]]:
    """Return word -> [(document, weight)]: BM25 (k1 = 1.2, b = 0.75) in integers, the idf in millionths."""
    cdef dict counts = {}
    cdef dict result = {}
    lengths = []
    for number, document in enumerate(documents):
        lengths.append(len(document))
        for word in document:
            occurrences = counts.setdefault(word, {})
            occurrences[number] = occurrences.get(number, 0) + 1
    total, size = sum(lengths), len(documents)
    for word, occurrences in counts.items():
        n = len(occurrences)
        idf = round(1_000_000 * math.log(1 + (size - n + 0.5) / (n + 0.5)))
        result[word] = [
            (number, idf * tf * 2200 * total // (1000 * tf * total + 300 * total + 900 * lengths[number] * size))
            for number, tf in occurrences.items()
        ]
    return result


@cython.final
cdef class ContextIndex:
    """The blocks of a snapshot, prepared for ranking; immutable.

    `blocks` are (atlas, pack, priority, tokens, digest, text) in manifest order, packs numbered across the
    snapshot; `pack_limits` are each pack's token limit, -1 for none.
    """
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t pack_count
    cdef int *priority
    cdef int *atlas
    cdef int *pack
    cdef long long *tokens
    cdef tuple digests
    cdef tuple pack_limits
    cdef dict postings

    def __cinit__(self, list blocks not None, list pack_limits not None):
        cdef Py_ssize_t i
        cdef dict texts = {}
        cdef dict members = {}
        self.size = len(blocks)
        self.pack_count = len(pack_limits)
        self.priority = <int *> PyMem_Malloc((self.size or 1) * sizeof(int))
        self.atlas = <int *> PyMem_Malloc((self.size or 1) * sizeof(int))
        self.pack = <int *> PyMem_Malloc((self.size or 1) * sizeof(int))
        self.tokens = <long long *> PyMem_Malloc((self.size or 1) * sizeof(long long))
        if NULL in (self.priority, self.atlas, self.pack, self.tokens):
            raise MemoryError
        self.pack_limits = tuple(pack_limits)
        for i in range(self.size):
            atlas, pack, priority, tokens, _, text = blocks[i]
            if not 0 <= pack < self.pack_count:
                raise ValueError(f"block {i}: pack {pack} is outside 0..{self.pack_count - 1}")
            self.atlas[i] = atlas
            self.pack[i] = pack
            self.priority[i] = priority
            self.tokens[i] = tokens
            texts.setdefault(atlas, []).append(words(text))
            members.setdefault(atlas, []).append(i)
        self.digests = tuple([block[4] for block in blocks])
        self.postings = {
            atlas: {
                word: [(members[atlas][number], weight) for number, weight in found]
                for word, found in _weights(documents).items()
            }
            for atlas, documents in texts.items()
        }

    def __dealloc__(self):
        PyMem_Free(self.priority)
        PyMem_Free(self.atlas)
        PyMem_Free(self.pack)
        PyMem_Free(self.tokens)

    def select(
        self, str goal not None, tuple hints not None, bytes packs not None, long long budget_tokens
    ) -> tuple[list[int], list[int]]:
        """Return the blocks that fit, best first, and those left out for a token budget.

        `packs` has one byte for each pack, 1 where its conditions hold. Priority, then relevance to goal and hints,
        then manifest order; a block whose content is there already is dropped; nothing is cut.
        """
        cdef Py_ssize_t i, n = 0
        cdef int block
        cdef long long left = budget_tokens
        cdef long long *score = NULL
        cdef Rank *ranks = NULL
        cdef dict spent = {}
        cdef set seen = set()
        cdef list chosen = [], skipped = []
        cdef const unsigned char *wanted = packs
        if len(packs) != self.pack_count:
            raise ValueError(f"packs has {len(packs)} bytes, expected {self.pack_count}")
        score = <long long *> PyMem_Calloc(self.size or 1, sizeof(long long))
        ranks = <Rank *> PyMem_Malloc((self.size or 1) * sizeof(Rank))
        try:
            if score == NULL or ranks == NULL:
                raise MemoryError
            atlases = set()
            for i in range(self.size):
                if wanted[self.pack[i]]:
                    atlases.add(self.atlas[i])
            query = set(words(goal))
            for hint in hints:
                query.update(words(hint))
            for atlas in atlases:
                postings = <dict> self.postings[atlas]
                for word in query:
                    found = postings.get(word)
                    if found is not None:
                        for block, weight in <list> found:
                            score[block] += <long long> weight
            for i in range(self.size):
                if wanted[self.pack[i]]:
                    ranks[n].score = score[i]
                    ranks[n].priority = self.priority[i]
                    ranks[n].block = <int> i
                    n += 1
            qsort(ranks, n, sizeof(Rank), _better)
            for i in range(n):
                block = ranks[i].block
                digest = self.digests[block]
                if digest in seen:
                    continue
                seen.add(digest)
                pack = self.pack[block]
                limit = self.pack_limits[pack]
                used = spent.get(pack, 0) + self.tokens[block]
                if self.tokens[block] > left or 0 <= limit < used:
                    skipped.append(block)
                    continue
                left -= self.tokens[block]
                spent[pack] = used
                chosen.append(block)
        finally:
            PyMem_Free(score)
            PyMem_Free(ranks)
        return chosen, skipped
