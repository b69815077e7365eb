"""JSON Schema (draft 2020-12) over Python builtins: does a value match.

`cra.atlas.schema_check` reads schemas and fills the nodes; `report` says what is wrong where one does not match. What
is decided here follows the specification exactly: `1.0` is an integer, booleans are no numbers, integers and floats
compare mathematically, lengths are code points, `multipleOf` works on the decimal number as written. Tuples are
arrays, because canonical JSON writes them as arrays.
"""

cimport cython
from cpython.dict cimport PyDict_GetItem, PyDict_Next, PyDict_Size
from cpython.object cimport PyObject
from cpython.set cimport PySet_Contains

from cra._core.pattern cimport Pattern
from cra._core.value cimport (
    ANY, ARRAY, BOOLEAN, FRACTION, INTEGER, NULL_, OBJECT, STRING, PyUnicode_GET_LENGTH, equal, first_twins,
    is_multiple, kind_of, plain,
)

from cra.errors import InvalidInput

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

# INVARIANT: every call ends. A schema may send the same value through exponentially many paths; the budget cuts that
# off with an error, which is neither a yes nor a no. One step is a visit of a node or a step of a pattern.
cdef long long MAX_STEPS = 10_000_000
# Nested checks; 400 of them need less than 256 KB of the C stack. Values nest at most 128 deep.
cdef int MAX_DEPTH = 400

_KINDS = {"null": NULL_, "boolean": BOOLEAN, "integer": INTEGER, "number": INTEGER | FRACTION, "string": STRING,
          "array": ARRAY, "object": OBJECT}


cdef void start(Run *run, list scope) noexcept:
    """Set up a run; the caller keeps `scope` alive, which is None for a schema without dynamic references."""
    run.steps = MAX_STEPS
    run.depth = 0
    run.scope = NULL if scope is None else <PyObject *> scope


cdef int enter(Run *run, long long steps) except -1:
    """Take `steps` and go one level deeper, or raise when there is no room for it."""
    run.steps -= steps
    if run.steps < 0:
        hint = "simplify the schema: alternatives that repeat each other at every level multiply"
        raise InvalidInput("the schema takes too many steps on this value", hint=hint)
    if run.depth >= MAX_DEPTH:
        raise InvalidInput("the value nests too deep for its schema")
    run.depth += 1
    return 0


cdef int search(Pattern pattern, object text, Run *run) except -1:
    cdef int found
    if not isinstance(text, str):
        return 0
    found = pattern.search(text if type(text) is str else plain(text), &run.steps)
    if run.steps < 0:
        raise InvalidInput(f"the pattern `{pattern.source[:80]}` takes too many steps on this text")
    return found


@cython.final
cdef class _Slot:
    """A property: its schema, or None when only its presence matters."""


@cython.final
cdef class _Seen:
    """What the keywords of one place have evaluated, for `unevaluatedItems` and `unevaluatedProperties`."""

    def __cinit__(self):
        self.keys = set()
        self.indexes = set()

    cdef int absorb(self, _Seen other) except -1:
        self.keys |= other.keys
        self.indexes |= other.indexes
        self.prefix = max(self.prefix, other.prefix)
        self.everything = self.everything or other.everything
        return 0


