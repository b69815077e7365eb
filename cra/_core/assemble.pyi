from typing import Any, Self, final

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
