"""The pattern language of JSON Schema (ECMA 262 in Unicode mode) to programs that run in linear time.

What needs backtracking is refused when a pattern is compiled: lookaround and back-references. Against Python's `re`:
`$` is only the end of the text, never before a final line feed; `\\d` and `\\w` are ASCII.
"""

from collections.abc import Iterable
from typing import Any, NoReturn

from cra._core.pattern import Pattern
from cra.errors import InvalidInput

__all__ = ["compile_pattern"]

# A repetition with counts is written out, so this bounds `(a{1000}){1000}`.
MAX_SIZE = 4000
MAX_NESTING = 100
MAX_CODE_POINT = 0x10FFFF

# Instructions; `cra._core.pattern` has the same numbers.
CHAR, SET, SPLIT, JUMP, BEGIN, END, WORD, MATCH = range(8)

Ranges = tuple[tuple[int, int], ...]
Tree = tuple[Any, ...]
EMPTY: Tree = ("all", ())

_DIGIT = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
# fmt: off
_SPACE = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)
# fmt: on
_LINE_ENDS = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
# fmt: off
_CATEGORY_NAMES = {
    "Letter": "L", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt", "Cased_Letter": "LC",
    "Modifier_Letter": "Lm", "Other_Letter": "Lo", "Mark": "M", "Combining_Mark": "M", "Nonspacing_Mark": "Mn",
    "Spacing_Mark": "Mc", "Enclosing_Mark": "Me", "Number": "N", "Decimal_Number": "Nd", "digit": "Nd",
    "Letter_Number": "Nl", "Other_Number": "No", "Punctuation": "P", "punct": "P", "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe", "Initial_Punctuation": "Pi",
    "Final_Punctuation": "Pf", "Other_Punctuation": "Po", "Symbol": "S", "Math_Symbol": "Sm", "Currency_Symbol": "Sc",
    "Modifier_Symbol": "Sk", "Other_Symbol": "So", "Separator": "Z", "Space_Separator": "Zs", "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp", "Other": "C", "Control": "Cc", "cntrl": "Cc", "Format": "Cf", "Surrogate": "Cs",
    "Private_Use": "Co", "Unassigned": "Cn",
}
# fmt: on
_categories: dict[str, Ranges] = {}


def compile_pattern(source: str) -> Pattern:
    """Return the compiled pattern, or raise `InvalidInput` saying what is wrong at which character."""
    tree = _Parser(source).parse()
    writer = _Writer()
    writer.emit(tree)
    writer.put(MATCH)
    return Pattern(source, writer.code, writer.sets, _anchored(tree))


def _anchored(tree: Tree) -> bool:
    if tree[0] == "begin":
        return True
    if tree[0] == "all":
        return bool(tree[1]) and _anchored(tree[1][0])
    return tree[0] == "any" and all(_anchored(part) for part in tree[1])


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges sorted and merged."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _inverted(ranges: Iterable[tuple[int, int]]) -> Ranges:
    gaps, start = [], 0
    for low, high in _joined(ranges):
        if low > start:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= MAX_CODE_POINT:
        gaps.append((start, MAX_CODE_POINT))
    return tuple(gaps)


def _category(name: str) -> Ranges | None:
    """Return the ranges of a Unicode general category, or None; the table is made at the first use, in 0.2 s."""
    if name == "Any":
        return ((0, MAX_CODE_POINT),)
    if name == "ASCII":
        return ((0, 0x7F),)
    name = _CATEGORY_NAMES.get(name, name)
    if not _categories:
        from unicodedata import category

        found: dict[str, list[tuple[int, int]]] = {}
        start, current = 0, category("\0")
        for point in range(1, MAX_CODE_POINT + 2):
            kind = category(chr(point)) if point <= MAX_CODE_POINT else ""
            if kind != current:
                found.setdefault(current, []).append((start, point - 1))
                start, current = point, kind
        for kind in list(found):
            found.setdefault(kind[0], []).extend(found[kind])
        found["LC"] = found["Lu"] + found["Ll"] + found["Lt"]
        _categories.update({kind: _joined(ranges) for kind, ranges in found.items()})
    return _categories.get(name)


