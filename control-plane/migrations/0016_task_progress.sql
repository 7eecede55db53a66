-- Between which percentages a task goes while it waits for a command; the host tells how far the command is.
ALTER TABLE cloud_pod_provisioning_tasks
  ADD COLUMN percent_from smallint NOT NULL DEFAULT 0,
  ADD COLUMN percent_to smallint NOT NULL DEFAULT 0;
