"""Nothing here is for Python: other compiled modules cimport it."""
