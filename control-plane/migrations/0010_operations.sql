-- What operators look at: indexes for the audit log and for what ended lately.

-- Read newest first. Whoever asks for one actor, thing or deed must not wait for the whole log to be read.
CREATE INDEX audit_log_by_time ON audit_log (at, id);
CREATE INDEX audit_log_by_actor ON audit_log (actor_id, at);
CREATE INDEX audit_log_by_target ON audit_log (target_id, at);
CREATE INDEX audit_log_by_action ON audit_log (action, at);

-- Of all tasks ever, the overview reads those of the last day, and of most of them only these columns.
CREATE INDEX tasks_by_end ON cloud_pod_provisioning_tasks (finished_at) INCLUDE (type, state, created_at) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_failed ON cloud_pod_provisioning_tasks (finished_at) WHERE state = 'failed';
-- What is wrong with pods is looked for among all of them.
CREATE INDEX cloud_pods_not_active ON cloud_pods (status) WHERE status NOT IN ('active', 'deleted');
CREATE INDEX cloud_pods_power_drift ON cloud_pods (id) WHERE status = 'active' AND observed_power <> desired_power AND observed_power <> 'unknown';
CREATE INDEX node_spool_gaps_by_time ON node_spool_gaps USING brin (noticed_at);
CREATE INDEX node_certificates_in_force ON node_certificates (not_after, node_id) WHERE revoked_at IS NULL;
