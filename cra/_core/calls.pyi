from typing import Any

from cra._core.assemble import Fragments
from cra._core.chain import EventBatch

def take(value: Any) -> tuple[Any, str, int]: ...
def requested(
    batch: EventBatch,
    f: Fragments,
    action_id: str,
    parameters_hash: str,
    request_id: str,
    resolution_id: str | None = None,
    parameters: dict[str, Any] | None = None,
    replay_of: str | None = None,
    risk: str | None = None,
    approval_id: str | None = None,
) -> None: ...
def evaluated(batch: EventBatch, f: Fragments, action: int, policy: int, result: str, wait_us: int = 0) -> None: ...
def permitted(
    batch: EventBatch,
    f: Fragments,
    action: int,
    policy: int,
    parameters_hash: str,
    request_id: str,
    resolution_id: str,
    execution_id: str,
    parameters: dict[str, Any] | None = None,
    risk: str | None = None,
    named_approval_id: str | None = None,
    approval_id: str | None = None,
    approver: str | None = None,
) -> None: ...
def executed(
    batch: EventBatch,
    action_id: str,
    execution_id: str,
    resolution_id: str,
    duration_ms: int,
    result_hash: str,
) -> None: ...
