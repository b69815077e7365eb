"""What is wrong with a value that does not match its schema, in words and in an order that never changes."""

from cra._core.pattern cimport Pattern
from cra._core.schema cimport (
    IN_PLACE, ON_ARRAY, ON_NUMBER, ON_OBJECT, ON_STRING, ON_VALUE, UNEVALUATED, Node, Run, Schema, _Seen, _Slot, enter,
    search, start,
)
from cra._core.value cimport (
    ANY, ARRAY, BOOLEAN, FRACTION, INTEGER, NULL_, OBJECT, STRING, PyUnicode_GET_LENGTH, first_twins, is_multiple,
    kind_of, ordered,
)

from cra.errors import InvalidInput

# Reports stop here; explaining is slower than checking and takes more steps for it.
cdef int MAX_ERRORS = 500
cdef long long STEPS_PER_VISIT = 10
cdef long long STEPS_PER_ERROR = 1000

_KINDS = {"null": NULL_, "boolean": BOOLEAN, "integer": INTEGER, "number": INTEGER | FRACTION, "string": STRING,
          "array": ARRAY, "object": OBJECT}


def errors(Schema schema not None, value: object) -> list:
    """Return (path, words) for what is wrong, in the order of the paths; [] when `value` matches, at most 500.

    Words never repeat strings or numbers of the value, which may be secret; property names they do.
    """
    cdef Run run
    cdef list found = []
    cdef list scope = [] if schema.dynamic else None
    start(&run, scope)
    try:
        _explain(schema.root, value, &run, (), found)
    except InvalidInput:
        # What was found up to there is true; only when nothing was is there no answer.
        if not found:
            raise
    found.sort(key=_place)
    return [(path, words) for path, _, words in dict.fromkeys(found)]


def _place(error):
    # Steps of one array or object are of one type; where they are not, the value is no JSON.
    return [(step, "") if isinstance(step, int) else (-1, str(step)) for step in error[0]], error[1], error[2]


cdef int _explain(Node node, object value, Run *run, tuple path, list errors) except -1:
    """Append (path, rank, words) for everything wrong with `value`; the order is that of a fixed walk."""
    if len(errors) >= MAX_ERRORS:
        return 0
    enter(run, STEPS_PER_VISIT)
    if run.scope != NULL:
        (<list> run.scope).append(node.resource)
    _explain_all(node, value, kind_of(value), run, path, errors)
    if run.scope != NULL:
        (<list> run.scope).pop()
    run.depth -= 1
    return 0


cdef int _explain_all(Node node, object value, int kind, Run *run, tuple path, list errors) except -1:
    cdef Py_ssize_t before = len(errors)
    cdef _Seen seen
    if node.never:
        return _report(run, path, 0, "no value is allowed here", errors)
    if kind & node.types == 0:
        return _report(run, path, 1, f"expected {_type_words(node.types)}, found {_kind_word(kind)}", errors)
    if node.flags & ON_VALUE and not node.check_choices(value, kind):
        _report(run, path, 2, f"expected {_choice_words(node.choices)}", errors)
    if kind == STRING and node.flags & ON_STRING:
        _explain_string(node, value, run, path, errors)
    elif kind & (INTEGER | FRACTION) and node.flags & ON_NUMBER:
        _explain_number(node, value, run, path, errors)
    elif kind == OBJECT and node.flags & ON_OBJECT:
        _explain_object(node, value, run, path, errors)
    elif kind == ARRAY and node.flags & ON_ARRAY:
        _explain_array(node, value, run, path, errors)
    if node.flags & IN_PLACE:
        _explain_in_place(node, value, run, path, errors)
    if node.flags & UNEVALUATED and len(errors) == before:
        seen = _Seen()
        if node.flags & IN_PLACE:
            node.check_in_place(value, run, seen)
        if kind == OBJECT:
            if node.flags & ON_OBJECT:
                node.check_object(value, run, seen)
            if node.unevaluated_properties is not None and not seen.everything:
                for key in ordered(<dict> value):
                    if key not in seen.keys:
                        _explain_extra(node.unevaluated_properties, value[key], run, path, key, errors)
        elif kind == ARRAY:
            if node.flags & ON_ARRAY:
                node.check_array(value, run, seen)
            if node.unevaluated_items is not None and not seen.everything:
                for index in range(seen.prefix, len(value)):
                    if index not in seen.indexes:
                        _explain_extra(node.unevaluated_items, value[index], run, path, index, errors)
    return 0


cdef int _explain_string(Node node, object value, Run *run, tuple path, list errors) except -1:
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(value)
    if length < node.min_length:
        _report(run, path, 3, f"expected at least {_count(node.min_length, 'character')}, found {length}", errors)
    if node.max_length >= 0 and length > node.max_length:
        _report(run, path, 3, f"expected at most {_count(node.max_length, 'character')}, found {length}", errors)
    if node.pattern is not None and not search(node.pattern, value, run):
        _report(run, path, 4, f"expected text that matches `{_shown(node.pattern.source)}`", errors)
    return 0