class _Writer:
    """Turns a tree into instructions of three numbers."""

    def __init__(self) -> None:
        self.code: list[list[int]] = []
        self.sets: list[Ranges] = []
        self.numbers: dict[Ranges, int] = {}

    def put(self, op: int, a: int = 0, b: int = 0) -> int:
        if len(self.code) >= MAX_SIZE:
            raise InvalidInput("pattern is too large when its counted repetitions are written out")
        self.code.append([op, a, b])
        return len(self.code) - 1

    def emit(self, tree: Tree) -> None:
        kind = tree[0]
        if kind == "char":
            self.put(CHAR, tree[1])
        elif kind == "set":
            if tree[1] not in self.numbers:
                self.numbers[tree[1]] = len(self.sets)
                self.sets.append(tree[1])
            self.put(SET, self.numbers[tree[1]])
        elif kind == "begin":
            self.put(BEGIN)
        elif kind == "end":
            self.put(END)
        elif kind == "word":
            self.put(WORD, tree[1])
        elif kind == "all":
            for part in tree[1]:
                self.emit(part)
        elif kind == "any":
            exits = []
            for part in tree[1][:-1]:
                split = self.put(SPLIT)
                self.code[split][1] = split + 1
                self.emit(part)
                exits.append(self.put(JUMP))
                self.code[split][2] = len(self.code)
            self.emit(tree[1][-1])
            for jump in exits:
                self.code[jump][1] = len(self.code)
        else:
            self._repeat(*tree[1:])

    def _repeat(self, part: Tree, low: int, high: int | None) -> None:
        start = len(self.code)
        for _ in range(low):
            start = len(self.code)
            self.emit(part)
        if high is None:
            if low:
                split = self.put(SPLIT, start)
                self.code[split][2] = split + 1
            else:
                split = self.put(SPLIT)
                self.code[split][1] = split + 1
                self.emit(part)
                self.put(JUMP, split)
                self.code[split][2] = len(self.code)
            return
        splits = []
        for _ in range(high - low):
            split = self.put(SPLIT)
            self.code[split][1] = split + 1
            splits.append(split)
            self.emit(part)
        for split in splits:
            self.code[split][2] = len(self.code)


