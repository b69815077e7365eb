"""The service over HTTP, measured beside an echo on the same stack."""
