-- Backups of pods: how often they are made and how many are kept, those there are, and where they are.

-- What a plan comes with. A plan without a row has the program's default.
CREATE TABLE plan_backup_policies (
  plan_code text PRIMARY KEY REFERENCES cloud_pod_plans ON DELETE CASCADE,
  enabled boolean NOT NULL DEFAULT true,
  every_hours integer NOT NULL CHECK (every_hours BETWEEN 1 AND 744),
  keep_last integer NOT NULL CHECK (keep_last BETWEEN 1 AND 100),
  keep_daily integer NOT NULL DEFAULT 0 CHECK (keep_daily BETWEEN 0 AND 100),
  keep_weekly integer NOT NULL DEFAULT 0 CHECK (keep_weekly BETWEEN 0 AND 100),
  version integer NOT NULL DEFAULT 1
);
GRANT SELECT ON plan_backup_policies TO cloudpods_api;

CREATE TABLE cloud_pod_backup_policies (
  pod_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  enabled boolean NOT NULL,
  every_hours integer NOT NULL CHECK (every_hours BETWEEN 1 AND 744),
  keep_last integer NOT NULL CHECK (keep_last BETWEEN 1 AND 100),
  keep_daily integer NOT NULL CHECK (keep_daily BETWEEN 0 AND 100),
  keep_weekly integer NOT NULL CHECK (keep_weekly BETWEEN 0 AND 100),
  -- 'plan': follows the plan when that changes.
  source text NOT NULL DEFAULT 'plan' CONSTRAINT backup_policy_source CHECK (source IN ('plan', 'tenant')),
  next_at timestamptz NOT NULL,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);
CREATE INDEX backup_policies_due ON cloud_pod_backup_policies (next_at) WHERE enabled;

CREATE TABLE cloud_pod_backups (
  id uuid PRIMARY KEY,                    -- also the identity in the archive's notes
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  node_id uuid NOT NULL REFERENCES nodes, -- that made it
  storage_id uuid NOT NULL REFERENCES storages,
  storage text NOT NULL,
  kind text NOT NULL CONSTRAINT backup_kind CHECK (kind IN ('scheduled', 'manual', 'final')),
  mode text NOT NULL CONSTRAINT backup_mode CHECK (mode IN ('snapshot', 'suspend', 'stop')),
  state text NOT NULL DEFAULT 'running' CONSTRAINT backup_state CHECK (state IN ('running', 'available', 'failed', 'pruned')),
  volume_id text,
  size_bytes bigint CHECK (size_bytes >= 0),
  generation bigint NOT NULL,
  vmid integer NOT NULL,                  -- in the archive's name, whoever has the id now
  spec jsonb NOT NULL,                    -- what the pod was
  note text,
  task_id uuid,
  started_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  verified_at timestamptz,                -- last read to its end without a fault
  checked_at timestamptz,                 -- last looked at, with whatever result
  damaged_at timestamptz,                 -- not there or not readable since
  expires_at timestamptz,                 -- NULL: as the pod's policy says
  delete_requested_at timestamptz,
  delete_reason text,
  pruned_at timestamptz,                  -- the host said that it is gone, or nobody can reach it any more
  error_code text,
  error_message text,
  -- What a host is asked to do with the archive, outside of any task.
  errand text CONSTRAINT backup_errand CHECK (errand IN ('verify', 'delete')),
  errand_command_id uuid,
  errand_attempts integer NOT NULL DEFAULT 0,
  errand_after timestamptz NOT NULL DEFAULT now(),
  errand_failed_node_id uuid REFERENCES nodes, -- the host where it did not succeed last time: another one is asked first
  UNIQUE (tenant_id, id),
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id),
  CONSTRAINT an_available_backup_is_somewhere CHECK (state <> 'available' OR (volume_id IS NOT NULL AND finished_at IS NOT NULL)),
  CONSTRAINT an_errand_has_a_command CHECK ((errand IS NULL) = (errand_command_id IS NULL))
);
CREATE INDEX cloud_pod_backups_of_pod ON cloud_pod_backups (pod_id, id);
CREATE INDEX cloud_pod_backups_by_end ON cloud_pod_backups (finished_at) INCLUDE (state, damaged_at) WHERE finished_at IS NOT NULL;
CREATE INDEX cloud_pod_backups_damaged ON cloud_pod_backups (damaged_at) WHERE state = 'available' AND damaged_at IS NOT NULL;
CREATE INDEX cloud_pod_backups_running ON cloud_pod_backups (node_id) WHERE state = 'running';
CREATE UNIQUE INDEX one_scheduled_backup_per_node ON cloud_pod_backups (node_id) WHERE kind = 'scheduled' AND state = 'running';
CREATE INDEX cloud_pod_backups_available ON cloud_pod_backups (pod_id, started_at) WHERE state = 'available';
CREATE INDEX cloud_pod_backups_to_check ON cloud_pod_backups (checked_at) WHERE state = 'available';
CREATE INDEX cloud_pod_backups_to_delete ON cloud_pod_backups (errand_after) WHERE pruned_at IS NULL AND (delete_requested_at IS NOT NULL OR state = 'failed');
CREATE INDEX cloud_pod_backups_in_vain ON cloud_pod_backups (node_id) WHERE errand_attempts >= 12 AND pruned_at IS NULL;
CREATE INDEX cloud_pod_backups_on_errands ON cloud_pod_backups (errand_command_id) WHERE errand_command_id IS NOT NULL;

-- Where backups of a host's pods go; NULL, or where that is away: the emptiest storage that several hosts see.
ALTER TABLE nodes ADD COLUMN backup_storage text;

-- A pod that is made from a backup instead of a template.
ALTER TABLE cloud_pods ADD COLUMN source_backup_id uuid;
ALTER TABLE cloud_pods ADD COLUMN source_volume_id text;
ALTER TABLE cloud_pods ADD FOREIGN KEY (tenant_id, source_backup_id) REFERENCES cloud_pod_backups (tenant_id, id);
CREATE INDEX cloud_pods_made_from_backups ON cloud_pods (source_backup_id) WHERE source_backup_id IS NOT NULL;

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['cloud_pod_backup_policies', 'cloud_pod_backups'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO cloudpods_api USING (tenant_id = (SELECT app_tenant_id())) WITH CHECK (tenant_id = (SELECT app_tenant_id()))', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE ON cloud_pod_backup_policies TO cloudpods_api;
GRANT SELECT, INSERT ON cloud_pod_backups TO cloudpods_api;
-- Only hosts' answers say what became of an archive; a tenant may wish it gone.
GRANT UPDATE (delete_requested_at, delete_reason, note) ON cloud_pod_backups TO cloudpods_api;
