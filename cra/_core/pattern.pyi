from typing import final

@final
class Pattern:
    def __init__(
        self,
        source: str,
        program: list[list[int]],
        sets: list[tuple[tuple[int, int], ...]],
        anchored: bool,
    ) -> None: ...
    @property
    def source(self) -> str: ...
    def matches(self, text: str) -> bool: ...
