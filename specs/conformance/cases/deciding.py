"""Cases of deciding: the order of policies, conditions, and limits.

Each says by hand which result and which policy it expects for each action; the generator checks that the reference
agrees and adds the reasons in words.
"""

# ruff: noqa: E501 - a case reads best on few lines

from typing import Any

from specs.conformance.cases.make import NOW, Json, action, at, atlas, capability, request, rule

Expected = dict[str, str]  # action id -> "result" or "result by policy"

ONE = "com.acme.one"
TWO = "com.acme.two"
ABSENT = object()


def case(
    case_id: str,
    why: str,
    atlases: list[Json] | Json,
    expected: Expected,
    *,
    ask: Json | None = None,
    now: int = NOW,
    usage: Json | None = None,
    parameters: Any = ABSENT,
    **more: Any,
) -> Json:
    """Return a case; `parameters` make it a call instead of a resolve."""
    made: Json = {
        "id": case_id,
        "why": why,
        "atlases": atlases if isinstance(atlases, list) else [atlases],
        "request": ask or request(),
        "now_us": now,
    }
    made |= {} if usage is None else {"usage": usage}
    made |= {} if parameters is ABSENT else {"parameters": parameters}
    return {**made, **more, "expected": expected}


def solo(policies: list[Json], *actions: Json | str, **fields: Any) -> Json:
    """Return an atlas `com.acme.one`, of the action `ticket.get` if none is given."""
    return atlas(ONE, list(actions or ("ticket.get",)), policies, **fields)


ALLOW = rule("allow-all", "allow")
DENY = rule("deny-all", "deny")
APPROVE = rule("approve-all", "require_approval")
RATE = rule("rate-all", "rate_limit", parameters={"max_calls": 2, "window_seconds": 60})
BUDGET = rule("budget-all", "budget", parameters={"limit": 10, "unit": "EUR", "window": "session"})
RATE_USED = {f"{ONE}:rate-all": {"wait_us": 17_000_001}}
BUDGET_USED = {f"{ONE}:budget-all": {"spent": 10_000_000, "left_us": None}}
SCOPE = rule("scope-all", "scope", parameters={"schema": {"required": ["id"]}})

