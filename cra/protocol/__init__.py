"""The words: CARP, TRACE and Atlas as frozen structs, and the text they are read from."""
