from typing import Any, final

@final
class Node:
    def define(self, rules: dict[str, Any]) -> None: ...

@final
class Schema:
    def __init__(self, root: Node, dynamic: bool = False) -> None: ...
    def matches(self, value: Any) -> bool: ...
