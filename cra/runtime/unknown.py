"""Unknown inputs: what a decision would be for every value that an input which was not kept can have had."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from msgspec import UNSET, Struct, UnsetType, structs

from cra._core.canonical import dumps
from cra._core.glob import glob_match
from cra.atlas.package import Atlas
from cra.atlas.reasons import reason_of
from cra.atlas.snapshot import Snapshot
from cra.protocol.atlas import MAX_BUDGET, Action, Conditions, Manifest, Policy, PolicyType

# What a question asks: does a schema match, is a cost good, does a context match. Questions are the same in every
# snapshot, so an answer that one record proves holds in another.
Question = tuple[str, bytes]
Answers = Mapping[Question, str]

_YES_NO = ("yes", "no")
_COSTS = ("fits", "too much", "none")
_NOTHING: dict[str, Any] = {}
# A schema that says no more than what every call's parameters are.
_ANYTHING = frozenset(("type", "title", "description", "$schema", "$comment", "examples"))


class Blind(Struct, frozen=True, kw_only=True):
    """Which inputs were not kept."""

    parameters: bool = False
    context: bool = False

    def __bool__(self) -> bool:
        return self.parameters or self.context

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs, by name."""
        return tuple(name for name in ("parameters", "context") if getattr(self, name))


class Doubt(NamedTuple):
    """What a decision about one action hangs on: each question with its possible answers, and the policies asking."""

    questions: dict[Question, tuple[str, ...]]
    policies: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that the questions are about."""
        kinds = {kind for kind, _ in self.questions}
        return tuple(
            name for name, found in (("parameters", kinds - {"context"}), ("context", kinds & {"context"})) if found
        )

    def words(self) -> str:
        """Say what was not kept, and who looks at it."""
        who = [f"policy `{policy}`" for policy in self.policies]
        if any(kind == "schema" for kind, _ in self.questions) and len(self.questions) > len(who):
            who.insert(0, "the parameters_schema")
        one = len(self.inputs) == 1
        return (
            f"only {'a digest' if one else 'digests'} of {' and '.join(self.inputs)} {'was' if one else 'were'} kept, "
            f"and {', '.join(who)} {'looks' if len(who) == 1 else 'look'} at more"
        )


def speaks_about(snapshot: Snapshot, atlas_id: str, policy: Policy, action: int) -> bool:
    """Tell whether a policy is about an action, whatever its other conditions say."""
    bound = snapshot.actions[action]
    wanted = policy.conditions.capabilities
    return (
        (policy.type is not PolicyType.ALLOW or bound.atlas_id == atlas_id)
        and (isinstance(wanted, UnsetType) or not bound.capabilities.isdisjoint(wanted))
        and any(glob_match(glob, bound.action.action_id) for glob in policy.actions)
    )


def schema_question(snapshot: Snapshot, action_id: str) -> Question | None:
    """Return the question whether parameters match the action's own schema; None where every object does."""
    index = snapshot.index.get(action_id)
    schema = {} if index is None else snapshot.actions[index].action.parameters_schema
    if schema.keys() <= _ANYTHING and schema.get("type", "object") == "object":
        return None
    return "schema", dumps(schema)


def doubt_about(snapshot: Snapshot, action_id: str, blind: Blind) -> Doubt:
    """Return what a decision about a call of this action hangs on, as far as it was not kept."""
    questions: dict[Question, tuple[str, ...]] = {}
    policies: list[str] = []
    index = snapshot.index.get(action_id)
    if index is None or not blind:
        return Doubt(questions, ())
    if blind.parameters:
        own = schema_question(snapshot, action_id)
        if own is not None:
            questions[own] = _YES_NO
    for atlas in snapshot.atlases:
        for policy in atlas.manifest.policies:
            if speaks_about(snapshot, atlas.atlas_id, policy, index):
                asked = list(_asked(policy, blind))
                questions.update(asked)
                if asked:
                    policies.append(policy.policy_id)
    return Doubt(questions, tuple(policies))


def _asked(policy: Policy, blind: Blind) -> Iterator[tuple[Question, tuple[str, ...]]]:
    conditions = policy.conditions
    if blind.context and not isinstance(conditions.context_matches, UnsetType) and conditions.context_matches:
        yield ("context", dumps(conditions.context_matches)), _YES_NO
    if not blind.parameters:
        return
    if not isinstance(conditions.parameters, UnsetType):
        yield ("schema", dumps(conditions.parameters)), _YES_NO
    if policy.type is PolicyType.SCOPE:
        yield ("schema", dumps(policy.parameters.get("schema"))), _YES_NO
    if policy.type is PolicyType.BUDGET and "cost" in policy.parameters:
        yield ("cost", dumps([policy.parameters["cost"], policy.parameters["limit"]])), _COSTS


