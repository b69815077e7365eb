cdef extern from "Python.h":
    double PyFloat_AS_DOUBLE(object value)
    object PyUnicode_FromObject(object value)
    Py_ssize_t PyUnicode_GET_LENGTH(object value)

# The kinds of values; a schema's `type` is a set of these bits.
cdef enum:
    NULL_ = 1
    BOOLEAN = 2
    INTEGER = 4
    FRACTION = 8  # a number that is no integer
    STRING = 16
    ARRAY = 32
    OBJECT = 64
    ANY = 127
    FOREIGN = 128  # no JSON value: no schema describes it, and canonical JSON refuses it

cdef int other_kind(object value) except -1
cdef object plain(object value)
cdef bint equal(object one, object two, int depth) except -1
cdef list ordered(dict value)
cdef bint is_multiple(object value, object multiple) except -1
cdef tuple first_twins(list array, long long *steps)


cdef inline int kind_of(object value) except -1:
    if type(value) is str:
        return STRING
    if type(value) is int:
        return INTEGER
    if type(value) is dict:
        return OBJECT
    return other_kind(value)
