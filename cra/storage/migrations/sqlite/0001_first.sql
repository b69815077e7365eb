-- Times are microseconds since 1970; records are canonical JSON.

CREATE TABLE tenants (
    number INTEGER PRIMARY KEY, -- never removed
    name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO tenants VALUES (1, 'default');

CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so that no purged session's row can be taken for another's
    tenant INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    status TEXT NOT NULL,
    ended_us INTEGER, -- NULL while it is active
    record BLOB NOT NULL,
    UNIQUE (tenant, session_id)
) STRICT;
CREATE INDEX sessions_of_agent ON sessions (tenant, agent_id, session_id);
CREATE INDEX sessions_in_status ON sessions (tenant, status, session_id);
CREATE INDEX sessions_ended ON sessions (tenant, ended_us, session_id) WHERE ended_us IS NOT NULL;

-- The lines of one append, exactly as they were hashed, at session * 2^32 + the sequence of the first: one tree, in
-- which the events of a session lie together and in order. The last of a session is where its chain ends, so that a
-- plain append touches one page.
CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    count INTEGER NOT NULL, -- how many events the lines are
    hash BLOB NOT NULL, -- the last one's
    last_us INTEGER NOT NULL, -- the last one's
    actions INTEGER NOT NULL, -- of the session until here
    resolutions INTEGER NOT NULL, -- of the session until here
    lines BLOB NOT NULL
) STRICT;

-- What a session keeps beside its events, in one tree, so that an append that adds several touches few pages.
CREATE TABLE kept (
    session INTEGER NOT NULL,
    kind INTEGER NOT NULL, -- 1 a request, 2 a resolution, 3 an idempotency key
    key ANY NOT NULL, -- the request's id; the resolution's number, which counts up in a session; the key
    id TEXT, -- the resolution's id; the call that the key stands for
    expires_us INTEGER, -- the resolution's
    record BLOB, -- the resolution; the response
    PRIMARY KEY (session, kind, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE approvals (
    number INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    approval_id TEXT NOT NULL,
    session INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    parameters_hash TEXT NOT NULL,
    status TEXT NOT NULL,
    expires_us INTEGER NOT NULL,
    record BLOB NOT NULL, -- last, so that the long ones are not read for what stands before
    UNIQUE (tenant, approval_id)
) STRICT;
CREATE INDEX approvals_of_tenant ON approvals (tenant);
CREATE INDEX approvals_of_session ON approvals (session);
CREATE INDEX approvals_in_status ON approvals (tenant, status);
CREATE INDEX approvals_of_agent ON approvals (tenant, agent_id);
CREATE INDEX approvals_of_call ON approvals (session, parameters_hash, status);
CREATE INDEX approvals_waiting ON approvals (session, expires_us) WHERE status = 'pending';

-- A rate counts calls: `taken` is how many there were, and `calls` has the times of the last `amount` of them in a ring.
-- A budget counts what was `spent` since `since_us`.
CREATE TABLE counters (
    number INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    key TEXT NOT NULL,
    rate INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    window_us INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    newest_us INTEGER NOT NULL,
    UNIQUE (tenant, key)
) STRICT;
-- A budget without a window belongs to a session, whose id ends its key; it goes when the session is purged.
CREATE INDEX counters_of_session ON counters (tenant, substr(key, -36)) WHERE window_us = 0;

CREATE TABLE calls (
    counter INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (counter, slot)
) STRICT, WITHOUT ROWID;

-- What a tenant has set; the numbers are the order in which they were first written.
CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (tenant, kind, name)
) STRICT;

-- How many appends have written documents of a kind.
CREATE TABLE revisions (
    tenant INTEGER NOT NULL,
    kind TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind)
) STRICT, WITHOUT ROWID;

-- What is written to learn whether the store takes anything.
CREATE TABLE probe (
    number INTEGER PRIMARY KEY,
    times INTEGER NOT NULL
) STRICT;
INSERT INTO probe VALUES (1, 0);
