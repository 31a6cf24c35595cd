-- What nodes tell each other of how far limits are used up, sealed. The table
-- is volatile: a crash may empty it, and no commit waits for a disk.

-- +goose Up

CREATE UNLOGGED TABLE notices (
    node       uuid NOT NULL,
    round      bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    body       bytea NOT NULL,
    PRIMARY KEY (node, round)
);

-- +goose Down

DROP TABLE notices;
