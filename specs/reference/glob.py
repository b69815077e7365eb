"""Globs: `*` is any run of characters, `?` is one, everything else is itself."""


def glob_match(pattern: str, text: str) -> bool:
    """Tell whether `pattern` matches the whole of `text`; a character is a Unicode code point, case counts.

    The set of places in the pattern that the text read so far can have reached is followed character by character.
    """
    places = _skip_stars(pattern, {0})
    for char in text:
        places = _skip_stars(pattern, {step for place in places for step in _steps(pattern, place, char)})
    return len(pattern) in places


def _steps(pattern: str, place: int, char: str) -> list[int]:
    if place == len(pattern):
        return []
    if pattern[place] == "*":
        return [place]
    if pattern[place] == "?" or pattern[place] == char:
        return [place + 1]
    return []


def _skip_stars(pattern: str, places: set[int]) -> set[int]:
    """Add what is reached without reading anything: a star may stand for no character at all."""
    reached = set(places)
    for place in sorted(places):
        while place < len(pattern) and pattern[place] == "*":
            place += 1
            reached.add(place)
    return reached


def any_match(patterns: list[str], text: str) -> bool:
    """Tell whether at least one of the patterns matches."""
    return any(glob_match(pattern, text) for pattern in patterns)
