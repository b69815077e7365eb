from cpython.object cimport PyObject

from cra._core.pattern cimport Pattern

# What a node asks of a value beyond its type.
cdef enum:
    ON_NUMBER = 1
    ON_STRING = 2
    ON_ARRAY = 4
    ON_OBJECT = 8
    IN_PLACE = 16
    ON_VALUE = 32  # const and enum
    UNEVALUATED = 64

cdef struct Run:
    long long steps
    int depth
    PyObject *scope  # the resources entered, outermost first; NULL when the schema has no dynamic references

cdef int search(Pattern pattern, object text, Run *run) except -1
cdef int enter(Run *run, long long steps) except -1
cdef void start(Run *run, list scope) noexcept


cdef class _Slot:
    cdef Node node
    cdef bint required


cdef class _Seen:
    cdef set keys
    cdef set indexes
    cdef Py_ssize_t prefix
    cdef bint everything
    cdef int absorb(self, _Seen other) except -1


cdef class Node:
    cdef bint defined
    cdef int types
    cdef int flags
    # A boolean schema, or an empty one.
    cdef bint never
    # const and enum
    cdef frozenset strings
    cdef frozenset numbers
    cdef bint none, true, false
    cdef tuple compounds
    cdef tuple choices
    # numbers
    cdef object minimum, maximum, above, below, multiple
    cdef bint small_bounds
    cdef long long low, high
    # strings
    cdef Py_ssize_t min_length, max_length
    cdef Pattern pattern
    # arrays
    cdef Py_ssize_t min_items, max_items, min_contains, max_contains
    cdef bint unique
    cdef tuple prefix
    cdef Node items, contains
    # objects
    cdef Py_ssize_t min_properties, max_properties
    cdef dict properties
    cdef Py_ssize_t required_count
    cdef tuple required
    cdef Node additional, names
    cdef tuple pattern_properties
    cdef tuple dependent_required, dependent_schemas
    # in place
    cdef tuple all_of, any_of, one_of
    cdef Node not_, if_, then, else_
    cdef Node dynamic
    cdef str dynamic_name
    cdef Node unevaluated_items, unevaluated_properties
    # the schema resource this node belongs to: a dict of its dynamic anchors
    cdef dict resource
    cdef int _define_choices(self, object choices) except -1
    cdef int _define_numbers(self, object get) except -1
    cdef int _define_strings(self, object get) except -1
    cdef int _define_arrays(self, object get) except -1
    cdef int _define_objects(self, object get) except -1
    cdef int check(self, object value, Run *run, _Seen seen) except -1
    cdef int check_scalar(self, object value, int kind, Run *run) except -1
    cdef int check_all(self, object value, int kind, Run *run, _Seen seen) except -1
    cdef int check_choices(self, object value, int kind) except -1
    cdef int check_number(self, object value) except -1
    cdef int check_string(self, object value, Run *run) except -1
    cdef int check_object(self, dict value, Run *run, _Seen seen) except -1
    cdef int check_array(self, object value, Run *run, _Seen seen) except -1
    cdef int check_in_place(self, object value, Run *run, _Seen seen) except -1
    cdef int check_unevaluated(self, object value, int kind, Run *run, _Seen seen) except -1
    cdef Node dynamic_target(self, Run *run)


cdef class Schema:
    cdef Node root
    cdef bint dynamic
