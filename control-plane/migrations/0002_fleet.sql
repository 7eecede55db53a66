-- Hosts, their capacity, their certificates, and what they are told.

-- One row. Raised when the database was restored from a backup, so that agents can tell.
CREATE TABLE control_plane_epoch (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch bigint NOT NULL DEFAULT 1,
  declared_at timestamptz NOT NULL DEFAULT now(),
  reason text,
  -- After a restore no id is given away until every host has said what it has.
  holds_orders boolean NOT NULL DEFAULT false
);
INSERT INTO control_plane_epoch DEFAULT VALUES;

-- Running copies of the control plane; a row that was not seen for a minute is of a dead one.
CREATE TABLE control_plane_replicas (
  id uuid PRIMARY KEY,
  hostname text NOT NULL,
  roles text[] NOT NULL,
  gateway_address text,
  broker_url text,                        -- set by the replica that runs the embedded broker
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE certificate_authorities (
  id uuid PRIMARY KEY,
  pem text NOT NULL,
  spki_sha256 text NOT NULL UNIQUE,       -- lower-case hex
  private_key_sealed text NOT NULL,       -- sealed by the master key, with the key's id
  state text NOT NULL CONSTRAINT ca_state CHECK (state IN ('next', 'active', 'retired')),
  not_before timestamptz NOT NULL,
  not_after timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX one_active_ca ON certificate_authorities ((true)) WHERE state = 'active';

-- A Proxmox cluster; standalone hosts have none.
CREATE TABLE clusters (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  fingerprint text UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Identity and configuration of a host. What changes by itself is in node_status and node_capacity.
CREATE TABLE nodes (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  pve_name text,
  cluster_id uuid REFERENCES clusters,
  role text NOT NULL DEFAULT 'hypervisor' CONSTRAINT node_role CHECK (role IN ('hypervisor', 'web', 'mail', 'dns', 'cloud', 'db', 'backup')),
  region text NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}',
  schedulable boolean NOT NULL DEFAULT true,
  cordon_reason text,
  cordoned_at timestamptz,
  maintenance_note text,
  default_storage text,                   -- NULL: the largest storage that can hold root disks
  bridge text NOT NULL DEFAULT 'vmbr0',
  pool text,
  template_vmid integer,
  template_archive text,
  -- Set once a person has chosen, be it nothing: the host's inventory then chooses no more.
  storage_is_chosen boolean NOT NULL DEFAULT false,
  template_is_chosen boolean NOT NULL DEFAULT false,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  removed_at timestamptz
);
-- The name of a removed host is free again.
CREATE UNIQUE INDEX one_live_node_per_name ON nodes (name) WHERE removed_at IS NULL;

-- What the host says and how it is connected; written by the gateway and by telemetry only.
CREATE TABLE node_status (
  node_id uuid PRIMARY KEY REFERENCES nodes,
  state text NOT NULL DEFAULT 'enrolled' CONSTRAINT node_state CHECK (state IN ('enrolled', 'online', 'degraded', 'offline', 'lost', 'removed')),
  state_since timestamptz NOT NULL DEFAULT now(),
  session_epoch bigint NOT NULL DEFAULT 0,
  session_replica uuid,
  session_connected boolean NOT NULL DEFAULT false,
  session_seen_at timestamptz,
  last_heartbeat_at timestamptz,
  presence_online boolean,
  boot_id text,
  machine_id text,
  agent_version text,
  pve_version text,
  capabilities text[] NOT NULL DEFAULT '{}',
  certificate_serial text,
  clock_skew_ms bigint,
  quorate boolean,
  fleet_epoch bigint NOT NULL DEFAULT 0,
  cpu_busy_basis_points integer,
  load1_centi integer,
  memory_available_mb integer,
  spool_depth bigint,
  spool_oldest_at timestamptz,
  running_containers integer,
  inventory_at timestamptz,
  recent_displacements timestamptz[] NOT NULL DEFAULT '{}',
  -- Who asked for a session lately, [{at, machineId, bootId}]: tells a cloned host from its original.
  recent_hellos jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 70);

CREATE TABLE node_conditions (
  node_id uuid NOT NULL REFERENCES nodes,
  kind text NOT NULL,
  message text NOT NULL,
  since timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, kind)
);

CREATE TABLE node_events (
  id uuid PRIMARY KEY,
  node_id uuid NOT NULL REFERENCES nodes,
  at timestamptz NOT NULL DEFAULT now(),
  kind text NOT NULL,
  message text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX node_events_by_node ON node_events (node_id, id);
CREATE INDEX node_events_by_time ON node_events USING brin (at);

-- What can still be promised on a host. allocated = sum of node_claims, moved with them.
CREATE TABLE node_capacity (
  node_id uuid PRIMARY KEY REFERENCES nodes,
  cpu_total integer NOT NULL DEFAULT 0 CHECK (cpu_total >= 0),
  cpu_reserved integer NOT NULL DEFAULT 0 CHECK (cpu_reserved >= 0),
  cpu_overcommit numeric(6, 2) NOT NULL DEFAULT 4 CHECK (cpu_overcommit > 0),
  cpu_allocatable integer NOT NULL GENERATED ALWAYS AS (greatest(0, floor((cpu_total - cpu_reserved) * cpu_overcommit))::integer) STORED,
  cpu_allocated integer NOT NULL DEFAULT 0 CONSTRAINT cpu_allocated_not_negative CHECK (cpu_allocated >= 0),
  memory_total_mb integer NOT NULL DEFAULT 0 CHECK (memory_total_mb >= 0),
  memory_reserved_mb integer NOT NULL DEFAULT 0 CHECK (memory_reserved_mb >= 0),
  memory_overcommit numeric(6, 2) NOT NULL DEFAULT 1 CHECK (memory_overcommit > 0),
  memory_allocatable_mb integer NOT NULL GENERATED ALWAYS AS (greatest(0, floor((memory_total_mb - memory_reserved_mb) * memory_overcommit))::integer) STORED,
  memory_allocated_mb integer NOT NULL DEFAULT 0 CONSTRAINT memory_allocated_not_negative CHECK (memory_allocated_mb >= 0)
) WITH (fillfactor = 70);

CREATE TABLE storages (
  id uuid PRIMARY KEY,
  -- Owner: a cluster for storage that its members share, else one host.
  cluster_id uuid REFERENCES clusters,
  node_id uuid REFERENCES nodes,
  name text NOT NULL,
  type text NOT NULL,
  shared boolean NOT NULL DEFAULT false,
  holds_root_disks boolean NOT NULL DEFAULT true,
  total_gb integer NOT NULL DEFAULT 0 CHECK (total_gb >= 0),
  used_gb integer NOT NULL DEFAULT 0,
  reserved_gb integer NOT NULL DEFAULT 0 CHECK (reserved_gb >= 0),
  overcommit numeric(6, 2) NOT NULL DEFAULT 1 CHECK (overcommit > 0),
  allocatable_gb integer NOT NULL GENERATED ALWAYS AS (greatest(0, floor((total_gb - reserved_gb) * overcommit))::integer) STORED,
  allocated_gb integer NOT NULL DEFAULT 0 CONSTRAINT disk_allocated_not_negative CHECK (allocated_gb >= 0),
  CONSTRAINT storage_has_one_owner CHECK (num_nonnulls(cluster_id, node_id) = 1)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX storages_of_node ON storages (node_id, name) WHERE node_id IS NOT NULL;
CREATE UNIQUE INDEX storages_of_cluster ON storages (cluster_id, name) WHERE cluster_id IS NOT NULL;

-- Which host sees which storage.
CREATE TABLE node_storages (
  node_id uuid NOT NULL REFERENCES nodes,
  storage_id uuid NOT NULL REFERENCES storages,
  available boolean NOT NULL DEFAULT true,
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, storage_id)
);

CREATE TABLE node_templates (
  node_id uuid NOT NULL REFERENCES nodes,
  name text NOT NULL,                     -- "ct:9000" or a volume id
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, name)
);

-- Only an increase above what may be promised is refused: a host that shrank must still be able to
-- give capacity back. AFTER, because generated columns have no value before. The recount sets
-- cloudpods.recounting: what is claimed is the truth, even where it is too much.
CREATE FUNCTION refuse_overselling() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('cloudpods.recounting', true), '') <> 'on' THEN
    RAISE EXCEPTION '% would be oversold: %', TG_TABLE_NAME, to_jsonb(NEW) USING ERRCODE = 'CP001';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER node_capacity_not_oversold AFTER UPDATE ON node_capacity FOR EACH ROW
  WHEN ((NEW.cpu_allocated > OLD.cpu_allocated AND NEW.cpu_allocated > NEW.cpu_allocatable)
    OR (NEW.memory_allocated_mb > OLD.memory_allocated_mb AND NEW.memory_allocated_mb > NEW.memory_allocatable_mb))
  EXECUTE FUNCTION refuse_overselling();
