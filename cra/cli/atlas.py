"""cra atlas: validate, show, test and pack atlases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra.cli._exit import Exit, UsageError
from cra.cli._options import AtlasOption, JsonOption, settings
from cra.cli._output import Output, problem_text, shown

if TYPE_CHECKING:
    from cra.atlas.package import Atlas

PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="A folder, an atlas.json or an .atlas archive.", show_default=False)
]


def validate(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Folders, atlas.json files or archives.", show_default=False)
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count too.")] = False,
    json: JsonOption = False,
) -> int:
    """Say everything that is wrong with atlases, with file and place. Exit code 1 when something is.

    \b
    Examples:
      cra atlas validate my-atlas
      cra atlas validate examples/atlases/* --strict
      cra atlas validate my-atlas --json | jq '.atlases[].problems'
    """
    from cra.atlas.loader import inspect, load

    chosen = settings(json=json)
    out = Output(chosen.json)
    results = []
    for path in paths:
        verdict = inspect(path)
        good = not verdict.problems and not (strict and verdict.warnings)
        atlas = load(path) if verdict.manifest is not None else None
        results.append(
            {
                "path": path,
                "valid": good,
                "atlas_id": atlas.atlas_id if atlas else None,
                "version": atlas.version if atlas else None,
                "digest": atlas.digest if atlas else None,
                "problems": [problem.as_dict() for problem in verdict.problems],
                "warnings": [problem.as_dict() for problem in verdict.warnings],
            }
        )
    valid = all(result["valid"] for result in results)
    if chosen.json:
        out.data({"valid": valid, "atlases": results})
    else:
        for result in results:
            _print_verdict(out, result)
    return Exit.OK if valid else Exit.VERDICT


def _print_verdict(out: Output, result: dict[str, Any]) -> None:
    count = len(result["problems"])
    if count:
        out.line(f"{result['path']}: {count} {'problem' if count == 1 else 'problems'}", style="bold red")
    elif not result["valid"]:
        out.line(f"{result['path']}: warnings, and --strict counts them", style="bold red")
    else:
        out.line(f"{result['path']}: {result['atlas_id']} {result['version']} is valid", style="bold green")
    for problem in result["problems"]:
        out.line(f"  {problem_text(problem)}")
    for problem in result["warnings"]:
        out.line(f"  warning: {problem_text(problem)}", style="yellow")


def show(path: PathArgument, json: JsonOption = False) -> int:
    """Show what an atlas offers and which rules it brings.

    \b
    Examples:
      cra atlas show examples/atlases/customer-support
      cra atlas show my-atlas --json | jq '.manifest.actions[].action_id'
    """
    from cra.atlas.loader import load
    from cra.atlas.package import effective_manifest

    chosen = settings(json=json)
    out = Output(chosen.json)
    atlas = load(path)
    if chosen.json:
        files = {name: len(content) for name, content in atlas.files.items()}
        out.data({"digest": atlas.digest, "files": files, "manifest": effective_manifest(atlas.manifest)})
        return 0
    manifest = atlas.manifest
    out.line(f"{manifest.name} ({atlas.atlas_id} {atlas.version})", style="bold")
    if manifest.description:
        out.line(manifest.description)
    out.line()
    out.fields(
        [
            ("digest", atlas.digest),
            ("authors", ", ".join(manifest.authors) or None),
            ("domains", ", ".join(manifest.domains) or None),
            ("needs", ", ".join(f"{name} {text}" for name, text in manifest.dependencies.items()) or None),
        ]
    )
    _print_parts(out, atlas)
    return 0


def _print_parts(out: Output, atlas: Atlas) -> None:
    manifest = atlas.manifest
    out.line()
    out.table(
        ("action", "risk", "name", "notes"),
        [(a.action_id, a.risk_tier, a.name, _action_notes(a)) for a in manifest.actions],
    )
    out.line()
    out.table(
        ("policy", "type", "priority", "actions", "conditions"),
        [
            (p.policy_id, p.type, p.priority, ", ".join(p.actions), ", ".join(_given(p.conditions)))
            for p in manifest.policies
        ],
    )
    if manifest.capabilities:
        out.line()
    out.table(
        ("capability", "actions", "context"),
        [(c.capability_id, ", ".join(c.actions), ", ".join(c.context_packs)) for c in manifest.capabilities],
    )
    if manifest.context_packs:
        out.line()
    out.table(
        ("context pack", "priority", "files", "conditions"),
        [
            (
                p.pack_id,
                p.priority,
                ", ".join(f"{name} ({len(atlas.files[name])} bytes)" for name in p.files),
                ", ".join(_given(p.conditions)),
            )
            for p in manifest.context_packs
        ],
    )


def _given(conditions: Any) -> list[str]:
    from msgspec import UnsetType

    return [name for name in conditions.__struct_fields__ if not isinstance(getattr(conditions, name), UnsetType)]


def _action_notes(action: Any) -> str:
    from msgspec import UnsetType

    notes = ["idempotent"] if action.idempotent else []
    if action.requires_confirmation:
        notes.append("needs approval")
    if not isinstance(action.rate_limit, UnsetType):
        notes.append(f"{action.rate_limit.max_calls} per {action.rate_limit.window_seconds} s")
    return ", ".join(notes)


def list_(
    folder: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", help="Where to look; the atlases that are set, if absent.")
    ] = None,
    atlas: AtlasOption = None,
    json: JsonOption = False,
) -> int:
    """List atlases: those in a folder, or those that commands would load now.

    \b
    Examples:
      cra atlas list examples/atlases
      CRA_ATLASES=my-atlas cra atlas list
    """
    from cra.atlas.loader import load
    from cra.errors import AtlasInvalid

    chosen = settings(atlas=atlas, json=json)
    out = Output(chosen.json)
    paths = list(chosen.atlases) if folder is None else _atlases_in(folder)
    rows = []
    for path in paths:
        row: dict[str, Any] = {"path": path, "valid": True, "atlas_id": None, "version": None, "digest": None}
        try:
            found = load(path)
        except AtlasInvalid as error:
            row |= {"valid": False, "problems": len(error.problems)}
        else:
            row |= {
                "atlas_id": found.atlas_id,
                "version": found.version,
                "digest": found.digest,
                "actions": len(found.manifest.actions),
                "policies": len(found.manifest.policies),
            }
        rows.append(row)
    if chosen.json:
        out.data({"atlases": rows})
        return 0
    out.table(
        ("atlas", "version", "actions", "policies", "path"),
        [
            (
                r["atlas_id"] or f"not valid, {r['problems']} problems",
                r["version"],
                r.get("actions"),
                r.get("policies"),
                r["path"],
            )
            for r in rows
        ],
    )
    if not rows:
        out.note("no atlas" + ("" if folder else ": give a FOLDER or --atlas PATH, or set CRA_ATLASES"))
    return 0


def _atlases_in(folder: str) -> list[str]:
    from cra.cli._exit import FileNotFound

    place = Path(folder)
    if not place.is_dir():
        raise FileNotFound(f"there is no folder at `{shown(folder)}`")
    if (place / "atlas.json").is_file():
        return [folder]
    return sorted(str(item) for item in place.iterdir() if item.suffix == ".atlas" or (item / "atlas.json").is_file())


def pack(
    path: PathArgument,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The archive; ID-VERSION.atlas if absent.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Write an atlas to one .atlas archive; the same files give the same bytes.

    \b
    Examples:
      cra atlas pack my-atlas
      cra atlas pack my-atlas -o release/my-atlas.atlas
    """
    from cra.atlas import loader
    from cra.cli._exit import FileTrouble

    chosen = settings(json=json)
    out = Output(chosen.json)
    atlas = loader.load(path)
    target = output or f"{atlas.atlas_id}-{atlas.version}.atlas"
    try:
        digest = loader.pack(path, target)
    except OSError as error:
        raise FileTrouble(f"archive `{target}` cannot be written: {(error.strerror or str(error)).lower()}") from None
    size = Path(target).stat().st_size
    if chosen.json:
        out.data(
            {"path": target, "bytes": size, "digest": digest, "atlas_id": atlas.atlas_id, "version": atlas.version}
        )
    else:
        out.line(f"{target}: {size} bytes, digest {digest}")
    return 0


def digest(path: PathArgument, json: JsonOption = False) -> int:
    """Print the digest that traces name an atlas by; folder, archive and JSON of one atlas share it.

    \b
    Examples:
      cra atlas digest my-atlas
    """
    from cra.atlas.loader import load

    chosen = settings(json=json)
    out = Output(chosen.json)
    atlas = load(path)
    if chosen.json:
        out.data({"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest})
    else:
        out.line(atlas.digest)
    return 0


def run_tests(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Folders or archives with a tests/ room.", show_default=False)
    ],
    match: Annotated[
        str | None, typer.Option("--match", "-k", metavar="GLOB", help="Only cases of such a name.", show_default=False)
    ] = None,
    atlas: AtlasOption = None,
    json: JsonOption = False,
) -> int:
    """Run the test cases that atlases bring along. Exit code 1 when one fails.

    With --atlas other atlases are loaded too: those they depend on, or those whose rules shall bind them.

    \b
    Examples:
      cra atlas test my-atlas
      cra atlas test examples/atlases/* --json
      cra atlas test my-atlas -k '*refund*'
    """
    from cra._core.glob import glob_match
    from cra.atlas.cases import read_cases
    from cra.atlas.loader import load, read_tree
    from cra.cli._cases import run_case, without_returns
    from cra.cli._runtime import load_atlases
    from cra.errors import AtlasInvalid

    chosen = settings(atlas=atlas, json=json)
    out = Output(chosen.json)
    # Only what was asked for here: an atlas of the environment must not change what a test means.
    others = [without_returns(other) for other in load_atlases(tuple(atlas or ()))]
    report: list[dict[str, Any]] = []
    for path in paths:
        under_test = load(path)
        cases, problems = read_cases(read_tree(path).files, under_test.manifest)
        if problems:
            raise AtlasInvalid(
                f"the tests of `{path}` are not valid: {problems[0].file}: {problems[0].message}",
                problems=problems,
                hint="see tests/ in docs/atlases.md",
            )
        cases = [case for case in cases if match is None or glob_match(match, case.name)]
        if not cases:
            raise UsageError(
                f"`{path}` has no test case" + (" of that name" if match else ""), hint="put some into tests/"
            )
        with out.progress() as progress:
            loaded = [other for other in others if other.atlas_id != under_test.atlas_id] + [
                without_returns(under_test)
            ]
            results = [run_case(loaded, case) for case in progress.track(cases, description=path)]
        report.append(
            {"path": path, "atlas_id": under_test.atlas_id, "version": under_test.version, "results": results}
        )
    failed = sum(not result.passed for entry in report for result in entry["results"])
    total = sum(len(entry["results"]) for entry in report)
    if chosen.json:
        for entry in report:
            entry["results"] = [{"name": r.name, "passed": r.passed, "faults": r.faults} for r in entry["results"]]
        out.data({"passed": total - failed, "failed": failed, "atlases": report})
    else:
        for entry in report:
            out.line(f"{entry['path']} ({entry['atlas_id']} {entry['version']})", style="bold")
            for result in entry["results"]:
                out.line(
                    f"  {'ok  ' if result.passed else 'FAIL'} {result.name}",
                    style=None if result.passed else "bold red",
                )
                for fault in result.faults:
                    out.line(f"       {fault}")
        out.line(f"{total - failed} of {total} cases passed", style="bold green" if not failed else "bold red")
    return Exit.VERDICT if failed else Exit.OK


COMMANDS = {
    "validate": validate,
    "show": show,
    "list": list_,
    "pack": pack,
    "digest": digest,
    "test": run_tests,
}
