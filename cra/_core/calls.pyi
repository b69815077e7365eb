from collections.abc import Callable
from typing import Any, final

from cra._core.assemble import Fragments, Prefix
from cra._core.chain import EventBatch
from cra._core.policy import Outcome, PolicyTable

PERMITTED: int
UNOFFERED: int
REFUSED: int
WAITING: int
INVALID: int

UNASKED: int
ABSENT: int
GRANTED: int

@final
class Call:
    def __init__(
        self,
        action_id: str,
        parameters: dict[str, Any],
        parameters_hash: str,
        risk: str | None = None,
        approval_id: str | None = None,
        capture: bool = False,
    ) -> None: ...
    @property
    def action_id(self) -> str: ...
    @property
    def parameters(self) -> dict[str, Any]: ...
    @property
    def parameters_hash(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def request_id(self) -> str: ...
    @property
    def execution_id(self) -> str: ...
    @property
    def started_us(self) -> int: ...
    @property
    def policy(self) -> int: ...
    @property
    def decision(self) -> str: ...
    def begin(self, batch: EventBatch, request_id: str | None = None) -> None: ...

@final
class Answer:
    @property
    def prefix(self) -> Prefix: ...
    @property
    def data(self) -> bytes: ...

def take(
    action_id: str,
    parameters: dict[str, Any],
    risk: str | None = None,
    approval_id: str | None = None,
    capture: bool = False,
) -> Call: ...
def weigh(result: Any) -> tuple[str, int]: ...
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
def judge(
    batch: EventBatch,
    table: PolicyTable,
    f: Fragments,
    call: Call,
    action: int,
    agent_id: str,
    risk: int,
    resolution_id: str,
    offered: frozenset[str],
    matches: Callable[[Any], bool],
    record: bool,
    context: dict[str, Any] | None = None,
    windows: bytes | None = None,
    usage: dict[int, int] | None = None,
    consent: int = 0,
    approval_id: str | None = None,
    approver: str | None = None,
) -> int: ...
def requested(
    batch: EventBatch, f: Fragments, call: Call, resolution_id: str | None = None, replay_of: str | None = None
) -> None: ...
def evaluated(batch: EventBatch, f: Fragments, action: int, policy: int, result: str, wait_us: int = 0) -> None: ...
def executed(batch: EventBatch, call: Call, resolution_id: str, result_hash: str) -> None: ...