CREATE TRIGGER storages_not_oversold AFTER UPDATE ON storages FOR EACH ROW
  WHEN (NEW.allocated_gb > OLD.allocated_gb AND NEW.allocated_gb > NEW.allocatable_gb)
  EXECUTE FUNCTION refuse_overselling();

CREATE TABLE join_tokens (
  id uuid PRIMARY KEY,
  secret_sha256 bytea NOT NULL,
  name text NOT NULL,
  role text NOT NULL,
  region text NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}',
  replaces_node uuid REFERENCES nodes,
  created_by text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  used_by_spki_sha256 text,
  node_id uuid REFERENCES nodes,
  revoked_at timestamptz
);

CREATE TABLE node_certificates (
  serial text PRIMARY KEY,                -- lower-case hex
  node_id uuid NOT NULL REFERENCES nodes,
  spki_sha256 text NOT NULL,
  pem text NOT NULL,
  not_before timestamptz NOT NULL,
  not_after timestamptz NOT NULL,
  issued_at timestamptz NOT NULL DEFAULT now(),
  first_used_at timestamptz,
  revoked_at timestamptz
);
CREATE INDEX node_certificates_by_node ON node_certificates (node_id, issued_at);

CREATE TABLE renewal_challenges (
  nonce text PRIMARY KEY,
  node_id uuid NOT NULL REFERENCES nodes,
  expires_at timestamptz NOT NULL,
  used_at timestamptz
);

