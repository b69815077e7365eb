"""Runs an atlas's own test cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cra.atlas.cases import Case
    from cra.atlas.package import Atlas


class CaseResult(NamedTuple):
    """One case and in which ways it came out otherwise than expected; none means it passed."""

    name: str
    faults: list[str]

    @property
    def passed(self) -> bool:
        return not self.faults


def run_case(atlases: list[Atlas], case: Case) -> CaseResult:
    """Run one case in a runtime of its own, with its clock standing at the case's time."""
    from msgspec import UnsetType

    from cra.atlas.cases import call_faults, resolution_faults
    from cra.errors import CRAError
    from cra.protocol.times import parse_timestamp
    from cra.runtime.config import RuntimeConfig
    from cra.runtime.sync import CRARuntime

    now_us = parse_timestamp(case.at)
    ask = case.request
    try:
        with CRARuntime(RuntimeConfig(clock=lambda: now_us)) as runtime:
            for atlas in atlases:
                runtime.load_atlas(atlas)
            runtime.register_executor("*", lambda parameters: None, inline=True)
            session = runtime.create_session(ask.agent_id, ask.goal)
            resolution = runtime.resolve(
                session.session_id,
                ask.goal,
                risk_tier=ask.risk_tier,
                context_hints=ask.context_hints,
                required_capabilities=ask.required_capabilities,
                context=ask.context or None,
            )
            if isinstance(case.call, UnsetType):
                return CaseResult(case.name, resolution_faults(case.expect, resolution))
            call = {"action_id": case.call.action_id, "parameters": case.call.parameters}
            for _ in range(case.call.times - 1):
                _call(runtime, session, case, call)
            status, policy_id = _call(runtime, session, case, call)
            return CaseResult(case.name, call_faults(case.expect, status, policy_id))
    except CRAError as error:
        return CaseResult(case.name, [f"{error.message} [{error.code}]"])


def without_returns(atlas: Atlas) -> Atlas:
    """Return an atlas whose calls may return nothing: a case is about policy, and has no executors."""
    from cra.atlas.loader import load_json
    from cra.atlas.package import effective_manifest

    manifest = effective_manifest(atlas.manifest)
    for action in manifest["actions"]:
        action["returns_schema"] = {}
    return load_json(manifest, dict(atlas.files), source=atlas.source)


def _call(runtime: Any, session: Any, case: Case, call: dict[str, Any]) -> tuple[Any, str | None]:
    from msgspec.json import decode

    from cra.cli._runtime import make_request
    from cra.protocol.carp import ExecuteResponse

    before = len(runtime.get_trace(session.session_id))
    request = make_request(
        runtime, session, "execute", case.request.goal, execution=call, task={"risk_tier": case.request.risk_tier}
    )
    response = decode(runtime.handle(request), type=ExecuteResponse)
    if response.error is not None:
        return response.status, response.error.details.get("policy_id")
    evaluated = [
        event.payload["policy_id"]
        for event in runtime.get_trace(session.session_id, before)
        if event.event_type == "policy.evaluated"
    ]
    return response.status, evaluated[-1] if evaluated else None
