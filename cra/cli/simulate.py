"""cra simulate: ask without consequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from cra.cli._ask import (
    AtlasIdOption,
    CapabilityOption,
    ContextOption,
    HintOption,
    ParametersOption,
    RiskOption,
    task_of,
    warn_of_nothing,
)
from cra.cli._exit import UsageError
from cra.cli._input import read_parameters
from cra.cli._options import AtlasOption, JsonOption, SessionOption, SettingOption, StorageOption, settings
from cra.cli._output import Output


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="GOAL|KEY=TEXT|KEY:=JSON",
            help="The goal, or the parameters of --action.",
            show_default=False,
        ),
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ID", help="Simulate a call of this action.", show_default=False)
    ] = None,
    session: SessionOption = None,
    agent: Annotated[
        str, typer.Option("--agent", metavar="NAME", help="Who asks, when no session is named.")
    ] = "agent",
    parameters: ParametersOption = None,
    risk: RiskOption = "low",
    hint: HintOption = None,
    capability: CapabilityOption = None,
    atlas_id: AtlasIdOption = None,
    context: ContextOption = None,
    atlas: AtlasOption = None,
    storage: StorageOption = None,
    setting: SettingOption = None,
    json: JsonOption = False,
) -> int:
    """Answer as resolve or execute would, and do nothing.

    Nothing is consumed, executed or written. Without --session the question is asked in a session that exists only
    for this command, of an agent that has just resolved it. Exit codes as those of resolve and execute.

    \b
    Examples:
      cra simulate "Refund the second charge" --agent support-1 -a examples/atlases/customer-support
      cra simulate --action refund.create ticket_id=T-1042 amount:=600 currency=EUR reason=defective --agent support-1
      cra simulate --action ticket.delete ticket_id=T-1042 --session SESSION --json
    """
    import msgspec

    from cra.cli._runtime import open_runtime
    from cra.cli._show import response_exit, show_resolution, show_response
    from cra.protocol.carp import Resolution

    chosen = settings(storage=storage, atlas=atlas, setting=setting, json=json)
    out = Output(chosen.json)
    given = list(words or ())
    if action is None and (len(given) != 1 or parameters is not None):
        raise UsageError(
            "give one GOAL, or --action ID with its parameters", hint='such as: cra simulate "Close tickets"'
        )
    fields = task_of(risk, hint, capability, atlas_id, context)
    narrow: dict[str, Any] = {
        **fields["task"],
        "atlas_ids": fields["atlas_ids"],
        "context": fields["context"],
    }
    values = read_parameters(parameters, given) if action is not None else None
    if session is None:
        chosen = replace(chosen, storage="memory")
    with open_runtime(chosen, atlases=True) as runtime:
        warn_of_nothing(out, chosen)
        goal = f"Call {action}" if action is not None else given[0]
        session_id = session if session is not None else runtime.create_session(agent, goal).session_id
        if action is None:
            simulation = runtime.simulate(session_id, goal, **narrow)
        else:
            if session is None:
                runtime.resolve(session_id, goal, **narrow)
            simulation = runtime.simulate(session_id, action_id=action, parameters=values)
    answer = simulation.answer
    if chosen.json:
        events = [{"event_type": event.event_type, "payload": event.payload} for event in simulation.events]
        out.data({"simulated": True, "answer": msgspec.to_builtins(answer), "events": events})
        if isinstance(answer, Resolution):
            return 1 if answer.decision.type == "deny" else 0
        return response_exit(answer)
    return show_resolution(out, answer) if isinstance(answer, Resolution) else show_response(out, answer)
