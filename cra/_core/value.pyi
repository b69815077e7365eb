# All of it is for the core.
