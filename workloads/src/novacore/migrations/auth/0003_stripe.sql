-- Schema auth: what Stripe tells us. The inbox of its events, a copy of its subscriptions and invoices, the ledger of money.
--
-- INBOX-1 an event is stored once, whoever brings it. INBOX-2 its effect and its mark `done` are one transaction.
-- BILL-1 sum of the ledger of an invoice = what Stripe says was paid of it. BILL-2 a terminal state is never left.
-- Amounts are in the smallest unit of their currency (cents), as Stripe counts.

CREATE TABLE auth.stripe_events (
    event_id    text PRIMARY KEY CHECK (length(event_id) BETWEEN 5 AND 255),
    type        text NOT NULL CHECK (length(type) BETWEEN 1 AND 100),
    created     timestamptz NOT NULL, -- by Stripe's clock
    object_id   text NOT NULL CHECK (length(object_id) <= 255), -- what has to be fetched: an event is only a hint
    raw         bytea NOT NULL,       -- as it came
    via         text NOT NULL CHECK (via IN ('webhook', 'reconcile')),
    secret_id   text,                 -- which webhook secret vouched for it: stripeWebhook-<n>
    status      text NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'done', 'ignored', 'quarantined', 'forged', 'failed')),
    attempts    int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at      timestamptz NOT NULL DEFAULT now(),
    last_error  text,
    done_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX stripe_events_due ON auth.stripe_events (due_at, object_id) WHERE status = 'pending';
CREATE INDEX stripe_events_object ON auth.stripe_events (object_id) WHERE status = 'pending';
CREATE INDEX stripe_events_apart ON auth.stripe_events (event_id) WHERE status = 'quarantined';
CREATE INDEX stripe_events_secret ON auth.stripe_events (secret_id) WHERE secret_id IS NOT NULL;
CREATE INDEX stripe_events_created ON auth.stripe_events (created);
COMMENT ON COLUMN auth.stripe_events.status IS
    'pending: to be worked. done. ignored: of a type, or about an object, that means nothing here. quarantined: vouched for by a '
    'secret that leaked; not worked before Stripe knows it. forged: Stripe does not know it. failed: given up.';

CREATE TABLE auth.stripe_subscriptions (
    subscription_id      text PRIMARY KEY,
    user_id              uuid REFERENCES auth.users (id) ON DELETE CASCADE, -- NULL: of nobody we know
    customer_id          text NOT NULL,
    status               text NOT NULL,
    price_id             text,
    tier                 text NOT NULL CHECK (tier IN ('free_trial', 'basic', 'pro')), -- of the price, whatever the status
    current_period_start timestamptz,
    current_period_end   timestamptz,
    past_due_since       timestamptz,
    started_at           timestamptz NOT NULL, -- `created` at Stripe
    last_event_created   timestamptz,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_subscriptions_user ON auth.stripe_subscriptions (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX stripe_subscriptions_customer ON auth.stripe_subscriptions (customer_id);
CREATE TRIGGER touch BEFORE UPDATE ON auth.stripe_subscriptions FOR EACH ROW EXECUTE FUNCTION auth.touch_updated_at();
COMMENT ON TABLE auth.stripe_subscriptions IS
    'Every subscription Stripe has. auth.subscriptions is derived from it: of several that a person has, the one that counts.';

CREATE TABLE auth.stripe_invoices (
    invoice_id      text PRIMARY KEY,
    user_id         uuid REFERENCES auth.users (id) ON DELETE CASCADE,
    customer_id     text NOT NULL,
    subscription_id text,
    status          text NOT NULL,
    currency        text NOT NULL,
    amount_due      bigint NOT NULL,
    amount_paid     bigint NOT NULL CHECK (amount_paid >= 0),
    issued_at       timestamptz NOT NULL, -- `created` at Stripe
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_invoices_user ON auth.stripe_invoices (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX stripe_invoices_issued ON auth.stripe_invoices (issued_at);
CREATE TRIGGER touch BEFORE UPDATE ON auth.stripe_invoices FOR EACH ROW EXECUTE FUNCTION auth.touch_updated_at();

CREATE TABLE auth.billing_ledger (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    invoice_id text NOT NULL REFERENCES auth.stripe_invoices (invoice_id) ON DELETE CASCADE,
    user_id    uuid REFERENCES auth.users (id) ON DELETE CASCADE,
    amount     bigint NOT NULL CHECK (amount <> 0),
    currency   text NOT NULL,
    event_id   text, -- the hint that led to it; NULL: found by a comparison
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX billing_ledger_invoice ON auth.billing_ledger (invoice_id);
CREATE INDEX billing_ledger_user ON auth.billing_ledger (user_id) WHERE user_id IS NOT NULL;
CREATE FUNCTION auth.billing_ledger_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'auth.billing_ledger is append-only: correct by a new row' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE ON auth.billing_ledger
    FOR EACH ROW EXECUTE FUNCTION auth.billing_ledger_append_only();

CREATE TABLE auth.stripe_cursors (
    name       text PRIMARY KEY CHECK (name IN ('events', 'diff')),
    watermark  timestamptz, -- `created` of the newest event that a whole listing has seen
    claimed_at timestamptz, -- when a replica took this turn
    done_at    timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER touch BEFORE UPDATE ON auth.stripe_cursors FOR EACH ROW EXECUTE FUNCTION auth.touch_updated_at();
INSERT INTO auth.stripe_cursors (name) VALUES ('events'), ('diff');
