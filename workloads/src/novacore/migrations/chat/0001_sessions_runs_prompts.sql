-- Schema chat: sessions, runs (one accepted message each) and prompts (what was asked and answered).
--
-- A run ends exactly once: every writer that ends one says `WHERE status IN ('queued', 'running')`.
-- The prompt's row is written when the message is accepted, so an acknowledged message is stored before it is answered;
-- the end of the run fills in the answer.

CREATE TABLE chat.sessions (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id        uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'completed', 'abandoned')),
    model_name     text NOT NULL,
    prompt_count   int NOT NULL DEFAULT 0 CHECK (prompt_count >= 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_active_at timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz
);
CREATE INDEX sessions_of_user ON chat.sessions (user_id, created_at DESC, id);
CREATE INDEX sessions_idle ON chat.sessions (last_active_at) WHERE status = 'active';

CREATE TABLE chat.runs (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    session_id        uuid NOT NULL REFERENCES chat.sessions (id) ON DELETE CASCADE,
    user_id           uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    status            text NOT NULL DEFAULT 'queued'
                      CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'blocked', 'interrupted')),
    provider          text NOT NULL,
    model             text NOT NULL,
    hold_id           uuid NOT NULL UNIQUE,
    reserved_tokens   int NOT NULL CHECK (reserved_tokens >= 0),
    policy_version    int,
    prompt_tokens     int NOT NULL DEFAULT 0 CHECK (prompt_tokens >= 0),
    completion_tokens int NOT NULL DEFAULT 0 CHECK (completion_tokens >= 0),
    billed_tokens     int CHECK (billed_tokens >= 0),
    error_code        text,
    replica           text NOT NULL, -- the pod that generates it
    remember          boolean NOT NULL, -- the client's `use_memory`
    context_ids       text[] NOT NULL DEFAULT '{}', -- memories in the prompt; the reflection names them
    cancel_requested  boolean NOT NULL DEFAULT false,
    heartbeat_at      timestamptz NOT NULL DEFAULT now(),
    created_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    ended_at          timestamptz,
    -- What is still owed after the end (short-term memory, the conversation memory): NULL until confirmed.
    stm_at            timestamptz,
    memory_at         timestamptz,
    follow_up_at      timestamptz, -- when to try next; NULL when nothing is owed
    follow_up_tries   int NOT NULL DEFAULT 0,
    request_id        text NOT NULL, -- followed through the steps after the end
    CHECK ((status IN ('queued', 'running')) = (ended_at IS NULL))
);
CREATE INDEX runs_of_session ON chat.runs (session_id);
CREATE INDEX runs_of_user ON chat.runs (user_id, created_at DESC);
CREATE INDEX runs_live ON chat.runs (heartbeat_at) WHERE status IN ('queued', 'running');
CREATE INDEX runs_owing ON chat.runs (follow_up_at) WHERE follow_up_at IS NOT NULL;

CREATE TABLE chat.prompts (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id      uuid NOT NULL UNIQUE REFERENCES chat.runs (id) ON DELETE CASCADE,
    session_id  uuid NOT NULL REFERENCES chat.sessions (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    input_text  text NOT NULL,
    output_text text NOT NULL DEFAULT '',
    tokens_used int NOT NULL DEFAULT 0 CHECK (tokens_used >= 0),
    latency_ms  int NOT NULL DEFAULT 0 CHECK (latency_ms >= 0),
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX prompts_of_session ON chat.prompts (session_id, created_at, id);
CREATE INDEX prompts_of_user ON chat.prompts (user_id);

ALTER TABLE chat.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE chat.prompts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chat.sessions USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON chat.runs USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON chat.prompts USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);

-- Work across users. Each function does one narrow thing and returns no text of anybody.

CREATE FUNCTION chat.beat(p_run_ids uuid[], p_tokens int[])
RETURNS TABLE (run_id uuid, cancel_requested boolean)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE chat.runs AS r
       SET heartbeat_at = now(), completion_tokens = greatest(r.completion_tokens, b.tokens)
      FROM unnest(p_run_ids, p_tokens) AS b (id, tokens)
     WHERE r.id = b.id AND r.status IN ('queued', 'running')
    RETURNING r.id, r.cancel_requested
$$;
COMMENT ON FUNCTION chat.beat IS
    'Heartbeat of one replica''s runs, with tokens produced so far. A run missing from the answer was ended elsewhere.';

CREATE FUNCTION chat.stale_runs(p_older_than interval, p_limit int)
RETURNS TABLE (run_id uuid, user_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.id, r.user_id
      FROM chat.runs AS r
     WHERE r.status IN ('queued', 'running') AND r.heartbeat_at < now() - p_older_than
     ORDER BY r.heartbeat_at
     LIMIT p_limit
$$;
COMMENT ON FUNCTION chat.stale_runs IS 'Runs whose replica went silent; whoever closes one first wins.';

CREATE FUNCTION chat.claim_owing(p_lease interval, p_limit int)
RETURNS TABLE (run_id uuid, user_id uuid, tries int)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE chat.runs AS r
       SET follow_up_at = now() + p_lease * least(r.follow_up_tries + 1, 20), follow_up_tries = r.follow_up_tries + 1
     WHERE r.id IN (SELECT o.id FROM chat.runs AS o WHERE o.follow_up_at <= now()
                    ORDER BY o.follow_up_at LIMIT p_limit FOR UPDATE SKIP LOCKED)
    RETURNING r.id, r.user_id, r.follow_up_tries
$$;
COMMENT ON FUNCTION chat.claim_owing IS 'Ended runs with steps owed; the claim is a lease that grows with the tries.';

CREATE FUNCTION chat.abandon_idle_sessions(p_idle interval) RETURNS int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH idle AS (
        UPDATE chat.sessions SET status = 'abandoned', ended_at = now()
         WHERE status = 'active' AND last_active_at < now() - p_idle RETURNING 1
    )
    SELECT count(*)::int FROM idle
$$;
COMMENT ON FUNCTION chat.abandon_idle_sessions IS 'Sessions idle for long become abandoned; returns how many.';

REVOKE ALL ON FUNCTION chat.beat(uuid[], int[]), chat.stale_runs(interval, int), chat.claim_owing(interval, int),
    chat.abandon_idle_sessions(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION chat.beat(uuid[], int[]), chat.stale_runs(interval, int), chat.claim_owing(interval, int),
    chat.abandon_idle_sessions(interval) TO nova_chat;