@cython.final
cdef class Node:
    """One schema; `define` fills it once, so that schemas may refer to each other."""

    def __cinit__(self):
        self.types = ANY

    def define(self, dict rules not None) -> None:
        """Take the rules, by keyword; schemas in them are nodes. The schema reader has checked their shape."""
        if self.defined:
            raise TypeError("a schema node cannot be defined twice")
        self.defined = True
        get = rules.get
        self.resource = get("resource")
        if get("never"):
            self.never = True
            self.types = 0
            return
        if "type" in rules:
            self.types = 0
            for name in rules["type"]:
                self.types |= _KINDS[name]
        if "enum" in rules:
            self._define_choices(rules["enum"])
        self._define_numbers(get)
        self._define_strings(get)
        self._define_arrays(get)
        self._define_objects(get)
        self.all_of = get("all_of")
        self.any_of = get("any_of")
        self.one_of = get("one_of")
        self.not_ = get("not")
        self.if_ = get("if")
        self.then = get("then")
        self.else_ = get("else")
        self.dynamic = get("dynamic")
        self.dynamic_name = get("dynamic_name")
        for part in (self.all_of, self.any_of, self.one_of, self.not_, self.if_, self.dynamic):
            if part is not None:
                self.flags |= IN_PLACE
        self.unevaluated_items = get("unevaluated_items")
        self.unevaluated_properties = get("unevaluated_properties")
        if self.unevaluated_items is not None or self.unevaluated_properties is not None:
            self.flags |= UNEVALUATED

    cdef int _define_choices(self, object choices) except -1:
        self.flags |= ON_VALUE
        self.choices = tuple(choices)
        strings, numbers, compounds = set(), set(), []
        for choice in choices:
            kind = kind_of(choice)
            if kind == STRING:
                strings.add(plain(choice))
            elif kind & (INTEGER | FRACTION):
                numbers.add(plain(choice))
            elif kind == NULL_:
                self.none = True
            elif kind == BOOLEAN:
                if choice:
                    self.true = True
                else:
                    self.false = True
            else:
                compounds.append(choice)
        self.strings = frozenset(strings)
        self.numbers = frozenset(numbers)
        self.compounds = tuple(compounds)
        return 0

    cdef int _define_numbers(self, object get) except -1:
        self.minimum = get("minimum")
        self.maximum = get("maximum")
        self.above = get("exclusive_minimum")
        self.below = get("exclusive_maximum")
        self.multiple = get("multiple_of")
        bounds = (self.minimum, self.maximum, self.above, self.below)
        if bounds == (None,) * 4 and self.multiple is None:
            return 0
        self.flags |= ON_NUMBER
        # PERF: bounds that are machine integers are compared as such, 5 ns instead of 25.
        limit = 1 << 62
        self.small_bounds = all(b is None or (type(b) is int and -limit < b < limit) for b in bounds)
        if self.small_bounds:
            self.low, self.high = -limit, limit
            if self.minimum is not None:
                self.low = self.minimum
            if self.above is not None:
                self.low = max(self.low, self.above + 1)
            if self.maximum is not None:
                self.high = self.maximum
            if self.below is not None:
                self.high = min(self.high, self.below - 1)
        return 0

    cdef int _define_strings(self, object get) except -1:
        self.min_length = get("min_length", 0)
        self.max_length = get("max_length", -1)
        self.pattern = get("pattern")
        if self.min_length > 0 or self.max_length >= 0 or self.pattern is not None:
            self.flags |= ON_STRING
        return 0

    cdef int _define_arrays(self, object get) except -1:
        self.min_items = get("min_items", 0)
        self.max_items = get("max_items", -1)
        self.unique = get("unique_items", False)
        self.prefix = get("prefix_items", ())
        self.items = get("items")
        self.contains = get("contains")
        self.min_contains = get("min_contains", 1)
        self.max_contains = get("max_contains", -1)
        if (
            self.min_items > 0 or self.max_items >= 0 or self.unique or self.prefix or self.items is not None
            or self.contains is not None
        ):
            self.flags |= ON_ARRAY
        return 0

    cdef int _define_objects(self, object get) except -1:
        cdef _Slot slot
        self.min_properties = get("min_properties", 0)
        self.max_properties = get("max_properties", -1)
        self.additional = get("additional_properties")
        self.names = get("property_names")
        self.pattern_properties = get("pattern_properties", ())
        self.dependent_required = get("dependent_required", ())
        self.dependent_schemas = get("dependent_schemas", ())
        properties = get("properties", {})
        self.required = tuple(sorted(set(get("required", ()))))
        self.required_count = len(self.required)
        self.properties = {}
        for name in [*properties, *self.required]:
            slot = _Slot()
            slot.node = properties.get(name)
            slot.required = name in self.required
            self.properties[name] = slot
        if (
            self.min_properties > 0 or self.max_properties >= 0 or self.additional is not None or self.names is not None
            or self.pattern_properties or self.dependent_required or self.dependent_schemas or self.properties
        ):
            self.flags |= ON_OBJECT
        return 0

    cdef int check(self, object value, Run *run, _Seen seen) except -1:
        """Return 1 when `value` matches, else 0; what gets evaluated goes to `seen` unless that is None."""
        cdef int kind, result
        run.steps -= 1
        if run.steps < 0:
            enter(run, 0)
        kind = kind_of(value)
        if kind & self.types == 0:
            return 0
        if self.flags == 0:
            return 1
        if self.flags & ~(ON_NUMBER | ON_STRING | ON_VALUE) == 0:
            return self.check_scalar(value, kind, run)
        enter(run, 0)
        if run.scope == NULL:
            result = self.check_all(value, kind, run, seen)
        else:
            scope = <list> run.scope
            scope.append(self.resource)
            result = self.check_all(value, kind, run, seen)
            scope.pop()
        run.depth -= 1
        return result

    cdef int check_scalar(self, object value, int kind, Run *run) except -1:
        if self.flags & ON_VALUE and not self.check_choices(value, kind):
            return 0
        if kind == STRING:
            if self.flags & ON_STRING:
                return self.check_string(value, run)
        elif kind & (INTEGER | FRACTION):
            if self.flags & ON_NUMBER:
                return self.check_number(value)
        return 1

    cdef int check_all(self, object value, int kind, Run *run, _Seen seen) except -1:
        cdef _Seen own = seen
        if self.flags & (ON_NUMBER | ON_STRING | ON_VALUE) and not self.check_scalar(value, kind, run):
            return 0
        if self.flags & UNEVALUATED:
            own = _Seen()
        if self.flags & IN_PLACE and not self.check_in_place(value, run, own):
            return 0
        if kind == OBJECT:
            if self.flags & ON_OBJECT and not self.check_object(<dict> value, run, own):
                return 0
        elif kind == ARRAY:
            if self.flags & ON_ARRAY and not self.check_array(value, run, own):
                return 0
        if self.flags & UNEVALUATED:
            if not self.check_unevaluated(value, kind, run, own):
                return 0
            if seen is not None:
                seen.absorb(own)
        return 1

    cdef int check_choices(self, object value, int kind) except -1:
        if kind == STRING:
            return PySet_Contains(self.strings, value if type(value) is str else plain(value))
        if kind & (INTEGER | FRACTION):
            return PySet_Contains(self.numbers, value if type(value) is int else plain(value))
        if kind == NULL_:
            return self.none
        if kind == BOOLEAN:
            return self.true if value else self.false
        for choice in self.compounds:
            if equal(choice, value, 0):
                return 1
        return 0

    cdef int check_number(self, object value) except -1:
        cdef int overflow = 0
        cdef long long number
        if self.small_bounds and type(value) is int:
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow == 0 and -(1LL << 62) < number < (1LL << 62):
                if not self.low <= number <= self.high:
                    return 0
                return self.multiple is None or is_multiple(value, self.multiple)
        if self.minimum is not None and value < self.minimum:
            return 0
        if self.maximum is not None and value > self.maximum:
            return 0
        if self.above is not None and value <= self.above:
            return 0
        if self.below is not None and value >= self.below:
            return 0
        return self.multiple is None or is_multiple(value, self.multiple)

    cdef int check_string(self, object value, Run *run) except -1:
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(value)
        if length < self.min_length or (self.max_length >= 0 and length > self.max_length):
            return 0
        if self.pattern is None:
            return 1
        return search(self.pattern, value, run)

    cdef int check_object(self, dict value, Run *run, _Seen seen) except -1:
        cdef Py_ssize_t size = PyDict_Size(value)
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t found = 0
        cdef PyObject *key
        cdef PyObject *item
        cdef PyObject *slot
        cdef bint matched
        cdef Node node
        if size < self.min_properties or (self.max_properties >= 0 and size > self.max_properties):
            return 0
        if size < self.required_count:
            return 0
        with cython.critical_section(value):
            while PyDict_Next(value, &position, &key, &item):
                slot = PyDict_GetItem(self.properties, <object> key)
                matched = False
                if slot != NULL:
                    found += (<_Slot> slot).required
                    node = (<_Slot> slot).node
                    if node is not None:
                        matched = True
                        if not node.check(<object> item, run, None):
                            return 0
                if self.pattern_properties:
                    for pattern, node in self.pattern_properties:
                        if search(<Pattern> pattern, <object> key, run):
                            matched = True
                            if not node.check(<object> item, run, None):
                                return 0
                if not matched and self.additional is not None:
                    matched = True
                    if self.additional.never or not self.additional.check(<object> item, run, None):
                        return 0
                if matched and seen is not None:
                    seen.keys.add(<object> key)
                if self.names is not None and not self.names.check(<object> key, run, None):
                    return 0
        if found != self.required_count:
            return 0
        for name, others in self.dependent_required:
            if name in value:
                for other in others:
                    if other not in value:
                        return 0
        for name, node in self.dependent_schemas:
            if name in value and not node.check(value, run, seen):
                return 0
        return 1

    cdef int check_array(self, object value, Run *run, _Seen seen) except -1:
        cdef Py_ssize_t size = len(value)
        cdef Py_ssize_t start = len(self.prefix)
        cdef Py_ssize_t index, count
        cdef list array
        if size < self.min_items or (self.max_items >= 0 and size > self.max_items):
            return 0
        if not (start or self.items is not None or self.contains is not None or self.unique):
            return 1
        array = list(value)
        for index in range(min(start, size)):
            if not (<Node> self.prefix[index]).check(array[index], run, None):
                return 0
        if self.items is not None:
            for index in range(start, size):
                if not self.items.check(array[index], run, None):
                    return 0
        if seen is not None:
            seen.prefix = max(seen.prefix, size if self.items is not None else min(start, size))
        if self.contains is not None:
            count = 0
            for index in range(size):
                if self.contains.check(array[index], run, None):
                    count += 1
                    if seen is not None:
                        seen.indexes.add(index)
            if count < self.min_contains or (self.max_contains >= 0 and count > self.max_contains):
                return 0
        if self.unique and size > 1 and first_twins(array, &run.steps) is not None:
            return 0
        return 1

    cdef int check_in_place(self, object value, Run *run, _Seen seen) except -1:
        cdef Node node
        cdef int count
        cdef _Seen tried
        if self.all_of is not None:
            for node in self.all_of:
                if not node.check(value, run, seen):
                    return 0
        if self.dynamic is not None and not self.dynamic_target(run).check(value, run, seen):
            return 0
        if self.not_ is not None and self.not_.check(value, run, None):
            return 0
        if self.if_ is not None:
            tried = None if seen is None else _Seen()
            if self.if_.check(value, run, tried):
                if tried is not None:
                    seen.absorb(tried)
                node = self.then
            else:
                node = self.else_
            if node is not None and not node.check(value, run, seen):
                return 0
        if self.any_of is not None:
            count = 0
            for node in self.any_of:
                tried = None if seen is None else _Seen()
                if node.check(value, run, tried):
                    count = 1
                    if tried is None:
                        break
                    seen.absorb(tried)
            if not count:
                return 0
        if self.one_of is not None:
            count = 0
            for node in self.one_of:
                tried = None if seen is None else _Seen()
                if node.check(value, run, tried):
                    count += 1
                    if count > 1:
                        return 0
                    if tried is not None:
                        seen.absorb(tried)
            if not count:
                return 0
        return 1

    cdef Node dynamic_target(self, Run *run):
        if run.scope != NULL:
            for resource in <list> run.scope:
                if resource is not None and self.dynamic_name in <dict> resource:
                    return (<dict> resource)[self.dynamic_name]
        return self.dynamic

    cdef int check_unevaluated(self, object value, int kind, Run *run, _Seen seen) except -1:
        if kind == OBJECT and self.unevaluated_properties is not None and not seen.everything:
            for key, item in (<dict> value).items():
                if key not in seen.keys and not self.unevaluated_properties.check(item, run, None):
                    return 0
            seen.everything = True
        elif kind == ARRAY and self.unevaluated_items is not None and not seen.everything:
            for index in range(seen.prefix, len(value)):
                if index not in seen.indexes and not self.unevaluated_items.check(value[index], run, None):
                    return 0
            seen.everything = True
        return 1


@cython.final
cdef class Schema:
    """A whole schema: its root node, and whether dynamic references need the path that led to them."""

    def __init__(self, Node root not None, bint dynamic=False):
        self.root = root
        self.dynamic = dynamic

    def matches(self, value: object) -> bool:
        """Say whether a JSON value matches; raises `InvalidInput` only when the answer takes too many steps."""
        cdef Run run
        cdef list scope = [] if self.dynamic else None
        start(&run, scope)
        return self.root.check(value, &run, None) == 1
