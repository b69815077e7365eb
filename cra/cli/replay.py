"""cra replay: decide a recorded session again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra.cli._exit import Exit
from cra.cli._options import AtlasOption, JsonOption, SettingOption, StorageOption, settings
from cra.cli._output import Output

if TYPE_CHECKING:
    from cra.runtime.replay import ReplayResult
    from cra.runtime.whatif import WhatIf

COLOURS = {
    "stricter": "yellow",
    "looser": "red",
    "mixed": "red",
    "unknown": "magenta",
    "neutral": "dim",
    "same": "green",
}


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A session's id, a trace file, or - for standard input.", show_default=False
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", metavar="PATH", help="What would these atlases have decided? Repeatable.", show_default=False
        ),
    ] = None,
    atlas: AtlasOption = None,
    storage: StorageOption = None,
    setting: SettingOption = None,
    json: JsonOption = False,
) -> int:
    """Decide a recorded session again, and compare with what was recorded, byte for byte.

    The atlases are those the session had (--atlas). With --against it says instead what other atlases would have
    decided. What hangs on an input of which only a digest was kept is named, not guessed: record with
    --set capture_parameters=full to keep all. Exit code 1 when something is different.

    \b
    Examples:
      cra replay demo-out/support.trace.jsonl --atlas examples/atlases/customer-support
      cra replay SESSION -a my-atlas --against my-atlas-2.0 --json
    """
    from cra.cli._runtime import load_atlases, make_config, need_atlases, read_trace
    from cra.protocol.trace import Trace
    from cra.runtime.replay import replay
    from cra.runtime.whatif import what_if

    chosen = settings(storage=storage, atlas=atlas, setting=setting, json=json)
    out = Output(chosen.json)
    if not against:
        need_atlases(chosen, "replay")
    default_decision = make_config(chosen, storage="memory").default_decision
    trace = Trace(read_trace(source, chosen))
    recorded = load_atlases(chosen.atlases)
    if against:
        others = load_atlases(tuple(against))
        with out.busy(f"deciding {len(trace)} events by other atlases"):
            answer = what_if(trace, others, recorded=recorded, default_decision=default_decision)
        if chosen.json:
            out.data(answer.as_dict())
        else:
            show_what_if(out, answer)
        return Exit.VERDICT if answer.changed else Exit.OK
    with out.busy(f"deciding {len(trace)} events again"):
        result = replay(trace, recorded, default_decision=default_decision)
    if chosen.json:
        out.data(result.as_dict())
    else:
        _show_replay(out, result)
    return Exit.OK if result.ok else Exit.VERDICT


def _show_replay(out: Output, result: ReplayResult) -> None:
    from cra.cli._show import compact

    counts = result.counts()
    if result.ok and result.complete:
        out.line(f"reproduced: all {len(result.events)} events come out as they were recorded", style="bold green")
    elif result.ok:
        out.line(
            f"no difference, but {counts['not_retained']} of {len(result.events)} events could not be decided again",
            style="bold yellow",
        )
    else:
        out.line(f"different: {counts['different']} of {len(result.events)} events", style="bold red")
    out.fields(
        [
            ("same", counts["same"]),
            ("inputs", counts["given"]),
            ("different", counts["different"]),
            ("not retained", counts["not_retained"]),
            ("recorded with", _refs(result.recorded)),
            ("replayed with", _refs(result.given)),
        ]
    )
    if result.differences:
        out.line()
    out.table(
        ("event", "type", "where", "recorded", "reproduced"),
        [
            (
                "-" if event.index is None else event.index,
                event.event_type,
                event.pointer or "-",
                _side(event.recorded, compact),
                _side(event.reproduced, compact),
            )
            for event in result.differences
        ],
    )
    if result.not_retained:
        out.line()
    out.table(
        ("event", "type", "not retained because"),
        [(event.index, event.event_type, event.reason or "") for event in result.not_retained],
    )
    if result.what_if is not None:
        out.line()
        show_what_if(out, result.what_if)


def _side(value: Any, compact: Any) -> str:
    from msgspec import UnsetType

    return "-" if isinstance(value, UnsetType) else compact(value, 60)


def _refs(refs: Any) -> str:
    return ", ".join(f"{ref.atlas_id} {ref.version} ({ref.digest[:12]})" for ref in refs) or "no atlas"


def show_what_if(out: Output, answer: WhatIf) -> None:
    """Print what would have been different."""
    changed = answer.changed
    if not changed:
        out.line("nothing would have been decided differently", style="bold green")
    else:
        out.line(
            f"{len(changed)} of {len(answer.verdicts)} requests would have come out differently", style="bold yellow"
        )
    out.fields([("recorded with", _refs(answer.recorded)), ("judged by", _refs(answer.given))])
    if changed:
        out.line()
    out.table(("event", "request", "grade", "was", "would have been"), what_if_rows(answer))
    for verdict in changed:
        for words in verdict.unknown:
            out.note(f"event {verdict.index}: {words}")
    if answer.not_retained:
        out.note(f"not in the trace: {', '.join(answer.not_retained)}")


def what_if_rows(answer: WhatIf) -> list[tuple[object, ...]]:
    """Return each difference as a row: event, request, grade, before, after."""
    rows: list[tuple[object, ...]] = []
    for verdict in answer.changed:
        for change in verdict.changes:
            what = change.action_id if verdict.kind == "call" else f"resolve: {change.action_id}"
            rows.append((verdict.index, what, change.grade, _ruling(change.before), _ruling(change.after)))
        rows += [
            (verdict.index, f"resolve: {block.block_id}", "neutral", "", f"block {block.change}")
            for block in verdict.blocks
        ]
        if not verdict.changes and not verdict.blocks:
            rows.append((verdict.index, verdict.what, verdict.grade, "", "cannot be told"))
    return rows


def _ruling(ruling: Any) -> str:
    if ruling.policy is None:
        return str(ruling.decision)
    return (
        f"{ruling.decision} by {ruling.policy.rpartition(':')[2] if ruling.policy.count(':') == 1 else ruling.policy}"
    )
