"""JSON Schema (draft 2020-12) over Python builtins: does a value match, and if not, where and why.

`cra.atlas.schema_check` reads schemas and fills the nodes. What is decided here follows the specification exactly:
`1.0` is an integer, booleans are no numbers, integers and floats compare mathematically, lengths are code points,
`multipleOf` works on the decimal number as written. Tuples are arrays, because canonical JSON writes them as arrays.
"""

cimport cython
from cpython.dict cimport PyDict_GetItem, PyDict_Next, PyDict_Size
from cpython.object cimport PyObject
from cpython.set cimport PySet_Contains

from cra._core.pattern cimport Pattern

from cra.errors import InvalidInput

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    double PyFloat_AS_DOUBLE(object value)
    object PyUnicode_FromObject(object value)
    Py_ssize_t PyUnicode_GET_LENGTH(object value)
    tuple PySequence_Tuple(object value)

# The kinds of values; a schema's `type` is a set of these bits.
DEF NULL_ = 1
DEF BOOLEAN = 2
DEF INTEGER = 4
DEF FRACTION = 8  # a number that is no integer
DEF STRING = 16
DEF ARRAY = 32
DEF OBJECT = 64
DEF ANY = 127

# What a node asks of a value beyond its type.
DEF ON_NUMBER = 1
DEF ON_STRING = 2
DEF ON_ARRAY = 4
DEF ON_OBJECT = 8
DEF IN_PLACE = 16
DEF ON_VALUE = 32  # const and enum
DEF UNEVALUATED = 64

# INVARIANT: every call ends. A schema may send the same value through exponentially many paths; the budget cuts that
# off with an error, which is neither a yes nor a no. One step is a visit of a node or a step of a pattern.
cdef long long MAX_STEPS = 10_000_000
# Nested checks; 400 of them need less than 256 KB of the C stack. Values nest at most 128 deep.
cdef int MAX_DEPTH = 400
# Reports stop here; explaining is slower than checking and takes more steps for it.
cdef int MAX_ERRORS = 500
cdef long long STEPS_PER_VISIT = 10
cdef long long STEPS_PER_ERROR = 1000

_KINDS = {"null": NULL_, "boolean": BOOLEAN, "integer": INTEGER, "number": INTEGER | FRACTION, "string": STRING,
          "array": ARRAY, "object": OBJECT}

_TEN = 10

cdef struct Run:
    long long steps
    int depth
    PyObject *scope  # the resources entered, outermost first; NULL when the schema has no dynamic references


@cython.final
cdef class _Slot:
    """A property: its schema, or None when only its presence matters."""

    cdef Node node
    cdef bint required


