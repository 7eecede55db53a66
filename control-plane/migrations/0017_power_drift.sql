-- With all that the overview asks of it in the index: the planner takes half of all pods for drifting, and would read them all.
DROP INDEX cloud_pods_power_drift;
CREATE INDEX cloud_pods_power_drift ON cloud_pods (id) INCLUDE (desired_power)
  WHERE status = 'active' AND observed_power <> desired_power AND observed_power <> 'unknown';
