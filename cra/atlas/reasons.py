"""The reason of a policy: the words that go with what it decided."""

from msgspec import UnsetType

from cra._core.canonical import dumps
from cra.protocol.atlas import Policy, PolicyType

_WORDS = {
    PolicyType.DENY: "denied by",
    PolicyType.SCOPE: "the parameters are outside the scope of",
    PolicyType.REQUIRE_APPROVAL: "approval required by",
    PolicyType.REQUIRES_APPROVAL: "approval required by",
    PolicyType.ALLOW: "allowed by",
}


def given_reason(policy: Policy) -> str | None:
    """Return the policy's `reason`, or else the one in its parameters."""
    if not isinstance(policy.reason, UnsetType):
        return policy.reason
    given: str | None = policy.parameters.get("reason")
    return given


def reason_of(policy: Policy) -> str:
    """Return the reason that a policy gives, or one that says what happened."""
    return given_reason(policy) or _default_reason(policy)


def _default_reason(policy: Policy) -> str:
    given = policy.parameters
    if policy.type is PolicyType.RATE_LIMIT:
        return f"rate limit of {given['max_calls']} calls per {given['window_seconds']} s is used up"
    if policy.type is PolicyType.BUDGET:
        return f"budget of {dumps(given['limit']).decode()} {given['unit']} is used up"
    return f"{_WORDS[policy.type]} policy `{policy.policy_id}`"
