-- Personal values are in none of these columns: records are sealed, and index
-- keys are keyed hashes. Columns beside a record repeat what statements judge.

-- +goose Up

CREATE TABLE users (
    id           text COLLATE "C" PRIMARY KEY,
    disabled     boolean NOT NULL,
    retired      boolean NOT NULL,
    epoch        bigint NOT NULL,
    ended_at     timestamptz,
    ended_reason text NOT NULL,
    record       bytea NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE identities (
    id            bytea PRIMARY KEY, -- keyed hash of appid and openid
    user_id       text COLLATE "C" NOT NULL,
    open_platform text COLLATE "C" NOT NULL,
    unionid       bytea, -- keyed hash
    record        bytea NOT NULL
);

-- What leads to a user beside an identity.
CREATE TABLE owners (
    kind    smallint NOT NULL,
    id      bytea NOT NULL, -- keyed hash of the value
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE TABLE session_keys (
    identity bytea PRIMARY KEY,
    look_at  timestamptz NOT NULL,
    record   bytea NOT NULL
);
CREATE INDEX session_keys_look_at ON session_keys (look_at);

CREATE TABLE clients (
    id           text COLLATE "C" PRIMARY KEY,
    epoch        bigint NOT NULL,
    ended_at     timestamptz NOT NULL,
    ended_reason text NOT NULL
);

-- A rotation touches no indexed column, so that it writes one row version on
-- the page where the family lies. look_at is when the row is next looked at
-- for expiry; only that moves it.
CREATE TABLE families (
    id              uuid PRIMARY KEY, -- begins with the time of creation
    user_id         text COLLATE "C" NOT NULL,
    client_id       text COLLATE "C" NOT NULL,
    identity        bytea,
    user_epoch      bigint NOT NULL,
    client_epoch    bigint NOT NULL,
    generation      bigint NOT NULL,
    mac_key_id      bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    rotated_at      timestamptz NOT NULL,
    idle_expires_at timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    revoked_for     text NOT NULL DEFAULT '',
    login_id        uuid,
    offline         boolean NOT NULL,
    look_at         timestamptz NOT NULL,
    fixed           bytea NOT NULL -- what never changes
) WITH (fillfactor = 80);
CREATE INDEX families_user ON families (user_id, id);
CREATE INDEX families_look_at ON families (look_at);

CREATE TABLE denied_jtis (
    jti        bytea PRIMARY KEY, -- hash
    expires_at timestamptz NOT NULL
);
CREATE INDEX denied_jtis_expires_at ON denied_jtis (expires_at);

CREATE TABLE idempotency (
    id         bytea PRIMARY KEY,
    form       bytea NOT NULL,
    family_id  uuid NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX idempotency_expires_at ON idempotency (expires_at);

CREATE TABLE items (
    id         bytea PRIMARY KEY, -- hash of kind and key
    used       boolean NOT NULL,
    value      bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX items_expires_at ON items (expires_at);

CREATE TABLE records (
    name    text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    value   bytea NOT NULL
);

-- Which database the data were last opened in. A dump brings the row along.
CREATE TABLE home (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    system_id   text NOT NULL, -- of the cluster; empty: not to be had
    database_id text NOT NULL
);

CREATE TABLE logins (
    id              uuid PRIMARY KEY,
    user_id         text COLLATE "C" NOT NULL,
    user_epoch      bigint NOT NULL,
    token           bytea UNIQUE, -- hash; none once it has ended
    idle_expires_at timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    look_at         timestamptz NOT NULL,
    record          bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX logins_user ON logins (user_id, id);
CREATE INDEX logins_look_at ON logins (look_at);

CREATE TABLE codes (
    id      bytea PRIMARY KEY, -- hash
    look_at timestamptz NOT NULL, -- when to forget it
    record  bytea NOT NULL
);
CREATE INDEX codes_look_at ON codes (look_at);

CREATE TABLE consents (
    user_id text COLLATE "C" PRIMARY KEY,
    record  bytea NOT NULL
);

CREATE TABLE states (
    kind       smallint NOT NULL,
    id         bytea NOT NULL, -- hash
    version    bigint NOT NULL,
    value      bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX states_expires_at ON states (expires_at);

CREATE TABLE logouts (
    id        uuid PRIMARY KEY,
    client_id text COLLATE "C" NOT NULL,
    user_id   text COLLATE "C" NOT NULL,
    family_id uuid NOT NULL,
    ended_at  timestamptz NOT NULL,
    attempts  bigint NOT NULL,
    next_at   timestamptz NOT NULL
);
CREATE INDEX logouts_next_at ON logouts (next_at, id);

-- Claims are volatile: a crash may empty the table, and no commit waits for a disk.
CREATE UNLOGGED TABLE claims (
    id         bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX claims_expires_at ON claims (expires_at);

-- +goose Down

DROP TABLE users, identities, owners, session_keys, clients, families, denied_jtis, idempotency, items, records,
    home, logins, codes, consents, states, logouts, claims;