@cython.final
cdef class _Seen:
    """What the keywords of one place have evaluated, for `unevaluatedItems` and `unevaluatedProperties`."""

    cdef set keys
    cdef set indexes
    cdef Py_ssize_t prefix
    cdef bint everything

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
            kind = _kind(choice)
            if kind == STRING:
                strings.add(_plain(choice))
            elif kind & (INTEGER | FRACTION):
                numbers.add(_plain(choice))
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
            raise InvalidInput("the schema takes too many steps on this value", hint=_BUDGET_HINT)
        kind = _kind(value)
        if kind & self.types == 0:
            return 0
        if self.flags == 0:
            return 1
        if self.flags & ~(ON_NUMBER | ON_STRING | ON_VALUE) == 0:
            return self._check_scalar(value, kind, run)
        if run.depth >= MAX_DEPTH:
            raise InvalidInput("the value nests too deep for its schema", hint=_BUDGET_HINT)
        run.depth += 1
        if run.scope == NULL:
            result = self._check_all(value, kind, run, seen)
        else:
            scope = <list> run.scope
            scope.append(self.resource)
            result = self._check_all(value, kind, run, seen)
            scope.pop()
        run.depth -= 1
        return result

    cdef inline int _check_scalar(self, object value, int kind, Run *run) except -1:
        if self.flags & ON_VALUE and not self._check_choices(value, kind):
            return 0
        if kind == STRING:
            if self.flags & ON_STRING:
                return self._check_string(value, run)
        elif kind & (INTEGER | FRACTION):
            if self.flags & ON_NUMBER:
                return self._check_number(value)
        return 1

    cdef int _check_all(self, object value, int kind, Run *run, _Seen seen) except -1:
        cdef _Seen own = seen
        if self.flags & (ON_NUMBER | ON_STRING | ON_VALUE) and not self._check_scalar(value, kind, run):
            return 0
        if self.flags & UNEVALUATED:
            own = _Seen()
        if self.flags & IN_PLACE and not self._check_in_place(value, run, own):
            return 0
        if kind == OBJECT:
            if self.flags & ON_OBJECT and not self._check_object(<dict> value, run, own):
                return 0
        elif kind == ARRAY:
            if self.flags & ON_ARRAY and not self._check_array(value, run, own):
                return 0
        if self.flags & UNEVALUATED:
            if not self._check_unevaluated(value, kind, run, own):
                return 0
            if seen is not None:
                seen.absorb(own)
        return 1

    cdef int _check_choices(self, object value, int kind) except -1:
        if kind == STRING:
            return PySet_Contains(self.strings, value if type(value) is str else _plain(value))
        if kind & (INTEGER | FRACTION):
            return PySet_Contains(self.numbers, value if type(value) is int else _plain(value))
        if kind == NULL_:
            return self.none
        if kind == BOOLEAN:
            return self.true if value else self.false
        for choice in self.compounds:
            if _equal(choice, value, 0):
                return 1
        return 0

    cdef int _check_number(self, object value) except -1:
        cdef int overflow = 0
        cdef long long number
        if self.small_bounds and type(value) is int:
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow == 0 and -(1LL << 62) < number < (1LL << 62):
                if not self.low <= number <= self.high:
                    return 0
                return self.multiple is None or _is_multiple(value, self.multiple)
        if self.minimum is not None and value < self.minimum:
            return 0
        if self.maximum is not None and value > self.maximum:
            return 0
        if self.above is not None and value <= self.above:
            return 0
        if self.below is not None and value >= self.below:
            return 0
        return self.multiple is None or _is_multiple(value, self.multiple)

    cdef int _check_string(self, object value, Run *run) except -1:
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(value)
        if length < self.min_length or (self.max_length >= 0 and length > self.max_length):
            return 0
        if self.pattern is None:
            return 1
        return _search(self.pattern, value, run)

    cdef int _check_object(self, dict value, Run *run, _Seen seen) except -1:
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
                        if _search(<Pattern> pattern, <object> key, run):
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

    cdef int _check_array(self, object value, Run *run, _Seen seen) except -1:
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
        if self.unique and size > 1 and _first_twins(array, run) is not None:
            return 0
        return 1

    cdef int _check_in_place(self, object value, Run *run, _Seen seen) except -1:
        cdef Node node
        cdef int count
        cdef _Seen tried
        if self.all_of is not None:
            for node in self.all_of:
                if not node.check(value, run, seen):
                    return 0
        if self.dynamic is not None and not self._dynamic_target(run).check(value, run, seen):
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

    cdef Node _dynamic_target(self, Run *run):
        if run.scope != NULL:
            for resource in <list> run.scope:
                if resource is not None and self.dynamic_name in <dict> resource:
                    return (<dict> resource)[self.dynamic_name]
        return self.dynamic

    cdef int _check_unevaluated(self, object value, int kind, Run *run, _Seen seen) except -1:
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

    cdef int explain(self, object value, Run *run, tuple path, list errors) except -1:
        """Append (path, rank, words) for everything wrong with `value`; the order is that of a fixed walk."""
        if len(errors) >= MAX_ERRORS:
            return 0
        run.steps -= STEPS_PER_VISIT
        if run.steps < 0:
            raise InvalidInput("the schema takes too many steps on this value", hint=_BUDGET_HINT)
        if run.depth >= MAX_DEPTH:
            raise InvalidInput("the value nests too deep for its schema", hint=_BUDGET_HINT)
        run.depth += 1
        if run.scope != NULL:
            (<list> run.scope).append(self.resource)
        self._explain(value, _kind(value), run, path, errors)
        if run.scope != NULL:
            (<list> run.scope).pop()
        run.depth -= 1
        return 0

    cdef int _explain(self, object value, int kind, Run *run, tuple path, list errors) except -1:
        cdef Py_ssize_t before = len(errors)
        cdef _Seen seen
        if self.never:
            return _report(run, path, 0, "no value is allowed here", errors)
        if kind & self.types == 0:
            return _report(run, path, 1, f"expected {_type_words(self.types)}, found {_kind_word(kind)}", errors)
        if self.flags & ON_VALUE and not self._check_choices(value, kind):
            _report(run, path, 2, f"expected {_choice_words(self.choices)}", errors)
        if kind == STRING and self.flags & ON_STRING:
            self._explain_string(value, run, path, errors)
        elif kind & (INTEGER | FRACTION) and self.flags & ON_NUMBER:
            self._explain_number(value, run, path, errors)
        elif kind == OBJECT and self.flags & ON_OBJECT:
            self._explain_object(value, run, path, errors)
        elif kind == ARRAY and self.flags & ON_ARRAY:
            self._explain_array(value, run, path, errors)
        if self.flags & IN_PLACE:
            self._explain_in_place(value, run, path, errors)
        if self.flags & UNEVALUATED and len(errors) == before:
            seen = _Seen()
            if self.flags & IN_PLACE:
                self._check_in_place(value, run, seen)
            if kind == OBJECT:
                if self.flags & ON_OBJECT:
                    self._check_object(value, run, seen)
                if self.unevaluated_properties is not None and not seen.everything:
                    for key in _ordered(<dict> value):
                        if key not in seen.keys:
                            _explain_extra(self.unevaluated_properties, value[key], run, path, key, errors)
            elif kind == ARRAY:
                if self.flags & ON_ARRAY:
                    self._check_array(value, run, seen)
                if self.unevaluated_items is not None and not seen.everything:
                    for index in range(seen.prefix, len(value)):
                        if index not in seen.indexes:
                            _explain_extra(self.unevaluated_items, value[index], run, path, index, errors)
        return 0

    cdef int _explain_string(self, object value, Run *run, tuple path, list errors) except -1:
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(value)
        if length < self.min_length:
            _report(run, path, 3, f"expected at least {_count(self.min_length, 'character')}, found {length}", errors)
        if self.max_length >= 0 and length > self.max_length:
            _report(run, path, 3, f"expected at most {_count(self.max_length, 'character')}, found {length}", errors)
        if self.pattern is not None and not _search(self.pattern, value, run):
            _report(run, path, 4, f"expected text that matches `{_shown(self.pattern.source)}`", errors)
        return 0

    cdef int _explain_number(self, object value, Run *run, tuple path, list errors) except -1:
        if self.minimum is not None and value < self.minimum:
            _report(run, path, 3, f"expected at least {_json(self.minimum)}", errors)
        if self.maximum is not None and value > self.maximum:
            _report(run, path, 3, f"expected at most {_json(self.maximum)}", errors)
        if self.above is not None and value <= self.above:
            _report(run, path, 3, f"expected more than {_json(self.above)}", errors)
        if self.below is not None and value >= self.below:
            _report(run, path, 3, f"expected less than {_json(self.below)}", errors)
        if self.multiple is not None and not _is_multiple(value, self.multiple):
            _report(run, path, 4, f"expected a multiple of {_json(self.multiple)}", errors)
        return 0

    cdef int _explain_object(self, dict value, Run *run, tuple path, list errors) except -1:
        cdef Py_ssize_t size = len(value)
        cdef _Slot slot
        cdef Node node
        cdef list inner
        for name in self.required:
            if name not in value:
                _report(run, path, 3, f"property `{_shown(name)}` is missing", errors)
        if size < self.min_properties:
            words = f"expected at least {_count(self.min_properties, 'property')}, found {size}"
            _report(run, path, 4, words, errors)
        if self.max_properties >= 0 and size > self.max_properties:
            words = f"expected at most {_count(self.max_properties, 'property')}, found {size}"
            _report(run, path, 4, words, errors)
        for name, others in self.dependent_required:
            if name in value:
                for other in others:
                    if other not in value:
                        words = f"property `{_shown(other)}` is missing, `{_shown(name)}` requires it"
                        _report(run, path, 5, words, errors)
        for key in _ordered(value):
            item = value[key]
            matched = False
            slot = self.properties.get(key)
            if slot is not None and slot.node is not None:
                matched = True
                if slot.node.never:
                    _explain_extra(slot.node, item, run, path, key, errors)
                else:
                    slot.node.explain(item, run, (*path, key), errors)
            for pattern, node in self.pattern_properties:
                if _search(<Pattern> pattern, key, run):
                    matched = True
                    node.explain(item, run, (*path, key), errors)
            if not matched and self.additional is not None:
                _explain_extra(self.additional, item, run, path, key, errors)
            if self.names is not None and not self.names.check(key, run, None):
                inner = []
                self.names.explain(key, run, (), inner)
                words = inner[0][2] if inner else "no name is allowed here"
                _report(run, (*path, key), 0, f"property name: {words}", errors)
        for name, node in self.dependent_schemas:
            if name in value:
                node.explain(value, run, path, errors)
        return 0

    cdef int _explain_array(self, object value, Run *run, tuple path, list errors) except -1:
        cdef Py_ssize_t size = len(value)
        cdef Py_ssize_t start = len(self.prefix)
        cdef Py_ssize_t index, count
        cdef Node node
        if size < self.min_items:
            _report(run, path, 3, f"expected at least {_count(self.min_items, 'item')}, found {size}", errors)
        if self.max_items >= 0 and size > self.max_items:
            _report(run, path, 3, f"expected at most {_count(self.max_items, 'item')}, found {size}", errors)
        if self.contains is not None:
            count = 0
            for item in value:
                count += self.contains.check(item, run, None)
            if count < self.min_contains:
                words = f"expected at least {_count(self.min_contains, 'item')} as `contains` says, found {count}"
                _report(run, path, 4, words, errors)
            if self.max_contains >= 0 and count > self.max_contains:
                words = f"expected at most {_count(self.max_contains, 'item')} as `contains` says, found {count}"
                _report(run, path, 4, words, errors)
        if self.unique:
            twins = _first_twins(list(value), run)
            if twins is not None:
                _report(run, path, 5, f"items {twins[0]} and {twins[1]} are equal", errors)
        for index in range(size):
            if index < start:
                node = self.prefix[index]
                node.explain(value[index], run, (*path, index), errors)
            elif self.items is not None:
                _explain_extra(self.items, value[index], run, path, index, errors)
        return 0

    cdef int _explain_in_place(self, object value, Run *run, tuple path, list errors) except -1:
        cdef Node node
        cdef int count
        if self.all_of is not None:
            for node in self.all_of:
                node.explain(value, run, path, errors)
        if self.dynamic is not None:
            self._dynamic_target(run).explain(value, run, path, errors)
        if self.not_ is not None and self.not_.check(value, run, None):
            _report(run, path, 6, "the value is one that `not` excludes", errors)
        if self.if_ is not None:
            node = self.then if self.if_.check(value, run, None) else self.else_
            if node is not None:
                node.explain(value, run, path, errors)
        if self.any_of is not None:
            for node in self.any_of:
                if node.check(value, run, None):
                    break
            else:
                _explain_alternatives(self.any_of, value, run, path, errors)
        if self.one_of is not None:
            count = 0
            for node in self.one_of:
                count += node.check(value, run, None)
            if count == 0:
                _explain_alternatives(self.one_of, value, run, path, errors)
            elif count > 1:
                words = f"matches {count} of {len(self.one_of)} alternatives, expected exactly one"
                _report(run, path, 6, words, errors)
        return 0


