"""Policy engines and hand-written deciders, all asked the same: allow, deny or approval for an action name."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase, translate
from typing import Any, NamedTuple

from bench.data import World
from bench.machine import version_of

Decide = Callable[[str], str]
DecideAll = Callable[[list[str]], list[str]]


class Peer(NamedTuple):
    """An engine with the world loaded; `form` says how its policies are written, `two` that approval reads as deny."""

    name: str
    package: str | None
    form: str
    make: Callable[[World], tuple[Decide, DecideAll]]
    two: bool = False


class Ready(NamedTuple):
    """A peer that is installed and answers as it must."""

    peer: Peer
    one: Decide
    every: DecideAll

    @property
    def label(self) -> str:
        """Name, version and form, as the table shows them."""
        version = f" {version_of(self.peer.package)}" if self.peer.package else ""
        return f"{self.peer.name}{version}, {self.peer.form}"


def ready(world: World) -> Iterator[Ready]:
    """Load the world into every peer that is installed; raises when one answers otherwise than it must."""
    logging.disable(logging.WARNING)
    for peer in PEERS:
        if peer.package is not None and version_of(peer.package) is None:
            continue
        one, every = peer.make(world)
        check_answers(peer.name, world, {name: one(name) for name in world.actions}, two=peer.two)
        check_answers(peer.name, world, dict(zip(world.actions, every(world.actions), strict=True)), two=peer.two)
        yield Ready(peer, one, every)


def check_answers(name: str, world: World, answers: dict[str, str], *, two: bool = False) -> None:
    """Raise unless the answers are the world's."""
    for action, expected in world.answers.items():
        wanted = "deny" if two and expected == "approval" else expected
        if answers[action] != wanted:
            raise AssertionError(f"{name}: `{action}` is `{answers[action]}`, expected `{wanted}`")


def _loop(one: Decide) -> tuple[Decide, DecideAll]:
    return one, lambda actions: [one(action) for action in actions]


def _regex(world: World) -> tuple[Decide, DecideAll]:
    deny, approval, allow = (
        re.compile("|".join(map(translate, globs))).match for globs in (world.deny, world.approval, world.allow)
    )

    def one(action: str) -> str:
        if deny(action):
            return "deny"
        if approval(action):
            return "approval"
        return "allow" if allow(action) else "deny"

    return _loop(one)


def _memo(world: World) -> tuple[Decide, DecideAll]:
    slow, _ = _regex(world)
    known: dict[str, str] = {}

    def one(action: str) -> str:
        answer = known.get(action)
        if answer is None:
            answer = known[action] = slow(action)
        return answer

    return _loop(one)


def _fnmatch(world: World) -> tuple[Decide, DecideAll]:
    def one(action: str) -> str:
        for glob in world.deny:
            if fnmatchcase(action, glob):
                return "deny"
        for glob in world.approval:
            if fnmatchcase(action, glob):
                return "approval"
        for glob in world.allow:
            if fnmatchcase(action, glob):
                return "allow"
        return "deny"

    return _loop(one)


def _agent_action_policy(world: World) -> tuple[Decide, DecideAll]:
    from action_policy import Action, PolicyEngine

    engine = PolicyEngine.from_dict(
        {
            "policies": [
                {"name": f"{verdict}-{number}", "match": {"tool": glob}, "action": verdict, "priority": priority}
                for priority, (verdict, globs) in enumerate(
                    (("deny", world.deny), ("escalate", world.approval), ("approve", world.allow))
                )
                for number, glob in enumerate(globs)
            ]
        },
        default_action=Action.DENY,
    )
    words = {Action.DENY: "deny", Action.ESCALATE: "approval", Action.APPROVE: "allow"}
    evaluate = engine.evaluate
    return _loop(lambda action: words[evaluate(tool=action).action])


def _rego_test(glob: str) -> list[str]:
    head, star, tail = glob.partition("*")
    if not star:
        return [f"input.action == {json.dumps(glob)}"]
    tests = []
    if head:
        tests.append(f"startswith(input.action, {json.dumps(head)})")
    if tail:
        tests.append(f"endswith(input.action, {json.dumps(tail)})")
    return tests


def _regorus(world: World) -> tuple[Decide, DecideAll]:
    import regorus

    rules = ["package bench", "import rego.v1", 'default decision := "deny"']
    for kind, globs in (("is_deny", world.deny), ("is_approval", world.approval), ("is_allow", world.allow)):
        rules.append(f"default {kind} := false")
        rules += [f"{kind} if {{ {'; '.join(_rego_test(glob))} }}" for glob in globs]
    rules.append(
        'decision := "deny" if { is_deny } else := "approval" if { is_approval } else := "allow" if { is_allow }'
    )
    program = regorus.Program.compile_from_modules("{}", [("bench.rego", "\n".join(rules))], ["data.bench.decision"])
    machine = regorus.Rvm()
    machine.load_program(program)
    set_input, execute, loads = machine.set_input_json, machine.execute, json.loads

    def one(action: str) -> str:
        set_input(f'{{"action":"{action}"}}')
        answer: str = loads(execute())
        return answer

    return _loop(one)


def _cedar_test(glob: str) -> str:
    if "*" in glob:
        return f'when {{ context.name like "{glob}" }}'
    return f'when {{ context.name == "{glob}" }}'


