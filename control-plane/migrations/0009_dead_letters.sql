-- What was put aside and is given another try.

-- Set in the transaction that stored the content after all: a letter counts at most once.
ALTER TABLE telemetry_dead_letters ADD COLUMN retried_at timestamptz;
ALTER TABLE usage_rejected_samples ADD COLUMN retried_at timestamptz;

-- What waits, newest first; the id decides between letters of one moment.
CREATE INDEX telemetry_dead_letters_waiting ON telemetry_dead_letters (received_at, id) WHERE retried_at IS NULL;
CREATE INDEX usage_rejected_samples_waiting ON usage_rejected_samples (received_at, id) WHERE retried_at IS NULL;
DROP INDEX notifications_dead;
CREATE INDEX notifications_dead ON notifications (dead_at, id) WHERE dead_at IS NOT NULL;
