"""The cases of the conformance vectors: what is put in and, where a person can say it, what must come out."""
