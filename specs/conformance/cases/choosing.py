"""Cases of choosing context: which blocks, in which order, and what a token budget leaves out."""

# ruff: noqa: E501 - a case reads best on few lines

from typing import Any

from specs.conformance.cases.make import NOW, Json, atlas, capability, pack, request

ONE = "com.acme.one"
TWO = "com.acme.two"
FILES = {
    "context/refunds.md": "Refunds are paid within five days. A refund over 500 EUR needs approval.",
    "context/shipping.md": "Shipping takes three days. We ship to Europe.",
    "context/tone.txt": "Be kind. Be brief.",
    "context/limits.json": '{"refund": 500}',
}
GUIDE = pack("guide", *FILES)


def case(
    case_id: str,
    why: str,
    packs: list[Json],
    blocks: list[str],
    *,
    files: dict[str, str] | None = None,
    redacted: list[str] | None = None,
    ask: Json | None = None,
    now: int = NOW,
    max_tokens: int | None = None,
    more: list[tuple[Json, dict[str, str]]] | None = None,
    fields: Json | None = None,
    **rest: Any,
) -> Json:
    """Return a case; blocks are named `<atlas's last word>:<pack>/<file>`."""
    loaded = [(atlas(ONE, [], context_packs=packs, **(fields or {})), FILES if files is None else files), *(more or [])]
    return {
        "id": case_id,
        "why": why,
        "atlases": [manifest for manifest, _ in loaded],
        "files": {manifest["atlas_id"]: texts for manifest, texts in loaded},
        "request": ask or request("help"),
        "now_us": now,
        "max_tokens": max_tokens,
        **rest,
        "expected": {"blocks": blocks, "redacted": redacted or []},
    }


def guide(*names: str) -> list[str]:
    """Return the names of blocks of the pack `guide`."""
    return [f"one:guide/context/{name}" for name in names]


AB = {"a.md": "alpha beta", "b.md": "beta gamma", "c.md": "delta"}
MANIFEST_ORDER = guide("refunds.md", "shipping.md", "tone.txt", "limits.json")

