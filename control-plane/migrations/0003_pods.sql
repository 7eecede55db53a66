-- Plans, quotas, pods, their work and what they were at any time.

CREATE TABLE cloud_pod_plans (
  code text PRIMARY KEY,
  name text NOT NULL,
  family text NOT NULL CONSTRAINT plan_family CHECK (family IN ('shared', 'managed')),
  description text NOT NULL DEFAULT '',
  cores integer NOT NULL CHECK (cores > 0),
  memory_mb integer NOT NULL CHECK (memory_mb >= 16),
  swap_mb integer NOT NULL DEFAULT 512,
  disk_gb integer NOT NULL CHECK (disk_gb > 0),
  bandwidth_gb integer,                   -- per month; NULL = unmetered
  overage_policy text NOT NULL DEFAULT 'none' CONSTRAINT overage_policy CHECK (overage_policy IN ('throttle', 'charge', 'none')),
  websites_max integer,                   -- NULL = not counted
  emails_max integer,
  max_per_tenant integer,                 -- NULL = as many as the quota allows
  requires_verified_email boolean NOT NULL DEFAULT false,
  features jsonb NOT NULL DEFAULT '[]',
  sort integer NOT NULL DEFAULT 0,
  is_active boolean NOT NULL DEFAULT true,
  version integer NOT NULL DEFAULT 1      -- of the terms and prices
);

CREATE TABLE cloud_pod_plan_prices (
  id uuid PRIMARY KEY,
  plan_code text NOT NULL REFERENCES cloud_pod_plans,
  currency char(3) NOT NULL,
  amount numeric(20, 10) NOT NULL CHECK (amount >= 0),   -- per month
  valid tstzrange NOT NULL,
  CONSTRAINT one_plan_price_at_a_time EXCLUDE USING gist (plan_code WITH =, currency WITH =, valid WITH &&)
);

CREATE TABLE cloud_pod_quotas (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL UNIQUE REFERENCES tenants,
  -- 'default': limits are read from the constant DEFAULT_TENANT_QUOTA, the row only counts use.
  source text NOT NULL DEFAULT 'tenant' CONSTRAINT quota_source CHECK (source IN ('default', 'tenant')),
  max_cloud_pods integer NOT NULL DEFAULT 5 CHECK (max_cloud_pods >= 0),
  max_cpu_cores integer NOT NULL DEFAULT 8 CHECK (max_cpu_cores >= 0),
  max_ram_mb integer NOT NULL DEFAULT 16384 CHECK (max_ram_mb >= 0),
  max_disk_gb integer NOT NULL DEFAULT 100 CHECK (max_disk_gb >= 0),
  used_cloud_pods integer NOT NULL DEFAULT 0 CONSTRAINT used_pods_not_negative CHECK (used_cloud_pods >= 0),
  used_cpu_cores integer NOT NULL DEFAULT 0 CONSTRAINT used_cores_not_negative CHECK (used_cpu_cores >= 0),
  used_ram_mb integer NOT NULL DEFAULT 0 CONSTRAINT used_ram_not_negative CHECK (used_ram_mb >= 0),
  used_disk_gb integer NOT NULL DEFAULT 0 CONSTRAINT used_disk_not_negative CHECK (used_disk_gb >= 0),
  version integer NOT NULL DEFAULT 0,     -- of source and limits; 0 = nobody has decided them
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Made with the order; billing works on it later.
CREATE TABLE subscriptions (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  plan_code text REFERENCES cloud_pod_plans,
  external_ref uuid NOT NULL,             -- the pod
  state text NOT NULL DEFAULT 'PENDING_ACTIVATION' CONSTRAINT subscription_state CHECK (state IN
    ('PENDING_ACTIVATION', 'PENDING_PAYMENT', 'PENDING_UPGRADE', 'ACTIVE', 'SUSPENDED', 'CANCELLED', 'EXPIRED')),
  currency char(3) NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  activated_at timestamptz,
  ended_at timestamptz,
  UNIQUE (tenant_id, id)
);
CREATE UNIQUE INDEX one_live_subscription_per_pod ON subscriptions (external_ref) WHERE ended_at IS NULL;

CREATE TABLE cloud_pods (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  vmid integer NOT NULL,
  name text NOT NULL,
  hostname text NOT NULL,
  domain text,
  region text NOT NULL,
  status text NOT NULL DEFAULT 'provisioning' CONSTRAINT pod_status CHECK (status IN ('provisioning', 'active', 'suspended', 'failed', 'deleting', 'deleted')),
  desired_power text NOT NULL DEFAULT 'running' CONSTRAINT desired_power CHECK (desired_power IN ('running', 'stopped')),
  observed_power text NOT NULL DEFAULT 'unknown' CONSTRAINT observed_power CHECK (observed_power IN ('running', 'stopped', 'unknown')),
  observed_at timestamptz,
  node_id uuid REFERENCES nodes,
  generation bigint NOT NULL DEFAULT 1,   -- rises with each change of placement
  revision bigint NOT NULL DEFAULT 0,     -- rises with each wish
  plan_code text REFERENCES cloud_pod_plans,
  billing_mode text NOT NULL DEFAULT 'plan' CONSTRAINT billing_mode CHECK (billing_mode IN ('plan', 'metered')),
  subscription_id uuid,
  cores integer NOT NULL CHECK (cores > 0),
  memory_mb integer NOT NULL CHECK (memory_mb >= 16),
  swap_mb integer NOT NULL DEFAULT 512 CHECK (swap_mb >= 0),
  disk_gb integer NOT NULL CHECK (disk_gb > 0),
  -- Given with the place on a host.
  storage text,
  bridge text,
  pool text,
  template text,                          -- "ct:9000" or a volume id
  template_digest text,
  unprivileged boolean NOT NULL DEFAULT true,
  nesting boolean NOT NULL DEFAULT true,
  rate_limit_kib_per_second integer NOT NULL DEFAULT 0 CHECK (rate_limit_kib_per_second >= 0),
  mac text NOT NULL,
  ip text,
  ssh_keys text[] NOT NULL DEFAULT '{}',
  labels jsonb NOT NULL DEFAULT '{}',
  placement_request jsonb NOT NULL DEFAULT '{}',
  placement_verdict jsonb NOT NULL DEFAULT '{}',
  last_error_code text,
  last_error_message text,
  websites_used integer NOT NULL DEFAULT 0,
  emails_used integer NOT NULL DEFAULT 0,
  version integer NOT NULL DEFAULT 1,
  ordered_at timestamptz NOT NULL DEFAULT now(),
  activated_at timestamptz,
  deletion_requested_at timestamptz,
  deleted_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, id),
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions (tenant_id, id),
  CONSTRAINT a_place_is_whole CHECK (node_id IS NULL OR num_nulls(storage, bridge, template) = 0)
);
CREATE UNIQUE INDEX one_live_pod_per_vmid ON cloud_pods (vmid) WHERE status <> 'deleted';
CREATE INDEX cloud_pods_of_tenant ON cloud_pods (tenant_id, id);
CREATE INDEX cloud_pods_on_node ON cloud_pods (node_id) WHERE status <> 'deleted';