class _Parser:
    """Reads a pattern into nested tuples."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.nesting = 0

    def fail(self, words: str, hint: str | None = None) -> NoReturn:
        raise InvalidInput(f"pattern: {words} at character {self.at + 1}", hint=hint)

    def peek(self) -> str:
        return self.source[self.at] if self.at < len(self.source) else ""

    def take(self, text: str) -> bool:
        if self.source.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def parse(self) -> Tree:
        tree = self.alternatives()
        if self.at < len(self.source):
            self.fail("unmatched `)`")
        return tree

    def alternatives(self) -> Tree:
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else ("any", tuple(parts))

    def sequence(self) -> Tree:
        parts = []
        while self.peek() not in ("", "|", ")"):
            part = self.quantified()
            if part != EMPTY:
                parts.append(part)
        return parts[0] if len(parts) == 1 else ("all", tuple(parts))

    def quantified(self) -> Tree:
        assertion = self.source.startswith(("^", "$", "\\b", "\\B"), self.at)
        atom = self.atom()
        bounds = self.bounds()
        if bounds is None:
            return atom
        if assertion:
            self.fail("nothing to repeat")
        self.take("?")
        if self.peek() in ("*", "+", "?") and self.peek():
            self.fail("nothing to repeat", "possessive quantifiers and repeated quantifiers are not part of ECMA 262")
        low, high = bounds
        if high is not None and high < low:
            self.fail("repetition counts are out of order")
        if max(low, high or 0) > MAX_SIZE:
            self.fail(f"repetition count is above {MAX_SIZE}")
        # INVARIANT: what is repeated writes at least one instruction, so `MAX_SIZE` bounds the work too.
        return EMPTY if atom == EMPTY or high == 0 else ("repeat", atom, low, high)

    def bounds(self) -> tuple[int, int | None] | None:
        if self.take("*"):
            return 0, None
        if self.take("+"):
            return 1, None
        if self.take("?"):
            return 0, 1
        if self.peek() != "{":
            return None
        end = self.source.find("}", self.at)
        low, comma, high = self.source[self.at + 1 : end].partition(",")
        if end < 0 or not _number(low) or (high and not _number(high)):
            return None  # a brace that is no quantifier stands for itself
        self.at = end + 1
        if not comma:
            return int(low), int(low)
        return int(low), int(high) if high else None

    def atom(self) -> Tree:
        c = self.peek()
        if c in "*+?":
            self.fail("nothing to repeat")
        self.at += 1
        if c == "^":
            return ("begin",)
        if c == "$":
            # The way to make Python's `$` mean the end as well; here it adds nothing.
            _ = self.take("(?!\n)") or self.take("(?!\\n)")
            return ("end",)
        if c == ".":
            return ("set", _inverted(_LINE_ENDS))
        if c == "(":
            return self.group()
        if c == "[":
            return ("set", self.members())
        if c == "\\":
            return self.escape()
        return ("char", ord(c))

    def group(self) -> Tree:
        if self.take("?"):
            hint = "write one `pattern` for each condition below `allOf`, and `not` around what must not match"
            if self.peek() in ("=", "!") or self.source.startswith(("<=", "<!"), self.at):
                self.fail("lookaround is not supported", hint)
            if self.take("<"):
                end = self.source.find(">", self.at)
                if end < 0 or not self.source[self.at : end].isidentifier():
                    self.fail("group name is not valid")
                self.at = end + 1
            elif not self.take(":"):
                self.fail("unknown kind of group", "ECMA 262 has `(...)`, `(?:...)` and `(?<name>...)`")
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            self.fail(f"groups nest more than {MAX_NESTING} levels")
        tree = self.alternatives()
        self.nesting -= 1
        if not self.take(")"):
            self.fail("missing `)`")
        return tree

    def escape(self) -> Tree:
        c = self.peek()
        if c in ("b", "B"):
            self.at += 1
            return ("word", int(c == "b"))
        if c == "k" or (c.isdecimal() and c != "0"):
            self.fail("back-references are not supported")
        ranges = self.class_escape()
        if ranges is not None:
            return ("set", ranges)
        return ("char", self.character_escape())

    def class_escape(self) -> Ranges | None:
        c = self.peek()
        known = {"d": _DIGIT, "w": _WORD, "s": _SPACE}.get(c.lower())
        if known is not None:
            self.at += 1
            return known if c.islower() else _inverted(known)
        if c not in ("p", "P"):
            return None
        end = self.source.find("}", self.at)
        if self.source[self.at + 1 : self.at + 2] != "{" or end < 0:
            self.fail("`\\p` needs a property in braces")
        name = self.source[self.at + 2 : end]
        for prefix in ("General_Category=", "gc="):
            name = name.removeprefix(prefix)
        ranges = _category(name)
        if ranges is None:
            self.fail("unknown Unicode property", "known are the general categories, as in `\\p{L}` or `\\p{Letter}`")
        self.at = end + 1
        return ranges if c == "p" else _inverted(ranges)

    def character_escape(self) -> int:
        c = self.peek()
        if not c:
            self.fail("pattern ends in a backslash")
        self.at += 1
        if c in _CONTROLS:
            return _CONTROLS[c]
        if c == "0" and not self.peek().isdecimal():
            return 0
        if c == "c" and self.peek().isascii() and self.peek().isalpha():
            self.at += 1
            return ord(self.source[self.at - 1]) % 32
        if c == "x":
            return self.hexadecimal(2)
        if c == "u":
            if not self.take("{"):
                point = self.hexadecimal(4)
                if 0xD800 <= point < 0xDC00 and self.source.startswith("\\u", self.at):
                    back, self.at = self.at, self.at + 2
                    low = self.hexadecimal(4)
                    if 0xDC00 <= low < 0xE000:
                        return 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
                    self.at = back
                return point
            end = self.source.find("}", self.at)
            point = self.hexadecimal(max(end - self.at, 1))
            self.at = end + 1
            if point > MAX_CODE_POINT:
                self.fail("code point is above 10FFFF")
            return point
        if c.isalnum():
            self.at -= 1
            self.fail("unknown escape", "the pattern language is ECMA 262; the end of the text is `$`")
        return ord(c)

    def hexadecimal(self, digits: int) -> int:
        text = self.source[self.at : self.at + digits]
        if len(text) < digits or digits > 8 or any(c not in "0123456789abcdefABCDEF" for c in text):
            self.fail("expected hexadecimal digits")
        self.at += digits
        return int(text, 16)

    def members(self) -> Ranges:
        negated = self.take("^")
        ranges: list[tuple[int, int]] = []
        while not self.take("]"):
            if not self.peek():
                self.fail("missing `]`")
            low = self.member(ranges)
            # A hyphen beside a class such as `\d`, or at the end, stands for itself.
            if low is None or self.peek() != "-" or self.source.startswith("-]", self.at):
                if low is not None:
                    ranges.append((low, low))
                continue
            self.at += 1
            high = self.member(ranges)
            if high is None:
                ranges += [(low, low), (0x2D, 0x2D)]
            elif high < low:
                self.fail("range is out of order")
            else:
                ranges.append((low, high))
        return _inverted(ranges) if negated else _joined(ranges)

    def member(self, ranges: list[tuple[int, int]]) -> int | None:
        """Return one code point, or None after adding a whole class to `ranges`."""
        if not self.take("\\"):
            if not self.peek():
                self.fail("missing `]`")
            self.at += 1
            return ord(self.source[self.at - 1])
        if self.take("b"):
            return 0x08
        if self.take("-"):
            return 0x2D
        found = self.class_escape()
        if found is None:
            return self.character_escape()
        ranges += found
        return None


def _number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9
