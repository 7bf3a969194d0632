-- The tables every schema has. `:schema` is replaced by the runner; version 0 of each schema.
-- In schema `auth` it runs after 0001, because of the foreign key.

CREATE TABLE :schema.outbox (
    id          uuid PRIMARY KEY,
    type        text NOT NULL,
    payload     jsonb NOT NULL,
    meta        jsonb NOT NULL DEFAULT '{}',  -- request_id, traceparent, user_id of the envelope
    created_at  timestamptz NOT NULL DEFAULT now(),
    relayed_at  timestamptz
);
CREATE INDEX outbox_waiting ON :schema.outbox (created_at, id) WHERE relayed_at IS NULL;
CREATE INDEX outbox_relayed ON :schema.outbox (relayed_at) WHERE relayed_at IS NOT NULL;

CREATE TABLE :schema.idempotency (
    user_id      uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    route        text NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    body_sha256  bytea NOT NULL,
    status       int,
    response     jsonb,
    expires_at   timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (user_id, route, key)
);
CREATE INDEX idempotency_expires ON :schema.idempotency (expires_at);

ALTER TABLE :schema.idempotency ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON :schema.idempotency
    USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);

-- Work across users, so SECURITY DEFINER: a day after relaying, and after expiry, rows are only weight.
CREATE FUNCTION :schema.sweep_common() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
AS $$
    DELETE FROM :schema.outbox WHERE relayed_at < now() - interval '1 day';
    DELETE FROM :schema.idempotency WHERE expires_at < now();
$$;