-- Why a pod may not run or is limited. Only the kind's authority lifts a hold.
CREATE TABLE cloud_pod_holds (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  kind text NOT NULL CONSTRAINT hold_kind CHECK (kind IN ('customer', 'billing', 'budget', 'abuse', 'operator')),
  effect text NOT NULL CONSTRAINT hold_effect CHECK (effect IN ('suspend', 'stop', 'throttle')),
  actor text NOT NULL,
  reason text,
  since timestamptz NOT NULL DEFAULT now(),
  until timestamptz,                      -- lifted
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);
CREATE UNIQUE INDEX one_open_hold_of_a_kind ON cloud_pod_holds (pod_id, kind, effect) WHERE until IS NULL;

-- What occupies a host. Held from the order until the agent confirmed that the container is gone.
CREATE TABLE node_claims (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  node_id uuid NOT NULL REFERENCES nodes,
  storage_id uuid NOT NULL REFERENCES storages,
  generation bigint NOT NULL,
  purpose text NOT NULL DEFAULT 'home' CONSTRAINT claim_purpose CHECK (purpose IN ('home', 'move', 'restore')),
  cpu integer NOT NULL CHECK (cpu >= 0),
  memory_mb integer NOT NULL CHECK (memory_mb >= 0),
  disk_gb integer NOT NULL CHECK (disk_gb >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id),
  UNIQUE (pod_id, generation)
);
CREATE INDEX node_claims_on_node ON node_claims (node_id);
CREATE INDEX node_claims_of_tenant ON node_claims (tenant_id, node_id);

-- Where a pod was, and when: late samples of a former host count by this.
CREATE TABLE cloud_pod_placements (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  node_id uuid NOT NULL REFERENCES nodes,
  vmid integer NOT NULL,
  generation bigint NOT NULL,
  placed_from timestamptz NOT NULL DEFAULT now(),
  placed_to timestamptz,
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id),
  UNIQUE (pod_id, generation)
);
CREATE INDEX cloud_pod_placements_on_node ON cloud_pod_placements (node_id, placed_to);

-- What a pod was at each instant, as confirmed by its host. Rating reads this.
CREATE TABLE cloud_pod_allocations (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  valid tstzrange NOT NULL,
  plan_code text REFERENCES cloud_pod_plans,
  plan_price_id uuid REFERENCES cloud_pod_plan_prices,
  billing_mode text NOT NULL,
  cores integer NOT NULL,
  memory_mb integer NOT NULL,
  disk_gb integer NOT NULL,
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id),
  CONSTRAINT one_allocation_at_a_time EXCLUDE USING gist (pod_id WITH =, valid WITH &&)
);

