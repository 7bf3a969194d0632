-- Where distillation stands: one watermark per user, one row per run.
--
-- page_until_* is the end of the page being worked on, written before its principles are sent and cleared when the
-- watermark moves. A run that takes over from a killed one reads exactly that page again, although more reflections may
-- have arrived since: the same page gives the same groups, the same groups the same source sets, so nothing is kept twice.

CREATE TABLE distill.watermarks (
    user_id            uuid PRIMARY KEY REFERENCES auth.users (id) ON DELETE CASCADE,
    last_reflection_at timestamptz,
    last_id            uuid,
    page_until_at      timestamptz,
    page_until_id      uuid,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CHECK ((last_reflection_at IS NULL) = (last_id IS NULL)),
    CHECK ((page_until_at IS NULL) = (page_until_id IS NULL))
);

CREATE TABLE distill.runs (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    result     text NOT NULL DEFAULT 'running' CHECK (result IN ('running', 'ok', 'partial', 'error')),
    counts     jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((result = 'running') = (ended_at IS NULL))
);
CREATE INDEX runs_by_start ON distill.runs (started_at DESC);
