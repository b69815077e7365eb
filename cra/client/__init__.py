"""The runtime's methods over HTTP: `CRAClient` and `AsyncCRAClient`."""

from cra.client.asynchronous import AsyncCRAClient
from cra.client.sync import CRAClient

__all__ = ["AsyncCRAClient", "CRAClient"]