def _cedarpy(world: World) -> tuple[Decide, DecideAll]:
    # Cedar permits or forbids; approval is asked as a second action of the same set, as its users do it. To keep it
    # one evaluation, the policy that permitted names itself in the diagnostics.
    from cedarpy import Entities, PolicySet, is_authorized, is_authorized_batch

    text = []
    for kind, effect, globs in (
        ("deny", "forbid", world.deny),
        ("approval", "permit", world.approval),
        ("allow", "permit", world.allow),
    ):
        text += [
            f'@id("{kind}-{number}")\n{effect}(principal, action, resource) {_cedar_test(glob)};'
            for number, glob in enumerate(globs)
        ]
    policies, entities = PolicySet.from_str("\n".join(text)), Entities.from_json_str("[]")
    # Reasons come as policy0, policy1, ... in the order of the text.
    first, last = len(world.deny), len(world.deny) + len(world.approval)
    approvals = {f"policy{number}" for number in range(first, last)} | {
        f"approval-{number}" for number in range(last - first)
    }

    def request(action: str) -> dict[str, Any]:
        return {
            "principal": 'Agent::"a"',
            "action": 'Action::"call"',
            "resource": 'Tool::"t"',
            "context": f'{{"name":"{action}"}}',
        }

    def read(result: Any) -> str:
        if not result.allowed:
            return "deny"
        return "approval" if not approvals.isdisjoint(result.diagnostics.reasons) else "allow"

    return (
        lambda action: read(is_authorized(request(action), policies, entities)),
        lambda actions: [
            read(result) for result in is_authorized_batch([request(action) for action in actions], policies, entities)
        ],
    )


_CASBIN_MODEL = """
[request_definition]
r = act

[policy_definition]
p = priority, glob, eft, answer

[policy_effect]
e = priority(p.eft) || deny

[matchers]
m = globMatch(r.act, p.glob)
"""


def _casbin(world: World) -> tuple[Decide, DecideAll]:
    import casbin

    model = casbin.Enforcer.new_model(text=_CASBIN_MODEL)
    enforcer = casbin.Enforcer(model)
    for priority, (answer, globs) in enumerate(
        (("deny", world.deny), ("approval", world.approval), ("allow", world.allow))
    ):
        for glob in globs:
            enforcer.add_policy(str(priority), glob, "deny" if answer == "deny" else "allow", answer)

    def one(action: str) -> str:
        permitted, explained = enforcer.enforce_ex(action)
        return explained[3] if permitted else "deny"

    return _loop(one)


def _vakt(world: World) -> tuple[Decide, DecideAll]:
    import vakt
    from vakt.rules import Any as Anything
    from vakt.rules import EndsWith, Eq, StartsWith
    from vakt.rules.logic import And

    def rule(glob: str) -> Any:
        head, star, tail = glob.partition("*")
        if not star:
            return Eq(glob)
        parts = [*([StartsWith(head)] if head else ()), *([EndsWith(tail)] if tail else ())]
        return parts[0] if len(parts) == 1 else And(*parts)

    storage = vakt.MemoryStorage()
    for kind, globs in (("deny", [*world.deny, *world.approval]), ("allow", world.allow)):
        effect = vakt.ALLOW_ACCESS if kind == "allow" else vakt.DENY_ACCESS
        for number, glob in enumerate(globs):
            storage.add(
                vakt.Policy(
                    f"{kind}-{number}",
                    actions=[rule(glob)],
                    resources=[Anything()],
                    subjects=[Anything()],
                    effect=effect,
                )
            )
    guard = vakt.Guard(storage, vakt.RulesChecker())
    inquiry, is_allowed = vakt.Inquiry, guard.is_allowed
    return _loop(lambda action: "allow" if is_allowed(inquiry(action=action, resource="t", subject="a")) else "deny")


def _agent_os(world: World) -> tuple[Decide, DecideAll]:
    from agent_os.policies import PolicyDocument, PolicyEvaluator

    document = PolicyDocument.model_validate(
        {
            "name": "bench",
            "defaults": {"action": "deny"},
            "rules": [
                {
                    "name": f"{word}-{number}",
                    "priority": priority,
                    "action": word,
                    "condition": {"field": "tool_name", "operator": "matches", "value": f"^(?:{translate(glob)})"},
                }
                for priority, word, globs in (
                    (3, "deny", world.deny),
                    (2, "audit", world.approval),
                    (1, "allow", world.allow),
                )
                for number, glob in enumerate(globs)
            ],
        }
    )
    evaluate = PolicyEvaluator([document]).evaluate
    words = {"deny": "deny", "block": "deny", "audit": "approval", "allow": "allow"}
    return _loop(lambda action: words[evaluate({"tool_name": action}).action])


PEERS = (
    Peer("hand-written", None, "dict memo over the regex", _memo),
    Peer("hand-written", None, "one compiled regex per effect", _regex),
    Peer("hand-written", None, "fnmatch loop", _fnmatch),
    Peer("agent-action-policy", "agent-action-policy", "globs", _agent_action_policy),
    Peer("regorus", "gordon-to-regorus", "RVM, prefix and suffix rules", _regorus),
    Peer("vakt", "vakt", "rules, allow or deny only", _vakt, two=True),
    Peer("AGT agent_os", "agent-governance-toolkit-core", "PolicyEvaluator, regex", _agent_os),
    Peer("Cedar (cedarpy)", "cedarpy", "parsed handles, `like`", _cedarpy),
    Peer("pycasbin", "pycasbin", "globMatch, priority", _casbin),
)