CONTEXT = [
    case("manifest-order", "without relevance the manifest's order stands", [GUIDE], MANIFEST_ORDER),
    case("relevance", "the block about the goal comes first", [GUIDE],
         guide("shipping.md", "refunds.md", "tone.txt", "limits.json"), ask=request("When does it ship to Europe?")),
    case("relevance-short-block", "a short block with the word comes before a long one with it", [GUIDE],
         guide("limits.json", "refunds.md", "shipping.md", "tone.txt"), ask=request("refund")),
    case("relevance-in-hints", "hints count like the goal", [GUIDE],
         guide("shipping.md", "refunds.md", "tone.txt", "limits.json"), ask=request("help", hints=["shipping"])),
    case("relevance-repeated-word", "saying a word twice does not make it heavier", [pack("p", *AB)],
         ["one:p/a.md", "one:p/b.md", "one:p/c.md"], files=AB, ask=request("gamma gamma gamma alpha")),
    case("relevance-case", "letter case does not count", [GUIDE],
         guide("tone.txt", "refunds.md", "shipping.md", "limits.json"), ask=request("KIND")),
    case("relevance-casefold", "ß and SS fold together", [pack("p", "a.md", "b.md")], ["one:p/b.md", "one:p/a.md"],
         files={"a.md": "nothing", "b.md": "Die STRASSE"}, ask=request("straße")),
    case("relevance-no-stemming", "refunds is not refund", [pack("p", "a.md", "b.md")], ["one:p/b.md", "one:p/a.md"],
         files={"a.md": "refunds", "b.md": "refund"}, ask=request("refund")),
    case("relevance-rare-word", "a rare word weighs more than a common one", [pack("p", "a.md", "b.md", "c.md")],
         ["one:p/c.md", "one:p/a.md", "one:p/b.md"], files={"a.md": "common x", "b.md": "common y", "c.md": "rare z"},
         ask=request("common rare")),
    case("relevance-underscore", "an underscore is not alphanumeric: it separates words", [pack("p", "a.md", "b.md")],
         ["one:p/b.md", "one:p/a.md"], files={"a.md": "x", "b.md": "ticket_id"}, ask=request("id")),
    case("priority-first", "priority comes before relevance",
         [pack("low", "a.md", priority=1), pack("high", "b.md", priority=2)], ["one:high/b.md", "one:low/a.md"],
         files={"a.md": "refund", "b.md": "other"}, ask=request("refund")),
    case("priority-default", "the default priority is 100",
         [pack("p99", "a.md", priority=99), pack("p", "b.md"), pack("p101", "c.md", priority=101)],
         ["one:p101/c.md", "one:p/b.md", "one:p99/a.md"], files=AB),
    case("load-order", "equal in all else: the atlas loaded first", [pack("p", "a.md")], ["one:p/a.md", "two:p/a.md"],
         files={"a.md": "one"}, more=[(atlas(TWO, [], context_packs=[pack("p", "a.md")]), {"a.md": "two"})]),
    case("relevance-is-per-atlas", "each atlas weighs words by its own blocks, and the numbers are compared",
         [pack("p", "a.md", "b.md")], ["two:p/a.md", "one:p/a.md", "one:p/b.md", "two:p/b.md", "two:p/c.md"],
         files={"a.md": "refund", "b.md": "refund not"},
         more=[(atlas(TWO, [], context_packs=[pack("p", "a.md", "b.md", "c.md")]),
                {"a.md": "a refund", "b.md": "b", "c.md": "c"})], ask=request("refund")),
    case("atlas-ids", "only the atlases asked about give context", [pack("p", "a.md")], ["two:p/a.md"],
         files={"a.md": "one"}, more=[(atlas(TWO, [], context_packs=[pack("p", "a.md")]), {"a.md": "two"})],
         ask=request(atlas_ids=[TWO])),
    case("duplicate", "the same content twice is injected once", [pack("p", "a.md", "b.md", "c.md")],
         ["one:p/a.md", "one:p/c.md"], files={"a.md": "same", "b.md": "same", "c.md": "other"}),
    case("duplicate-keeps-the-first-in-order", "first in the final order, not in the manifest",
         [pack("low", "a.md", priority=1), pack("high", "b.md")], ["one:high/b.md"], files={"a.md": "same", "b.md": "same"}),
    case("duplicate-across-atlases", "also across atlases", [pack("p", "a.md")], ["one:p/a.md"], files={"a.md": "same"},
         more=[(atlas(TWO, [], context_packs=[pack("p", "a.md")]), {"a.md": "same"})]),
    case("duplicate-is-exact", "a line feed makes a difference", [pack("p", "a.md", "b.md")], ["one:p/a.md", "one:p/b.md"],
         files={"a.md": "same", "b.md": "same\n"}),
    case("same-file-in-two-packs", "is two blocks of the same content", [pack("p", "a.md"), pack("q", "a.md")],
         ["one:p/a.md"], files={"a.md": "same"}),
    case("budget", "a block that does not fit is skipped, a smaller one after it may fit",
         [pack("p", "a.md", "b.md", "c.md")], ["one:p/a.md", "one:p/c.md"], redacted=["one:p/b.md"],
         files={"a.md": "1234" * 3, "b.md": "1235" * 3, "c.md": "1236" * 2}, max_tokens=5),
    case("budget-exact", "the budget may be used up exactly", [pack("p", "a.md", "b.md")], ["one:p/a.md", "one:p/b.md"],
         files={"a.md": "1234", "b.md": "1235"}, max_tokens=2),
    case("budget-rounds-up", "five characters are two tokens", [pack("p", "a.md")], [], redacted=["one:p/a.md"],
         files={"a.md": "12345"}, max_tokens=1),
    case("budget-code-points", "characters are code points, not bytes", [pack("p", "a.md")], ["one:p/a.md"],
         files={"a.md": "😀😀😀😀"}, max_tokens=1),
    case("budget-zero", "nothing fits into 0 but what is empty", [pack("p", "a.md", "b.md")], ["one:p/b.md"],
         redacted=["one:p/a.md"], files={"a.md": "x", "b.md": ""}, max_tokens=0),
    case("budget-of-a-pack", "a pack's own budget bounds its blocks together",
         [pack("p", "a.md", "b.md", max_tokens=3), pack("q", "c.md")], ["one:p/a.md", "one:q/c.md"],
         redacted=["one:p/b.md"], files={"a.md": "12345678", "b.md": "12345679", "c.md": "12345670"}),
    case("budget-redacted-order", "what is left out is named in the order it would have had",
         [pack("p", "a.md", priority=1), pack("q", "b.md", priority=2)], [], redacted=["one:q/b.md", "one:p/a.md"],
         files={"a.md": "xx", "b.md": "yy"}, max_tokens=0),
    case("duplicate-of-a-skipped-block", "duplicates go before the budget is looked at: the second does not stand in",
         [pack("p", "a.md", priority=200, max_tokens=1), pack("q", "a.md")], [], redacted=["one:p/a.md"],
         files={"a.md": "12345678"}),
    case("condition-agents", "a pack for other agents",
         [pack("p", "a.md", conditions={"agents": ["bot-*"]}), pack("q", "b.md", conditions={"agents": ["agent-*"]})],
         ["one:q/b.md"], files=AB),
    case("condition-risk", "the request's tier must be listed",
         [pack("p", "a.md", conditions={"risk_tiers": ["low"]}), pack("q", "b.md", conditions={"risk_tiers": ["high"]})],
         ["one:q/b.md"], files=AB, ask=request(risk_tier="high")),
    case("condition-context", "context_matches as for policies, the session's context on top",
         [pack("p", "a.md", conditions={"context_matches": {"env": "prod"}}),
          pack("q", "b.md", conditions={"context_matches": {"env": "test"}})],
         ["one:p/a.md"], files=AB, ask=request(context={"env": "test"}), session_context={"env": "prod"}),
    case("condition-time", "a pack outside its hours", [pack("p", "a.md", conditions={
         "time_window": {"start": "15:00", "end": "16:00"}}), pack("q", "b.md")], ["one:q/b.md"], files=AB),
    case("condition-capabilities", "the required capabilities must meet the pack's",
         [pack("p", "a.md", conditions={"capabilities": ["pay"]}), pack("q", "b.md", conditions={"capabilities": ["read"]})],
         ["one:p/a.md"], files=AB, ask=request(required=["pay", "x"])),
    case("condition-capabilities-none-required", "without required capabilities it does not hold",
         [pack("p", "a.md", conditions={"capabilities": ["pay"]})], [], files=AB),
    case("capability-packs", "with required capabilities, a pack that capabilities name comes with those only",
         [pack("p", "a.md"), pack("q", "b.md"), pack("r", "c.md")], ["one:p/a.md", "one:r/c.md"], files=AB,
         fields={"capabilities": [capability("pay", context_packs=["p"]), capability("read", context_packs=["q"])]},
         ask=request(required=["pay"])),
    case("capability-packs-not-required", "without required capabilities every pack comes",
         [pack("p", "a.md"), pack("q", "b.md"), pack("r", "c.md")], ["one:p/a.md", "one:q/b.md", "one:r/c.md"], files=AB,
         fields={"capabilities": [capability("pay", context_packs=["p"]), capability("read", context_packs=["q"])]}),
    case("no-packs", "an atlas without packs", [], []),
]  # fmt: skip
