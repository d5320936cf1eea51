-- Times are microseconds since 1970; Go's zero time is the large negative number
-- that it is there. The type names are those that PostgreSQL knows, too.

-- +goose Up
CREATE TABLE accounts (
  name    TEXT PRIMARY KEY,
  created BIGINT NOT NULL
);

CREATE TABLE authenticators (
  id        TEXT PRIMARY KEY,
  account   TEXT NOT NULL UNIQUE REFERENCES accounts (name) ON DELETE CASCADE,
  sealed    BYTEA NOT NULL,
  created   BIGINT NOT NULL,
  confirmed BIGINT NOT NULL,
  last_step BIGINT NOT NULL
);

-- An account need not have a record to be given a grant: hence no reference.
CREATE TABLE grants (
  id           TEXT PRIMARY KEY,
  account      TEXT NOT NULL,
  network      TEXT NOT NULL,
  password_tag BYTEA NOT NULL,
  created      BIGINT NOT NULL,
  expires      BIGINT NOT NULL,
  last_used    BIGINT NOT NULL
);
CREATE INDEX grants_account ON grants (account, created, id);
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE marks (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

-- AUTOINCREMENT: an ID is never given twice, so "after ID n" misses nothing.
-- source_key is the address in 16 bytes, IPv4 as ::ffff:a.b.c.d, so that a
-- prefix is a range of keys; NULL where the source is no address.
CREATE TABLE events (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  time       BIGINT NOT NULL,
  kind       TEXT NOT NULL,
  outcome    TEXT NOT NULL,
  session    TEXT NOT NULL,
  account    TEXT NOT NULL,
  source     TEXT NOT NULL,
  source_key BYTEA,
  program    TEXT NOT NULL,
  factor     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  rule       TEXT NOT NULL,
  detail     TEXT NOT NULL
);
CREATE INDEX events_time ON events (time);
CREATE INDEX events_account ON events (account, id);
CREATE INDEX events_source ON events (source_key);
