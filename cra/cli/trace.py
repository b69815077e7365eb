"""cra trace: show, verify, export and compare what was recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra.cli._exit import Exit, UsageError
from cra.cli._options import JsonOption, Settings, StorageOption, choose, settings
from cra.cli._output import Output

if TYPE_CHECKING:
    from cra.audit.diff import TraceDiff

FORMATS = ("jsonl", "json", "csv")

SourceArgument = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A session's id, a trace file, or - for standard input.", show_default=False),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--type", "-t", metavar="GLOB", help="Only such events, as `action.*`; repeatable.", show_default=False
    ),
]


def _wanted(events: Iterable[Any], types: list[str] | None) -> Iterable[Any]:
    from cra._core.glob import glob_match

    for event in events:
        if not types or any(glob_match(glob, event.event_type) for glob in types):
            yield event


def _decoded(data: bytes) -> Any:
    """Return a trace whose lines are known to be events, or say which one is not."""
    import msgspec

    from cra.errors import InvalidTrace
    from cra.protocol.trace import Event, Trace

    trace, decoder = Trace(data), msgspec.json.Decoder(Event)
    for index, line in enumerate(trace.lines):
        try:
            decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            words = str(error)
            words = words if words.startswith("JSON") else words[:1].lower() + words[1:]
            raise InvalidTrace(
                f"line {index + 1} is not a TRACE event: {words}",
                hint="`cra trace verify` says more",
                details={"index": index, "reason": "grammar"},
            ) from None
    return trace


def show(
    source: SourceArgument,
    types: TypeOption = None,
    first: Annotated[int, typer.Option("--first", min=0, help="Start at this sequence number.")] = 0,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="At most so many events.")] = None,
    payload: Annotated[bool, typer.Option("--payload", help="Show whole payloads.")] = False,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Show a session's events. With --json one stored line per event.

    \b
    Examples:
      cra trace show SESSION
      cra trace show demo-out/support.trace.jsonl --type 'action.*' --payload
      cra trace show SESSION --json | jq .event_type
    """
    from cra.cli._runtime import read_trace

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    trace = _decoded(read_trace(source, chosen))
    last = len(trace) if count is None else first + count
    picked = [event for event in _wanted(trace[first:last] if not types else trace, types) if event.sequence >= first]
    if types and count is not None:
        picked = picked[:count]
    if chosen.json:
        lines = trace.lines
        numbers = {event.event_id for event in picked}
        out.raw(b"".join(line + b"\n" for line, event in zip(lines, trace, strict=True) if event.event_id in numbers))
        return 0
    _print_events(out, picked, payload)
    return 0


def _print_events(out: Output, events: Iterable[Any], payload: bool) -> None:
    from cra.cli._show import event_row, pretty

    if not payload:
        out.table(("#", "time", "event", ""), [event_row(event) for event in events])
        return
    for event in events:
        out.line(*event_row(event)[:3], style="bold")
        out.console.print(pretty(event.payload), soft_wrap=True)


def verify(
    source: SourceArgument,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="HASH", help="The last event's hash, known from elsewhere.", show_default=False),
    ] = None,
    story: Annotated[
        bool, typer.Option("--story", help="Also look for what cannot have happened as it is told.")
    ] = False,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Verify a trace over its stored bytes, and name the first bad event.

    A chain cannot show that its end was cut off; --head can, with a hash that was noted down elsewhere. Nor can it
    show that what was written was true; --story finds calls without an approval, approvals used twice, counts that
    are wrong. Exit code 1 when it does not verify.

    \b
    Examples:
      cra trace verify demo-out/support.trace.jsonl --story
      cra trace verify SESSION --head 3b1f0c5e...
    """
    from cra._core.chain import verify as verify_bytes
    from cra.cli._runtime import read_trace

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    if head is not None and (len(head) != 64 or set(head) - set("0123456789abcdef")):
        raise UsageError("--head is not 64 lower-case hexadecimal digits", hint="copy it from an earlier verify")
    data = read_trace(source, chosen)
    with out.busy("verifying"):
        verdict = verify_bytes(data)
    cut = verdict.ok and head is not None and verdict.head != head
    value: dict[str, Any] = {
        "ok": verdict.ok and not cut,
        "events": verdict.events,
        "index": verdict.index,
        "reason": "head" if cut else verdict.reason,
        "message": "the chain holds, but ends at another event than expected" if cut else verdict.message,
        "offset": verdict.offset,
        "head": verdict.head,
        "session_id": verdict.session_id,
        "trace_id": verdict.trace_id,
    }
    findings = _story(data) if story and verdict.ok else []
    if findings:
        value |= {"ok": False, "index": findings[0]["index"], "reason": value["reason"] or "story"}
        value["message"] = value["message"] or findings[0]["message"]
    if story:
        value["findings"] = findings
    if chosen.json:
        out.data(value)
    elif value["ok"]:
        words = f"{verdict.events} events, one unbroken chain" if verdict.events else "the trace is empty"
        out.line(f"verified: {words}", style="bold green")
        out.fields([("head", verdict.head), ("session", verdict.session_id), ("trace", verdict.trace_id)])
    else:
        out.line("not verified", style="bold red")
        out.fields(
            [
                ("first bad event", value["index"]),
                ("reason", value["reason"]),
                ("why", value["message"]),
                ("at byte", verdict.offset),
                ("good events before it", None if verdict.ok else verdict.events),
                ("head", verdict.head if cut else None),
            ]
        )
        out.table(("event", "what", "why"), [(f["index"], f["code"], f["message"]) for f in findings])
    return Exit.OK if value["ok"] else Exit.VERDICT


def _story(data: bytes) -> list[dict[str, Any]]:
    """Return what a trace tells that contradicts itself."""
    import msgspec

    from cra.audit.story import check_story

    found: list[dict[str, Any]] = msgspec.to_builtins(check_story(data))
    return found


def export(
    source: SourceArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    format_: Annotated[str, typer.Option("--format", metavar="WORD", help="jsonl (as stored), json or csv.")] = "jsonl",
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Write a session's trace to a file; jsonl is exactly what was hashed, and verifies anywhere.

    \b
    Examples:
      cra trace export SESSION -o session.trace.jsonl
      cra trace export SESSION --format csv > events.csv
    """
    from cra._core.sha256 import hexdigest
    from cra.cli._input import write_file
    from cra.cli._runtime import read_trace

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    choose("--format", format_, FORMATS)
    data = read_trace(source, chosen)
    if format_ != "jsonl":
        data = _converted(_decoded(data), format_)
    if output == "-":
        out.raw(data)
        return 0
    write_file(output, data)
    if chosen.json:
        out.data({"path": output, "bytes": len(data), "sha256": hexdigest(data)})
    else:
        out.note(f"{len(data)} bytes written to {output}")
    return 0


