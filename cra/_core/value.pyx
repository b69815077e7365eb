"""JSON values as Python builtins: of which kind, equal or not, multiples or not, twins among many."""

from cra.errors import InvalidInput

# Values nest at most 128 deep; what is compared never comes near this.
cdef int MAX_DEPTH = 400
_TEN = 10


cdef int other_kind(object value) except -1:
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
    return FOREIGN


cdef object plain(object value):
    """Return a string or number without its subclass, so that equality and hash are the plain ones."""
    if isinstance(value, str):
        return PyUnicode_FromObject(value)
    if isinstance(value, float):
        return value if type(value) is float else float.__float__(value)
    return int.__int__(value)


cdef bint equal(object one, object two, int depth) except -1:
    """Say whether two JSON values are equal: by value, never across the types of JSON."""
    cdef int kind = kind_of(one)
    cdef int other = kind_of(two)
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
            if not equal(one[index], two[index], depth + 1):
                return False
        return True
    if kind == OBJECT:
        if len(one) != len(two):
            return False
        for key, item in one.items():
            if key not in two or not equal(item, two[key], depth + 1):
                return False
        return True
    return one == two


cdef list ordered(dict value):
    try:
        return sorted(value)
    except TypeError:  # keys that are no strings; canonical JSON refuses them, here they must only do no harm
        return sorted(value, key=repr)


cdef bint is_multiple(object value, object multiple) except -1:
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


cdef tuple first_twins(list array, long long *steps):
    """Return the indexes of the first item that equals an earlier one, or None; linear, and taken off `steps`."""
    cdef dict seen = {}
    cdef Py_ssize_t index
    cdef list out
    for index in range(len(array)):
        out = []
        _write_key(array[index], out, 0)
        steps[0] -= len(out)
        if steps[0] < 0:
            raise InvalidInput("the schema takes too many steps on this value")
        # INVARIANT: the keys are strings, whose hashes are salted; hashes of numbers can be made to collide.
        key = "".join(out)
        first = seen.setdefault(key, index)
        if first != index:
            return first, index
    return None


cdef int _write_key(object value, list out, int depth) except -1:
    """Append a text that is the same for equal JSON values only."""
    cdef int kind = kind_of(value)
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
        for key in ordered(<dict> value):
            _write_key(key, out, depth + 1)
            _write_key(value[key], out, depth + 1)
    else:
        out.append("z" if value is None else "t" if value is True else "b" if value is False else f"x{id(value)};")
    return 0
