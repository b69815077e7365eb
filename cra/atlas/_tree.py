"""What lies in an atlas before anyone has judged it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cra._core.canonical import dumps
from cra.atlas._paths import path_fault
from cra.errors import NotCanonical, Problem

MANIFEST = "atlas.json"
KEPT = ("CHANGELOG.md", "LICENSE", "NOTICE", "README.md")
ROOMS = ("actions", "adapters", "context", "policies", "tests")


class Tree(msgspec.Struct):
    """Files by path, and what went wrong while reading; a path with a problem has no bytes here."""

    source: str
    files: dict[str, bytes] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)
    strange: list[str] = msgspec.field(default_factory=list)

    def refuse(self, code: str, message: str, *, file: str, pointer: str = "") -> None:
        self.problems.append(Problem(code, message, file=shown(file), pointer=pointer))

    def add_manifest(self, manifest: Any) -> None:
        """Add the manifest, given as JSON text or as its value."""
        if isinstance(manifest, str):
            self.files[MANIFEST] = manifest.encode("utf-8", "surrogatepass")
        elif isinstance(manifest, bytes):
            self.files[MANIFEST] = manifest
        else:
            try:
                # The text, not the caller's objects: what is loaded cannot change afterwards.
                self.files[MANIFEST] = dumps(manifest)
            except NotCanonical as error:
                self.refuse("invalid_json", error.message, file=MANIFEST, pointer=error.pointer or "")


def tree_of(files: Mapping[str, str | bytes], source: str) -> Tree:
    """Return the tree of files that are already in memory."""
    tree = Tree(source)
    for path, content in files.items():
        if fault := path_fault(path):
            tree.refuse("path_escape", f"`{shown(path)}` cannot be a file of an atlas: {fault}", file=path)
        else:
            tree.files[path] = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
    return tree


def shown(text: str, width: int = 80) -> str:
    """Return text as a message may quote it: printable, short."""
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[: width + 1])
    return text if len(text) <= width else text[:width] + "…"