-- Who had this address then.
CREATE TABLE cloud_pod_addresses (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  mac text NOT NULL,
  ip text,
  used_from timestamptz NOT NULL DEFAULT now(),
  used_to timestamptz,
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);
CREATE UNIQUE INDEX one_current_address ON cloud_pod_addresses (pod_id) WHERE used_to IS NULL;
CREATE UNIQUE INDEX mac_in_use_once ON cloud_pod_addresses (mac) WHERE used_to IS NULL;
CREATE INDEX cloud_pod_addresses_by_ip ON cloud_pod_addresses (ip, used_from);

-- The work queue: a row is a saga at a step.
CREATE TABLE cloud_pod_provisioning_tasks (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  type text NOT NULL CONSTRAINT task_type CHECK (type IN ('create', 'resize', 'start', 'stop', 'restart', 'suspend', 'resume', 'destroy', 'backup', 'restore', 'migrate', 'adopt')),
  state text NOT NULL DEFAULT 'queued' CONSTRAINT task_state CHECK (state IN ('queued', 'running', 'waiting', 'compensating', 'succeeded', 'failed', 'cancelled')),
  step text NOT NULL,
  input jsonb NOT NULL DEFAULT '{}',
  command_id uuid,                        -- what a waiting step waits for
  attempts integer NOT NULL DEFAULT 0,    -- of the current step
  run_after timestamptz NOT NULL DEFAULT now(),
  deadline_at timestamptz NOT NULL,
  worker_id text,
  lease_until timestamptz,
  percent integer NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 100),
  cancel_requested_at timestamptz,
  error_code text,
  error_message text,
  last_seq integer NOT NULL DEFAULT 0,    -- of cloud_pod_task_events
  requested_by text NOT NULL,
  request_id text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  UNIQUE (tenant_id, id),
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);
CREATE UNIQUE INDEX one_open_task_per_pod ON cloud_pod_provisioning_tasks (pod_id)
  WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
CREATE INDEX tasks_to_run ON cloud_pod_provisioning_tasks (run_after) WHERE state IN ('queued', 'running', 'waiting', 'compensating');
CREATE INDEX tasks_of_tenant ON cloud_pod_provisioning_tasks (tenant_id, id);
CREATE INDEX tasks_of_pod ON cloud_pod_provisioning_tasks (pod_id, id);
CREATE INDEX tasks_by_command ON cloud_pod_provisioning_tasks (command_id) WHERE command_id IS NOT NULL;

-- Progress as the customer reads it; seq is given under the task's row lock, so it is in commit order.
CREATE TABLE cloud_pod_task_events (
  task_id uuid NOT NULL,
  seq integer NOT NULL,
  tenant_id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL,
  step text NOT NULL,
  percent integer NOT NULL,
  message text NOT NULL,
  PRIMARY KEY (task_id, seq),
  FOREIGN KEY (tenant_id, task_id) REFERENCES cloud_pod_provisioning_tasks (tenant_id, id)
);
CREATE INDEX task_events_by_time ON cloud_pod_task_events USING brin (at);

-- The durable outbox to agents, written with the change that wants it.
CREATE TABLE node_commands (
  id uuid PRIMARY KEY,
  node_id uuid NOT NULL REFERENCES nodes,
  tenant_id uuid,                         -- NULL for commands about the host
  pod_id uuid,
  task_id uuid,
  op text NOT NULL,                       -- field name of the oneof, e.g. "ensure_container"
  command jsonb NOT NULL,                 -- cloudpods.agent.v1.Command as protobuf JSON
  fleet_epoch bigint NOT NULL,
  generation bigint NOT NULL,
  revision bigint NOT NULL,
  state text NOT NULL DEFAULT 'pending' CONSTRAINT command_state CHECK (state IN
    ('pending', 'sent', 'accepted', 'running', 'succeeded', 'failed', 'stale', 'superseded', 'expired', 'interrupted', 'cancelled', 'unsupported')),
  step text,
  percent integer NOT NULL DEFAULT 0,
  error_code text,
  error_message text,
  retryable boolean,
  observation jsonb,
  backup jsonb,                           -- cloudpods.agent.v1.BackupObservation as protobuf JSON
  move jsonb,                             -- cloudpods.agent.v1.MoveObservation as protobuf JSON
  command_lines text[] NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  accepted_at timestamptz,
  finished_at timestamptz,
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);
CREATE INDEX node_commands_open ON node_commands (node_id, id) WHERE state IN ('pending', 'sent', 'accepted', 'running');
CREATE INDEX node_commands_of_pod ON node_commands (pod_id, id);
CREATE INDEX node_commands_by_end ON node_commands (finished_at) WHERE finished_at IS NOT NULL;

-- Orders that found no place: what was asked and why nowhere.
CREATE TABLE placement_failures (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  at timestamptz NOT NULL DEFAULT now(),
  request jsonb NOT NULL,
  verdicts jsonb NOT NULL,
  summary text NOT NULL
);
CREATE INDEX placement_failures_by_time ON placement_failures (at);