@cython.final
cdef class Schema:
    """A whole schema: its root node, and whether dynamic references need the path that led to them."""

    cdef Node root
    cdef bint dynamic

    def __init__(self, Node root not None, bint dynamic=False):
        self.root = root
        self.dynamic = dynamic

    def matches(self, value) -> bool:
        """Say whether a JSON value matches; raises `InvalidInput` only when the answer takes too many steps."""
        cdef Run run
        cdef list scope
        run.steps = MAX_STEPS
        run.depth = 0
        run.scope = NULL
        if self.dynamic:
            scope = []
            run.scope = <PyObject *> scope
        return self.root.check(value, &run, None) == 1

    def errors(self, value) -> list:
        """Return (path, words) for what is wrong, in the order of the paths; [] when `value` matches, at most 500.

        Words never repeat strings or numbers of the value, which may be secret; property names they do.
        """
        cdef Run run
        cdef list found = []
        cdef list scope
        run.steps = MAX_STEPS
        run.depth = 0
        run.scope = NULL
        if self.dynamic:
            scope = []
            run.scope = <PyObject *> scope
        try:
            self.root.explain(value, &run, (), found)
        except InvalidInput:
            # What was found up to there is true; only when nothing was is there no answer.
            if not found:
                raise
        found.sort(key=_place)
        return [(path, words) for path, _, words in dict.fromkeys(found)]


