-- The login cloudpods_api serves tenants' requests. It owns nothing, is a member of nothing, and sees
-- only rows of the transaction's tenant. RLS is enabled, not forced: the owner (cloudpods_system) runs
-- workers and COPY, which forced RLS would break.

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY[
    'memberships', 'api_tokens', 'audit_log', 'idempotency_keys', 'cloud_pod_quotas', 'subscriptions', 'cloud_pods',
    'cloud_pod_holds', 'node_claims', 'cloud_pod_placements', 'cloud_pod_allocations', 'cloud_pod_addresses',
    'cloud_pod_provisioning_tasks', 'cloud_pod_task_events', 'node_commands', 'placement_failures', 'usage_adjustments'
  ] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO cloudpods_api USING (tenant_id = (SELECT app_tenant_id())) WITH CHECK (tenant_id = (SELECT app_tenant_id()))', t);
  END LOOP;
END $$;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenants TO cloudpods_api USING (id = (SELECT app_tenant_id()));

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO cloudpods_api;
REVOKE ALL ON FUNCTION next_vmid() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION next_vmid(), app_tenant_id() TO cloudpods_api;

GRANT SELECT ON tenants TO cloudpods_api;
GRANT SELECT, INSERT, DELETE ON memberships TO cloudpods_api;
-- Not chain_seq and hash: only the owner gives rows their place in the chain.
GRANT SELECT, INSERT (id, at, tenant_id, actor_kind, actor_id, request_id, action, target_type, target_id, detail) ON audit_log TO cloudpods_api;
GRANT SELECT, INSERT, UPDATE ON api_tokens, idempotency_keys, cloud_pod_quotas, subscriptions, cloud_pods, cloud_pod_holds,
  cloud_pod_placements, cloud_pod_addresses, cloud_pod_provisioning_tasks, node_claims TO cloudpods_api;
GRANT SELECT, INSERT ON cloud_pod_task_events, node_commands, placement_failures TO cloudpods_api;
-- A command that no host has heard of yet can be cancelled where it lies.
GRANT UPDATE (state, error_code, finished_at) ON node_commands TO cloudpods_api;
GRANT SELECT ON cloud_pod_allocations, usage_adjustments TO cloudpods_api;

-- The fleet holds no tenant's data; a tenant's order must find and claim a place in it.
GRANT SELECT ON cloud_pod_plans, cloud_pod_plan_prices, control_plane_epoch, clusters, nodes, node_status, node_capacity,
  storages, node_storages, node_templates TO cloudpods_api;
GRANT UPDATE (cpu_allocated, memory_allocated_mb) ON node_capacity TO cloudpods_api;
GRANT UPDATE (allocated_gb) ON storages TO cloudpods_api;
-- A claim locks the node's row FOR SHARE against a cordon at the same moment, which asks for the right to
-- update some column. This one decides nothing.
GRANT UPDATE (maintenance_note) ON nodes TO cloudpods_api;
-- No right to node_queries: they hold other tenants' host names and keys, and belong to no tenant themselves.

-- Usage has no grant: it is read through views that join the pod.
CREATE VIEW tenant_usage_samples WITH (security_barrier) AS
  SELECT s.* FROM cloud_pod_usage_samples s JOIN cloud_pods p ON p.id = s.pod_id
  WHERE p.tenant_id = (SELECT app_tenant_id());
GRANT SELECT ON tenant_usage_samples TO cloudpods_api;
