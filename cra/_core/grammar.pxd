"""The fields of a TRACE line, found by position."""

# A scan of one line. When it fails, `p` is where, `expected` what should be there, and `exact` whether that is the very
# text or a description of it.
cdef struct Scan:
    const char *p
    const char *end
    const char *expected
    bint exact

# The fields of one line that passed the grammar.
cdef struct Line:
    const char *event_id
    const char *trace_id
    const char *span_id
    const char *parent  # NULL when the event has none
    const char *session_id
    const char *sequence
    const char *timestamp
    const char *event_type
    const char *payload
    const char *event_hash
    const char *previous_hash
    Py_ssize_t sequence_size
    Py_ssize_t event_type_size
    Py_ssize_t payload_size

# Split a line, without its line feed, by position; every byte of it is accounted for. False when `scan` says why not.
cdef bint parse_line(Scan *scan, Line *line) except -1

# Return the characters of a text that is a UUID, a digest or an event type; raise with `name` otherwise.
cdef const char *uuid_text(str text, str name) except NULL
cdef const char *digest_text(str text, str name) except NULL
cdef const char *event_type_text(str text, Py_ssize_t *n) except NULL
