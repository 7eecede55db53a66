-- A pod that should come home and cannot is tried again for a while; then it stays where it is and says why.
ALTER TABLE node_drain_pods DROP CONSTRAINT drain_pod_state;
ALTER TABLE node_drain_pods ADD CONSTRAINT drain_pod_state CHECK (state IN
  ('pending', 'claimed', 'moving', 'moved', 'blocked', 'failed', 'left', 'gone', 'lost', 'returning', 'returned', 'stayed'));
ALTER TABLE node_drain_pods ADD COLUMN return_tries integer NOT NULL DEFAULT 0;  -- to bring it home, in vain