def _place(error):
    # Steps of one array or object are of one type; where they are not, the value is no JSON.
    return [(step, "") if isinstance(step, int) else (-1, str(step)) for step in error[0]], error[1], error[2]


_BUDGET_HINT = "simplify the schema: alternatives that repeat each other at every level multiply"


cdef inline int _kind(object value) except -1:
    if type(value) is str:
        return STRING
    if type(value) is int:
        return INTEGER
    if type(value) is dict:
        return OBJECT
    return _other_kind(value)


cdef int _other_kind(object value) except -1:
    cdef double number
    if value is True or value is False:
        return BOOLEAN
    if value is None:
        return NULL_
    if isinstance(value, float):
        number = PyFloat_AS_DOUBLE(value)
        # From 2**52 on all doubles are integers.
        if number - number != 0.0:
            return FRACTION
        if not -4503599627370496.0 < number < 4503599627370496.0:
            return INTEGER
        return INTEGER if <double> (<long long> number) == number else FRACTION
    if isinstance(value, (list, tuple)):
        return ARRAY
    if isinstance(value, str):
        return STRING
    if isinstance(value, int):
        return INTEGER
    if isinstance(value, dict):
        return OBJECT
    # No JSON value: no type describes it, and canonical JSON refuses it.
    return 128


cdef object _plain(object value):
    """Return a string or number without its subclass, so that equality and hash are the plain ones."""
    if isinstance(value, str):
        return PyUnicode_FromObject(value)
    if isinstance(value, float):
        return value if type(value) is float else float.__float__(value)
    return int.__int__(value)


