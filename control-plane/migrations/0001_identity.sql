-- Tenants, users, credentials, audit. Ids are UUIDv7 made by the application.

CREATE EXTENSION IF NOT EXISTS btree_gist;

-- The tenant of the running transaction; NULL when none is set. A reused connection has the setting
-- as an empty string, hence nullif.
CREATE FUNCTION app_tenant_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('app.tenant_id', true), '')::uuid $$;

-- One row a paying party.
CREATE TABLE tenants (
  id uuid PRIMARY KEY,
  slug text NOT NULL UNIQUE CONSTRAINT slug_is_a_label CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  name text NOT NULL,
  status text NOT NULL DEFAULT 'active' CONSTRAINT tenant_status CHECK (status IN ('active', 'suspended', 'closed')),
  region text,
  currency char(3) NOT NULL DEFAULT 'USD',
  billing_email text,
  timezone text NOT NULL DEFAULT 'UTC',
  pricing_name text,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
  id uuid PRIMARY KEY,
  email text NOT NULL,
  name text,
  phone text,
  avatar_url text,
  email_verified_at timestamptz,
  password_hash text NOT NULL,            -- argon2id, PHC string
  platform_role text NOT NULL DEFAULT 'USER' CONSTRAINT platform_role CHECK (platform_role IN ('ADMINISTRATOR', 'OPERATOR', 'USER')),
  is_active boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email_without_case ON users (lower(email));

CREATE TABLE memberships (
  tenant_id uuid NOT NULL REFERENCES tenants,
  user_id uuid NOT NULL REFERENCES users,
  role text NOT NULL CONSTRAINT tenant_role CHECK (role IN ('owner', 'admin', 'billing', 'member', 'viewer')),
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

-- A signed-in browser or CLI. Idle for 12 h or 30 days old: over.
CREATE TABLE sessions (
  id uuid PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES users,
  token_sha256 bytea NOT NULL UNIQUE,
  csrf_sha256 bytea,
  user_agent text,
  ip text,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz NOT NULL DEFAULT now(),
  idle_expires_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE api_tokens (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  user_id uuid NOT NULL REFERENCES users,
  name text NOT NULL,
  prefix text NOT NULL,                   -- shown in lists, not secret
  token_sha256 bytea NOT NULL UNIQUE,
  scopes text[] NOT NULL CONSTRAINT known_scopes CHECK (scopes <@ ARRAY['READ', 'WRITE', 'ADMIN', 'BILLING', 'PROVISIONING', 'SECURITY']),
  allowed_cidrs cidr[] NOT NULL DEFAULT '{}',
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_tokens_by_tenant ON api_tokens (tenant_id, created_at);

-- Failed sign-ins per (account, address), so that an attacker slows himself and not the owner; of IPv6 the
-- /64 counts. The account '*' counts those of all accounts from an address.
CREATE TABLE login_throttles (
  account text NOT NULL,
  address text NOT NULL,
  failures integer NOT NULL DEFAULT 0,
  blocked_until timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account, address)
);

-- What anyone changed. Rows are plain at commit; a sealing loop gives them their place in the chain.
CREATE TABLE audit_log (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  tenant_id uuid REFERENCES tenants,
  actor_kind text NOT NULL CONSTRAINT actor_kind CHECK (actor_kind IN ('user', 'token', 'node', 'system')),
  actor_id text,
  request_id text,
  action text NOT NULL,
  target_type text NOT NULL,
  target_id text,
  detail jsonb NOT NULL DEFAULT '{}',
  chain_seq bigint UNIQUE,
  hash bytea
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id, at);
CREATE INDEX audit_log_unsealed ON audit_log (at) WHERE chain_seq IS NULL;

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.chain_seq IS NULL
     AND (to_jsonb(NEW) - 'chain_seq' - 'hash') = (to_jsonb(OLD) - 'chain_seq' - 'hash') THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();

-- Over which rows a batch of the chain goes; prev is the root of the seal before.
CREATE TABLE audit_seals (
  from_seq bigint PRIMARY KEY,
  to_seq bigint NOT NULL,
  root bytea NOT NULL,
  prev bytea,
  sealed_at timestamptz NOT NULL DEFAULT now()
);

-- The committed answer of a request that carried an Idempotency-Key; kept for 24 h.
CREATE TABLE idempotency_keys (
  tenant_id uuid NOT NULL,
  principal text NOT NULL,
  route text NOT NULL,
  key text NOT NULL,
  body_sha256 bytea NOT NULL,
  status integer,
  response jsonb,
  -- Set when the answer had fields that are shown once: it cannot be replayed, only named.
  unreplayable_id text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, principal, route, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
