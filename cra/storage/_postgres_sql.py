"""The statements of the PostgreSQL store, beside the one that appends."""

from functools import cache
from itertools import combinations

from cra.storage._postgres_wire import Statement

# By which approvals are looked for, each alone or together with others.
APPROVAL_COLUMNS = ("session_id", "agent_id", "parameters_hash", "status")
_APPROVALS = "SELECT record FROM {s}.approvals WHERE tenant = $1 AND number > $2"
_SESSIONS = """
SELECT s.record, h.actions FROM {s}.sessions s JOIN {s}.heads h USING (tenant, session_id)
WHERE s.tenant = $1 AND s.session_id > $2
"""
_COUNTERS = """
SELECT number, key, rate, amount, window_us, spent, since_us, newest_us, coalesce((
    SELECT string_agg(at_us::text, ' ' ORDER BY slot < taken % amount, slot)
    FROM {s}.calls WHERE calls.tenant = counters.tenant AND counter = number
), '') FROM {s}.counters
"""
_IDLE = "tenant = $1 AND number > $2 AND number <= $2 + $3"

# Parameters are typed where PostgreSQL cannot infer it; every column is of a type that `_postgres_wire` reads.
_SQL = {
    # One look at the index for each tenant there is, not one for each of their sessions.
    "tenants": """
        WITH RECURSIVE found (tenant) AS (
            SELECT least((SELECT min(tenant) FROM {s}.heads), (SELECT min(tenant) FROM {s}.documents))
            UNION ALL
            SELECT least(
                (SELECT min(tenant) FROM {s}.heads h WHERE h.tenant > found.tenant),
                (SELECT min(tenant) FROM {s}.documents d WHERE d.tenant > found.tenant)
            ) FROM found WHERE found.tenant IS NOT NULL
        ) SELECT tenant FROM found WHERE tenant IS NOT NULL
    """,
    "known": "SELECT 1 FROM {s}.heads WHERE tenant = $1 AND session_id = $2",
    "load": """
        SELECT s.record, h.actions, h.sequence, h.hash, h.last_us
        FROM {s}.sessions s JOIN {s}.heads h USING (tenant, session_id) WHERE s.tenant = $1 AND s.session_id = $2
    """,
    "resolution": """
        SELECT r.record FROM {s}.heads h LEFT JOIN {s}.resolutions r
        ON r.tenant = h.tenant AND r.session_id = h.session_id AND r.resolution_id = $3
        WHERE h.tenant = $1 AND h.session_id = $2 ORDER BY r.number DESC LIMIT 1
    """,
    "latest": """
        SELECT r.number, r.record FROM {s}.heads h LEFT JOIN {s}.resolutions r
        ON r.tenant = h.tenant AND r.session_id = h.session_id AND r.number < $3 AND r.expires_us > $4
        WHERE h.tenant = $1 AND h.session_id = $2 ORDER BY r.number DESC LIMIT 1
    """,
    "idempotency": """
        SELECT i.call, i.response FROM {s}.heads h LEFT JOIN {s}.idempotency i
        ON i.tenant = h.tenant AND i.session_id = h.session_id AND i.key = $3
        WHERE h.tenant = $1 AND h.session_id = $2
    """,
    "approval": "SELECT record FROM {s}.approvals WHERE tenant = $1 AND approval_id = $2",
    "approval_place": """
        SELECT number, session_id, agent_id, parameters_hash FROM {s}.approvals WHERE tenant = $1 AND approval_id = $2
    """,
    **{
        " ".join(("approvals", *columns)): " AND ".join(
            (_APPROVALS, *[f"{column} = ${place}" for place, column in enumerate(columns, 4)])
        )
        + " ORDER BY number LIMIT $3"
        for count in range(len(APPROVAL_COLUMNS) + 1)
        for columns in combinations(APPROVAL_COLUMNS, count)
    },
    "waiting": """
        SELECT (SELECT count(*) FROM {s}.approvals
            WHERE tenant = $1 AND session_id = $2 AND status = 'pending' AND expires_us > $3)
        FROM {s}.heads WHERE tenant = $1 AND session_id = $2
    """,
    "peek": """
        SELECT c.place, {s}.wait_1(
            c.rate, c.cost, coalesce(n.amount, c.amount), coalesce(n.window_us, c.window_us), coalesce(n.spent, 0),
            coalesce(n.since_us, 0), coalesce(n.newest_us, 0), a.at_us, $3
        )
        FROM jsonb_to_recordset($2::jsonb)
        AS c (place int, key text, rate boolean, amount bigint, window_us bigint, cost bigint)
        LEFT JOIN {s}.counters n ON n.tenant = $1 AND n.key = c.key
        LEFT JOIN {s}.calls a ON c.rate AND a.tenant = $1 AND a.counter = n.number AND a.slot = n.taken % n.amount
    """,
    "events": """
        SELECT first, lines FROM {s}.events WHERE tenant = $1 AND session_id = $2 AND first >= (
            SELECT max(first) FROM {s}.events WHERE tenant = $1 AND session_id = $2 AND first <= $3
        ) AND first < $4 ORDER BY first
    """,
    "sessions": _SESSIONS + " ORDER BY s.session_id LIMIT $3",
    "sessions_of_agent": _SESSIONS + " AND s.agent_id = $4 ORDER BY s.session_id LIMIT $3",
    "sessions_in": _SESSIONS + " AND s.status = $4 ORDER BY s.session_id LIMIT $3",
    "sessions_of_agent_in": _SESSIONS + " AND s.agent_id = $4 AND s.status = $5 ORDER BY s.session_id LIMIT $3",
    "ending": "SELECT ended_us FROM {s}.sessions WHERE tenant = $1 AND session_id = $2",
    "ended": """
        SELECT s.record, h.actions FROM {s}.sessions s JOIN {s}.heads h USING (tenant, session_id)
        WHERE s.tenant = $1 AND s.status = 'ended' AND (s.ended_us, s.session_id) > ($2, $3) AND s.ended_us < $4
        ORDER BY s.ended_us, s.session_id LIMIT $5
    """,
    "ended_count": "SELECT count(*) FROM {s}.sessions WHERE tenant = $1 AND status = 'ended'",
    "document": "SELECT revision, body FROM {s}.documents WHERE tenant = $1 AND kind = $2 AND name = $3",
    "documents": "SELECT name, revision, body FROM {s}.documents WHERE tenant = $1 AND kind = $2 ORDER BY number",
    "revision": "SELECT revision FROM {s}.revisions WHERE tenant = $1 AND kind = $2",
    # Only those that nobody holds; returns how far it looked, or nothing after the last one.
    "sweep": f"""
        WITH gone AS (
            SELECT number FROM {{s}}.counters
            WHERE {_IDLE} AND window_us > 0 AND newest_us + window_us <= $4 FOR UPDATE SKIP LOCKED
        ), calls AS (
            DELETE FROM {{s}}.calls WHERE tenant = $1 AND counter IN (SELECT number FROM gone)
        ), counters AS (
            DELETE FROM {{s}}.counters WHERE tenant = $1 AND number IN (SELECT number FROM gone)
        )
        SELECT CASE WHEN max(number) > $2 + $3 THEN $2 + $3 END FROM {{s}}.counters WHERE tenant = $1
    """,  # noqa: S608 - from the line above
    # One statement sees one moment: 0 the session and its head, 1 requests, 2 resolutions, 3 idempotency, 4 approvals.
    "dump": """
        WITH one AS (SELECT $1::text COLLATE "C" AS tenant, $2::text COLLATE "C" AS session_id)
        SELECT 0, h.actions, h.sequence::text, NULL::text, s.record
        FROM one JOIN {s}.heads h USING (tenant, session_id) JOIN {s}.sessions s USING (tenant, session_id)
        UNION ALL SELECT 1, NULL, request_id, NULL, NULL FROM one JOIN {s}.requests USING (tenant, session_id)
        UNION ALL SELECT 2, number, NULL, NULL, record FROM one JOIN {s}.resolutions USING (tenant, session_id)
        UNION ALL SELECT 3, NULL, key, call, response FROM one JOIN {s}.idempotency USING (tenant, session_id)
        UNION ALL SELECT 4, number, NULL, NULL, record FROM one JOIN {s}.approvals USING (tenant, session_id)
        ORDER BY 1, 2, 3
    """,
    "lines": """
        SELECT first, lines FROM {s}.events
        WHERE tenant = $1 AND session_id = $2 AND first > $3 AND first < $4 ORDER BY first LIMIT $5
    """,
    "counters": _COUNTERS + " WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
    "counter": _COUNTERS + " WHERE tenant = $1 AND key = $2",
    "kinds": "SELECT kind FROM {s}.revisions WHERE tenant = $1 ORDER BY kind",
    "add_revision": """
        INSERT INTO {s}.revisions VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING revision
    """,
    "add_document": "INSERT INTO {s}.documents (tenant, kind, name, revision, body) VALUES ($1, $2, $3, $4, $5)",
    "add_head": """
        INSERT INTO {s}.heads VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING 1
    """,
    "add_session": "INSERT INTO {s}.sessions VALUES ($1, $2, $3, $4, $5, $6)",
    "add_lines": "INSERT INTO {s}.events VALUES ($1, $2, $3, $4)",
    "add_requests": "INSERT INTO {s}.requests SELECT $1, $2, unnest($3::text[])",
    "add_resolution": "INSERT INTO {s}.resolutions VALUES ($1, $2, $3, $4, $5, $6)",
    "add_idempotency": "INSERT INTO {s}.idempotency VALUES ($1, $2, $3, $4, $5)",
    "add_approval": """
        INSERT INTO {s}.approvals (
            tenant, session_id, approval_id, agent_id, parameters_hash, status, expires_us, record
        ) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING 1
    """,
    "add_counter": """
        INSERT INTO {s}.counters (tenant, key, rate, amount, window_us) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING RETURNING 1
    """,
    "lock_counter": "SELECT number FROM {s}.counters WHERE tenant = $1 AND key = $2 FOR UPDATE",
    "set_counter": """
        UPDATE {s}.counters SET taken = $3, spent = $4, since_us = $5, newest_us = $6 WHERE tenant = $1 AND number = $2
    """,
    "clear_calls": "DELETE FROM {s}.calls WHERE tenant = $1 AND counter = $2",
    "add_calls": """
        INSERT INTO {s}.calls SELECT $1, $2, c.place - 1, c.at_us::bigint
        FROM unnest($3::text[]) WITH ORDINALITY AS c (at_us, place)
    """,
    # Taking a transaction id is what a server that takes no writes refuses.
    "probe": "SELECT pg_current_xact_id()::text, (SELECT 1 FROM {s}.heads LIMIT 1)",
}


@cache
def statements(schema: str) -> dict[str, Statement]:
    """Return the statements by name, for a schema as SQL takes it."""
    return {name: Statement(name.encode(), sql.replace("{s}", schema).encode()) for name, sql in _SQL.items()}
