from typing import Any, Self, final

from cra._core.chain import EventBatch
from cra._core.policy import Outcome

@final
class Fragments:
    def __new__(
        cls,
        *,
        actions: list[tuple[bytes, bytes, bytes]],
        atlases: list[bytes],
        policies: list[tuple[bytes, bytes, bytes, bytes, tuple[bytes, bytes]]],
        blocks: list[tuple[bytes, bytes, bytes]],
        snapshot_digest: str,
    ) -> Self: ...
    def prefix(self, outcome: Outcome, chosen: list[int]) -> Prefix: ...

@final
class Prefix:
    note: Any
    @property
    def limited(self) -> bool: ...
    @property
    def decision_type(self) -> str: ...
    @property
    def reason(self) -> str | None: ...

@final
class Answer:
    @property
    def prefix(self) -> Prefix: ...
    @property
    def data(self) -> bytes: ...

def resolve(
    batch: EventBatch,
    f: Fragments,
    outcome: Outcome,
    prefix: Prefix,
    agent_id: str,
    goal: str,
    risk: str,
    hints: tuple[str, ...],
    capabilities: tuple[str, ...],
    atlas_ids: tuple[str, ...],
    context: dict[str, Any],
    capture: bool,
    ttl_seconds: int,
    chosen: list[int],
    skipped: list[int],
    request_id: str | None = None,
    timestamp: str | None = None,
    parent_session_id: str | None = None,
) -> tuple[Answer, str, str, str]: ...