-- Questions to a host that change nothing (dry runs). Lost in a crash, which is fine: they live 10 s.
CREATE UNLOGGED TABLE node_queries (
  id uuid PRIMARY KEY,
  node_id uuid NOT NULL,
  question jsonb NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  answer jsonb
);
CREATE INDEX node_queries_open ON node_queries (node_id) WHERE sent_at IS NULL;

-- Host metrics over time; short retention.
CREATE TABLE node_samples (
  node_id uuid NOT NULL REFERENCES nodes,
  at timestamptz NOT NULL,
  cpu_busy_basis_points integer NOT NULL,
  load1_centi integer NOT NULL,
  memory_total_mb integer NOT NULL,
  memory_available_mb integer NOT NULL,
  PRIMARY KEY (node_id, at)
);

-- Containers on hosts that carry no mark of ours, or a mark of a pod that is not placed there.
CREATE TABLE unmanaged_containers (
  node_id uuid NOT NULL REFERENCES nodes,
  vmid integer NOT NULL,
  pod_id uuid,
  observation jsonb NOT NULL,
  first_seen_at timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz NOT NULL DEFAULT now(),
  sightings integer NOT NULL DEFAULT 1,
  PRIMARY KEY (node_id, vmid)
);

-- Ids are unique in the whole fleet, so a pod keeps its id wherever it moves.
CREATE SEQUENCE vmid_seq AS integer START 100000 MINVALUE 100000 MAXVALUE 999999999;
-- Ids seen on hosts that we did not give: the sequence steps over them.
CREATE TABLE reserved_vmids (
  vmid integer PRIMARY KEY,
  seen_on uuid REFERENCES nodes,
  seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION next_vmid() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE candidate integer;
BEGIN
  LOOP
    candidate := nextval('vmid_seq');
    EXIT WHEN NOT EXISTS (SELECT FROM reserved_vmids WHERE vmid = candidate);
  END LOOP;
  RETURN candidate;
END $$;
