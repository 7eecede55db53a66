-- Pods that move from host to host, hosts that are emptied or given up, and what that needs to know.

-- Two hosts without a common cluster see the same files when name and backend of a storage are the same.
ALTER TABLE storages ADD COLUMN holds_backups boolean NOT NULL DEFAULT false;
ALTER TABLE storages ADD COLUMN backend text NOT NULL DEFAULT '';   -- empty: of this host alone

ALTER TABLE nodes ADD COLUMN cordoned_until timestamptz;             -- NULL: until somebody opens the host again
ALTER TABLE nodes ADD COLUMN cordoned_by text;
ALTER TABLE nodes ADD CONSTRAINT only_a_cordon_ends CHECK (cordoned_until IS NULL OR NOT schedulable);
CREATE INDEX nodes_to_uncordon ON nodes (cordoned_until) WHERE cordoned_until IS NOT NULL;

-- One row per move of a pod: the place claimed for it (node_claims of the same generation), what was done, and
-- what it cost the customer.
CREATE TABLE cloud_pod_moves (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  purpose text NOT NULL CONSTRAINT move_purpose CHECK (purpose IN ('migrate', 'drain', 'return', 'evacuate')),
  -- take-over and restore-newest are for hosts that are gone.
  strategy text NOT NULL CONSTRAINT move_strategy CHECK (strategy IN ('cluster-migrate', 'backup-restore', 'take-over', 'restore-newest')),
  state text NOT NULL DEFAULT 'reserved' CONSTRAINT move_state CHECK (state IN ('reserved', 'moving', 'moved', 'undone', 'released')),
  from_node_id uuid NOT NULL REFERENCES nodes,
  to_node_id uuid NOT NULL REFERENCES nodes,
  from_generation bigint NOT NULL,
  to_generation bigint NOT NULL,
  -- The place on the target, for the pod's row at the switch.
  storage text NOT NULL,
  bridge text NOT NULL,
  pool text,
  verdict jsonb NOT NULL,
  archive_storage text,                   -- seen by both hosts
  archive_volume_id text,
  archive_made_at timestamptz,
  archive_is_ours boolean NOT NULL DEFAULT true,  -- false: a customer's backup, which stays
  archive_removed_at timestamptz,
  archive_tries integer NOT NULL DEFAULT 0,       -- at deleting what the move has left
  archive_given_up_at timestamptz,        -- after too many of them; shown to operators, who may have it tried again
  disk_gb integer NOT NULL,
  runs boolean NOT NULL,                  -- the power that was wanted when the move began
  reason text NOT NULL,
  requested_by text NOT NULL,
  task_id uuid,
  begun_at timestamptz,                   -- the source was told to stop or to hand over
  stopped_at timestamptz,                 -- the source began to shut it down
  source_freed_at timestamptz,            -- the source gave its container up before the switch
  restore_asked_at timestamptz,           -- the target may hold a copy since
  start_asked_at timestamptz,             -- the target's copy may run since
  target_cleared_at timestamptz,          -- the target holds no copy any more
  found_on_target boolean NOT NULL DEFAULT false, -- Proxmox had moved it although the move failed
  switched_at timestamptz,                -- the target owns the pod since
  running_at timestamptz,
  source_removed_at timestamptz,
  downtime_ms integer CHECK (downtime_ms >= 0),
  error_code text,
  error_message text,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id),
  UNIQUE (pod_id, to_generation),
  CONSTRAINT a_move_goes_somewhere CHECK (from_node_id <> to_node_id AND to_generation > from_generation)
);
CREATE UNIQUE INDEX one_open_move_per_pod ON cloud_pod_moves (pod_id) WHERE state IN ('reserved', 'moving');
CREATE INDEX cloud_pod_moves_of_pod ON cloud_pod_moves (pod_id, id);
CREATE INDEX cloud_pod_moves_history ON cloud_pod_moves (strategy, ended_at) WHERE downtime_ms IS NOT NULL;
CREATE INDEX cloud_pod_moves_by_end ON cloud_pod_moves (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX cloud_pod_moves_archive_given_up ON cloud_pod_moves (to_node_id) WHERE archive_given_up_at IS NOT NULL;
CREATE INDEX cloud_pod_moves_archive_left ON cloud_pod_moves (ended_at) WHERE archive_is_ours AND archive_volume_id IS NOT NULL AND archive_removed_at IS NULL;

ALTER TABLE cloud_pod_moves ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON cloud_pod_moves TO cloudpods_api USING (tenant_id = (SELECT app_tenant_id()));
-- How long their pods were away is the tenants' to know; reasons and hosts of operators are not.
GRANT SELECT (id, tenant_id, pod_id, state, to_generation, switched_at, downtime_ms, created_at, ended_at) ON cloud_pod_moves TO cloudpods_api;

-- Hosts that are emptied (drain) or whose pods are brought back elsewhere because they are gone (evacuation). All that a
-- loop decides on is here, so that it may stop and go on anywhere.
CREATE TABLE node_drains (
  id uuid PRIMARY KEY,
  node_id uuid NOT NULL REFERENCES nodes,
  kind text NOT NULL CONSTRAINT drain_kind CHECK (kind IN ('drain', 'evacuation')),
  state text NOT NULL DEFAULT 'planning' CONSTRAINT drain_state CHECK (state IN ('planning', 'moving', 'drained', 'incomplete', 'cancelled')),
  reason text NOT NULL,
  requested_by text NOT NULL,
  request_id text NOT NULL,
  max_parallel integer NOT NULL CHECK (max_parallel BETWEEN 1 AND 64),
  deadline_at timestamptz NOT NULL,
  on_no_capacity text NOT NULL CONSTRAINT drain_on_no_capacity CHECK (on_no_capacity IN ('fail', 'partial')),
  on_deadline text NOT NULL CONSTRAINT drain_on_deadline CHECK (on_deadline IN ('leave', 'stop-and-restore')),
  on_no_backup text NOT NULL DEFAULT 'keep' CONSTRAINT drain_on_no_backup CHECK (on_no_backup IN ('keep', 'mark-lost')),
  return_home boolean NOT NULL DEFAULT false,
  cancel_requested_at timestamptz,
  outcome text,                           -- in words, once it has ended
  version integer NOT NULL DEFAULT 1,     -- rises with everything that is seen of it
  started_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  returned_at timestamptz,                -- everything that goes home has gone
  CONSTRAINT an_end_has_an_instant CHECK ((finished_at IS NULL) = (state IN ('planning', 'moving')))
);
CREATE UNIQUE INDEX one_open_drain_per_node ON node_drains (node_id) WHERE finished_at IS NULL;
CREATE INDEX node_drains_by_start ON node_drains (node_id, id);
CREATE INDEX node_drains_to_return ON node_drains (finished_at) WHERE return_home AND finished_at IS NOT NULL AND returned_at IS NULL;

CREATE TABLE node_drain_pods (
  drain_id uuid NOT NULL REFERENCES node_drains,
  tenant_id uuid NOT NULL,
  pod_id uuid NOT NULL,
  state text NOT NULL DEFAULT 'pending' CONSTRAINT drain_pod_state CHECK (state IN
    ('pending', 'claimed', 'moving', 'moved', 'blocked', 'failed', 'left', 'gone', 'lost', 'returning', 'returned')),
  move_id uuid REFERENCES cloud_pod_moves,
  failed_targets uuid[] NOT NULL DEFAULT '{}',  -- where it did not work
  blocker_code text,
  blocker_message text,
  expected_downtime_ms integer,
  archive_made_at timestamptz,            -- of an evacuation: what the pod is restored from
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (drain_id, pod_id),
  FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods (tenant_id, id)
);
CREATE INDEX node_drain_pods_of_pod ON node_drain_pods (pod_id);
-- Of tenants, but for operators: there is no grant.
ALTER TABLE node_drain_pods ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON node_drain_pods TO cloudpods_api USING (tenant_id = (SELECT app_tenant_id()));
