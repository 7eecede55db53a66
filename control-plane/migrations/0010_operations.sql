-- What operators look at: indexes for the audit log and for what ended lately.

-- Read newest first. Whoever asks for one actor, thing or deed must not wait for the whole log to be read.
CREATE INDEX audit_log_by_time ON audit_log (at, id);
CREATE INDEX audit_log_by_actor ON audit_log (actor_id, at);
CREATE INDEX audit_log_by_target ON audit_log (target_id, at);
CREATE INDEX audit_log_by_action ON audit_log (action, at);