ORDER = [
    case("no-atlas", "nothing is loaded, so nothing is considered and nothing is allowed", [], {}),
    case("no-policies", "an atlas without allow policies offers what it declares; no policy decided", solo([]),
         {"ticket.get": "allow"}),
    case("closed-by-allow", "one allow policy closes the atlas for what it does not match",
         solo([rule("allow-get", "allow", "ticket.get")], "ticket.get", "ticket.list"),
         {"ticket.get": "allow by allow-get", "ticket.list": "deny"}),
    case("closed-although-allow-does-not-hold", "an allow policy closes its atlas even while its conditions do not hold",
         solo([rule("allow-other", "allow", conditions={"agents": ["someone-else"]})]), {"ticket.get": "deny"}),
    case("default-deny", "with default_decision deny an atlas without allow policies is closed", solo([]),
         {"ticket.get": "deny"}, default_decision="deny"),
    case("default-deny-with-allow", "default_decision deny does not overrule an allow policy", solo([ALLOW]),
         {"ticket.get": "allow by allow-all"}, default_decision="deny"),
    case("deny-wins-over-allow", "deny comes first, whatever the priority of the allow",
         solo([rule("allow-first", "allow", priority=1000), DENY]), {"ticket.get": "deny by deny-all"}),
    case("deny-before-approval", "deny comes before require_approval", solo([APPROVE, DENY]),
         {"ticket.get": "deny by deny-all"}),
    case("approval-before-rate-limit", "an exhausted limit does not hide that approval is needed first",
         solo([RATE, APPROVE]), {"ticket.get": "requires_approval by approve-all"}, usage=RATE_USED),
    case("rate-limit-before-budget", "both are exhausted; the rate limit is named", solo([BUDGET, RATE]),
         {"ticket.get": "rate_limited by rate-all"}, usage={**RATE_USED, **BUDGET_USED}),
    case("rate-limit-before-allow", "an allow does not lift a limit", solo([ALLOW, RATE]),
         {"ticket.get": "rate_limited by rate-all"}, usage=RATE_USED),
    case("limit-with-room-lets-through", "a limit with room decides nothing; the allow does", solo([RATE, ALLOW]),
         {"ticket.get": "allow by allow-all"}),
    case("limit-is-no-permission", "a limit with room does not open a closed atlas",
         solo([RATE, rule("allow-other", "allow", "other.*")]), {"ticket.get": "deny"}),
    case("budget-before-allow", "an exhausted budget decides before allow", solo([ALLOW, BUDGET]),
         {"ticket.get": "budget_exceeded by budget-all"}, usage=BUDGET_USED),
    case("limit-before-default", "an exhausted limit is named even where the default would deny",
         solo([RATE, rule("allow-other", "allow", "other.*")]), {"ticket.get": "rate_limited by rate-all"},
         usage=RATE_USED),
    case("priority-high-first", "inside a phase the higher priority decides",
         solo([rule("deny-low", "deny", priority=1), rule("deny-high", "deny", priority=2)]),
         {"ticket.get": "deny by deny-high"}),
    case("priority-negative", "a negative priority comes after the default 0",
         solo([rule("deny-late", "deny", priority=-5), rule("deny-default", "deny")]),
         {"ticket.get": "deny by deny-default"}),
    case("manifest-order", "equal priorities: the first in the manifest decides",
         solo([rule("deny-b", "deny"), rule("deny-a", "deny")]), {"ticket.get": "deny by deny-b"}),
    case("load-order", "equal priority and equal place: the atlas loaded first decides",
         [solo([rule("deny-one", "deny")]), atlas(TWO, [], [rule("deny-two", "deny")])],
         {"ticket.get": "deny by deny-one"}),
    case("load-order-swapped", "the same two atlases the other way round",
         [atlas(TWO, [], [rule("deny-two", "deny")]), solo([rule("deny-one", "deny")])],
         {"ticket.get": "deny by deny-two"}),
    case("manifest-place-before-load-order", "a later atlas's first policy comes before an earlier atlas's second",
         [solo([rule("allow-get", "allow"), rule("deny-one", "deny")]), atlas(TWO, [], [rule("deny-two", "deny")])],
         {"ticket.get": "deny by deny-two"}),
    case("priority-across-atlases", "priority counts across atlases before any order",
         [solo([rule("deny-one", "deny")]), atlas(TWO, [], [rule("deny-two", "deny", priority=1)])],
         {"ticket.get": "deny by deny-two"}),
    case("restriction-is-global", "a deny of one atlas binds the actions of every other",
         [solo([ALLOW]), atlas(TWO, ["order.get"], [rule("deny-tickets", "deny", "ticket.*")])],
         {"ticket.get": "deny by deny-tickets", "order.get": "allow"}),
    case("permission-is-local", "an allow of one atlas says nothing about another's actions",
         [solo([rule("allow-nothing", "allow", "nothing.*")]), atlas(TWO, ["order.get"], [rule("allow-two", "allow")])],
         {"ticket.get": "deny", "order.get": "allow by allow-two"}),
    case("restriction-of-an-atlas-not-asked-about", "atlas_ids narrow the offer; restrictions of the others still bind",
         [solo([]), atlas(TWO, ["order.get"], [rule("deny-tickets", "deny", "ticket.*")])],
         {"ticket.get": "deny by deny-tickets"}, ask=request(atlas_ids=[ONE])),
    case("atlas-ids-in-any-order", "considered actions come in load order, whatever the order of atlas_ids",
         [solo([]), atlas(TWO, ["order.get"])], {"ticket.get": "allow", "order.get": "allow"},
         ask=request(atlas_ids=[TWO, ONE, TWO])),
    case("required-capability", "actions outside the required capabilities are left out, not denied",
         solo([], "ticket.get", "ticket.list", "ticket.close",
              capabilities=[capability("read", "ticket.get", "ticket.l*"), capability("write", "ticket.close")]),
         {"ticket.get": "allow", "ticket.list": "allow"}, ask=request(required=["read"])),
    case("required-capabilities-any", "one of the required capabilities is enough",
         solo([], "ticket.get", "ticket.close",
              capabilities=[capability("read", "ticket.get"), capability("write", "ticket.close")]),
         {"ticket.get": "allow", "ticket.close": "allow"}, ask=request(required=["write", "read"])),
    case("required-capability-unknown", "no action belongs to it: nothing is considered", solo([]), {},
         ask=request(required=["fly"])),
    case("implied-approval", "requires_confirmation is an approval policy of its own atlas",
         solo([], action("ticket.close", requires_confirmation=True)),
         {"ticket.close": "requires_approval by ticket.close:requires_confirmation"}),
    case("implied-after-explicit", "what an action implies comes after every explicit policy of its phase",
         solo([rule("approve-late", "requires_approval", priority=-1000)],
              action("ticket.close", requires_confirmation=True)),
         {"ticket.close": "requires_approval by approve-late"}),
    case("implied-approval-in-closed-atlas", "its own atlas asks for approval, so it can be approved without an allow",
         solo([rule("allow-get", "allow", "ticket.get")], action("ticket.close", requires_confirmation=True)),
         {"ticket.close": "requires_approval by ticket.close:requires_confirmation"}),
    case("implied-rate-limit", "an action's rate_limit is a rate limit policy",
         solo([], action("ticket.get", rate_limit={"max_calls": 1, "window_seconds": 5})),
         {"ticket.get": "rate_limited by ticket.get:rate_limit"},
         usage={f"{ONE}:ticket.get:rate_limit": {"wait_us": 1}}),
    case("foreign-approval-restricts", "another atlas asks for approval of what is allowed",
         [solo([ALLOW]), atlas(TWO, [], [APPROVE])], {"ticket.get": "requires_approval by approve-all"}),
    case("foreign-approval-never-opens", "another atlas's approval policy does not make approvable what is shut",
         [solo([rule("allow-other", "allow", "other.*")]), atlas(TWO, [], [APPROVE])], {"ticket.get": "deny"}),
    case("foreign-approval-named-when-own-matches-too", "the first matching is named, its own or not",
         [solo([rule("allow-other", "allow", "other.*"), rule("own", "require_approval")]),
          atlas(TWO, [], [rule("foreign", "require_approval", priority=1)])],
         {"ticket.get": "requires_approval by foreign"}),
    case("claimed-risk-opens-nothing", "an approval for a tier that only the request claims does not open a closed atlas",
         solo([rule("allow-other", "allow", "other.*"),
               rule("approve-high", "require_approval", conditions={"risk_tiers": ["high", "critical"]})]),
         {"ticket.get": "deny"}, ask=request(risk_tier="high")),
    case("own-risk-opens", "an approval for the action's own tier does open it, and the request claims none above",
         solo([rule("allow-other", "allow", "other.*"),
               rule("approve-high", "require_approval", conditions={"risk_tiers": ["high"]})],
              action("ticket.get", risk_tier="high")),
         {"ticket.get": "requires_approval by approve-high"}),
    case("approved-call", "with a granted approval the rest is decided and the approval policy is named",
         solo([APPROVE]), {"ticket.get": "allow by approve-all"}, parameters={}, approved=True),
    case("approved-call-still-denied", "an approval does not lift a deny", solo([APPROVE, DENY]),
         {"ticket.get": "deny by deny-all"}, parameters={}, approved=True),
    case("approved-call-still-limited", "an approval does not lift a limit", solo([APPROVE, RATE]),
         {"ticket.get": "rate_limited by rate-all"}, parameters={}, approved=True, usage=RATE_USED),
    case("approved-call-foreign-and-shut", "an approval does not open what only another atlas asked approval for",
         [solo([rule("allow-other", "allow", "other.*")]), atlas(TWO, [], [APPROVE])], {"ticket.get": "deny"},
         parameters={}, approved=True),
    case("approval-nobody-asked-for", "an approval changes nothing where none is required", solo([ALLOW]),
         {"ticket.get": "allow by allow-all"}, parameters={}, approved=True),
    case("scope-at-resolve", "a scope policy does not decide before parameters are known", solo([SCOPE]),
         {"ticket.get": "allow"}),
    case("scope-matches", "parameters inside the scope are not restricted", solo([SCOPE]), {"ticket.get": "allow"},
         parameters={"id": 1}),
    case("scope-denies", "parameters outside the scope are denied by the scope policy", solo([SCOPE]),
         {"ticket.get": "deny by scope-all"}, parameters={}),
    case("scope-is-no-permission", "being in scope does not open a closed atlas",
         solo([SCOPE, rule("allow-other", "allow", "other.*")]), {"ticket.get": "deny"}, parameters={"id": 1}),
    case("scope-before-approval", "what is out of scope is denied, not sent to an approver", solo([APPROVE, SCOPE]),
         {"ticket.get": "deny by scope-all"}, parameters={}),
    case("reason-on-policy", "the reason on the policy comes before the one in its parameters",
         solo([rule("deny-all", "deny", reason="ask the desk", parameters={"reason": "not this one"})]),
         {"ticket.get": "deny by deny-all"}),
    case("reason-in-parameters", "the reason may stand in the parameters",
         solo([rule("deny-all", "deny", parameters={"reason": "ask the desk"})]), {"ticket.get": "deny by deny-all"}),
    case("alias-requires-approval", "requires_approval and require_approval are the same type",
         solo([rule("second", "require_approval"), rule("first", "requires_approval", priority=1)]),
         {"ticket.get": "requires_approval by first"}),
    case("look-alike-action", "globs are literal: `ticket.get` does not match `ticket.gets` or `ticketxget`",
         solo([rule("deny-get", "deny", "ticket.get")], "ticket.get", "ticket.gets", "ticketx.get"),
         {"ticket.get": "deny by deny-get", "ticket.gets": "allow", "ticketx.get": "allow"}),
]  # fmt: skip

