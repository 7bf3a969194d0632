-- Schema auth: accounts, refresh tokens, subscriptions, throttles.
--
-- Every other schema's user_id points at auth.users. Refresh tokens are opaque and stored as SHA-256 only: a copy of this
-- table logs nobody in.

CREATE FUNCTION auth.touch_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TABLE auth.users (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email             text NOT NULL UNIQUE CHECK (length(email) BETWEEN 3 AND 254),
    password_hash     text NOT NULL,
    role              text NOT NULL DEFAULT 'student' CHECK (role IN ('student', 'subscriber', 'admin')),
    subscription_tier text NOT NULL DEFAULT 'free_trial' CHECK (subscription_tier IN ('free_trial', 'basic', 'pro')),
    trial_ends_at     timestamptz,
    sv                int NOT NULL DEFAULT 1 CHECK (sv >= 1), -- session version: tokens with a smaller one are refused
    ngs_level         int NOT NULL DEFAULT 1 CHECK (ngs_level BETWEEN 1 AND 24), -- copy; ngs-curriculum owns it
    ngs_total_xp      bigint NOT NULL DEFAULT 0 CHECK (ngs_total_xp >= 0),       -- copy
    last_seen_at      timestamptz NOT NULL DEFAULT now(), -- last login or refresh, so at most 15 minutes coarse
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX users_last_seen ON auth.users (last_seen_at);
CREATE TRIGGER touch BEFORE UPDATE ON auth.users FOR EACH ROW EXECUTE FUNCTION auth.touch_updated_at();

CREATE TABLE auth.refresh_tokens (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    family     uuid NOT NULL, -- one log-in; every rotation stays in it
    token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    parent_id  uuid REFERENCES auth.refresh_tokens (id) ON DELETE SET NULL,
    access_jti uuid NOT NULL, -- the access token issued with it: a log-out by access token finds its family
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    revoked_at timestamptz
);
CREATE INDEX refresh_tokens_family ON auth.refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON auth.refresh_tokens (user_id);
CREATE INDEX refresh_tokens_parent ON auth.refresh_tokens (parent_id);
CREATE INDEX refresh_tokens_access_jti ON auth.refresh_tokens (access_jti);
CREATE INDEX refresh_tokens_expiry ON auth.refresh_tokens (expires_at);

CREATE TABLE auth.subscriptions (
    id                     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id                uuid NOT NULL UNIQUE REFERENCES auth.users (id) ON DELETE CASCADE,
    stripe_subscription_id text UNIQUE,
    stripe_customer_id     text UNIQUE,
    status                 text NOT NULL,
    tier                   text NOT NULL CHECK (tier IN ('free_trial', 'basic', 'pro')),
    current_period_start   timestamptz,
    current_period_end     timestamptz,
    past_due_since         timestamptz,
    last_event_created     timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER touch BEFORE UPDATE ON auth.subscriptions FOR EACH ROW EXECUTE FUNCTION auth.touch_updated_at();

-- Failed attempts per subject. `key` is an HMAC of what is counted (account and address): no personal data in clear.
-- In Postgres and not in Redis, because a lost cache must not open a locked account.
CREATE TABLE auth.throttles (
    key          text PRIMARY KEY,
    hits         timestamptz[] NOT NULL,
    locked_until timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX throttles_updated ON auth.throttles (updated_at);

CREATE FUNCTION auth.throttle_hit(p_key text, p_now timestamptz, p_window interval, p_limit int, p_lock interval)
RETURNS timestamptz
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO auth.throttles AS t (key, hits, locked_until, updated_at)
    VALUES (p_key, ARRAY[p_now], CASE WHEN p_limit <= 1 THEN p_now + p_lock END, p_now)
    ON CONFLICT (key) DO UPDATE
       SET hits = (SELECT array_agg(h) FROM unnest(t.hits || p_now) AS h WHERE h > p_now - p_window),
           locked_until = CASE
               WHEN t.locked_until > p_now THEN t.locked_until
               WHEN (SELECT count(*) FROM unnest(t.hits || p_now) AS h WHERE h > p_now - p_window) >= p_limit
               THEN p_now + p_lock
           END,
           updated_at = p_now
    RETURNING t.locked_until
$$;
COMMENT ON FUNCTION auth.throttle_hit IS
    'Counts one failed attempt in a sliding window; returns until when the key is locked, or NULL.';
