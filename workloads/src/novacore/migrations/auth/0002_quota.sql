-- Schema auth: the quota ledger. A balance row is one window of one resource of one user; a hold is a promise against it;
-- the ledger says what was billed. (workloads.md §5.1)
--
-- QUOTA-1 used + reserved never rises above the cap. QUOTA-2 used = sum of the ledger's rows of that window.
-- QUOTA-3 reserved = sum of the amounts of the window's held holds. QUOTA-4 a repeated call changes nothing.
-- Lock order: hold before balance; several balances in key order. Time is a parameter: all replicas use the caller's clock.

CREATE TABLE auth.quota_balance (
    user_id      uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    resource     text NOT NULL CHECK (resource IN ('llm_tokens', 'memory_storage', 'agent_minutes')),
    window_start timestamptz NOT NULL, -- storage has one open window that starts at the Unix epoch
    window_end   timestamptz,
    used         bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    reserved     bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    cap          bigint NOT NULL CHECK (cap >= -1), -- -1: no limit
    last_step    bigint NOT NULL DEFAULT 0, -- what the last UPDATE granted or applied; read back by its own RETURNING only
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, resource, window_start)
) WITH (fillfactor = 60); -- room for HOT updates: no update touches an index

CREATE TABLE auth.quota_hold (
    id           uuid PRIMARY KEY, -- the caller's: the same id is the same hold
    user_id      uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    resource     text NOT NULL CHECK (resource IN ('llm_tokens', 'memory_storage', 'agent_minutes')),
    window_start timestamptz NOT NULL,
    amount       bigint NOT NULL CHECK (amount > 0),
    progress     bigint NOT NULL DEFAULT 0 CHECK (progress >= 0),
    billed       bigint NOT NULL DEFAULT 0 CHECK (billed >= 0),
    clamped      bigint NOT NULL DEFAULT 0 CHECK (clamped >= 0), -- reported above the grant, not billed
    state        text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'settled', 'released', 'expired')),
    remaining    bigint NOT NULL, -- as answered
    cap          bigint NOT NULL, -- as answered
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL,
    closed_at    timestamptz
) WITH (fillfactor = 70);
CREATE INDEX quota_hold_open ON auth.quota_hold (expires_at) WHERE state = 'held';
CREATE INDEX quota_hold_closed ON auth.quota_hold (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX quota_hold_user ON auth.quota_hold (user_id);

CREATE TABLE auth.usage_keys (
    idempotency_key text PRIMARY KEY CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    user_id         uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    amount          bigint NOT NULL, -- as asked for: the same key with another amount is a conflict
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_keys_user ON auth.usage_keys (user_id);
COMMENT ON TABLE auth.usage_keys IS 'Keeps ledger keys unique: a unique index of a partitioned table must hold the month.';

CREATE TABLE auth.usage_ledger (
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id         uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    resource_type   text NOT NULL CHECK (resource_type IN ('llm_tokens', 'memory_storage', 'agent_minutes')),
    window_start    timestamptz NOT NULL,
    amount          bigint NOT NULL CHECK (amount <> 0), -- negative: a refund of storage
    idempotency_key text NOT NULL,
    metadata        jsonb NOT NULL DEFAULT '{}',
    ts              timestamptz NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);
CREATE INDEX usage_ledger_user ON auth.usage_ledger (user_id, resource_type, ts);
CREATE TABLE auth.usage_ledger_default PARTITION OF auth.usage_ledger DEFAULT;

CREATE FUNCTION auth.ledger_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'auth.usage_ledger is append-only: correct by a new row' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE ON auth.usage_ledger FOR EACH ROW EXECUTE FUNCTION auth.ledger_append_only();

CREATE FUNCTION auth.ledger_partitions(p_now timestamptz, p_months int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_start timestamptz;
    v_name  text;
    v_made  int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('auth.ledger_partitions'));
    FOR n IN 0..least(p_months, 12) LOOP
        v_start := (date_trunc('month', p_now AT TIME ZONE 'UTC') + make_interval(months => n)) AT TIME ZONE 'UTC';
        v_name := 'usage_ledger_' || to_char(v_start AT TIME ZONE 'UTC', 'YYYY_MM');
        IF to_regclass('auth.' || v_name) IS NULL THEN
            EXECUTE format('CREATE TABLE auth.%I PARTITION OF auth.usage_ledger FOR VALUES FROM (%L) TO (%L)', v_name,
                           v_start, (v_start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
            v_made := v_made + 1;
        END IF;
    END LOOP;
    RETURN v_made;
END
$$;
COMMENT ON FUNCTION auth.ledger_partitions IS
    'Makes the ledger''s partitions of this month and the next ones. Definer rights: the service may not create tables.';
SELECT auth.ledger_partitions(now(), 2);

CREATE FUNCTION auth.quota_reserve(
    p_hold uuid, p_user uuid, p_resource text, p_amount bigint, p_min bigint, p_ttl interval, p_now timestamptz,
    p_window_start timestamptz, p_window_end timestamptz, p_caps jsonb
) RETURNS TABLE (result text, granted bigint, remaining bigint, cap bigint, used bigint, expires_at timestamptz, tier text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_tier     text;
    v_trial    timestamptz;
    v_cap      bigint;
    v_used     bigint;
    v_reserved bigint;
    v_granted  bigint;
    v_left     bigint;
    v_hold     auth.quota_hold;
BEGIN
    SELECT u.subscription_tier, u.trial_ends_at INTO v_tier, v_trial FROM auth.users AS u WHERE u.id = p_user;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown_user', 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::timestamptz, 'free_trial';
        RETURN;
    END IF;
    SELECT * INTO v_hold FROM auth.quota_hold AS h WHERE h.id = p_hold;
    IF NOT FOUND THEN
        IF v_tier = 'free_trial' AND v_trial <= p_now THEN
            RETURN QUERY SELECT 'trial_over', 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::timestamptz, v_tier;
            RETURN;
        END IF;
        -- The tier's cap of this moment decides, not the one stored with the window: a changed tier counts at once.
        v_cap := (p_caps ->> v_tier)::bigint;
        -- Twice, also after a conflict: another call may have made the window since the first look.
        FOR attempt IN 1..2 LOOP
            UPDATE auth.quota_balance AS b
               SET last_step = CASE WHEN v_cap < 0 THEN p_amount ELSE least(p_amount, v_cap - b.used - b.reserved) END,
                   reserved = b.reserved
                            + CASE WHEN v_cap < 0 THEN p_amount ELSE least(p_amount, v_cap - b.used - b.reserved) END,
                   cap = v_cap, updated_at = p_now
             WHERE b.user_id = p_user AND b.resource = p_resource AND b.window_start = p_window_start
               AND (v_cap < 0 OR v_cap - b.used - b.reserved >= p_min)
            RETURNING b.last_step, b.used, b.reserved INTO v_granted, v_used, v_reserved;
            EXIT WHEN FOUND;
            INSERT INTO auth.quota_balance (user_id, resource, window_start, window_end, cap, created_at, updated_at)
            VALUES (p_user, p_resource, p_window_start, p_window_end, v_cap, p_now, p_now)
            ON CONFLICT DO NOTHING;
        END LOOP;
        IF v_granted IS NOT NULL THEN
            v_left := CASE WHEN v_cap < 0 THEN -1 ELSE v_cap - v_used - v_reserved END;
            INSERT INTO auth.quota_hold (id, user_id, resource, window_start, amount, remaining, cap, expires_at, created_at)
            VALUES (p_hold, p_user, p_resource, p_window_start, v_granted, v_left, v_cap, p_now + p_ttl, p_now)
            ON CONFLICT (id) DO NOTHING;
            IF FOUND THEN
                RETURN QUERY SELECT 'granted', v_granted, v_left, v_cap, v_used, p_now + p_ttl, v_tier;
                RETURN;
            END IF;
            -- The same hold was made while this call waited for the window's row: give back, answer as that one did.
            UPDATE auth.quota_balance AS b SET reserved = b.reserved - v_granted
             WHERE b.user_id = p_user AND b.resource = p_resource AND b.window_start = p_window_start;
        END IF;
        SELECT * INTO v_hold FROM auth.quota_hold AS h WHERE h.id = p_hold;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'exceeded', 0::bigint, greatest(0, v_cap - b.used - b.reserved), v_cap,
                                b.used + b.reserved, NULL::timestamptz, v_tier
              FROM auth.quota_balance AS b
             WHERE b.user_id = p_user AND b.resource = p_resource AND b.window_start = p_window_start;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT
        CASE WHEN v_hold.user_id <> p_user OR v_hold.resource <> p_resource THEN 'conflict'
             WHEN v_hold.state <> 'held' THEN 'closed' ELSE 'repeated' END,
        v_hold.amount, v_hold.remaining, v_hold.cap, 0::bigint, v_hold.expires_at, v_tier;
END
$$;
COMMENT ON FUNCTION auth.quota_reserve IS
    'result: granted, repeated (same hold, same answer), exceeded, trial_over, unknown_user, conflict, closed.';

CREATE FUNCTION auth.ledger_add(
    p_key text, p_user uuid, p_resource text, p_window_start timestamptz, p_amount bigint, p_metadata jsonb, p_now timestamptz
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_amount = 0 THEN
        RETURN;
    END IF;
    INSERT INTO auth.usage_keys (idempotency_key, user_id, amount, created_at) VALUES (p_key, p_user, p_amount, p_now);
    INSERT INTO auth.usage_ledger (user_id, resource_type, window_start, amount, idempotency_key, metadata, ts, created_at)
    VALUES (p_user, p_resource, p_window_start, p_amount, p_key, p_metadata, p_now, p_now);
END
$$;

CREATE FUNCTION auth.quota_close(p_hold uuid, p_state text, p_actual bigint, p_metadata jsonb, p_now timestamptz)
RETURNS TABLE (result text, state text, billed bigint, newly_billed bigint, clamped bigint, resource text, tier text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_hold auth.quota_hold;
    v_tier text;
    v_bill bigint;
    v_over bigint;
BEGIN
    SELECT * INTO v_hold FROM auth.quota_hold AS h WHERE h.id = p_hold FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown_hold', NULL::text, 0::bigint, 0::bigint, 0::bigint, NULL::text, NULL::text;
        RETURN;
    END IF;
    SELECT u.subscription_tier INTO v_tier FROM auth.users AS u WHERE u.id = v_hold.user_id;
    IF v_hold.state IN ('settled', 'released') OR (v_hold.state = 'expired' AND p_state <> 'settled') THEN
        RETURN QUERY SELECT 'repeated', v_hold.state, v_hold.billed, 0::bigint, v_hold.clamped, v_hold.resource, v_tier;
        RETURN;
    END IF;
    v_over := greatest(0, p_actual - v_hold.amount);
    IF v_hold.state = 'held' THEN
        v_bill := least(p_actual, v_hold.amount);
        UPDATE auth.quota_balance AS b
           SET used = b.used + v_bill, reserved = b.reserved - v_hold.amount, updated_at = p_now
         WHERE b.user_id = v_hold.user_id AND b.resource = v_hold.resource AND b.window_start = v_hold.window_start;
        PERFORM auth.ledger_add('hold:' || p_hold, v_hold.user_id, v_hold.resource, v_hold.window_start, v_bill,
                                p_metadata, p_now);
    ELSE
        -- Settled after it expired: what the sweeper did not bill, as far as the window still has room for it.
        UPDATE auth.quota_balance AS b
           SET last_step = CASE WHEN b.cap < 0 THEN greatest(0, least(p_actual, v_hold.amount) - v_hold.billed)
                                ELSE greatest(0, least(least(p_actual, v_hold.amount) - v_hold.billed,
                                                       b.cap - b.used - b.reserved)) END,
               used = b.used
                    + CASE WHEN b.cap < 0 THEN greatest(0, least(p_actual, v_hold.amount) - v_hold.billed)
                           ELSE greatest(0, least(least(p_actual, v_hold.amount) - v_hold.billed,
                                                  b.cap - b.used - b.reserved)) END,
               updated_at = p_now
         WHERE b.user_id = v_hold.user_id AND b.resource = v_hold.resource AND b.window_start = v_hold.window_start
        RETURNING b.last_step INTO v_bill;
        v_over := greatest(0, p_actual - v_hold.billed - v_bill);
        PERFORM auth.ledger_add('hold:' || p_hold || ':late', v_hold.user_id, v_hold.resource, v_hold.window_start,
                                v_bill, p_metadata, p_now);
    END IF;
    UPDATE auth.quota_hold AS h
       SET state = p_state, billed = h.billed + v_bill, clamped = v_over, closed_at = p_now
     WHERE h.id = p_hold;
    RETURN QUERY SELECT 'closed', p_state, v_hold.billed + v_bill, v_bill, v_over, v_hold.resource, v_tier;
END
$$;
COMMENT ON FUNCTION auth.quota_close IS
    'Ends a hold (settled, released, expired): hold, balance and ledger in one transaction. result: closed, repeated, unknown_hold.';

CREATE FUNCTION auth.quota_expire(p_now timestamptz, p_limit int)
RETURNS TABLE (resource text, tier text, billed bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_hold auth.quota_hold;
BEGIN
    FOR v_hold IN
        SELECT * FROM auth.quota_hold AS h
         WHERE h.state = 'held' AND h.expires_at <= p_now
         ORDER BY h.user_id, h.resource, h.window_start, h.id
         LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        RETURN QUERY SELECT c.resource, c.tier, c.newly_billed
          FROM auth.quota_close(v_hold.id, 'expired', v_hold.progress, '{"expired": true}', p_now) AS c;
    END LOOP;
END
$$;
COMMENT ON FUNCTION auth.quota_expire IS 'Closes overdue holds and bills the progress their owners reported.';

CREATE FUNCTION auth.quota_adjust(
    p_key text, p_user uuid, p_resource text, p_delta bigint, p_now timestamptz,
    p_window_start timestamptz, p_window_end timestamptz, p_caps jsonb
) RETURNS TABLE (result text, used bigint, cap bigint, applied bigint, tier text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_tier    text;
    v_trial   timestamptz;
    v_cap     bigint;
    v_used    bigint;
    v_applied bigint;
    v_key     auth.usage_keys;
BEGIN
    SELECT u.subscription_tier, u.trial_ends_at INTO v_tier, v_trial FROM auth.users AS u WHERE u.id = p_user;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown_user', 0::bigint, 0::bigint, 0::bigint, 'free_trial';
        RETURN;
    END IF;
    v_cap := (p_caps ->> v_tier)::bigint;
    INSERT INTO auth.usage_keys (idempotency_key, user_id, amount, created_at) VALUES (p_key, p_user, p_delta, p_now)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT * INTO v_key FROM auth.usage_keys AS k WHERE k.idempotency_key = p_key;
        RETURN QUERY SELECT
            CASE WHEN v_key.user_id = p_user AND v_key.amount = p_delta THEN 'repeated' ELSE 'conflict' END,
            coalesce((SELECT b.used FROM auth.quota_balance AS b
                       WHERE b.user_id = p_user AND b.resource = p_resource AND b.window_start = p_window_start), 0),
            v_cap, 0::bigint, v_tier;
        RETURN;
    END IF;
    IF p_delta > 0 AND v_tier = 'free_trial' AND v_trial <= p_now THEN
        DELETE FROM auth.usage_keys AS k WHERE k.idempotency_key = p_key;
        RETURN QUERY SELECT 'trial_over', 0::bigint, v_cap, 0::bigint, v_tier;
        RETURN;
    END IF;
    -- Twice, also after a conflict: see quota_reserve.
    FOR attempt IN 1..2 LOOP
        UPDATE auth.quota_balance AS b
           SET last_step = greatest(p_delta, -b.used), used = b.used + greatest(p_delta, -b.used), cap = v_cap,
               updated_at = p_now
         WHERE b.user_id = p_user AND b.resource = p_resource AND b.window_start = p_window_start
           AND (p_delta <= 0 OR v_cap < 0 OR b.used + b.reserved + p_delta <= v_cap)
        RETURNING b.used, b.last_step INTO v_used, v_applied;
        EXIT WHEN FOUND;
        INSERT INTO auth.quota_balance (user_id, resource, window_start, window_end, cap, created_at, updated_at)
        VALUES (p_user, p_resource, p_window_start, p_window_end, v_cap, p_now, p_now)
        ON CONFLICT DO NOTHING;
    END LOOP;
    IF v_applied IS NULL THEN
        DELETE FROM auth.usage_keys AS k WHERE k.idempotency_key = p_key;
        RETURN QUERY SELECT 'exceeded', b.used + b.reserved, v_cap, 0::bigint, v_tier FROM auth.quota_balance AS b
         WHERE b.user_id = p_user AND b.resource = p_resource AND b.window_start = p_window_start;
        RETURN;
    END IF;
    IF v_applied <> 0 THEN
        INSERT INTO auth.usage_ledger (user_id, resource_type, window_start, amount, idempotency_key, ts, created_at)
        VALUES (p_user, p_resource, p_window_start, v_applied, p_key, p_now, p_now);
    END IF;
    RETURN QUERY SELECT 'applied', v_used, v_cap, v_applied, v_tier;
END
$$;
COMMENT ON FUNCTION auth.quota_adjust IS
    'A signed change without a hold (storage); up only within the cap, down never below 0. '
    'result: applied, repeated, exceeded, trial_over, unknown_user, conflict.';

CREATE FUNCTION auth.quota_drift()
RETURNS TABLE (resource text, drift bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.resource, sum(abs(b.used - coalesce(l.billed, 0)))::bigint
      FROM auth.quota_balance AS b
      LEFT JOIN (SELECT user_id, resource_type, window_start, sum(amount)::bigint AS billed
                   FROM auth.usage_ledger GROUP BY user_id, resource_type, window_start) AS l
        ON l.user_id = b.user_id AND l.resource_type = b.resource AND l.window_start = b.window_start
     GROUP BY b.resource
$$;
COMMENT ON FUNCTION auth.quota_drift IS 'QUOTA-2 as a number per resource: 0, or something is wrong.';