cdef int _search(Pattern pattern, object text, Run *run) except -1:
    cdef int found
    if not isinstance(text, str):
        return 0
    found = pattern.search(text if type(text) is str else _plain(text), &run.steps)
    if run.steps < 0:
        raise InvalidInput(f"the pattern `{_shown(pattern.source)}` takes too many steps on this text")
    return found


cdef bint _equal(object one, object two, int depth) except -1:
    """Say whether two JSON values are equal: by value, never across the types of JSON."""
    cdef int kind = _kind(one)
    cdef int other = _kind(two)
    if depth > MAX_DEPTH:
        raise InvalidInput("the value nests too deep for its schema")
    if kind & (INTEGER | FRACTION):
        return kind == other and one == two
    if kind != other:
        return False
    if kind == ARRAY:
        if len(one) != len(two):
            return False
        for index in range(len(one)):
            if not _equal(one[index], two[index], depth + 1):
                return False
        return True
    if kind == OBJECT:
        if len(one) != len(two):
            return False
        for key, item in one.items():
            if key not in two or not _equal(item, two[key], depth + 1):
                return False
        return True
    return one == two


cdef list _ordered(dict value):
    try:
        return sorted(value)
    except TypeError:  # keys that are no strings; canonical JSON refuses them, here they must only do no harm
        return sorted(value, key=repr)


cdef bint _is_multiple(object value, object multiple) except -1:
    """Divide exactly; a float means the shortest decimal number that reads as it."""
    cdef Py_ssize_t power, other
    if isinstance(value, int) and type(multiple) is int:
        return value % multiple == 0
    number, power = _decimal(value)
    divisor, other = _decimal(multiple)
    # `_TEN` is an object: on C numbers Cython's power is one of doubles.
    if power > other:
        number *= _TEN ** (power - other)
    else:
        divisor *= _TEN ** (other - power)
    return number % divisor == 0


cdef tuple _decimal(object value):
    """Return integers m and e with value == m * 10**e."""
    cdef Py_ssize_t power
    if not isinstance(value, float):
        return value, 0
    if value - value != 0.0:
        return 1, -400  # no JSON number; a multiple of nothing
    digits, _, exponent = float.__repr__(value).partition("e")
    whole, _, fraction = digits.partition(".")
    power = int(exponent or 0) - len(fraction)
    return int(whole + fraction), power


