"""What is allowed in an atlas, yet probably not meant."""

from collections.abc import Iterator
from typing import Any

from msgspec import UnsetType

from cra._core.glob import glob_match
from cra.atlas._hidden import hidden_in_document
from cra.atlas._meaning import Names, is_glob, matches_any
from cra.atlas._parts import Parts, Piece
from cra.atlas._shape import Shape
from cra.atlas._tree import ROOMS, Tree, shown
from cra.errors import Problem
from cra.protocol.atlas import Action, Conditions, Policy, PolicyType

_ANYTHING = Conditions()


def advice(shape: Shape, parts: Parts, tree: Tree) -> Iterator[Problem]:
    """Yield warnings about an atlas that has no problems."""
    names = Names(parts)
    globs = [*(p.actions for _, p in shape.policies), *(c.actions for _, c in shape.capabilities)]
    # PERF: every glob meets every action up to four times, at 0.2 us; beyond this nobody waits for advice.
    if sum(map(len, globs)) * len(names.actions) <= 500_000:
        yield from _idle_globs(shape, names)
        yield from _unreachable_actions(shape)
        yield from _shadowed_allows(shape, names)
        yield from _budget_costs(shape)
    yield from _packs(shape, tree)
    yield from _descriptions(shape)
    yield from _files(shape, tree)


def _warning(piece: Piece, code: str, message: str, pointer: str = "") -> Problem:
    return Problem(code, message, file=shown(piece.file), pointer=piece.pointer + pointer)


def _idle_globs(shape: Shape, names: Names) -> Iterator[Problem]:
    sections: list[tuple[str, list[tuple[Piece, Any]]]] = [
        ("policy", list(shape.policies)),
        ("capability", list(shape.capabilities)),
    ]
    for what, pieces in sections:
        for piece, struct in pieces:
            for index, glob in enumerate(struct.actions):
                # Rules may be about the actions of other atlases; then there is nothing here to compare with.
                if (what == "capability" or names.is_alone) and not matches_any(glob, names.actions):
                    hint = "" if is_glob(glob) else names.guess(glob, names.actions)
                    words = f"`{shown(glob)}` matches no action of this atlas{hint}"
                    yield _warning(piece, "matches_nothing", words, f"/actions/{index}")


def _binds(policy: Policy, action: str) -> bool:
    return any(glob_match(glob, action) for glob in policy.actions)


def _unreachable_actions(shape: Shape) -> Iterator[Problem]:
    allows = [policy for _, policy in shape.policies if policy.type is PolicyType.ALLOW]
    if not allows:
        return
    denies = _flat_denies(shape)
    for piece, action in shape.actions:
        # What is denied to everyone is meant to be out of reach.
        if not any(_binds(policy, action.action_id) for policy in allows + denies):
            words = f"no allow policy matches `{action.action_id}`, and this atlas has some, so it is never allowed"
            yield _warning(piece, "never_allowed", words, "/action_id")


def _flat_denies(shape: Shape) -> list[Policy]:
    """Return the deny policies that have no conditions."""
    denies = (policy for _, policy in shape.policies if policy.type is PolicyType.DENY)
    return [policy for policy in denies if policy.conditions == _ANYTHING]


def _shadowed_allows(shape: Shape, names: Names) -> Iterator[Problem]:
    denies = [
        policy for _, policy in shape.policies if policy.type is PolicyType.DENY and policy.conditions == _ANYTHING
    ]
    for piece, policy in shape.policies:
        if policy.type is not PolicyType.ALLOW:
            continue
        bound = sorted(action for action in names.actions if _binds(policy, action))
        shadows = {action: next((deny for deny in denies if _binds(deny, action)), None) for action in bound}
        if bound and all(shadows.values()):
            deny = next(deny for deny in shadows.values() if deny)
            words = f"all that it allows is denied without conditions, `{bound[0]}` by `{shown(deny.policy_id)}`"
            yield _warning(piece, "shadowed", words)


def _budget_costs(shape: Shape) -> Iterator[Problem]:
    for piece, policy in shape.policies:
        cost = policy.parameters.get("cost") if policy.type is PolicyType.BUDGET else None
        if cost is None:
            continue
        for _, action in shape.actions:
            if _binds(policy, action.action_id) and not _requires(action, cost):
                words = f"`{action.action_id}` need not have `{cost}`; a call without it is denied"
                yield _warning(piece, "cost_missing", words, "/parameters/cost")


def _requires(action: Action, pointer: str) -> bool:
    """Say whether the schema requires a value at `pointer`, as far as plain `properties` tell."""
    schema: Any = action.parameters_schema
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(properties, dict) or name not in properties or name not in schema.get("required", ()):
            return False
        schema = properties[name]
    return True


def _packs(shape: Shape, tree: Tree) -> Iterator[Problem]:
    named = {pack for _, capability in shape.capabilities for pack in capability.context_packs}
    for piece, pack in shape.context_packs:
        if shape.capabilities and pack.pack_id not in named:
            yield _warning(piece, "unused_pack", f"no capability names the pack `{shown(pack.pack_id)}`", "/pack_id")
        if not pack.files:
            yield _warning(piece, "empty_pack", f"the pack `{shown(pack.pack_id)}` has no files", "/files")
        for index, path in enumerate(pack.files):
            content = tree.files[path].decode("utf-8")
            tokens = (len(content) + 3) // 4
            if not isinstance(pack.max_tokens, UnsetType) and tokens > pack.max_tokens:
                words = (
                    f"`{shown(path)}` has {tokens} tokens, more than the pack's {pack.max_tokens}, so it is never sent"
                )
                yield _warning(piece, "never_sent", words, f"/files/{index}")


def _descriptions(shape: Shape) -> Iterator[Problem]:
    if shape.head is not None and not shape.head.description:
        yield Problem("no_description", "the atlas has no description", pointer="/description")
    sections: list[tuple[str, list[tuple[Piece, Any]]]] = [
        ("action", list(shape.actions)),
        ("capability", list(shape.capabilities)),
        ("context pack", list(shape.context_packs)),
    ]
    for what, pieces in sections:
        for piece, struct in pieces:
            if not struct.description:
                yield _warning(piece, "no_description", f"the {what} `{shown(struct.name)}` has no description")
    for piece, action in shape.actions:
        if not action.parameters_schema:
            words = f"`{action.action_id}` has no parameters_schema, so a call may pass anything"
            yield _warning(piece, "no_schema", words)
    for piece, policy in shape.policies:
        has_reason = not isinstance(policy.reason, UnsetType) or "reason" in policy.parameters
        if policy.type is PolicyType.DENY and not has_reason:
            words = f"the deny policy `{shown(policy.policy_id)}` has no reason that an agent could act on"
            yield _warning(piece, "no_reason", words)


def _files(shape: Shape, tree: Tree) -> Iterator[Problem]:
    named = {path for _, pack in shape.context_packs for path in pack.files}
    for path in sorted(tree.files):
        if path.startswith("context/") and path not in named:
            yield Problem("unused_file", f"no pack names `{shown(path)}`", file=shown(path))
    for path in sorted(named):
        text = tree.files[path].decode("utf-8")
        if not text.strip():
            yield Problem("empty_file", f"`{shown(path)}` has no text", file=shown(path))
        if found := hidden_in_document(text):
            words = (
                f"line {found[1]} has the invisible character {found[0]}, which a reader does not see and a model does"
            )
            yield Problem("hidden_text", words, file=shown(path))
    for name in tree.strange:
        words = f"the folder `{shown(name)}` is not part of an atlas, expected one of {', '.join(ROOMS)}"
        yield Problem("strange_folder", words, file=shown(name))
