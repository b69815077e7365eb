"""The service: the runtime over HTTP."""
