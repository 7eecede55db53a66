-- What hosts have and what they should have: the newest inventories, what was found by comparing, and adopted containers.

-- The newest inventory of each host that it trusted itself, under quorum; others conclude nothing.
CREATE TABLE node_inventories (
  node_id uuid PRIMARY KEY REFERENCES nodes,
  number bigint NOT NULL DEFAULT 1,       -- of this inventory; rises with each
  compared_number bigint NOT NULL DEFAULT 0, -- the last one that was compared with what is wanted
  observed_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  containers jsonb NOT NULL               -- cloudpods.agent.v1.ContainerObservation[] as protobuf JSON
) WITH (fillfactor = 70);
CREATE INDEX node_inventories_to_compare ON node_inventories (received_at) WHERE number <> compared_number;

-- One thing that is not as it should be. No grant for tenants: evidence tells of hosts.
CREATE TABLE node_findings (
  id uuid PRIMARY KEY,
  node_id uuid NOT NULL REFERENCES nodes,
  vmid integer NOT NULL,
  pod_id uuid,                            -- as our books or the container's mark say; may be of no pod that we know
  kind text NOT NULL CONSTRAINT finding_kind CHECK (kind IN (
    'missing',                            -- a pod's container is not on its host
    'power',                              -- runs although it should not, or the other way round
    'resized',                            -- other cores, memory, swap or disk than the pod has; never billed
    'drift',                              -- other name, MAC, rate, storage or mark
    'lock',                               -- a lock on a container of ours while no work of ours is under way
    'orphan',                             -- our mark, and the pod has no place anywhere
    'stale-copy',                         -- our mark, and the pod lives elsewhere
    'half-created',                       -- nothing but a create's lock, on the id of a pod of ours
    'unmanaged',                          -- no mark of ours; offered for adoption and never touched
    'left-archive')),                     -- archives about which no host could do what shall be done
  subject text NOT NULL,                  -- what exactly it is; another one begins anew
  evidence jsonb NOT NULL,                -- what the host said and what is wanted
  offered text[] NOT NULL,                -- what an operator may do about it
  state text NOT NULL DEFAULT 'open' CONSTRAINT finding_state CHECK (state IN ('open', 'dismissed', 'resolved')),
  first_seen_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  sightings integer NOT NULL,             -- in how many different inventories
  -- What was done about it by itself or on request, as long as it is open.
  action text CONSTRAINT finding_action CHECK (action IN ('stop', 'remove', 'repair', 'accept', 'restore')),
  action_by text,
  acted_at timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  command_id uuid,
  task_id uuid,
  resolved_at timestamptz,
  resolved_by text,
  resolution text,                        -- what ended it: 'gone' when the host no longer shows it
  reason text,                            -- of the operator
  CONSTRAINT an_end_has_a_time CHECK ((state = 'open') = (resolved_at IS NULL))
);
CREATE UNIQUE INDEX one_current_finding ON node_findings (node_id, vmid, kind) WHERE state <> 'resolved';
CREATE INDEX node_findings_of_pod ON node_findings (pod_id) WHERE state <> 'resolved';
CREATE INDEX node_findings_by_end ON node_findings (resolved_at) WHERE state = 'resolved';

CREATE INDEX unmanaged_containers_of_pod ON unmanaged_containers (pod_id) WHERE pod_id IS NOT NULL;
ALTER TABLE cloud_pods ADD COLUMN container_missing_since timestamptz; -- its host shows no container of it since
-- An adopted container's own network and resolver, which stay as they were found; NULL: as we make them.
ALTER TABLE cloud_pods ADD COLUMN adopted_network jsonb;
-- Nothing is made from a template where the container was there before.
ALTER TABLE cloud_pods DROP CONSTRAINT a_place_is_whole;
ALTER TABLE cloud_pods ADD CONSTRAINT a_place_is_whole
  CHECK (node_id IS NULL OR (num_nulls(storage, bridge) = 0 AND (template IS NOT NULL OR adopted_network IS NOT NULL)));
