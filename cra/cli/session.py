"""cra session: start, look at and end sessions."""

from typing import Annotated, Any, Literal, cast

import typer

from cra.cli._input import read_object
from cra.cli._options import AtlasOption, JsonOption, SettingOption, StorageOption, choose, settings
from cra.cli._output import Output

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.", show_default=False)]


def create(
    agent: Annotated[str, typer.Argument(help="The agent's name.", show_default=False)],
    goal: Annotated[str, typer.Argument(help="What the session is for.", show_default=False)],
    context: Annotated[
        str | None,
        typer.Option("--context", metavar="JSON", help="What the host knows; wins over what requests claim."),
    ] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="Only recorded.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", metavar="ID", help="The session this one serves.")] = None,
    session_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Use this id.")] = None,
    atlas: AtlasOption = None,
    storage: StorageOption = None,
    setting: SettingOption = None,
    json: JsonOption = False,
) -> int:
    """Start a session and print its id.

    \b
    Examples:
      cra session create support-1 "Help the customer of T-1042" -a examples/atlases/customer-support
      SESSION=$(cra session create support-1 "Nightly check" --context '{"account_status": "active"}')
    """
    from cra.cli._runtime import open_runtime
    from cra.cli._show import session_value

    chosen = settings(storage=storage, atlas=atlas, setting=setting, json=json)
    out = Output(chosen.json)
    facts, extra = read_object(context, what="--context"), read_object(metadata, what="--metadata")
    with open_runtime(chosen, create=True, atlases=True) as runtime:
        record = runtime.create_session(
            agent, goal, session_id=session_id, parent_session_id=parent, context=facts, metadata=extra
        )
    if chosen.json:
        out.data(session_value(record))
    else:
        out.line(record.session_id)
        if chosen.storage == "memory":
            out.note("it ends with this command: storage is memory")
    return 0


def list_(
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only of this agent.")] = None,
    status: Annotated[str | None, typer.Option("--status", metavar="WORD", help="Only active, or only ended.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Only those behind this id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 100,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """List sessions, in the order of their ids.

    \b
    Examples:
      cra session list --status active
      cra session list --agent support-1 --limit 10 --json
    """
    from cra.cli._runtime import open_runtime
    from cra.cli._show import session_value

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    if status is not None:
        choose("--status", status, ("active", "ended"))
    with open_runtime(chosen) as runtime:
        wanted = cast(Literal["active", "ended"] | None, status)
        records = runtime.list_sessions(agent_id=agent, status=wanted, after=after, limit=limit)
    values = [session_value(record) for record in records]
    if chosen.json:
        out.data({"sessions": values})
        return 0
    out.table(
        ("session", "agent", "status", "actions", "started", "goal"),
        [
            (v["session_id"], v["agent_id"], v["status"], v["action_count"], v["started_at"][:19], v["goal"][:60])
            for v in values
        ],
    )
    if not values:
        out.note("no session")
    return 0


def show(session: SessionArgument, storage: StorageOption = None, json: JsonOption = False) -> int:
    """Show one session.

    \b
    Examples:
      cra session show SESSION
      cra session show SESSION --json
    """
    from cra.cli._runtime import open_runtime
    from cra.cli._show import compact, session_value

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_runtime(chosen) as runtime:
        value = session_value(runtime.get_session(session))
        value["event_count"] = len(runtime.get_trace(session))
        value["approvals"] = {
            status: count
            for status in ("pending", "granted", "rejected", "expired", "used")
            if (count := len(runtime.approvals.list(session_id=session, status=status)))
        }
    if chosen.json:
        out.data(value)
    else:
        out.fields((name, _text(item, compact)) for name, item in value.items() if item not in (None, {}))
    return 0


def _text(value: Any, compact: Any) -> str:
    return value if isinstance(value, str) else compact(value, 1000)


def end(
    session: SessionArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="WORD", help="completed, timeout, error or cancelled.")
    ] = "completed",
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """End a session; it takes no more calls.

    \b
    Examples:
      cra session end SESSION
      cra session end SESSION --reason cancelled
    """
    from cra.cli._runtime import open_runtime
    from cra.cli._show import session_value

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    choose("--reason", reason, ("completed", "timeout", "error", "cancelled"))
    with open_runtime(chosen) as runtime:
        record = runtime.end_session(session, cast(Literal["completed", "timeout", "error", "cancelled"], reason))
    if chosen.json:
        out.data(session_value(record))
    else:
        out.line(f"session {record.session_id} has ended: {reason}, {record.action_count} actions")
    return 0


COMMANDS = {"create": create, "list": list_, "show": show, "end": end}
