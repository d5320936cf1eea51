-- Networks and sites are prefixes as netip writes them, masked; those of IPv4 never as IPv6.

-- +goose Up
CREATE TABLE bans (
  network TEXT PRIMARY KEY,
  signal  TEXT NOT NULL,
  since   BIGINT NOT NULL,
  until   BIGINT NOT NULL,
  times   BIGINT NOT NULL,
  detail  TEXT NOT NULL
);
CREATE INDEX bans_until ON bans (until);

-- An account need not have a record to be at home somewhere: hence no reference.
CREATE TABLE homes (
  account      TEXT NOT NULL,
  app_password BOOLEAN NOT NULL,
  site         TEXT NOT NULL,
  last         BIGINT NOT NULL,
  PRIMARY KEY (account, app_password, site)
);
CREATE INDEX homes_last ON homes (last);
