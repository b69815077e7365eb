"""What resolve, execute and simulate have in common: the session, and the options of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra.cli._exit import UsageError
from cra.cli._input import read_object
from cra.cli._output import Output

if TYPE_CHECKING:
    from cra.cli._options import Settings
    from cra.runtime.sync import CRARuntime
    from cra.storage.base import SessionRecord

RISKS = ("low", "medium", "high", "critical")

AgentOption = Annotated[
    str | None,
    typer.Option("--agent", metavar="NAME", help="Start a session for this agent first.", show_default=False),
]
RiskOption = Annotated[str, typer.Option("--risk", metavar="TIER", help="low, medium, high or critical.")]
HintOption = Annotated[
    list[str] | None,
    typer.Option("--hint", metavar="TEXT", help="Words that context should be about; repeatable.", show_default=False),
]
CapabilityOption = Annotated[
    list[str] | None,
    typer.Option("--capability", metavar="ID", help="Only actions of this capability; repeatable.", show_default=False),
]
AtlasIdOption = Annotated[
    list[str] | None,
    typer.Option("--atlas-id", metavar="ID", help="Only this one of the atlases; repeatable.", show_default=False),
]
ContextOption = Annotated[
    str | None,
    typer.Option("--context", metavar="JSON", help="Facts for conditions: an object, @file or -.", show_default=False),
]
ParametersOption = Annotated[
    str | None,
    typer.Option(
        "--parameters", "-p", metavar="JSON", help="The call's parameters: an object, @file or -.", show_default=False
    ),
]


def task_of(
    risk: str,
    hints: list[str] | None,
    capabilities: list[str] | None,
    atlas_ids: list[str] | None,
    context: str | None,
) -> dict[str, Any]:
    """Return the fields of a request that these options stand for."""
    if risk not in RISKS:
        raise UsageError(f"--risk is `{risk}`, expected one of {', '.join(RISKS)}")
    return {
        "task": {
            "risk_tier": risk,
            "context_hints": list(hints or ()),
            "required_capabilities": list(capabilities or ()),
        },
        "atlas_ids": list(atlas_ids or ()),
        "context": read_object(context, what="--context"),
    }


def check_who(session: str | None, agent: str | None) -> None:
    """Raise `UsageError` unless exactly one of the two says who asks."""
    if (session is None) == (agent is None):
        raise UsageError(
            "give either --session or --agent",
            hint="--session ID goes on with a session, --agent NAME starts one",
        )


def session_of(
    runtime: CRARuntime, out: Output, settings: Settings, session: str | None, agent: str | None, goal: str
) -> SessionRecord:
    """Return the session that was named, or start one."""
    if agent is None:
        return runtime.get_session(session or "")
    record = runtime.create_session(agent, goal)
    if settings.storage != "memory":
        out.note(f"session {record.session_id} started for {agent}")
    return record


def warn_of_nothing(out: Output, settings: Settings) -> None:
    """Say why everything will be denied when there is no atlas."""
    if not settings.atlases:
        out.note("no atlas is loaded, so nothing can be allowed: give --atlas PATH, or set CRA_ATLASES")
