"""What an engine could get wrong: each is one text of the reference, and what stands in its place."""

FAULTS: dict[str, tuple[str, str]] = {
    "an allow comes before a deny": (
        '    for rule in by_phase["deny"]:\n',
        '    for rule in by_phase["allow"] + by_phase["deny"]:\n',
    ),
    "limits come before approvals": (
        "    if approvals and not asked.approved:\n",
        "    if approvals and not asked.approved and not by_phase['rate_limit']:\n",
    ),
    "budgets come before rate limits": (
        'by_phase["rate_limit"] + by_phase["budget"]',
        'by_phase["budget"] + by_phase["rate_limit"]',
    ),
    "priority is ignored": (
        '-policy.get("priority", 0)',
        "0",
    ),
    "low priority comes first": (
        '-policy.get("priority", 0)',
        'policy.get("priority", 0)',
    ),
    "load order counts before manifest order": (
        "place, load)",
        "load, place)",
    ),
    "what an action implies is like any other policy": (
        "order = (PHASES.index(policy_type(policy)), is_implied,",
        "order = (PHASES.index(policy_type(policy)),",
    ),
    "an action's own fields imply nothing": (
        "[*explicit, *implied_policies(atlas)]",
        "explicit",
    ),
    "an allow of another atlas is honoured": (
        '(rule.phase != "allow" or rule.atlas_id == offer.atlas_id)',
        "True",
    ),
    "a restriction of another atlas is ignored": (
        '(rule.phase != "allow" or rule.atlas_id == offer.atlas_id)',
        "rule.atlas_id == offer.atlas_id",
    ),
    "a deny of another atlas is ignored": (
        '(rule.phase != "allow" or rule.atlas_id == offer.atlas_id)',
        '(rule.phase not in ("allow", "deny") or rule.atlas_id == offer.atlas_id)',
    ),
    "only the effective tier counts": (
        "TIERS[own : effective + 1]",
        "TIERS[effective : effective + 1]",
    ),
    "only the action's tier counts": (
        "TIERS[own : effective + 1]",
        "TIERS[own : own + 1]",
    ),
    "the request's tier may be below the action's": (
        "effective = max(own, ",
        "effective = (",
    ),
    "an allow needs any tier of the range": (
        'all(listed) if rule.phase == "allow" else any(listed)',
        "any(listed)",
    ),
    "a restriction needs every tier of the range": (
        'all(listed) if rule.phase == "allow" else any(listed)',
        "all(listed)",
    ),
    "the agents condition is ignored": (
        '("agents" not in conditions or any_match(conditions["agents"], agent_id))',
        "True",
    ),
    "the capabilities condition is ignored": (
        "(wanted is None or bool(set(wanted) & capabilities_of(offer)))",
        "True",
    ),
    "capabilities of other atlases count": (
        "        for capability in offer.atlas.get",
        "        for capability in [{'capability_id': 'read', 'actions': ['*']}] + offer.atlas.get",
    ),
    "the request's context wins over the session's": (
        '{**request.get("context", {}), **(session_context or {})}',
        '{**(session_context or {}), **request.get("context", {})}',
    ),
    "a key that is not there matches": (
        "        key in context and not isinstance(",
        "        key not in context or not isinstance(",
    ),
    "values are compared as Python writes them": (
        "canonical.dumps(value).decode()",
        "str(value)",
    ),
    "the end of a time window is inside": (
        "return start <= clock < end and",
        "return start <= clock <= end and",
    ),
    "the start of a time window is outside": (
        "return start <= clock < end and",
        "return start < clock < end and",
    ),
    "after midnight a window belongs to the new day": (
        "(clock < end and yesterday in days)",
        "(clock < end and today in days)",
    ),
    "equal start and end are never open": (
        "        return today in days\n    if start < end",
        "        return False\n    if start < end",
    ),
    "the time zone is ignored": (
        "astimezone(ZoneInfo(zone))",
        "astimezone(UTC)",
    ),
    "days are ignored": (
        'window.get("days", DAYS)',
        "DAYS",
    ),
    "the capabilities asked for are ignored": (
        "(not wanted or wanted & capabilities_of(offer))",
        "True",
    ),
    "the atlases asked for are ignored": (
        "(not atlas_ids or offer.atlas_id in atlas_ids)",
        "True",
    ),
    "a closed atlas is open": (
        'policy["type"] == "allow" for policy',
        "False for policy",
    ),
    "the default decision is ignored": (
        'return default_decision == "deny" or any',
        "return any",
    ),
    "an approval of another atlas opens": (
        "return rule.atlas_id == offer.atlas_id and all(",
        "return all(",
    ),
    "an approval for a claimed tier opens": (
        "all(tier in listed for tier in tiers)",
        "any(tier in listed for tier in tiers)",
    ),
    "the last approval is named": (
        '_verdict("requires_approval", approvals[0])',
        '_verdict("requires_approval", approvals[-1])',
    ),
    "the alias requires_approval is unknown": (
        '"require_approval" if kind == "requires_approval" else kind',
        '"deny" if kind == "requires_approval" else kind',
    ),
    "an approved call is past all limits": (
        "        if wait == BAD_COST:",
        "        if asked.approved:\n            continue\n        if wait == BAD_COST:",
    ),
    "an approved call needs approval again": (
        "if approvals and not asked.approved:",
        "if approvals:",
    ),
    "a call without a proper cost is free": (
        "    if cost is None:\n        return BAD_COST",
        "    if cost is None:\n        return 0",
    ),
    "a budget may be used up and one call more": (
        'counted.get("spent", 0) + cost <= limit',
        'counted.get("spent", 0) <= limit',
    ),
    "a condition on parameters is ignored": (
        "        return schema_matches(rule.when, asked.parameters)\n",
        "        return True\n",
    ),
    "a condition on parameters decides at resolve": (
        '    return rule.phase == "allow"\n',
        "    return True\n",
    ),
    "an allow on parameters does not count at resolve": (
        '    return rule.phase == "allow"\n',
        "    return False\n",
    ),
    "scope is not held to": (
        "if asked.executing and not schema_matches(",
        "if False and not schema_matches(",
    ),
}

# The same in the reference's glob matcher.
GLOB_FAULTS: dict[str, tuple[str, str]] = {
    "a question mark matches nothing too": (
        "    return len(pattern) in places",
        '    return len(pattern) in places or (pattern.endswith("?") and glob_match(pattern[:-1], text))',
    ),
    "a star stops at a dot": (
        'if pattern[place] == "*":\n        return [place]',
        'if pattern[place] == "*":\n        return [] if char == "." else [place]',
    ),
    "letter case does not count": (
        'pattern[place] == "?" or pattern[place] == char',
        'pattern[place] == "?" or pattern[place].lower() == char.lower()',
    ),
    "a prefix is enough": (
        "    return len(pattern) in places",
        "    return bool(places)",
    ),
}
