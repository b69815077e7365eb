"""Characters that make text look like something else."""

import re

# Controls, line separators, zero-width and word-joining marks, bidi embeddings, overrides and isolates, interlinear
# marks and tag characters. U+200C..U+200F stay: Persian, Hebrew, Arabic and emoji need them.
_HIDDEN = "\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_TAGS = "\U000e0000-\U000e007f"
_IN_NAME = re.compile(f"[\t\n{_HIDDEN}{_TAGS}\ud800-\udfff]")
_IN_TEXT = re.compile(f"[{_HIDDEN}{_TAGS}\ud800-\udfff]")
_IN_DOCUMENT = re.compile(f"[{_HIDDEN}{_TAGS}]".replace("\u000b-\u001f", "\u000b\u000e-\u001f"))


def hidden_character(text: str, *, lines: bool = False) -> str | None:
    """Return the first such character as `U+202E`, or None; with `lines`, tabs and line feeds are fine."""
    found = (_IN_TEXT if lines else _IN_NAME).search(text)
    return found and f"U+{ord(found[0]):04X}"


def hidden_in_document(text: str) -> tuple[str, int] | None:
    """Return the first such character of a whole document with its line, or None."""
    found = _IN_DOCUMENT.search(text, 1 if text.startswith("\ufeff") else 0)
    return found and (f"U+{ord(found[0]):04X}", text.count("\n", 0, found.start()) + 1)