cdef int _explain_number(Node node, object value, Run *run, tuple path, list errors) except -1:
    if node.minimum is not None and value < node.minimum:
        _report(run, path, 3, f"expected at least {_json(node.minimum)}", errors)
    if node.maximum is not None and value > node.maximum:
        _report(run, path, 3, f"expected at most {_json(node.maximum)}", errors)
    if node.above is not None and value <= node.above:
        _report(run, path, 3, f"expected more than {_json(node.above)}", errors)
    if node.below is not None and value >= node.below:
        _report(run, path, 3, f"expected less than {_json(node.below)}", errors)
    if node.multiple is not None and not is_multiple(value, node.multiple):
        _report(run, path, 4, f"expected a multiple of {_json(node.multiple)}", errors)
    return 0


cdef int _explain_object(Node node, dict value, Run *run, tuple path, list errors) except -1:
    cdef Py_ssize_t size = len(value)
    cdef _Slot slot
    cdef Node part
    cdef list found
    for name in node.required:
        if name not in value:
            _report(run, path, 3, f"property `{_shown(name)}` is missing", errors)
    if size < node.min_properties:
        words = f"expected at least {_count(node.min_properties, 'property')}, found {size}"
        _report(run, path, 4, words, errors)
    if node.max_properties >= 0 and size > node.max_properties:
        words = f"expected at most {_count(node.max_properties, 'property')}, found {size}"
        _report(run, path, 4, words, errors)
    for name, others in node.dependent_required:
        if name in value:
            for other in others:
                if other not in value:
                    words = f"property `{_shown(other)}` is missing, `{_shown(name)}` requires it"
                    _report(run, path, 5, words, errors)
    for key in ordered(value):
        item = value[key]
        matched = False
        slot = node.properties.get(key)
        if slot is not None and slot.node is not None:
            matched = True
            if slot.node.never:
                _explain_extra(slot.node, item, run, path, key, errors)
            else:
                _explain(slot.node, item, run, (*path, key), errors)
        for pattern, part in node.pattern_properties:
            if search(<Pattern> pattern, key, run):
                matched = True
                _explain(part, item, run, (*path, key), errors)
        if not matched and node.additional is not None:
            _explain_extra(node.additional, item, run, path, key, errors)
        if node.names is not None and not node.names.check(key, run, None):
            found = []
            _explain(node.names, key, run, (), found)
            words = found[0][2] if found else "no name is allowed here"
            _report(run, (*path, key), 0, f"property name: {words}", errors)
    for name, part in node.dependent_schemas:
        if name in value:
            _explain(part, value, run, path, errors)
    return 0


cdef int _explain_array(Node node, object value, Run *run, tuple path, list errors) except -1:
    cdef Py_ssize_t size = len(value)
    cdef Py_ssize_t prefix = len(node.prefix)
    cdef Py_ssize_t index, count
    cdef Node part
    if size < node.min_items:
        _report(run, path, 3, f"expected at least {_count(node.min_items, 'item')}, found {size}", errors)
    if node.max_items >= 0 and size > node.max_items:
        _report(run, path, 3, f"expected at most {_count(node.max_items, 'item')}, found {size}", errors)
    if node.contains is not None:
        count = 0
        for item in value:
            count += node.contains.check(item, run, None)
        if count < node.min_contains:
            words = f"expected at least {_count(node.min_contains, 'item')} as `contains` says, found {count}"
            _report(run, path, 4, words, errors)
        if node.max_contains >= 0 and count > node.max_contains:
            words = f"expected at most {_count(node.max_contains, 'item')} as `contains` says, found {count}"
            _report(run, path, 4, words, errors)
    if node.unique:
        twins = first_twins(list(value), &run.steps)
        if twins is not None:
            _report(run, path, 5, f"items {twins[0]} and {twins[1]} are equal", errors)
    for index in range(size):
        if index < prefix:
            part = node.prefix[index]
            _explain(part, value[index], run, (*path, index), errors)
        elif node.items is not None:
            _explain_extra(node.items, value[index], run, path, index, errors)
    return 0


cdef int _explain_in_place(Node node, object value, Run *run, tuple path, list errors) except -1:
    cdef Node part
    cdef int count
    if node.all_of is not None:
        for part in node.all_of:
            _explain(part, value, run, path, errors)
    if node.dynamic is not None:
        _explain(node.dynamic_target(run), value, run, path, errors)
    if node.not_ is not None and node.not_.check(value, run, None):
        _report(run, path, 6, "the value is one that `not` excludes", errors)
    if node.if_ is not None:
        part = node.then if node.if_.check(value, run, None) else node.else_
        if part is not None:
            _explain(part, value, run, path, errors)
    if node.any_of is not None:
        for part in node.any_of:
            if part.check(value, run, None):
                break
        else:
            _explain_alternatives(node.any_of, value, run, path, errors)
    if node.one_of is not None:
        count = 0
        for part in node.one_of:
            count += part.check(value, run, None)
        if count == 0:
            _explain_alternatives(node.one_of, value, run, path, errors)
        elif count > 1:
            words = f"matches {count} of {len(node.one_of)} alternatives, expected exactly one"
            _report(run, path, 6, words, errors)
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
    return _explain(node, value, run, (*path, step), errors)


cdef int _explain_alternatives(tuple nodes, object value, Run *run, tuple path, list errors) except -1:
    """Report the errors of the one alternative that was meant, judged by its type, else that none matches."""
    cdef Node node
    cdef int types = 0
    cdef list meant = []
    cdef list found, wrong
    for node in nodes:
        found = []
        _explain(node, value, run, path, found)
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
        return _report(run, path, 1, f"expected {_type_words(types)}, found {_kind_word(kind_of(value))}", errors)
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