cdef tuple _first_twins(list array, Run *run):
    """Return the indexes of the first item that equals an earlier one, or None, in linear time."""
    cdef dict seen = {}
    cdef Py_ssize_t index
    cdef list out
    for index in range(len(array)):
        out = []
        _write_key(array[index], out, 0)
        run.steps -= len(out)
        if run.steps < 0:
            raise InvalidInput("the schema takes too many steps on this value", hint=_BUDGET_HINT)
        # INVARIANT: the keys are strings, whose hashes are salted; hashes of numbers can be made to collide.
        key = "".join(out)
        first = seen.setdefault(key, index)
        if first != index:
            return first, index
    return None


cdef int _write_key(object value, list out, int depth) except -1:
    """Append a text that is the same for equal JSON values only."""
    cdef int kind = _kind(value)
    if depth > MAX_DEPTH:
        raise InvalidInput("the value nests too deep for its schema")
    if kind == STRING:
        out.append(f"s{PyUnicode_GET_LENGTH(value)}:")
        out.append(value)
    elif kind == INTEGER:
        out.append(f"n{int(value):x};")
    elif kind == FRACTION:
        out.append(f"f{float.__repr__(value)};")
    elif kind == ARRAY:
        out.append(f"a{len(value)}:")
        for item in value:
            _write_key(item, out, depth + 1)
    elif kind == OBJECT:
        out.append(f"o{len(value)}:")
        for key in _ordered(<dict> value):
            _write_key(key, out, depth + 1)
            _write_key(value[key], out, depth + 1)
    else:
        out.append("z" if value is None else "t" if value is True else "b" if value is False else f"x{id(value)};")
    return 0


cdef int _report(Run *run, tuple path, int rank, str words, list errors) except -1:
    run.steps -= STEPS_PER_ERROR
    if len(errors) < MAX_ERRORS:
        errors.append((path, rank, words))
    return 0


cdef int _explain_extra(Node node, object value, Run *run, tuple path, object step, list errors) except -1:
    if node.never:
        words = "property is not expected here" if isinstance(step, str) else "item is not expected here"
        return _report(run, (*path, step), 0, words, errors)
    return node.explain(value, run, (*path, step), errors)


cdef int _explain_alternatives(tuple nodes, object value, Run *run, tuple path, list errors) except -1:
    """Report the errors of the one alternative that was meant, judged by its type, else that none matches."""
    cdef Node node
    cdef int types = 0
    cdef list meant = []
    cdef list found, wrong
    for node in nodes:
        found = []
        node.explain(value, run, path, found)
        wrong = [error for error in found if error[0] == path and error[1] <= 1]
        if not wrong:
            meant.append(found)
        elif wrong[0][1] == 1:
            types |= node.types
        else:
            types |= ANY + 1
    if len(meant) == 1:
        errors.extend(meant[0][:MAX_ERRORS - len(errors)])
        return 0
    if not meant and 0 < types < ANY:
        return _report(run, path, 1, f"expected {_type_words(types)}, found {_kind_word(_kind(value))}", errors)
    return _report(run, path, 6, f"matches none of {len(nodes)} alternatives", errors)


cdef str _type_words(int types):
    names = [name for name, bits in _KINDS.items() if types & bits == bits]
    if "number" in names:
        names.remove("integer")
    return " or ".join(names)


cdef str _kind_word(int kind):
    if kind == FRACTION:
        return "number"
    for name, bits in _KINDS.items():
        if bits == kind:
            return name
    return "something that is not JSON"


cdef str _choice_words(tuple choices):
    words = ", ".join(f"`{_shown(_json(choice))}`" for choice in choices[:10])
    if len(choices) == 1:
        return words
    return f"one of {words}" + (f" and {len(choices) - 10} more" if len(choices) > 10 else "")


cdef str _count(Py_ssize_t count, str noun):
    if count != 1:
        noun = "properties" if noun == "property" else noun + "s"
    return f"{count} {noun}"


def _json(value):
    from json import dumps

    try:
        return dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # an integer longer than this process prints
        return "a very large number" if isinstance(value, int) else "?"


def _shown(text):
    """Return text for a message: one line, at most 80 characters, always encodable."""
    text = text if len(text) <= 80 else text[:77] + "..."
    return "".join([c if c.isprintable() and c != "`" else f"\\u{ord(c):04x}" for c in text])
