-- What tenants are told, what they mean to spend, and what happens at its end.

-- The outbox of e-mails and webhooks: written with the change that is told, sent afterwards.
CREATE TABLE notifications (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  channel text NOT NULL CONSTRAINT notification_channel CHECK (channel IN ('email', 'webhook')),
  recipient text NOT NULL,                -- an address, or the URL of a webhook
  dedupe_key text NOT NULL,               -- names the occasion; told once to each recipient
  payload jsonb NOT NULL,
  attempts integer NOT NULL DEFAULT 0,    -- of the current try; a retry on request begins anew
  created_at timestamptz NOT NULL DEFAULT now(),
  queued_at timestamptz NOT NULL DEFAULT now(),
  next_try_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  dead_at timestamptz,
  last_error_code text,
  last_error_message text,
  CONSTRAINT one_notification_per_occasion UNIQUE (tenant_id, dedupe_key, channel, recipient),
  CONSTRAINT sent_or_dead CHECK (num_nonnulls(sent_at, dead_at) <= 1)
);
CREATE INDEX notifications_due ON notifications (next_try_at) WHERE sent_at IS NULL AND dead_at IS NULL;
CREATE INDEX notifications_dead ON notifications (id) WHERE dead_at IS NOT NULL;
CREATE INDEX notifications_sent ON notifications (sent_at) WHERE sent_at IS NOT NULL;

-- Where a tenant's webhooks go and what they are signed with.
CREATE TABLE tenant_webhooks (
  tenant_id uuid PRIMARY KEY REFERENCES tenants,
  url text,                               -- NULL: only the secret, for addresses named elsewhere
  secret_sealed text NOT NULL,            -- platform/sealing.ts
  secret_made_at timestamptz NOT NULL DEFAULT now(),
  version integer NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE cloud_pod_budgets (
  tenant_id uuid PRIMARY KEY REFERENCES tenants,
  monthly_limit_amount numeric(20, 10) NOT NULL CONSTRAINT limit_above_nought CHECK (monthly_limit_amount > 0),
  currency char(3) NOT NULL,
  alert_threshold_1 integer NOT NULL DEFAULT 50,
  alert_threshold_2 integer NOT NULL DEFAULT 80,
  alert_threshold_3 integer NOT NULL DEFAULT 100,
  hard_limit_enabled boolean NOT NULL DEFAULT false,
  hard_limit_action text NOT NULL DEFAULT 'notify_only' CONSTRAINT hard_limit_action CHECK (hard_limit_action IN ('notify_only', 'stop_pods')),
  notification_emails text[] NOT NULL DEFAULT '{}',
  webhook_url text,
  -- The UTC month in which the hard limit was reached and pods are stopped; NULL: they may run.
  exhausted_month char(7),
  -- Of which moment the figures were by which that was last changed; older ones have no say. Never ahead of this clock.
  exhaustion_judged_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT thresholds_rise CHECK (0 < alert_threshold_1 AND alert_threshold_1 < alert_threshold_2 AND alert_threshold_2 < alert_threshold_3)
);

CREATE TABLE cloud_pod_budget_alerts (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  year_month char(7) NOT NULL,            -- UTC
  threshold integer NOT NULL,             -- percent
  current_spend_amount numeric(20, 10) NOT NULL,
  budget_limit_amount numeric(20, 10) NOT NULL,
  currency char(3) NOT NULL,
  percent_used numeric(12, 1) NOT NULL,
  notified_via text[] NOT NULL DEFAULT '{}',
  alerted_at timestamptz NOT NULL DEFAULT now(),
  acknowledged_at timestamptz,
  acknowledged_by uuid,
  CONSTRAINT one_alert_per_threshold UNIQUE (tenant_id, year_month, threshold)
);
CREATE INDEX cloud_pod_budget_alerts_by_time ON cloud_pod_budget_alerts (alerted_at);

-- A pod is told about its traffic once per month, mark and allowance: a larger plan is another one to use up.
CREATE TABLE cloud_pod_bandwidth_notices (
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  year_month char(7) NOT NULL,            -- UTC
  percent integer NOT NULL,
  used_bytes bigint NOT NULL,
  allowance_bytes bigint NOT NULL,
  noticed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (pod_id, year_month, percent, allowance_bytes),
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);

-- A pod beyond its traffic is held by `bandwidth`; the hold keeps what its rate was before.
ALTER TABLE cloud_pod_holds DROP CONSTRAINT hold_kind;
ALTER TABLE cloud_pod_holds ADD CONSTRAINT hold_kind CHECK (kind IN ('customer', 'billing', 'budget', 'abuse', 'operator', 'bandwidth'));
ALTER TABLE cloud_pod_holds ADD COLUMN previous_rate_limit_kib_per_second integer;
CREATE INDEX cloud_pod_holds_open ON cloud_pod_holds (tenant_id, kind) WHERE until IS NULL;

ALTER TABLE cloud_pod_provisioning_tasks DROP CONSTRAINT task_type;
ALTER TABLE cloud_pod_provisioning_tasks ADD CONSTRAINT task_type CHECK (type IN ('create', 'resize', 'start', 'stop', 'restart', 'suspend', 'resume', 'destroy', 'backup', 'restore', 'migrate', 'adopt', 'set-rate'));

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['notifications', 'tenant_webhooks', 'cloud_pod_budgets', 'cloud_pod_budget_alerts', 'cloud_pod_bandwidth_notices'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO cloudpods_api USING (tenant_id = (SELECT app_tenant_id())) WITH CHECK (tenant_id = (SELECT app_tenant_id()))', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT ON notifications TO cloudpods_api;
GRANT SELECT, INSERT, UPDATE ON tenant_webhooks TO cloudpods_api;
GRANT SELECT, INSERT ON cloud_pod_budgets TO cloudpods_api;
-- Whether a limit is reached is decided by the evaluation alone.
GRANT UPDATE (monthly_limit_amount, currency, alert_threshold_1, alert_threshold_2, alert_threshold_3, hard_limit_enabled, hard_limit_action,
  notification_emails, webhook_url, version, updated_at) ON cloud_pod_budgets TO cloudpods_api;
GRANT SELECT, UPDATE (acknowledged_at, acknowledged_by) ON cloud_pod_budget_alerts TO cloudpods_api;
GRANT SELECT ON cloud_pod_bandwidth_notices TO cloudpods_api;
