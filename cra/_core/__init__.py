"""The sums, compiled: bytes and builtins in, bytes and builtins out; no I/O, no clock, no randomness."""
