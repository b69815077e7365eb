"""cra execute: make one governed call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cra.cli._ask import AgentOption, ParametersOption, RiskOption, check_who, session_of, task_of, warn_of_nothing
from cra.cli._exit import UsageError
from cra.cli._input import read_json, read_parameters
from cra.cli._options import AtlasOption, JsonOption, SessionOption, SettingOption, StorageOption, settings
from cra.cli._output import Output

if TYPE_CHECKING:
    from cra.runtime.sync import CRARuntime


def command(
    action: Annotated[str, typer.Argument(help="The action's id.", show_default=False)],
    parameter: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=TEXT|KEY:=JSON", help="Parameters.", show_default=False)
    ] = None,
    session: SessionOption = None,
    agent: AgentOption = None,
    goal: Annotated[
        str | None, typer.Option("--goal", metavar="TEXT", help="Resolve for this goal first.", show_default=False)
    ] = None,
    parameters: ParametersOption = None,
    executors: Annotated[
        str | None,
        typer.Option(
            "--executors",
            metavar="MODULE:OBJECT|FILE.py",
            help="Called with the runtime, to register executors.",
            show_default=False,
        ),
    ] = None,
    returns: Annotated[
        str | None,
        typer.Option("--returns", metavar="JSON", help="Answer every call with this instead.", show_default=False),
    ] = None,
    resolution: Annotated[
        str | None, typer.Option("--resolution", metavar="ID", help="Go by this resolution.", show_default=False)
    ] = None,
    approval: Annotated[
        str | None, typer.Option("--approval", metavar="ID", help="The approval for this call.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", metavar="KEY", help="The same key runs the call once.", show_default=False),
    ] = None,
    risk: RiskOption = "low",
    atlas: AtlasOption = None,
    storage: StorageOption = None,
    setting: SettingOption = None,
    json: JsonOption = False,
) -> int:
    """Run an action if policy allows it, and print its result.

    The call goes by the session's newest resolution that offers the action; --goal makes one first. A command line
    knows no functions: --executors names a Python callable that gets the runtime and registers them, or a mapping of
    globs to functions; --returns stands in for all of them. Exit code 1 when denied, 6 when a person has to approve.

    \b
    Examples:
      cra execute ticket.get ticket_id=T-1042 --session SESSION --executors my_desk:register
      cra execute refund.create -p '{"ticket_id": "T-1042", "amount": 20}' -S SESSION --returns '{"refund_id": "R-1"}'
      cra execute kb.search query=refund --agent support-1 --goal "Find the rules" --returns '{"articles": []}'
    """
    from msgspec.json import decode

    from cra.cli._runtime import make_request, open_runtime
    from cra.cli._show import response_exit, show_response
    from cra.protocol.carp import ExecuteResponse
    from cra.runtime.registrar import registrar

    chosen = settings(storage=storage, atlas=atlas, setting=setting, json=json)
    out = Output(chosen.json)
    check_who(session, agent)
    if agent is not None and goal is None:
        raise UsageError(
            "a new session has resolved nothing yet", hint="give --goal TEXT too: what the agent wants to do"
        )
    if (executors is None) == (returns is None):
        raise UsageError(
            "give either --executors MODULE:OBJECT or --returns JSON",
            hint="something has to do the work; to only ask, use `cra simulate --action`",
        )
    values = read_parameters(parameters, parameter or ())
    call = {
        "action_id": action,
        "parameters": values,
        "resolution_id": resolution,
        "approval_id": approval,
        "idempotency_key": key,
    }
    task = task_of(risk, None, None, None, None)["task"]
    register = _fixed(returns) if executors is None else registrar(executors)
    with open_runtime(chosen, create=session is None, atlases=True) as runtime:
        warn_of_nothing(out, chosen)
        register(runtime)
        record = session_of(runtime, out, chosen, session, agent, goal or "")
        if goal is not None:
            runtime.handle(make_request(runtime, record, "resolve", goal, task=task))
        request = make_request(
            runtime,
            record,
            "execute",
            goal or record.goal,
            task=task,
            execution={name: value for name, value in call.items() if value is not None},
        )
        answer = runtime.handle(request)
    response = decode(answer, type=ExecuteResponse)
    if chosen.json:
        out.raw(answer + b"\n")
        return response_exit(response)
    return show_response(out, response)


def _fixed(returns: str | None) -> Callable[[CRARuntime], None]:
    value = read_json(returns or "null", what="--returns")
    return lambda runtime: runtime.register_executor("*", lambda parameters: value, inline=True)
