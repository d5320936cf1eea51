-- What ACME keeps, under names like paths. Values are sealed with the key file; size is what they
-- are before that.

-- +goose Up
CREATE TABLE certificate_files (
  name     TEXT PRIMARY KEY,
  value    BYTEA NOT NULL,
  modified BIGINT NOT NULL,
  size     BIGINT NOT NULL
);

-- Who is about it just now, so that no other process is. A lease need not have a file of its name.
CREATE TABLE certificate_leases (
  name   TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  until  BIGINT NOT NULL
);
