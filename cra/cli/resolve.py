"""cra resolve: what may this agent know and do?"""

from typing import Annotated

import typer

from cra.cli._ask import (
    AgentOption,
    AtlasIdOption,
    CapabilityOption,
    ContextOption,
    HintOption,
    RiskOption,
    check_who,
    session_of,
    task_of,
    warn_of_nothing,
)
from cra.cli._exit import UsageError
from cra.cli._options import AtlasOption, JsonOption, SessionOption, SettingOption, StorageOption, settings
from cra.cli._output import Output


def command(
    goal: Annotated[str | None, typer.Argument(help="What the agent wants to do.", show_default=False)] = None,
    session: SessionOption = None,
    agent: AgentOption = None,
    risk: RiskOption = "low",
    hint: HintOption = None,
    capability: CapabilityOption = None,
    atlas_id: AtlasIdOption = None,
    context: ContextOption = None,
    request: Annotated[
        str | None,
        typer.Option("--request", metavar="FILE", help="A whole CARP request instead; - is standard input."),
    ] = None,
    content: Annotated[bool, typer.Option("--content", help="Show the text of the context blocks too.")] = False,
    atlas: AtlasOption = None,
    storage: StorageOption = None,
    setting: SettingOption = None,
    json: JsonOption = False,
) -> int:
    """Resolve a goal into context, allowed and denied actions.

    The answer is recorded before it is shown. With --json it is the canonical resolution, byte for byte what every
    other door gives. Exit code 1 when nothing is allowed.

    \b
    Examples:
      cra resolve "Refund the second charge" --agent support-1 -a examples/atlases/customer-support
      cra resolve "Close old tickets" --session SESSION --risk high --hint tickets --json
      cra resolve --request request.json --json
    """
    from msgspec.json import decode

    from cra.cli._input import read_file
    from cra.cli._runtime import make_request, open_runtime
    from cra.cli._show import show_resolution
    from cra.errors import InvalidRequest
    from cra.protocol.carp import Operation, Resolution
    from cra.protocol.codec import MAX_REQUEST_BYTES, decode_request

    chosen = settings(storage=storage, atlas=atlas, setting=setting, json=json)
    out = Output(chosen.json)
    if request is not None:
        if goal is not None or session is not None or agent is not None:
            raise UsageError("--request brings its own goal and session", hint="leave out GOAL, --session and --agent")
        asked = decode_request(read_file(request, what="request", max_bytes=MAX_REQUEST_BYTES))
        if asked.operation is not Operation.RESOLVE:
            raise InvalidRequest(f"operation is `{asked.operation}`, expected `resolve`", pointer="/operation")
        with open_runtime(chosen, atlases=True) as runtime:
            answer = runtime.handle(asked)
    else:
        if goal is None:
            raise UsageError("GOAL is missing", hint="say what the agent wants to do, or give --request FILE")
        check_who(session, agent)
        fields = task_of(risk, hint, capability, atlas_id, context)
        with open_runtime(chosen, create=session is None, atlases=True) as runtime:
            warn_of_nothing(out, chosen)
            record = session_of(runtime, out, chosen, session, agent, goal)
            answer = runtime.handle(make_request(runtime, record, "resolve", goal, **fields))
    resolution = decode(answer, type=Resolution)
    if chosen.json:
        out.raw(answer + b"\n")
        return 1 if resolution.decision.type == "deny" else 0
    return show_resolution(out, resolution, content=content)