MOST_CASES = 64


def cases_of(*doubts: Doubt) -> list[dict[Question, str]] | None:
    """Return every way in which the questions can have been answered; None when there are too many."""
    questions: dict[Question, tuple[str, ...]] = {}
    for doubt in doubts:
        questions.update(doubt.questions)
    total = 1
    for answers in questions.values():
        total *= len(answers)
    if total > MOST_CASES:
        return None
    return [dict(zip(questions, chosen, strict=True)) for chosen in product(*questions.values())]


class Cases:
    """Snapshots in which questions have been answered; made once for each action and answers."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, tuple[tuple[Question, str], ...]], Snapshot] = {}

    def snapshot(self, snapshot: Snapshot, action_id: str, answers: Answers) -> Snapshot:
        """Return a snapshot that decides about calls of one action as if the questions had these answers."""
        if not answers:
            return snapshot
        key = (snapshot.digest, action_id, tuple(answers.items()))
        if key not in self._made:
            made = Snapshot(
                [_answered(atlas, action_id, answers) for atlas in snapshot.atlases], snapshot.default_decision
            )
            # It stands for the recorded one, which approvals are bound to.
            made.digest = snapshot.digest
            self._made[key] = made
        return self._made[key]


def _answered(atlas: Atlas, action_id: str, answers: Answers) -> Atlas:
    manifest: Manifest = structs.replace(
        atlas.manifest,
        actions=tuple(
            _answered_action(action, answers) for action in atlas.manifest.actions if action.action_id == action_id
        ),
        policies=tuple(_answered_policy(policy, answers) for policy in atlas.manifest.policies),
        context_packs=(),
    )
    return Atlas(manifest=manifest, files={}, digest=atlas.digest, source=atlas.source)


def _answered_action(action: Action, answers: Answers) -> Action:
    answer = answers.get(("schema", dumps(action.parameters_schema)))
    if answer is None:
        return action
    return structs.replace(action, parameters_schema=_NOTHING if answer == "yes" else {"not": _NOTHING})


def _answered_policy(policy: Policy, answers: Answers) -> Policy:
    conditions = _answered_conditions(policy.conditions, answers)
    parameters = policy.parameters
    reason = policy.reason
    if policy.type is PolicyType.SCOPE:
        answer = answers.get(("schema", dumps(parameters.get("schema"))))
        if answer is not None:
            parameters = {**parameters, "schema": answer == "yes"}
    if policy.type is PolicyType.BUDGET and "cost" in parameters:
        answer = answers.get(("cost", dumps([parameters["cost"], parameters["limit"]])))
        if answer is not None:
            # Its words may name the limit, which is another one from here on.
            reason = reason_of(policy)
            if answer == "none":
                parameters = {**parameters, "cost": "/\0"}
            else:
                parameters = {name: value for name, value in parameters.items() if name != "cost"}
                parameters["limit"] = MAX_BUDGET if answer == "fits" else 0.5
    return structs.replace(policy, conditions=conditions, parameters=parameters, reason=reason)


def _answered_conditions(conditions: Conditions, answers: Answers) -> Conditions:
    if not isinstance(conditions.context_matches, UnsetType) and conditions.context_matches:
        answer = answers.get(("context", dumps(conditions.context_matches)))
        if answer is not None:
            # No agent at all: what does not hold.
            agents = conditions.agents if answer == "yes" else ()
            conditions = structs.replace(conditions, context_matches=UNSET, agents=agents)
    if not isinstance(conditions.parameters, UnsetType):
        answer = answers.get(("schema", dumps(conditions.parameters)))
        if answer is not None:
            conditions = structs.replace(conditions, parameters=answer == "yes")
    return conditions


def context_watchers(snapshot: Snapshot) -> tuple[frozenset[str], bool]:
    """Return the actions that some policy judges by the context, and whether some pack is chosen by it."""
    actions = {
        bound.action.action_id
        for number, bound in enumerate(snapshot.actions)
        for atlas in snapshot.atlases
        for policy in atlas.manifest.policies
        if _watches(policy.conditions) and speaks_about(snapshot, atlas.atlas_id, policy, number)
    }
    packs = any(_watches(pack.conditions) for atlas in snapshot.atlases for pack in atlas.manifest.context_packs)
    return frozenset(actions), packs


def _watches(conditions: Conditions) -> bool:
    return not isinstance(conditions.context_matches, UnsetType) and bool(conditions.context_matches)
