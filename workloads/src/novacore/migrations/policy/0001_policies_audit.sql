-- Schema policy: the versions of the constitution and the audit log. Both are hash chains.
--
-- POLICY-1 exactly one version is in force (partial unique index). POLICY-2 content never changes after it was proposed.
-- POLICY-3 the audit log only grows; a removed or altered row breaks the chain behind it.

CREATE TABLE policy.policies (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    version        int NOT NULL UNIQUE CHECK (version >= 1),
    policy_name    text NOT NULL CHECK (length(policy_name) BETWEEN 1 AND 200),
    policy_content jsonb NOT NULL,
    description    text NOT NULL DEFAULT '',
    content_hash   bytea NOT NULL CHECK (length(content_hash) = 32), -- SHA-256 of what is signed: content, version, prev_hash
    prev_hash      bytea NOT NULL CHECK (length(prev_hash) = 32),    -- content_hash of the version before; zeros for the first
    kid            text NOT NULL,
    signature      bytea NOT NULL CHECK (length(signature) = 64),    -- Ed25519
    proposed_by    uuid REFERENCES auth.users (id) ON DELETE SET NULL, -- NULL: the release itself
    activated_by   uuid REFERENCES auth.users (id) ON DELETE SET NULL,
    activated_at   timestamptz,
    is_active      boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX policies_one_active ON policy.policies (is_active) WHERE is_active;
CREATE INDEX policies_proposed_by ON policy.policies (proposed_by);
CREATE INDEX policies_activated_by ON policy.policies (activated_by);

CREATE FUNCTION policy.content_is_final() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a policy version is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.version, NEW.policy_content, NEW.content_hash, NEW.prev_hash, NEW.kid, NEW.signature)
       IS DISTINCT FROM (OLD.version, OLD.policy_content, OLD.content_hash, OLD.prev_hash, OLD.kid, OLD.signature) THEN
        RAISE EXCEPTION 'a policy version is final: propose a new one' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER content_is_final BEFORE UPDATE OR DELETE ON policy.policies
    FOR EACH ROW EXECUTE FUNCTION policy.content_is_final();

CREATE TABLE policy.policy_audit_log (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    seq        bigint NOT NULL UNIQUE CHECK (seq >= 1), -- without gaps: given under a lock, not by a sequence
    policy_id  uuid REFERENCES policy.policies (id),
    user_id    uuid REFERENCES auth.users (id) ON DELETE SET NULL, -- not in the hash: an account may be deleted
    action     text NOT NULL CHECK (action IN ('validation_passed', 'validation_failed', 'override_attempted',
                                               'policy_created', 'policy_updated')),
    context    jsonb NOT NULL DEFAULT '{}', -- ids and hashes, never text
    prev_hash  bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL
);
CREATE INDEX policy_audit_log_user ON policy.policy_audit_log (user_id);
CREATE INDEX policy_audit_log_policy ON policy.policy_audit_log (policy_id);

CREATE FUNCTION policy.audit_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.user_id IS NULL AND to_jsonb(NEW) - 'user_id' = to_jsonb(OLD) - 'user_id' THEN
        RETURN NEW; -- the account behind the row was deleted
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON policy.policy_audit_log
    FOR EACH ROW EXECUTE FUNCTION policy.audit_append_only();
