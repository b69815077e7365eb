-- Times are microseconds since 1970; records are canonical JSON.

CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so that no purged session's row can be taken for another's
    session_id TEXT NOT NULL UNIQUE,
    agent_id TEXT NOT NULL,
    status TEXT NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX sessions_of_agent ON sessions (agent_id, session_id);
CREATE INDEX sessions_in_status ON sessions (status, session_id);

-- What changes with every append; apart from sessions, so that these rows stay small.
CREATE TABLE heads (
    session INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    last_us INTEGER NOT NULL,
    actions INTEGER NOT NULL,
    resolutions INTEGER NOT NULL
) STRICT;

-- The lines of one append, exactly as they were hashed, at session * 2^32 + the sequence of the first: one tree, in
-- which the events of a session lie together and in order.
CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    lines BLOB NOT NULL
) STRICT;

CREATE TABLE requests (
    session INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    PRIMARY KEY (session, request_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE resolutions (
    session INTEGER NOT NULL,
    number INTEGER NOT NULL, -- counts up in a session; the newest are kept
    resolution_id TEXT NOT NULL,
    expires_us INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    session INTEGER NOT NULL,
    key TEXT NOT NULL,
    call TEXT NOT NULL,
    response BLOB,
    PRIMARY KEY (session, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE approvals (
    number INTEGER PRIMARY KEY,
    approval_id TEXT NOT NULL UNIQUE,
    session INTEGER NOT NULL,
    status TEXT NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX approvals_of_session ON approvals (session, status);
CREATE INDEX approvals_in_status ON approvals (status);

-- A rate counts calls: `taken` is how many there were, and `calls` has the times of the last `amount` of them in a ring.
-- A budget counts what was `spent` since `since_us`.
CREATE TABLE counters (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL,
    window_us INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    newest_us INTEGER NOT NULL
) STRICT;
-- A budget without a window belongs to a session, whose id ends its key; it goes when the session is purged.
CREATE INDEX counters_of_session ON counters (substr(key, -36)) WHERE window_us = 0;

CREATE TABLE calls (
    counter INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (counter, slot)
) STRICT, WITHOUT ROWID;
