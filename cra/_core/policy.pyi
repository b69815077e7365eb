from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, final

DECISIONS: tuple[str, ...]
PHASES: tuple[str, ...]

@final
class Outcome:
    size: int
    allowed_count: int
    approval_count: int
    denied_count: int
    def __new__(cls, size: int, usage: dict[int, int] | None = None) -> Self: ...
    def decision(self, action: int) -> tuple[str, int] | None: ...
    def offered(self, plain: list[Any], confirming: list[Any]) -> tuple[Any, ...]: ...
    def refused(self) -> list[tuple[int, str, int]]: ...
    def bindings(self) -> list[tuple[int, list[int]]]: ...

_Match: TypeAlias = Callable[[Any], bool]

@final
class PolicyTable:
    action_count: int
    policy_count: int
    window_count: int
    def __new__(
        cls,
        actions: list[tuple[int, int, bool]],
        policies: list[
            tuple[
                int,
                int,
                Sequence[str] | None,
                Sequence[tuple[str, str]] | None,
                int,
                _Match | None,
                _Match | None,
                int,
                Sequence[int],
            ]
        ],
        windows: int = 0,
    ) -> Self: ...
    def evaluate(
        self,
        agent_id: str,
        risk: int,
        context: dict[str, Any] | None = None,
        windows: bytes | None = None,
        usage: dict[int, int] | None = None,
        considered: bytes | None = None,
    ) -> Outcome: ...
    def decide(
        self,
        action: int,
        agent_id: str,
        risk: int,
        context: dict[str, Any] | None = None,
        windows: bytes | None = None,
        usage: dict[int, int] | None = None,
        parameters: Any = None,
        approved: bool = False,
    ) -> tuple[str, int]: ...
    def limits(
        self,
        action: int,
        agent_id: str,
        risk: int,
        context: dict[str, Any] | None = None,
        windows: bytes | None = None,
        parameters: Any = None,
    ) -> list[int]: ...