BERLIN = {"start": "09:00", "end": "17:00", "timezone": "Europe/Berlin"}
NIGHT = {"start": "22:00", "end": "06:00", "days": ["fri"]}


def when(conditions: Json, kind: str = "deny") -> Json:
    """Return an atlas whose one policy `p` has the conditions."""
    return solo([rule("p", kind, conditions=conditions)])


def window(case_id: str, why: str, hours: Json, moment: str, holds: bool) -> Json:
    """Return a case of a deny inside a time window."""
    expected = {"ticket.get": "deny by p" if holds else "allow"}
    return case(case_id, why, when({"time_window": hours}), expected, now=at(moment))


def context(case_id: str, why: str, matches: Json, given: Json, holds: bool, **more: Any) -> Json:
    """Return a case of a deny with context_matches."""
    expected = {"ticket.get": "deny by p" if holds else "allow"}
    return case(case_id, why, when({"context_matches": matches}), expected, ask=request(context=given), **more)


def risk(case_id: str, why: str, kind: str, listed: list[str], own: str, asked: str | None, holds: bool) -> Json:
    """Return a case of a restriction or an allow for some risk tiers."""
    policy = rule("p", kind, conditions={"risk_tiers": listed})
    expected = ("allow by p" if holds else "deny") if kind == "allow" else ("deny by p" if holds else "allow")
    return case(case_id, why, solo([policy], action("ticket.get", risk_tier=own)), {"ticket.get": expected},
                ask=request(risk_tier=asked))  # fmt: skip


