"""ServiceSettings: everything that can be set about the service."""

from typing import Any, Literal

from msgspec import Struct


class ServiceSettings(Struct, frozen=True, kw_only=True):
    """The settings of a service; see `docs/server.md`."""

    host: str = "127.0.0.1"
    port: int = 8420
    workers: int = 1
    storage: str = "sqlite:///cra.db"
    atlases: tuple[str, ...] = ()
    executors: str | None = None
    dev: bool = False
    access_log: Literal["none", "json"] = "none"
    max_body_bytes: int = 1 << 20
    max_header_bytes: int = 32 << 10
    max_connections: int = 4096
    max_concurrency: int = 64
    max_queue: int = 256
    max_streams: int = 256
    header_timeout_seconds: int = 10
    body_timeout_seconds: int = 20
    request_timeout_seconds: int = 330
    stream_stall_seconds: int = 30
    heartbeat_seconds: int = 15
    keep_alive_seconds: int = 75
    shutdown_seconds: int = 30
    runtime: dict[str, Any] = {}
    auth: dict[str, Any] = {}
