from typing import Self, final

def words(text: str) -> list[str]: ...

@final
class ContextIndex:
    size: int
    pack_count: int
    def __new__(cls, blocks: list[tuple[int, int, int, int, str, str]], pack_limits: list[int]) -> Self: ...
    def select(
        self, goal: str, hints: tuple[str, ...], packs: bytes, budget_tokens: int
    ) -> tuple[list[int], list[int]]: ...
