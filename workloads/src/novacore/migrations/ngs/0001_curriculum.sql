-- Curriculum (the same for everybody) and what learners did (theirs alone).
-- Invariants: XP comes only through ngs.xp_events, at most once per (user_id, source, source_id); total_xp is their sum.

CREATE TABLE ngs.curriculum_levels (
    id                  int PRIMARY KEY,
    level_number        int NOT NULL UNIQUE CHECK (level_number BETWEEN 1 AND 24),
    title               text NOT NULL,
    phase               text NOT NULL CHECK (phase IN ('Initiation', 'Construction', 'Integration', 'Ascension')),
    description         text NOT NULL,
    unlock_requirements jsonb NOT NULL DEFAULT '{}',
    xp_required         bigint NOT NULL CHECK (xp_required >= 0),
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ngs.lessons (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    level_id          int NOT NULL REFERENCES ngs.curriculum_levels (id) ON DELETE CASCADE,
    slug              text NOT NULL UNIQUE,
    title             text NOT NULL,
    description       text NOT NULL,
    lesson_order      int NOT NULL CHECK (lesson_order >= 1),
    lesson_type       text NOT NULL CHECK (lesson_type IN ('tutorial', 'exercise', 'quiz', 'challenge', 'reflection')),
    content_markdown  text,
    core_lesson       text NOT NULL,
    human_practice    text NOT NULL,
    reflection_prompt text NOT NULL,
    agent_unlock      text NOT NULL,
    quiz              jsonb NOT NULL DEFAULT '[]',
    xp_reward         bigint NOT NULL DEFAULT 50 CHECK (xp_reward BETWEEN 1 AND 1000),
    estimated_minutes int NOT NULL DEFAULT 30 CHECK (estimated_minutes BETWEEN 1 AND 600),
    prerequisites     jsonb NOT NULL DEFAULT '[]',
    metadata          jsonb NOT NULL DEFAULT '{}',
    is_required       boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (level_id, lesson_order) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE ngs.challenges (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug               text NOT NULL UNIQUE,
    lesson_id          uuid REFERENCES ngs.lessons (id) ON DELETE SET NULL,
    level_id           int NOT NULL REFERENCES ngs.curriculum_levels (id) ON DELETE CASCADE,
    title              text NOT NULL,
    description        text NOT NULL,
    challenge_type     text NOT NULL CHECK (challenge_type IN ('coding', 'design', 'reflection', 'collaboration')),
    difficulty         text NOT NULL CHECK (difficulty IN ('easy', 'medium', 'hard', 'expert')),
    starter_code       text NOT NULL DEFAULT '',
    test_cases         jsonb NOT NULL DEFAULT '[]',
    solution_template  text NOT NULL DEFAULT '',
    xp_reward          bigint NOT NULL DEFAULT 100 CHECK (xp_reward BETWEEN 1 AND 1000),
    time_limit_minutes int CHECK (time_limit_minutes BETWEEN 1 AND 600),
    tags               text[] NOT NULL DEFAULT '{}',
    metadata           jsonb NOT NULL DEFAULT '{}',
    is_active          boolean NOT NULL DEFAULT true,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX challenges_level ON ngs.challenges (level_id);
CREATE INDEX challenges_lesson ON ngs.challenges (lesson_id);

CREATE TABLE ngs.learning_paths (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text NOT NULL UNIQUE,
    description    text NOT NULL DEFAULT '',
    level_sequence int[] NOT NULL,
    is_default     boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX learning_paths_one_default ON ngs.learning_paths (is_default) WHERE is_default;

CREATE TABLE ngs.user_progress (
    id                      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id                 uuid NOT NULL UNIQUE REFERENCES auth.users (id) ON DELETE CASCADE,
    current_level           int NOT NULL DEFAULT 1 CHECK (current_level BETWEEN 1 AND 24),
    total_xp                bigint NOT NULL DEFAULT 0 CHECK (total_xp >= 0),
    agent_creation_unlocked boolean NOT NULL DEFAULT false,
    handle                  text NOT NULL CHECK (handle ~ '^[A-Za-z0-9_-]{3,32}$'),
    leaderboard_visible     boolean NOT NULL DEFAULT true,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX user_progress_handle ON ngs.user_progress (lower(handle));
CREATE INDEX user_progress_leaders ON ngs.user_progress (total_xp DESC, handle) WHERE leaderboard_visible;

CREATE TABLE ngs.user_learning_paths (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id          uuid NOT NULL UNIQUE REFERENCES auth.users (id) ON DELETE CASCADE,
    learning_path_id uuid NOT NULL REFERENCES ngs.learning_paths (id),
    current_position int NOT NULL DEFAULT 1 CHECK (current_position >= 1),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_learning_paths_path ON ngs.user_learning_paths (learning_path_id);

CREATE TABLE ngs.lesson_completions (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id            uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    lesson_id          uuid NOT NULL REFERENCES ngs.lessons (id) ON DELETE CASCADE,
    score              int CHECK (score BETWEEN 0 AND 100),
    time_spent_seconds int CHECK (time_spent_seconds BETWEEN 0 AND 86400),
    reflection_text    text,
    completion_data    jsonb NOT NULL DEFAULT '{}',
    completed_at       timestamptz NOT NULL DEFAULT now(),
    created_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, lesson_id)
);
CREATE INDEX lesson_completions_lesson ON ngs.lesson_completions (lesson_id);

-- Tries that did not pass; only the count per UTC day is read.
CREATE TABLE ngs.lesson_attempts (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id      uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    lesson_id    uuid NOT NULL REFERENCES ngs.lessons (id) ON DELETE CASCADE,
    score        int NOT NULL CHECK (score BETWEEN 0 AND 100),
    attempted_at timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX lesson_attempts_day ON ngs.lesson_attempts (user_id, lesson_id, attempted_at);
CREATE INDEX lesson_attempts_lesson ON ngs.lesson_attempts (lesson_id);

CREATE TABLE ngs.challenge_submissions (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id            uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    challenge_id       uuid NOT NULL REFERENCES ngs.challenges (id) ON DELETE CASCADE,
    submission_code    text NOT NULL,
    test_results       jsonb NOT NULL DEFAULT '[]',
    status             text NOT NULL CHECK (status IN ('queued', 'graded')),
    passed             boolean NOT NULL,
    score              int NOT NULL CHECK (score BETWEEN 0 AND 100),
    feedback           text NOT NULL,
    time_taken_seconds int CHECK (time_taken_seconds BETWEEN 0 AND 86400),
    submitted_at       timestamptz NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX challenge_submissions_user ON ngs.challenge_submissions (user_id, submitted_at DESC);
CREATE INDEX challenge_submissions_best ON ngs.challenge_submissions (user_id, challenge_id, score DESC);
CREATE INDEX challenge_submissions_challenge ON ngs.challenge_submissions (challenge_id);

CREATE TABLE ngs.user_reflections (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id           uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    lesson_id         uuid REFERENCES ngs.lessons (id) ON DELETE SET NULL,
    level_number      int NOT NULL CHECK (level_number BETWEEN 1 AND 24),
    reflection_prompt text NOT NULL,
    reflection_text   text NOT NULL,
    quality_score     double precision NOT NULL CHECK (quality_score BETWEEN 0 AND 1),
    xp_awarded        bigint NOT NULL CHECK (xp_awarded >= 0),
    is_public         boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_reflections_user ON ngs.user_reflections (user_id, created_at DESC);
CREATE INDEX user_reflections_lesson ON ngs.user_reflections (lesson_id);

CREATE TABLE ngs.xp_events (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    source     text NOT NULL CHECK (source IN (
        'lesson_completion', 'quiz_perfect', 'quiz_good', 'quiz_pass', 'reflection_high', 'reflection_medium',
        'helping_others', 'creative_solution', 'challenge_solved', 'daily_streak', 'unknown')),
    source_id  text NOT NULL CHECK (length(source_id) BETWEEN 1 AND 200),
    xp_awarded bigint NOT NULL CHECK (xp_awarded >= 0),
    metadata   jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    UNIQUE (user_id, source, source_id)
);
CREATE INDEX xp_events_day ON ngs.xp_events (user_id, created_at);

CREATE TABLE ngs.achievements (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id          uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    achievement_type text NOT NULL CHECK (achievement_type IN ('level_up', 'agent_creation_unlocked')),
    achievement_data jsonb NOT NULL DEFAULT '{}',
    unlocked_at      timestamptz NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
-- A level is reached once, agent creation unlocks once.
CREATE UNIQUE INDEX achievements_once
    ON ngs.achievements (user_id, achievement_type, (coalesce(achievement_data ->> 'to', '')));
CREATE INDEX achievements_user ON ngs.achievements (user_id, unlocked_at DESC);

-- Row-level security: the second wall behind WHERE user_id = $1.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['user_progress', 'user_learning_paths', 'lesson_completions', 'lesson_attempts',
                                'challenge_submissions', 'user_reflections', 'xp_events', 'achievements']
    LOOP
        EXECUTE format('ALTER TABLE ngs.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY own_rows ON ngs.%I'
            ' USING (user_id = NULLIF(current_setting(''app.user_id'', true), '''')::uuid)'
            ' WITH CHECK (user_id = NULLIF(current_setting(''app.user_id'', true), '''')::uuid)', name);
    END LOOP;
END
$$;

-- The only look across users: handles and XP of those who want to be seen. No user ids leave it.
CREATE FUNCTION ngs.leaderboard(at_most int)
RETURNS TABLE (rank bigint, handle text, total_xp bigint, current_level int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT rank() OVER (ORDER BY p.total_xp DESC), p.handle, p.total_xp, p.current_level
    FROM (SELECT u.total_xp, u.handle, u.current_level
          FROM ngs.user_progress u
          WHERE u.leaderboard_visible
          ORDER BY u.total_xp DESC, u.handle
          LIMIT least(at_most, 100)) p
    ORDER BY p.total_xp DESC, p.handle
$$;
REVOKE ALL ON FUNCTION ngs.leaderboard(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ngs.leaderboard(int) TO nova_ngs;
