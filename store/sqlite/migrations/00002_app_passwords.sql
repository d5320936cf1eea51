-- Zero times, as in 00001, say "not yet" and "never".

-- +goose Up
CREATE TABLE recovery_codes (
  authenticator TEXT NOT NULL REFERENCES authenticators (id) ON DELETE CASCADE,
  tag           BYTEA NOT NULL,
  used          BIGINT NOT NULL,
  PRIMARY KEY (authenticator, tag)
);

-- networks are prefixes with commas between them; last_* is the last use.
CREATE TABLE app_passwords (
  id           TEXT PRIMARY KEY,
  account      TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
  label        TEXT NOT NULL,
  tag          BYTEA NOT NULL UNIQUE,
  key_id       TEXT NOT NULL,
  public       BYTEA NOT NULL,
  public_tag   BYTEA NOT NULL,
  sealed       BYTEA NOT NULL,
  stale        BOOLEAN NOT NULL,
  networks     TEXT NOT NULL,
  read_only    BOOLEAN NOT NULL,
  created      BIGINT NOT NULL,
  expires      BIGINT NOT NULL,
  revoked      BIGINT NOT NULL,
  last_used    BIGINT NOT NULL,
  last_source  TEXT NOT NULL,
  last_program TEXT NOT NULL
);
CREATE INDEX app_passwords_account ON app_passwords (account, created, id);
CREATE INDEX app_passwords_expires ON app_passwords (expires);
CREATE INDEX app_passwords_revoked ON app_passwords (revoked, key_id);

ALTER TABLE grants ADD COLUMN client BYTEA NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN key_id TEXT NOT NULL DEFAULT '';

-- Empty: from before events were chained.
ALTER TABLE events ADD COLUMN hash BYTEA NOT NULL DEFAULT '' CHECK (length(hash) IN (0, 32));

-- An older imapwarden that still runs knows no hashes, and would break the chain.
-- +goose StatementBegin
CREATE TRIGGER events_chained BEFORE INSERT ON events WHEN length(NEW.hash) = 0
BEGIN
  SELECT RAISE(ABORT, 'an event without a hash: end the older imapwarden that still uses this store');
END;
-- +goose StatementEnd