OVER = {"properties": {"amount": {"exclusiveMinimum": 500}}, "required": ["amount"]}

CONDITIONS = [
    risk("risk-restriction-own-tier", "a restriction for the action's own tier holds", "deny", ["low"], "low", None, True),
    risk("risk-restriction-claimed-tier", "a tier the agent claims switches a restriction on", "deny", ["high"], "low",
         "high", True),
    risk("risk-restriction-not-escaped-upwards", "claiming a higher tier does not leave the restriction of the own one",
         "deny", ["low"], "low", "critical", True),
    risk("risk-restriction-in-between", "any tier between own and claimed is enough", "deny", ["medium"], "low", "high",
         True),
    risk("risk-restriction-above", "no tier of the range is listed", "deny", ["critical"], "low", "high", False),
    risk("risk-restriction-below", "a claim below the action's tier does not widen the range", "deny", ["low"], "high",
         "low", False),
    risk("risk-allow-own-tier", "an allow for the only tier of the range holds", "allow", ["low"], "low", None, True),
    risk("risk-allow-lost-by-claim", "claiming a tier that is not listed loses the allow", "allow", ["low"], "low", "high",
         False),
    risk("risk-allow-not-won-by-claim", "claiming a listed tier does not win an allow that the own tier lacks", "allow",
         ["high"], "low", "high", False),
    risk("risk-allow-gap", "every tier of the range must be listed, also those in between", "allow", ["low", "high"], "low",
         "high", False),
    risk("risk-allow-whole-range", "the whole range is listed", "allow", ["high", "low", "medium"], "low", "high", True),
    risk("risk-allow-not-lowered", "a low claim does not lower a critical action", "allow", ["low"], "critical", "low",
         False),
    case("agents-any-glob", "one matching glob is enough", when({"agents": ["bot-?", "agent-*"]}),
         {"ticket.get": "deny by p"}),
    case("agents-none", "no glob matches the agent", when({"agents": ["bot-*"]}), {"ticket.get": "allow"}),
    case("agents-whole-id", "a glob matches the whole id, not a part of it", when({"agents": ["agent"]}),
         {"ticket.get": "allow"}),
    case("agents-case", "letter case counts", when({"agents": ["Agent-1"]}), {"ticket.get": "allow"}),
    case("capabilities-of-the-action", "the condition is about the action, not about what the request asks for",
         solo([rule("p", "deny", conditions={"capabilities": ["read"]})], "ticket.get", "ticket.close",
              capabilities=[capability("read", "ticket.get")]),
         {"ticket.get": "deny by p", "ticket.close": "allow"}),
    case("capabilities-any", "belonging to one of them is enough",
         solo([rule("p", "deny", conditions={"capabilities": ["write", "read"]})], "ticket.get",
              capabilities=[capability("write"), capability("read", "*.get")]),
         {"ticket.get": "deny by p"}),
    case("capabilities-of-its-own-atlas", "another atlas's capability of that name does not count",
         [solo([]), atlas(TWO, [], [rule("p", "deny", conditions={"capabilities": ["read"]})],
                          capabilities=[capability("read", "ticket.*")])],
         {"ticket.get": "allow"}),
    case("capabilities-restrict-other-atlases", "a global deny of a capability binds whoever declares it",
         [solo([], capabilities=[capability("read", "ticket.get")]),
          atlas(TWO, [], [rule("p", "deny", conditions={"capabilities": ["read"]})])],
         {"ticket.get": "deny by p"}),
    context("context-string", "a string is matched as it is", {"env": "prod*"}, {"env": "production"}, True),
    context("context-missing-key", "a missing key never matches, not even `*`", {"env": "*"}, {}, False),
    context("context-all-keys", "every key must match", {"env": "prod", "team": "a*"}, {"env": "prod", "team": "b"}, False),
    context("context-number", "a number is matched as its canonical text", {"level": "10"}, {"level": 10}, True),
    context("context-float", "1.0 is written 1", {"level": "1"}, {"level": 1.0}, True),
    context("context-true", "true is matched as the text true", {"vip": "true"}, {"vip": True}, True),
    context("context-true-is-not-1", "true is not the number 1", {"vip": "1"}, {"vip": True}, False),
    context("context-null", "null is matched as the text null", {"vip": "null"}, {"vip": None}, True),
    context("context-array", "an array never matches", {"roles": "*"}, {"roles": ["admin"]}, False),
    context("context-object", "an object never matches", {"user": "*"}, {"user": {}}, False),
    context("context-empty-string", "the empty string matches `*`", {"env": "*"}, {"env": ""}, True),
    context("context-session-first", "the session's context lies over what the request says", {"env": "prod"},
            {"env": "test"}, True, session_context={"env": "prod"}),
    context("context-session-not-overwritten", "the request cannot replace a key of the session", {"env": "prod"},
            {"env": "prod"}, False, session_context={"env": "test"}),
    context("context-session-adds", "keys come from both", {"env": "prod", "ticket": "7"}, {"ticket": 7}, True,
            session_context={"env": "prod"}),
    window("time-before-start", "one microsecond before the start is outside", {"start": "09:00", "end": "17:00"},
           "2026-01-05T08:59:59.999999Z", False),
    window("time-at-start", "the start is inside", {"start": "09:00", "end": "17:00"}, "2026-01-05T09:00:00Z", True),
    window("time-before-end", "one microsecond before the end is inside", {"start": "09:00", "end": "17:00"},
           "2026-01-05T16:59:59.999999Z", True),
    window("time-at-end", "the end is outside", {"start": "09:00", "end": "17:00"}, "2026-01-05T17:00:00Z", False),
    window("time-zone", "09:00 in Berlin is 08:00 UTC in winter", BERLIN, "2026-01-05T08:00:00Z", True),
    window("time-zone-summer", "and 07:00 UTC in summer", BERLIN, "2026-07-06T07:00:00Z", True),
    window("time-zone-summer-end", "17:00 in Berlin is 15:00 UTC in summer", BERLIN, "2026-07-06T15:00:00Z", False),
    window("time-dst-gap", "02:30 does not exist on the day clocks go forward; 03:00 is past an end of 02:45",
           {"start": "02:15", "end": "02:45", "timezone": "Europe/Berlin"}, "2026-03-29T01:00:00Z", False),
    window("time-dst-gap-across", "a window across the gap is open at 03:00 summer time",
           {"start": "01:30", "end": "03:30", "timezone": "Europe/Berlin"}, "2026-03-29T01:00:00Z", True),
    window("time-dst-fold-first", "02:30 comes twice when clocks go back: open the first time",
           {"start": "02:15", "end": "02:45", "timezone": "Europe/Berlin"}, "2026-10-25T00:30:00Z", True),
    window("time-dst-fold-second", "and open the second time",
           {"start": "02:15", "end": "02:45", "timezone": "Europe/Berlin"}, "2026-10-25T01:30:00Z", True),
    window("time-wrap-evening", "a window over midnight is open in the evening of its day", NIGHT, "2026-01-09T23:00:00Z",
           True),
    window("time-wrap-morning-after", "and in the morning after, which belongs to the day it started", NIGHT,
           "2026-01-10T05:59:59Z", True),
    window("time-wrap-end", "its end is outside", NIGHT, "2026-01-10T06:00:00Z", False),
    window("time-wrap-morning-before", "the morning of its day belongs to the day before", NIGHT, "2026-01-09T05:00:00Z",
           False),
    window("time-wrap-saturday-evening", "Saturday evening is not Friday's", NIGHT, "2026-01-10T23:00:00Z", False),
    window("time-wrap-sunday-to-monday", "Monday morning belongs to Sunday",
           {"start": "22:00", "end": "06:00", "days": ["sun"]}, "2026-01-05T01:00:00Z", True),
    window("time-whole-day", "equal start and end mean the whole day",
           {"start": "08:00", "end": "08:00", "days": ["mon"]}, "2026-01-05T00:00:00Z", True),
    window("time-whole-day-other-day", "and only its days", {"start": "08:00", "end": "08:00", "days": ["mon"]},
           "2026-01-06T00:00:00Z", False),
    window("time-day-is-local", "Monday in Tokyo begins on Sunday afternoon UTC",
           {"start": "00:00", "end": "12:00", "timezone": "Asia/Tokyo", "days": ["mon"]}, "2026-01-04T15:00:00Z", True),
    window("time-offset-of-45-minutes", "zones need not be whole hours",
           {"start": "09:00", "end": "09:15", "timezone": "Asia/Kathmandu"}, "2026-01-05T03:15:00Z", True),
    window("time-last-minute", "23:59 to 00:00 is the last minute of the day", {"start": "23:59", "end": "00:00"},
           "2026-01-05T23:59:30Z", True),
    case("parameters-not-decided-at-resolve", "a deny with a parameters condition waits for the call",
         when({"parameters": OVER}), {"ticket.get": "allow"}),
    case("parameters-hold", "the call's parameters match: the deny decides", when({"parameters": OVER}),
         {"ticket.get": "deny by p"}, parameters={"amount": 500.5}),
    case("parameters-edge", "500 is not over 500", when({"parameters": OVER}), {"ticket.get": "allow"},
         parameters={"amount": 500}),
    case("parameters-missing", "a condition that requires the amount does not match without one",
         when({"parameters": OVER}), {"ticket.get": "allow"}, parameters={}),
    case("parameters-approval", "refunds over 500 need approval", when({"parameters": OVER}, "require_approval"),
         {"ticket.get": "requires_approval by p"}, parameters={"amount": 501}),
    case("parameters-allow-at-resolve", "an allow with a parameters condition counts as matching at resolve",
         when({"parameters": OVER}, "allow"), {"ticket.get": "allow by p"}),
    case("parameters-allow-call", "at execute it must match", when({"parameters": OVER}, "allow"), {"ticket.get": "deny"},
         parameters={"amount": 1}),
    case("parameters-false", "the schema false matches no call", when({"parameters": False}), {"ticket.get": "allow"},
         parameters={}),
    case("parameters-true", "the schema true matches every call", when({"parameters": True}), {"ticket.get": "deny by p"},
         parameters={}),
    case("parameters-integer-float", "1.0 is an integer in JSON Schema",
         when({"parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}), {"ticket.get": "deny by p"},
         parameters={"n": 1.0}),
    case("all-conditions", "all conditions hold",
         when({"risk_tiers": ["low"], "agents": ["agent-*"], "context_matches": {"env": "prod"},
               "time_window": {"start": "14:30", "end": "14:31"}}),
         {"ticket.get": "deny by p"}, ask=request(context={"env": "prod"})),
    case("all-but-one", "one that does not hold is enough to not apply",
         when({"risk_tiers": ["low"], "agents": ["agent-*"], "context_matches": {"env": "prod"},
               "time_window": {"start": "14:31", "end": "14:32"}}),
         {"ticket.get": "allow"}, ask=request(context={"env": "prod"})),
    case("no-conditions", "without conditions a policy always applies", when({}), {"ticket.get": "deny by p"}),
]  # fmt: skip

PAID = rule("p", "budget", parameters={"limit": 10, "unit": "EUR", "window": 3600, "cost": "/amount"})
SPENT = {f"{ONE}:p": {"spent": 9_000_000, "left_us": 60_000_000}}


def spend(
    case_id: str, why: str, parameters: Any, expected: str, policy: Json = PAID, usage: Json | None = None
) -> Json:
    """Return a case of a call that costs something."""
    return case(case_id, why, solo([policy]), {"ticket.get": expected}, usage=usage or SPENT, parameters=parameters)


def costing(pointer: str, **fields: Any) -> Json:
    """Return a budget policy whose cost stands at the pointer."""
    return rule("p", "budget", parameters={"limit": 10, "unit": "EUR", "window": 3600, "cost": pointer, **fields})


LIMITS = [
    case("rate-seconds-rounded-up", "the wait is said in whole seconds, rounded up", solo([RATE]),
         {"ticket.get": "rate_limited by rate-all"}, usage={f"{ONE}:rate-all": {"wait_us": 1}}),
    case("rate-own-reason-with-wait", "a given reason is kept and the wait is added",
         solo([rule("r", "rate_limit", reason="slow down", parameters={"max_calls": 1, "window_seconds": 9})]),
         {"ticket.get": "rate_limited by r"}, usage={f"{ONE}:r": {"wait_us": 9_000_000}}),
    case("rate-first-exhausted", "all matching limits must have room; the first in order without room is named",
         solo([rule("a", "rate_limit", parameters={"max_calls": 1, "window_seconds": 1}),
               rule("b", "rate_limit", parameters={"max_calls": 1, "window_seconds": 1}),
               rule("c", "rate_limit", priority=1, parameters={"max_calls": 1, "window_seconds": 1})]),
         {"ticket.get": "rate_limited by b"},
         usage={f"{ONE}:a": {"wait_us": 0}, f"{ONE}:b": {"wait_us": 5}, f"{ONE}:c": {"wait_us": 0}}),
    case("rate-of-other-actions", "a limit that does not match the action does not bind it",
         solo([rule("r", "rate_limit", "ticket.close", parameters={"max_calls": 1, "window_seconds": 9})]),
         {"ticket.get": "allow"}, usage={f"{ONE}:r": {"wait_us": 9}}),
    case("rate-with-parameters-at-resolve", "a limit for some parameters does not decide at resolve",
         solo([rule("r", "rate_limit", conditions={"parameters": OVER},
                    parameters={"max_calls": 1, "window_seconds": 9})]),
         {"ticket.get": "allow"}, usage={f"{ONE}:r": {"wait_us": 9}}),
    case("rate-with-parameters-at-execute", "and does at execute",
         solo([rule("r", "rate_limit", conditions={"parameters": OVER},
                    parameters={"max_calls": 1, "window_seconds": 9})]),
         {"ticket.get": "rate_limited by r"}, usage={f"{ONE}:r": {"wait_us": 9}}, parameters={"amount": 501}),
    case("all-limits-are-consumed", "an allowed call takes from every limit that holds",
         solo([RATE, BUDGET, rule("other", "rate_limit", "x.*", parameters={"max_calls": 1, "window_seconds": 9})],
              action("ticket.get", rate_limit={"max_calls": 5, "window_seconds": 1})),
         {"ticket.get": "allow"}, parameters={}),
    case("budget-one-per-call", "without cost a call costs 1",
         solo([rule("p", "budget", parameters={"limit": 10, "unit": "calls", "window": 60})]),
         {"ticket.get": "budget_exceeded by p"}, usage={f"{ONE}:p": {"spent": 9_000_001, "left_us": 1}}),
    case("budget-exactly-full", "a call may use up the last of it",
         solo([rule("p", "budget", parameters={"limit": 10, "unit": "calls", "window": 60})]),
         {"ticket.get": "allow"}, usage={f"{ONE}:p": {"spent": 9_000_000, "left_us": 1}}),
    case("budget-below-one", "a limit below 1 never admits a call that costs 1; there is no use in waiting",
         solo([rule("p", "budget", parameters={"limit": 0.5, "unit": "calls", "window": 60})]),
         {"ticket.get": "budget_exceeded by p"}),
    case("budget-unknown-cost-at-resolve", "the cost is not known at resolve: something is left, so it is offered",
         solo([PAID]), {"ticket.get": "allow"}, usage={f"{ONE}:p": {"spent": 9_999_999, "left_us": 1}}),
    case("budget-nothing-left-at-resolve", "nothing is left: refused at resolve already", solo([PAID]),
         {"ticket.get": "budget_exceeded by p"}, usage={f"{ONE}:p": {"spent": 10_000_000, "left_us": 1}}),
    spend("cost-fits-exactly", "9 spent and 1 more is 10", {"amount": 1}, "allow"),
    spend("cost-too-much", "9 spent and 1.000001 more is over 10", {"amount": 1.000001}, "budget_exceeded by p"),
    spend("cost-rounded-up", "parts of a micro-unit are rounded up", {"amount": 1.0000001}, "budget_exceeded by p"),
    spend("cost-decimal-not-binary", "0.1 is a tenth, not the double beside it", {"amount": 0.1}, "allow",
          costing("/amount"), {f"{ONE}:p": {"spent": 9_900_000, "left_us": 1}}),
    spend("cost-over-the-whole-limit", "more than the whole budget never fits: no seconds to wait", {"amount": 11},
          "budget_exceeded by p"),
    spend("cost-zero", "a call that costs nothing fits into a full budget", {"amount": 0}, "allow",
          usage={f"{ONE}:p": {"spent": 10_000_000, "left_us": 1}}),
    spend("cost-minus-zero", "-0.0 is 0", {"amount": -0.0}, "allow",
          usage={f"{ONE}:p": {"spent": 10_000_000, "left_us": 1}}),
    spend("cost-missing", "a missing cost is denied, not free", {}, "deny by p"),
    spend("cost-negative", "a negative cost is denied, not refunded", {"amount": -1}, "deny by p"),
    spend("cost-not-a-number", "a string is not a number", {"amount": "1"}, "deny by p"),
    spend("cost-true", "true is not a number", {"amount": True}, "deny by p"),
    spend("cost-null", "null is not a number", {"amount": None}, "deny by p"),
    spend("cost-huge", "a huge integer is exact and too much", {"amount": 10**30}, "budget_exceeded by p"),
    spend("cost-nested", "the pointer goes into objects", {"order": {"total": 2}}, "budget_exceeded by p",
          costing("/order/total")),
    spend("cost-escaped-pointer", "~1 is a slash and ~0 a tilde", {"a/b~c": 1}, "allow", costing("/a~1b~0c")),
    spend("cost-pointer-into-array", "a cost inside an array is not found: denied", {"items": [1]}, "deny by p",
          costing("/items/0")),
    spend("cost-pointer-through-number", "a pointer that goes through a number finds nothing", {"order": 1}, "deny by p",
          costing("/order/total")),
    spend("session-budget-no-wait", "a session budget never resets: no seconds to wait", {"amount": 2},
          "budget_exceeded by p", costing("/amount", window="session"), {f"{ONE}:p": {"spent": 9_000_000, "left_us": None}}),
    spend("first-budget-with-a-bad-cost-decides", "the order of policies counts for bad costs too", {"amount": 1},
          "deny by p", costing("/other"), SPENT),
]  # fmt: skip
