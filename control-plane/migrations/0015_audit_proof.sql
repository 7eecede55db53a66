-- Seals prove the rows; they may be changed and deleted as little as these.
CREATE FUNCTION audit_seals_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_seals is append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE ON audit_seals
  FOR EACH ROW EXECUTE FUNCTION audit_seals_are_append_only();
CREATE TRIGGER audit_seals_no_truncate BEFORE TRUNCATE ON audit_seals
  FOR EACH STATEMENT EXECUTE FUNCTION audit_seals_are_append_only();

-- How far the control plane itself has proved the audit log; one row.
CREATE TABLE audit_proof (
  id boolean PRIMARY KEY DEFAULT true CONSTRAINT one_proof CHECK (id),
  -- Up to here, exclusive, the log was found as it was sealed; the root is that of the seal that ends there.
  tail_seq bigint NOT NULL DEFAULT 1,
  tail_root text,
  -- The daily walk over the whole log; null: none is under way.
  walk_seq bigint,
  walk_root text,
  verified_at timestamptz,
  whole_at timestamptz,
  -- The first place that is not what was sealed. It stays until the log is again as it was.
  fault_seq bigint,
  fault_code text,
  version integer NOT NULL DEFAULT 1,
  CONSTRAINT a_fault_has_a_place CHECK ((fault_seq IS NULL) = (fault_code IS NULL))
);
INSERT INTO audit_proof DEFAULT VALUES;
