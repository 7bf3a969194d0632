-- Memories of users: one row with its vector, one with its text, and the postings of a lexical index kept per user.
--
-- Order of locks: every writer first takes the user's row of memory.user_stats (INSERT … ON CONFLICT DO UPDATE). So the
-- writers of one user are serial: document frequencies cannot deadlock, and created_at (clock_timestamp() after the lock)
-- has the order of the commits, which lets a reader page by it and miss nothing.
-- Hidden rows (visibility 'system') have no postings and no vector: nothing may find them.

CREATE TABLE memory.memories (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id           uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    session_id        text CHECK (char_length(session_id) BETWEEN 1 AND 128),
    type              text NOT NULL
                      CHECK (type IN ('lesson', 'task', 'conversation', 'error', 'reflection', 'achievement')),
    outcome           text NOT NULL DEFAULT 'neutral' CHECK (outcome IN ('success', 'failure', 'neutral')),
    emotional_weight  real CHECK (emotional_weight BETWEEN -1 AND 1),
    confidence_score  real CHECK (confidence_score BETWEEN 0 AND 1),
    constitution_valid boolean NOT NULL DEFAULT true,
    tags              text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 20),
    embedding         halfvec(384),
    model_id          text,
    tokens            int NOT NULL DEFAULT 0 CHECK (tokens >= 0), -- length of the document in the lexical index
    size_bytes        int NOT NULL CHECK (size_bytes > 0),
    visibility        text NOT NULL DEFAULT 'user' CHECK (visibility IN ('user', 'system')),
    tier              text NOT NULL DEFAULT 'stm' CHECK (tier IN ('stm', 'itm', 'ltm')),
    access_count      int NOT NULL DEFAULT 0 CHECK (access_count >= 0),
    last_accessed_at  timestamptz,
    expires_at        timestamptz,
    valid_from        timestamptz NOT NULL DEFAULT now(),
    valid_to          timestamptz,
    superseded_by     uuid REFERENCES memory.memories (id) ON DELETE SET NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CHECK ((embedding IS NULL) = (model_id IS NULL)),
    CHECK (embedding IS NOT NULL OR visibility = 'system'),
    CHECK ((tier = 'ltm') = (expires_at IS NULL))
);
-- 776 bytes: out of line it would cost one more page per row of the exact scan.
ALTER TABLE memory.memories ALTER COLUMN embedding SET STORAGE PLAIN;
-- access_count is in no index, so that counting an access stays a heap-only update.
CREATE INDEX memories_of_user ON memory.memories (user_id, created_at DESC, id DESC);
CREATE INDEX memories_of_session ON memory.memories (user_id, session_id, created_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX memories_of_tier ON memory.memories (user_id, tier, created_at DESC, id DESC);
CREATE INDEX memories_expiry ON memory.memories (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memories_superseded ON memory.memories (superseded_by) WHERE superseded_by IS NOT NULL;

-- Apart from the vector: in one row they pass 2 kB and Postgres would move text out of line.
CREATE TABLE memory.memory_texts (
    memory_id       uuid PRIMARY KEY REFERENCES memory.memories (id) ON DELETE CASCADE,
    input_context   text NOT NULL CHECK (char_length(input_context) <= 16000),
    output_response text CHECK (char_length(output_response) <= 32000)
);

CREATE TABLE memory.memory_terms (
    user_id   uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    term      text NOT NULL CHECK (char_length(term) <= 64),
    memory_id uuid NOT NULL REFERENCES memory.memories (id) ON DELETE CASCADE,
    tf        int NOT NULL CHECK (tf > 0),
    PRIMARY KEY (user_id, term, memory_id)
);
CREATE INDEX memory_terms_of_memory ON memory.memory_terms (memory_id);

CREATE TABLE memory.memory_df (
    user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    term    text NOT NULL,
    df      int NOT NULL CHECK (df > 0),
    PRIMARY KEY (user_id, term)
);

-- documents, total_terms: the visible rows, whatever their tier. bytes: what is billed (visible itm and ltm).
CREATE TABLE memory.user_stats (
    user_id     uuid PRIMARY KEY REFERENCES auth.users (id) ON DELETE CASCADE,
    documents   int NOT NULL DEFAULT 0 CHECK (documents >= 0),
    total_terms bigint NOT NULL DEFAULT 0 CHECK (total_terms >= 0),
    bytes       bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Storage asked for at auth-billing and not yet in a memory. Written before the call, deleted in the transaction that
-- writes the memory; what stays behind (a kill between the two) is given back by a sweep.
CREATE TABLE memory.storage_charges (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    size_bytes int NOT NULL CHECK (size_bytes > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX storage_charges_of_user ON memory.storage_charges (user_id);
CREATE INDEX storage_charges_age ON memory.storage_charges (created_at);

CREATE TABLE memory.reflections (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id            uuid NOT NULL UNIQUE,
    memory_id         uuid NOT NULL REFERENCES memory.memories (id) ON DELETE CASCADE,
    user_id           uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    self_assessment   text NOT NULL,
    alignment_score   real NOT NULL CHECK (alignment_score BETWEEN 0 AND 1),
    improvement_notes text NOT NULL DEFAULT '',
    metadata          jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reflections_of_user ON memory.reflections (user_id, created_at, id);
CREATE INDEX reflections_of_memory ON memory.reflections (memory_id);

CREATE TABLE memory.distilled_knowledge (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id            uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    source_reflections uuid[] NOT NULL CHECK (cardinality(source_reflections) >= 2),
    source_hash        bytea NOT NULL,
    topic              text NOT NULL CHECK (char_length(topic) BETWEEN 1 AND 64),
    principle          text NOT NULL CHECK (char_length(principle) BETWEEN 1 AND 500),
    outcome            text NOT NULL CHECK (outcome IN ('success', 'failure')), -- sign of the group's mean emotion
    embedding          halfvec(384) NOT NULL,
    model_id           text NOT NULL,
    confidence         real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    valid_from         timestamptz NOT NULL DEFAULT now(),
    valid_to           timestamptz,
    superseded_by      uuid REFERENCES memory.distilled_knowledge (id) ON DELETE SET NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, source_hash)
);
ALTER TABLE memory.distilled_knowledge ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX distilled_in_force ON memory.distilled_knowledge (user_id, created_at DESC) WHERE valid_to IS NULL;
CREATE INDEX distilled_superseded ON memory.distilled_knowledge (superseded_by) WHERE superseded_by IS NOT NULL;

ALTER TABLE memory.memories ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_texts ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_terms ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.memory_df ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.user_stats ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.storage_charges ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.reflections ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory.distilled_knowledge ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON memory.memories USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
-- Texts have no user of their own: one is seen when its memory is.
CREATE POLICY own_rows ON memory.memory_texts
    USING (EXISTS (SELECT 1 FROM memory.memories AS m WHERE m.id = memory_id));
CREATE POLICY own_rows ON memory.memory_terms USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON memory.memory_df USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON memory.user_stats USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON memory.storage_charges
    USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON memory.reflections USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY own_rows ON memory.distilled_knowledge
    USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);

-- Work across users. Each function does one narrow thing and returns ids and numbers, no text of anybody.

CREATE FUNCTION memory.users_page(p_after uuid, p_limit int)
RETURNS TABLE (user_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.user_id
      FROM memory.user_stats AS s
     WHERE p_after IS NULL OR s.user_id > p_after
     ORDER BY s.user_id
     LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION memory.users_page IS 'Users who have memories, by id: what distillation walks through.';

CREATE FUNCTION memory.users_with_expired(p_limit int)
RETURNS TABLE (user_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT e.user_id
      FROM (SELECT m.user_id FROM memory.memories AS m
             WHERE m.expires_at <= now() ORDER BY m.expires_at LIMIT least(p_limit, 1000)) AS e
$$;
COMMENT ON FUNCTION memory.users_with_expired IS 'Owners of the longest expired rows: what the expiry sweep visits.';

CREATE FUNCTION memory.stale_charges(p_older_than interval, p_limit int)
RETURNS TABLE (id uuid, user_id uuid, size_bytes int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.id, c.user_id, c.size_bytes
      FROM memory.storage_charges AS c
     WHERE c.created_at < now() - p_older_than
     ORDER BY c.created_at
     LIMIT least(p_limit, 1000)
$$;
COMMENT ON FUNCTION memory.stale_charges IS 'Charges whose request died before its memory was written.';

CREATE FUNCTION memory.totals()
RETURNS TABLE (tier text, items bigint, size_bytes bigint, expired bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.tier,
           count(*) FILTER (WHERE m.expires_at IS NULL OR m.expires_at > now()),
           coalesce(sum(m.size_bytes) FILTER (WHERE m.expires_at IS NULL OR m.expires_at > now()), 0)::bigint,
           count(*) FILTER (WHERE m.expires_at <= now())
      FROM memory.memories AS m
     WHERE m.visibility = 'user'
     GROUP BY m.tier
$$;
COMMENT ON FUNCTION memory.totals IS 'Counts for the gauges; the one query that may read the whole table, every five minutes.';

REVOKE ALL ON FUNCTION memory.users_page(uuid, int), memory.users_with_expired(int), memory.stale_charges(interval, int),
    memory.totals() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION memory.users_page(uuid, int), memory.users_with_expired(int),
    memory.stale_charges(interval, int), memory.totals() TO nova_memory;
