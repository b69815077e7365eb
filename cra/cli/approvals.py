"""cra approvals: see what waits for a person, and decide."""

from typing import Annotated, Any

import typer

from cra.cli._exit import UsageError
from cra.cli._options import JsonOption, SessionOption, StorageOption, choose, settings
from cra.cli._output import Output

STATUSES = ("pending", "granted", "rejected", "expired", "used")

ApprovalArgument = Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval's id.", show_default=False)]
ApproverOption = Annotated[
    str | None,
    typer.Option(
        "--approver", metavar="NAME", envvar="CRA_APPROVER", help="Who decides; it is recorded.", show_default=False
    ),
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.", show_default=False)
]


def list_(
    session: SessionOption = None,
    status: Annotated[
        str, typer.Option("--status", metavar="WORD", help="pending, granted, rejected, expired, used or all.")
    ] = "pending",
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """List approvals, oldest first; those that wait, unless --status says otherwise.

    \b
    Examples:
      cra approvals list
      cra approvals list --status all --session SESSION --json
    """
    from cra.cli._runtime import open_runtime
    from cra.cli._show import approval_value, compact

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    choose("--status", status, (*STATUSES, "all"))
    wanted: Any = None if status == "all" else status
    with open_runtime(chosen) as runtime:
        records = runtime.approvals.list(session_id=session, status=wanted)
    values = [approval_value(record) for record in records]
    if chosen.json:
        out.data({"approvals": values})
        return 0
    out.table(
        ("approval", "action", "status", "agent", "expires", "parameters"),
        [
            (
                v["approval_id"],
                v["action_id"],
                v["status"],
                v["agent_id"],
                v["expires_at"][:19],
                compact(v["parameters"]) if v["parameters"] is not None else "-",
            )
            for v in values
        ],
    )
    if not values:
        out.note("nothing waits for approval" if status == "pending" else f"no approval is {status}")
    return 0


def show(approval: ApprovalArgument, storage: StorageOption = None, json: JsonOption = False) -> int:
    """Show one approval with everything it is bound to.

    \b
    Examples:
      cra approvals show APPROVAL
      cra approvals show APPROVAL --json
    """
    from cra.cli._runtime import open_runtime

    chosen = settings(storage=storage, json=json)
    with open_runtime(chosen) as runtime:
        return _print(Output(chosen.json), runtime.approvals.get(approval))


def grant(
    approval: ApprovalArgument,
    approver: ApproverOption = None,
    reason: ReasonOption = None,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Agree: exactly this call may run, once. Who asked cannot agree.

    \b
    Examples:
      cra approvals grant APPROVAL --approver dana@example.com
      CRA_APPROVER=dana@example.com cra approvals grant APPROVAL --reason "checked with the bank"
    """
    return _decide("grant", approval, approver, reason, storage, json)


def reject(
    approval: ApprovalArgument,
    approver: ApproverOption = None,
    reason: ReasonOption = None,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Refuse: the call does not run.

    \b
    Examples:
      cra approvals reject APPROVAL --approver dana@example.com --reason "ask billing instead"
    """
    return _decide("reject", approval, approver, reason, storage, json)


def _decide(verb: str, approval: str, approver: str | None, reason: str | None, storage: str | None, json: bool) -> int:
    from cra.cli._runtime import open_runtime

    chosen = settings(storage=storage, json=json)
    if approver is None:
        raise UsageError("--approver is missing", hint="say who decides: --approver NAME, or set CRA_APPROVER")
    with open_runtime(chosen) as runtime:
        record = getattr(runtime.approvals, verb)(approval, approver=approver, reason=reason)
    return _print(Output(chosen.json), record)


def _print(out: Output, record: Any) -> int:
    from cra.cli._show import COLOURS, approval_value, compact

    value = approval_value(record)
    if out.json:
        out.data(value)
        return 0
    out.line(value["status"], style=f"bold {COLOURS.get(value['status'], 'default')}")
    out.fields(
        (name, item if isinstance(item, str) else compact(item, 2000))
        for name, item in value.items()
        if item is not None and name != "status"
    )
    return 0


COMMANDS = {"list": list_, "show": show, "grant": grant, "reject": reject}