def _converted(trace: Any, format_: str) -> bytes:
    if format_ == "json":
        return b"[" + b",\n".join(trace.lines) + b"]\n"
    import csv
    import io

    from cra._core.canonical import dumps
    from cra.protocol.trace import Event

    names = Event.__struct_fields__
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for event in trace:
        row = [getattr(event, name) for name in names]
        row[names.index("payload")] = dumps(event.payload).decode()
        writer.writerow(["" if cell is None else cell for cell in row])
    return text.getvalue().encode()


def tail(
    source: SourceArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="Begin with the last so many.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come in; end with ctrl-c.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.05, max=60, help="Seconds between looks.")] = 0.5,
    types: TypeOption = None,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Show the last events of a session, and those that follow.

    \b
    Examples:
      cra trace tail SESSION
      cra trace tail SESSION -f --type 'action.*'
    """
    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    seen = _look(out, source, chosen, types, None, count)
    while follow:
        try:
            time.sleep(interval)
        except KeyboardInterrupt:
            return 0
        seen = _look(out, source, chosen, types, seen, 0)
    return 0


def _look(out: Output, source: str, chosen: Settings, types: list[str] | None, seen: int | None, count: int) -> int:
    """Print what came in since `seen` events, or the last `count` at first; returns how many there are."""
    from cra.cli._runtime import read_trace
    from cra.cli._show import event_row
    from cra.protocol.trace import Trace

    data = read_trace(source, chosen)
    # A line that is being written has no end yet.
    trace = Trace(data[: data.rfind(b"\n") + 1])
    if seen is None:
        picked = list(_wanted(_decoded(trace.data), types))
        picked = picked[len(picked) - min(count, len(picked)) :]
    else:
        picked = list(_wanted(trace[seen:], types))
    for event in picked:
        if out.json:
            out.raw(trace.lines[event.sequence - trace[0].sequence] + b"\n")
        else:
            number, moment, kind, words = event_row(event)
            out.line(f"{number:>5}  {moment}  {kind:<26} {words}")
    return len(trace)


def diff(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="A session's id or a trace file.", show_default=False)
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another one.", show_default=False)],
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Compare what two traces say: ids and times aside, graded by how much it matters. Exit code 1 when different.

    \b
    Examples:
      cra trace diff monday.trace.jsonl tuesday.trace.jsonl
      cra trace diff SESSION other.trace.jsonl --json
    """
    from cra.audit.diff import diff as compare
    from cra.cli._runtime import read_trace

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    if before == after == "-":
        raise UsageError("standard input can be only one of the two traces")
    one, other = read_trace(before, chosen), read_trace(after, chosen)
    with out.busy("comparing"):
        result = compare(one, other)
    if chosen.json:
        out.data(result.as_dict())
    else:
        _print_diff(out, result)
    return Exit.VERDICT if result else Exit.OK


_GRADES = {"none": "bold green", "cosmetic": "bold yellow", "behaviour": "bold yellow", "decision": "bold red"}


def _print_diff(out: Output, result: TraceDiff) -> None:
    counts = ", ".join(f"{count} {grade}" for grade, count in result.counts().items() if count)
    words = f"{len(result.differences)} differences ({counts})" if result else "no difference but ids and times"
    out.line(f"{words}; {result.before_events} events before, {result.after_events} after", style=_GRADES[result.grade])
    if result:
        out.line()
    out.table(
        ("grade", "before", "after", "event", "where", "was", "is"),
        [
            (
                d.grade,
                "-" if d.before_index is None else d.before_index,
                "-" if d.after_index is None else d.after_index,
                d.event_type,
                d.pointer or "whole event",
                _value(d.before),
                _value(d.after),
            )
            for d in result.differences
        ],
    )


def _value(value: object) -> str:
    from msgspec import UnsetType

    from cra.cli._show import compact

    return "-" if isinstance(value, UnsetType) else compact(value, 60)


COMMANDS = {"show": show, "verify": verify, "export": export, "diff": diff, "tail": tail}
