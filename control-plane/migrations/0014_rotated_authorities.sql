-- An authority follows another one: it is published as `next`, signs as `active`, and is believed as `leaving` until nothing that
-- it signed is valid any more.
ALTER TABLE certificate_authorities DROP CONSTRAINT ca_state;
ALTER TABLE certificate_authorities ADD CONSTRAINT ca_state CHECK (state IN ('next', 'active', 'leaving', 'retired'));
-- Its key in a certificate signed by the one before it: who only knows that one can believe this one.
ALTER TABLE certificate_authorities ADD COLUMN vouched_pem text;
ALTER TABLE certificate_authorities ADD COLUMN published_at timestamptz;    -- hosts that asked since were told of it
ALTER TABLE certificate_authorities ADD COLUMN activated_at timestamptz;
ALTER TABLE certificate_authorities ADD COLUMN left_at timestamptz;         -- it signs nothing since
CREATE UNIQUE INDEX one_next_ca ON certificate_authorities ((true)) WHERE state = 'next';

ALTER TABLE node_certificates ADD COLUMN authority_id uuid REFERENCES certificate_authorities; -- that signed it
UPDATE node_certificates SET authority_id = (SELECT id FROM certificate_authorities WHERE state = 'active');

ALTER TABLE control_plane_replicas ADD COLUMN authority_ids uuid[] NOT NULL DEFAULT '{}'; -- that it believes
ALTER TABLE control_plane_replicas ADD COLUMN signing_authority_id uuid;
