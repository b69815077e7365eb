"""Regular expressions, matched in linear time.

Backtracking engines take exponential time on some patterns, and the text comes from agents. This one follows all
ways through the pattern at once, so the time is at most length times size. `cra.atlas.regex` reads the pattern
language and writes the program.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_KIND, PyUnicode_READ
from libc.string cimport memset

# Programs up to this size need no memory from the heap to run.
DEF SMALL = 192

# Instructions; `cra.atlas.regex` has the same numbers.
DEF CHAR = 0  # consume the code point a
DEF SET = 1  # consume a member of set a
DEF SPLIT = 2  # go on at a and at b
DEF JUMP = 3  # go on at a
DEF BEGIN = 4
DEF END = 5
DEF WORD = 6  # a is 1 at a word boundary, 0 elsewhere
DEF MATCH = 7


@cython.final
cdef class Pattern:
    """One compiled pattern; `matches` looks anywhere in the text, as JSON Schema's `pattern` does."""

    def __cinit__(self):
        self.code = self.ranges = self.sets = NULL

    def __init__(self, str source not None, list program not None, list sets not None, bint anchored):
        """Take instructions of three numbers and, for each set, its sorted ranges of code points."""
        if self.code != NULL:
            raise TypeError("a pattern cannot be set up twice")
        cdef list bounds = []
        cdef list table = []
        cdef Py_ssize_t size = len(program)
        for op, a, b in program:
            if not (CHAR <= op <= MATCH):
                raise ValueError("unknown instruction")
            if (op == SPLIT or op == JUMP) and not (0 <= a < size and 0 <= b < size):
                raise ValueError("instruction leads outside the program")
            if op == SET and not 0 <= a < len(sets):
                raise ValueError("unknown set")
        if not program or program[size - 1][0] != MATCH:
            raise ValueError("program does not end in a match")
        for ranges in sets:
            table += [len(bounds) // 2, len(ranges)]
            bounds += [number for pair in ranges for number in pair]
        self.source = source
        self.anchored = anchored
        self.size = <int> size
        self.sets = _copy(table)
        self.ranges = _copy(bounds)
        self.code = _copy([number for instruction in program for number in instruction])

    def __dealloc__(self):
        PyMem_Free(self.code)
        PyMem_Free(self.ranges)
        PyMem_Free(self.sets)

    def matches(self, str text not None) -> bool:
        """Say whether the pattern matches anywhere in `text`."""
        cdef long long steps = 0x7FFFFFFFFFFFFFFF
        return self.search(text, &steps) == 1

    cdef int search(self, str text, long long *steps) except -1:
        """Return 1 or 0, and take the work done off `steps`; when none are left, the answer is 0."""
        cdef int small[SMALL * 4]
        cdef int *memory = small
        cdef int found
        if self.size > SMALL:
            memory = <int *> PyMem_Malloc(self.size * 4 * sizeof(int))
            if memory == NULL:
                raise MemoryError
        found = _run(
            self.code, self.size, self.sets, self.ranges, self.anchored, PyUnicode_KIND(text), PyUnicode_DATA(text),
            PyUnicode_GET_LENGTH(text), memory, steps,
        )
        if memory != small:
            PyMem_Free(memory)
        return found


cdef int *_copy(list numbers) except NULL:
    cdef int *copied = <int *> PyMem_Malloc((len(numbers) + 1) * sizeof(int))
    cdef Py_ssize_t index
    if copied == NULL:
        raise MemoryError
    for index in range(len(numbers)):
        copied[index] = numbers[index]
    return copied


cdef inline bint _is_word(int c) noexcept nogil:
    return 0x30 <= c <= 0x39 or 0x41 <= c <= 0x5A or c == 0x5F or 0x61 <= c <= 0x7A


cdef inline bint _in_set(const int *ranges, int low, int count, int c) noexcept nogil:
    cdef int high = low + count
    cdef int middle
    while low < high:
        middle = (low + high) >> 1
        if c > ranges[2 * middle + 1]:
            low = middle + 1
        elif c < ranges[2 * middle]:
            high = middle
        else:
            return True
    return False


cdef int _run(
    const int *code, int size, const int *sets, const int *ranges, bint anchored, int kind, void *data,
    Py_ssize_t length, int *memory, long long *steps,
) noexcept:
    # Of each position, the instructions that wait for a code point; `seen` holds the position they were added at.
    cdef int *now = memory
    cdef int *later = memory + size
    cdef int *stack = memory + 2 * size
    cdef int *seen = memory + 3 * size
    cdef int *swap
    cdef int waiting = 0
    cdef int next_waiting, top, pc, op, index, turn
    cdef Py_ssize_t at
    cdef int c = -1
    cdef int previous
    memset(seen, 0, size * sizeof(int))
    turn = 1
    next_waiting = 0
    for at in range(length + 1):
        previous = c
        c = <int> PyUnicode_READ(kind, data, at) if at < length else -1
        # `now` has instructions to go on from, not yet followed to those that wait; add the pattern's start.
        index = -1
        next_waiting = 0
        while index < waiting:
            if index == -1:
                if anchored and at > 0:
                    index = 0
                    continue
                stack[0] = 0
            else:
                stack[0] = now[index]
            index += 1
            if seen[stack[0]] == turn:
                continue
            seen[stack[0]] = turn
            top = 1
            while top:
                top -= 1
                pc = stack[top]
                op = code[3 * pc]
                steps[0] -= 1
                if op == CHAR:
                    if code[3 * pc + 1] == c:
                        later[next_waiting] = pc + 1
                        next_waiting += 1
                    continue
                if op == SET:
                    if c >= 0 and _in_set(ranges, sets[2 * code[3 * pc + 1]], sets[2 * code[3 * pc + 1] + 1], c):
                        later[next_waiting] = pc + 1
                        next_waiting += 1
                    continue
                if op == MATCH:
                    return 1
                if op == JUMP:
                    pc = code[3 * pc + 1]
                elif op == SPLIT:
                    if seen[code[3 * pc + 2]] != turn:
                        seen[code[3 * pc + 2]] = turn
                        stack[top] = code[3 * pc + 2]
                        top += 1
                    pc = code[3 * pc + 1]
                else:
                    if op == BEGIN:
                        if at != 0:
                            continue
                    elif op == END:
                        if at != length:
                            continue
                    elif (_is_word(previous) != _is_word(c)) != code[3 * pc + 1]:
                        continue
                    pc += 1
                if seen[pc] != turn:
                    seen[pc] = turn
                    stack[top] = pc
                    top += 1
        if steps[0] < 0 or (anchored and next_waiting == 0):
            return 0
        swap = now
        now = later
        later = swap
        waiting = next_waiting
        if turn == 0x7FFFFFFF:
            memset(seen, 0, size * sizeof(int))
            turn = 0
        turn += 1
    return 0
