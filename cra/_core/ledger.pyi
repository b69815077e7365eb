from typing import Any

from cra._core.chain import EventBatch

KEPT: int
MISPLACED: int
KNOWN: int
FULL: int

class Room:
    left: int
    def __init__(self, left: int, most_resolutions: int) -> None: ...
    @property
    def most_resolutions(self) -> int: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *raised: object) -> None: ...

class Ledger:
    requests: set[str] | None
    resolutions: dict[str, Any] | None
    def __init__(self, room: Room, sequence: int = 0, head: str = ..., last_us: int = 0, actions: int = 0) -> None: ...
    @property
    def room(self) -> Room: ...
    @property
    def pieces(self) -> list[int | bytes]: ...
    @property
    def sequence(self) -> int: ...
    @property
    def last_us(self) -> int: ...
    @property
    def actions(self) -> int: ...
    @property
    def head(self) -> str: ...
    def takes(self, expected_head: str, batch: EventBatch) -> bool: ...
    def knows(self, request_id: str | None = None) -> bool: ...
    def append(
        self,
        expected_head: str,
        batch: EventBatch,
        actions: int = 0,
        request_id: str | None = None,
        resolution_id: str | None = None,
        resolution: object = None,
        held: bool = False,
    ) -> int: ...
    def add(
        self,
        batch: EventBatch,
        actions: int = 0,
        request_id: str | None = None,
        resolution_id: str | None = None,
        resolution: object = None,
    ) -> None: ...
    def close(self) -> None: ...
