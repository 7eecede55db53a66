-- Pods that move from host to host, hosts that are emptied or given up, and what that needs to know.

-- Two hosts without a common cluster see the same files when name and backend of a storage are the same.
ALTER TABLE storages ADD COLUMN holds_backups boolean NOT NULL DEFAULT false;
ALTER TABLE storages ADD COLUMN backend text NOT NULL DEFAULT '';   -- empty: of this host alone

ALTER TABLE nodes ADD COLUMN cordoned_until timestamptz;             -- NULL: until somebody opens the host again
ALTER TABLE nodes ADD COLUMN cordoned_by text;
ALTER TABLE nodes ADD CONSTRAINT only_a_cordon_ends CHECK (cordoned_until IS NULL OR NOT schedulable);
CREATE INDEX nodes_to_uncordon ON nodes (cordoned_until) WHERE cordoned_until IS NOT NULL;
