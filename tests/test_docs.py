"""Every error code, setting and command is mentioned in docs/, and every link between documents leads somewhere."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
if not (ROOT / "CHANGELOG.md").is_file():
    pytest.skip("the documents are not here, only the tests", allow_module_level=True)

SKIPPED = {"build", "dist", "node_modules"}


@pytest.fixture(scope="module")
def docs() -> str:
    """Return all of docs/ as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md")))


def missing(names: set[str], text: str) -> list[str]:
    """Return the names that `text` never has as code: in backticks, alone or as the beginning of an example."""
    spans = set(re.findall(r"`+([^`\n]+)`+", text)) | {line.strip() for line in _fenced(text)}
    spans |= {span.removeprefix("$ ") for span in spans}
    return sorted(
        n for n in names if not any(span == n or re.match(re.escape(n) + r"[\s=:(.,]", span) for span in spans)
    )


def _fenced(text: str) -> Iterator[str]:
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()


def present(room: str) -> bool:
    """Say whether a room of the package is written yet."""
    return (ROOT / "cra" / room / "__init__.py").is_file()


def error_codes() -> set[str]:
    errors = import_module("cra.errors")
    classes = (item for _, item in inspect.getmembers(errors, inspect.isclass))
    return {item.code for item in classes if issubclass(item, errors.CRAError)}


def test_every_error_code_is_in_the_docs(docs: str) -> None:
    codes = error_codes()
    assert len(codes) > 20
    assert missing(codes, docs) == []


@pytest.mark.skipif(not present("runtime"), reason="the runtime is not written yet")
def test_every_setting_is_in_the_docs(docs: str) -> None:
    from msgspec.structs import fields

    settings = {field.name for field in fields(import_module("cra").RuntimeConfig)}
    assert {"storage", "default_ttl_seconds"} <= settings
    assert missing(settings, docs) == []


@pytest.mark.skipif(not present("cli"), reason="the command line is not written yet")
def test_every_command_is_in_the_docs(docs: str) -> None:
    from typer.main import get_command

    commands = set(_commands(get_command(import_module("cra.cli").app), "cra"))
    assert "cra resolve" in commands
    assert missing(commands, docs) == []


def _commands(group: object, path: str) -> Iterator[str]:
    children = getattr(group, "commands", None)
    if not children:
        yield path
        return
    for name, child in children.items():
        if not child.hidden:
            yield from _commands(child, f"{path} {name}")


@pytest.mark.skipif(not (ROOT / "specs" / "openapi.yaml").is_file(), reason="the HTTP surface is not written yet")
def test_every_route_is_in_the_law_or_the_docs(docs: str) -> None:
    import yaml

    paths = yaml.safe_load((ROOT / "specs" / "openapi.yaml").read_text(encoding="utf-8"))["paths"]
    text = docs + (ROOT / "specs" / "PROTOCOL.md").read_text(encoding="utf-8")
    assert [path for path in paths if path not in text] == []


def _documents() -> list[Path]:
    return [
        path
        for path in sorted(ROOT.rglob("*.md"))
        if not any(part.startswith(".") or part in SKIPPED for part in path.relative_to(ROOT).parts[:-1])
    ]


@pytest.mark.parametrize("document", _documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    assert dead_links(document) == []


def dead_links(document: Path) -> list[str]:
    """Return the relative links of a document whose file or heading does not exist."""
    text = _prose(document)
    dead = []
    for link in re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            dead.append(link)
    return dead


def _prose(document: Path) -> str:
    text = document.read_text(encoding="utf-8")
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def _anchors(document: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+\s+(.+?)\s*#*$", text, re.MULTILINE)
    explicit = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    return explicit | {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_dead_link_and_a_missing_name_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[a](#one-heading) [b](page.md) [c](gone.md) [d](#gone) [e](https://x.test/y)\n`[f](x)`\n"
    )
    assert dead_links(page) == ["gone.md", "#gone"]
    text = "Call `action_denied` and `cra trace show ID`; prose says atlas_invalid.\n```console\n$ cra demo\n```\n"
    names = {"action_denied", "cra trace show", "cra demo", "atlas_invalid", "cra trace"}
    assert missing(names, text) == ["atlas_invalid"]
