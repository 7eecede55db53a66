-- Written by npm run schema from the migrations; read it, do not edit it.

TABLE api_tokens ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  user_id uuid NOT NULL
  name text NOT NULL
  prefix text NOT NULL
  token_sha256 bytea NOT NULL
  scopes text[] NOT NULL
  allowed_cidrs cidr[] NOT NULL DEFAULT '{}'::cidr[]
  expires_at timestamp with time zone
  last_used_at timestamp with time zone
  revoked_at timestamp with time zone
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT api_tokens_pkey PRIMARY KEY (id)
  CONSTRAINT api_tokens_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT api_tokens_token_sha256_key UNIQUE (token_sha256)
  CONSTRAINT api_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
  CONSTRAINT known_scopes CHECK ((scopes <@ ARRAY['READ'::text, 'WRITE'::text, 'ADMIN'::text, 'BILLING'::text, 'PROVISIONING'::text, 'SECURITY'::text]))
)
CREATE INDEX api_tokens_by_tenant ON public.api_tokens USING btree (tenant_id, created_at)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE audit_log ROW LEVEL SECURITY (
  id uuid NOT NULL
  at timestamp with time zone NOT NULL DEFAULT now()
  tenant_id uuid
  actor_kind text NOT NULL
  actor_id text
  request_id text
  action text NOT NULL
  target_type text NOT NULL
  target_id text
  detail jsonb NOT NULL DEFAULT '{}'::jsonb
  chain_seq bigint
  hash bytea
  CONSTRAINT actor_kind CHECK ((actor_kind = ANY (ARRAY['user'::text, 'token'::text, 'node'::text, 'system'::text])))
  CONSTRAINT audit_log_chain_seq_key UNIQUE (chain_seq)
  CONSTRAINT audit_log_pkey PRIMARY KEY (id)
  CONSTRAINT audit_log_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
)
CREATE INDEX audit_log_by_action ON public.audit_log USING btree (action, at)
CREATE INDEX audit_log_by_actor ON public.audit_log USING btree (actor_id, at)
CREATE INDEX audit_log_by_target ON public.audit_log USING btree (target_id, at)
CREATE INDEX audit_log_by_tenant ON public.audit_log USING btree (tenant_id, at)
CREATE INDEX audit_log_by_time ON public.audit_log USING btree (at, id)
CREATE INDEX audit_log_unsealed ON public.audit_log USING btree (at) WHERE (chain_seq IS NULL)
CREATE TRIGGER audit_log_append_only BEFORE DELETE OR UPDATE ON public.audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON public.audit_log FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT (id, at, tenant_id, actor_kind, actor_id, request_id, action, target_type, target_id, detail), SELECT TO cloudpods_api

TABLE audit_proof (
  id boolean NOT NULL DEFAULT true
  tail_seq bigint NOT NULL DEFAULT 1
  tail_root text
  walk_seq bigint
  walk_root text
  verified_at timestamp with time zone
  whole_at timestamp with time zone
  fault_seq bigint
  fault_code text
  version integer NOT NULL DEFAULT 1
  CONSTRAINT a_fault_has_a_place CHECK (((fault_seq IS NULL) = (fault_code IS NULL)))
  CONSTRAINT audit_proof_pkey PRIMARY KEY (id)
  CONSTRAINT one_proof CHECK (id)
)

TABLE audit_seals (
  from_seq bigint NOT NULL
  to_seq bigint NOT NULL
  root bytea NOT NULL
  prev bytea
  sealed_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT audit_seals_pkey PRIMARY KEY (from_seq)
)
CREATE TRIGGER audit_seals_append_only BEFORE DELETE OR UPDATE ON public.audit_seals FOR EACH ROW EXECUTE FUNCTION audit_seals_are_append_only()
CREATE TRIGGER audit_seals_no_truncate BEFORE TRUNCATE ON public.audit_seals FOR EACH STATEMENT EXECUTE FUNCTION audit_seals_are_append_only()

TABLE certificate_authorities (
  id uuid NOT NULL
  pem text NOT NULL
  spki_sha256 text NOT NULL
  private_key_sealed text NOT NULL
  state text NOT NULL
  not_before timestamp with time zone NOT NULL
  not_after timestamp with time zone NOT NULL
  created_at timestamp with time zone NOT NULL DEFAULT now()
  vouched_pem text
  published_at timestamp with time zone
  activated_at timestamp with time zone
  left_at timestamp with time zone
  CONSTRAINT ca_state CHECK ((state = ANY (ARRAY['next'::text, 'active'::text, 'leaving'::text, 'retired'::text])))
  CONSTRAINT certificate_authorities_pkey PRIMARY KEY (id)
  CONSTRAINT certificate_authorities_spki_sha256_key UNIQUE (spki_sha256)
)
CREATE UNIQUE INDEX one_active_ca ON public.certificate_authorities USING btree ((true)) WHERE (state = 'active'::text)
CREATE UNIQUE INDEX one_next_ca ON public.certificate_authorities USING btree ((true)) WHERE (state = 'next'::text)

TABLE cloud_pod_addresses ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  mac text NOT NULL
  ip text
  used_from timestamp with time zone NOT NULL DEFAULT now()
  used_to timestamp with time zone
  CONSTRAINT cloud_pod_addresses_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_addresses_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
CREATE INDEX cloud_pod_addresses_by_ip ON public.cloud_pod_addresses USING btree (ip, used_from)
CREATE UNIQUE INDEX mac_in_use_once ON public.cloud_pod_addresses USING btree (mac) WHERE (used_to IS NULL)
CREATE UNIQUE INDEX one_current_address ON public.cloud_pod_addresses USING btree (pod_id) WHERE (used_to IS NULL)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE cloud_pod_allocations ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  valid tstzrange NOT NULL
  plan_code text
  plan_price_id uuid
  billing_mode text NOT NULL
  cores integer NOT NULL
  memory_mb integer NOT NULL
  disk_gb integer NOT NULL
  CONSTRAINT cloud_pod_allocations_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_allocations_plan_code_fkey FOREIGN KEY (plan_code) REFERENCES cloud_pod_plans(code)
  CONSTRAINT cloud_pod_allocations_plan_price_id_fkey FOREIGN KEY (plan_price_id) REFERENCES cloud_pod_plan_prices(id)
  CONSTRAINT cloud_pod_allocations_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
  CONSTRAINT one_allocation_at_a_time EXCLUDE USING gist (pod_id WITH =, valid WITH &&)
)
CREATE TRIGGER allocated_hours_are_marked AFTER INSERT OR DELETE OR UPDATE ON public.cloud_pod_allocations FOR EACH ROW EXECUTE FUNCTION mark_allocated_hours()
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT SELECT TO cloudpods_api

TABLE cloud_pod_backup_policies ROW LEVEL SECURITY (
  pod_id uuid NOT NULL
  tenant_id uuid NOT NULL
  enabled boolean NOT NULL
  every_hours integer NOT NULL
  keep_last integer NOT NULL
  keep_daily integer NOT NULL
  keep_weekly integer NOT NULL
  source text NOT NULL DEFAULT 'plan'::text
  next_at timestamp with time zone NOT NULL
  version integer NOT NULL DEFAULT 1
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT backup_policy_source CHECK ((source = ANY (ARRAY['plan'::text, 'tenant'::text])))
  CONSTRAINT cloud_pod_backup_policies_every_hours_check CHECK (((every_hours >= 1) AND (every_hours <= 744)))
  CONSTRAINT cloud_pod_backup_policies_keep_daily_check CHECK (((keep_daily >= 0) AND (keep_daily <= 100)))
  CONSTRAINT cloud_pod_backup_policies_keep_last_check CHECK (((keep_last >= 1) AND (keep_last <= 100)))
  CONSTRAINT cloud_pod_backup_policies_keep_weekly_check CHECK (((keep_weekly >= 0) AND (keep_weekly <= 100)))
  CONSTRAINT cloud_pod_backup_policies_pkey PRIMARY KEY (pod_id)
  CONSTRAINT cloud_pod_backup_policies_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
CREATE INDEX backup_policies_due ON public.cloud_pod_backup_policies USING btree (next_at) WHERE enabled
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE cloud_pod_backups ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  node_id uuid NOT NULL
  storage_id uuid NOT NULL
  storage text NOT NULL
  kind text NOT NULL
  mode text NOT NULL
  state text NOT NULL DEFAULT 'running'::text
  volume_id text
  size_bytes bigint
  generation bigint NOT NULL
  vmid integer NOT NULL
  spec jsonb NOT NULL
  note text
  task_id uuid
  started_at timestamp with time zone NOT NULL DEFAULT now()
  finished_at timestamp with time zone
  verified_at timestamp with time zone
  checked_at timestamp with time zone
  damaged_at timestamp with time zone
  expires_at timestamp with time zone
  delete_requested_at timestamp with time zone
  delete_reason text
  pruned_at timestamp with time zone
  error_code text
  error_message text
  errand text
  errand_command_id uuid
  errand_attempts integer NOT NULL DEFAULT 0
  errand_after timestamp with time zone NOT NULL DEFAULT now()
  errand_failed_node_id uuid
  CONSTRAINT an_available_backup_is_somewhere CHECK (((state <> 'available'::text) OR ((volume_id IS NOT NULL) AND (finished_at IS NOT NULL))))
  CONSTRAINT an_errand_has_a_command CHECK (((errand IS NULL) = (errand_command_id IS NULL)))
  CONSTRAINT backup_errand CHECK ((errand = ANY (ARRAY['verify'::text, 'delete'::text])))
  CONSTRAINT backup_kind CHECK ((kind = ANY (ARRAY['scheduled'::text, 'manual'::text, 'final'::text])))
  CONSTRAINT backup_mode CHECK ((mode = ANY (ARRAY['snapshot'::text, 'suspend'::text, 'stop'::text])))
  CONSTRAINT backup_state CHECK ((state = ANY (ARRAY['running'::text, 'available'::text, 'failed'::text, 'pruned'::text])))
  CONSTRAINT cloud_pod_backups_errand_failed_node_id_fkey FOREIGN KEY (errand_failed_node_id) REFERENCES nodes(id)
  CONSTRAINT cloud_pod_backups_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT cloud_pod_backups_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_backups_size_bytes_check CHECK ((size_bytes >= 0))
  CONSTRAINT cloud_pod_backups_storage_id_fkey FOREIGN KEY (storage_id) REFERENCES storages(id)
  CONSTRAINT cloud_pod_backups_tenant_id_id_key UNIQUE (tenant_id, id)
  CONSTRAINT cloud_pod_backups_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
) WITH (autovacuum_vacuum_scale_factor=0.01)
CREATE INDEX cloud_pod_backups_available ON public.cloud_pod_backups USING btree (pod_id, started_at) WHERE (state = 'available'::text)
CREATE INDEX cloud_pod_backups_by_end ON public.cloud_pod_backups USING btree (finished_at) INCLUDE (state, damaged_at) WHERE (finished_at IS NOT NULL)
CREATE INDEX cloud_pod_backups_damaged ON public.cloud_pod_backups USING btree (damaged_at) WHERE ((state = 'available'::text) AND (damaged_at IS NOT NULL))
CREATE INDEX cloud_pod_backups_in_vain ON public.cloud_pod_backups USING btree (node_id) WHERE ((errand_attempts >= 12) AND (pruned_at IS NULL))
CREATE INDEX cloud_pod_backups_of_pod ON public.cloud_pod_backups USING btree (pod_id, id)
CREATE INDEX cloud_pod_backups_on_errands ON public.cloud_pod_backups USING btree (errand_command_id) WHERE (errand_command_id IS NOT NULL)
CREATE INDEX cloud_pod_backups_running ON public.cloud_pod_backups USING btree (node_id) WHERE (state = 'running'::text)
CREATE INDEX cloud_pod_backups_to_check ON public.cloud_pod_backups USING btree (checked_at) WHERE (state = 'available'::text)
CREATE INDEX cloud_pod_backups_to_delete ON public.cloud_pod_backups USING btree (errand_after) WHERE ((pruned_at IS NULL) AND ((delete_requested_at IS NOT NULL) OR (state = 'failed'::text)))
CREATE UNIQUE INDEX one_scheduled_backup_per_node ON public.cloud_pod_backups USING btree (node_id) WHERE ((kind = 'scheduled'::text) AND (state = 'running'::text))
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE (note, delete_requested_at, delete_reason) TO cloudpods_api

TABLE cloud_pod_bandwidth_notices ROW LEVEL SECURITY (
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  year_month character(7) NOT NULL
  percent integer NOT NULL
  used_bytes bigint NOT NULL
  allowance_bytes bigint NOT NULL
  noticed_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_bandwidth_notices_pkey PRIMARY KEY (pod_id, year_month, percent, allowance_bytes)
  CONSTRAINT cloud_pod_bandwidth_notices_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT SELECT TO cloudpods_api

TABLE cloud_pod_budget_alerts ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  year_month character(7) NOT NULL
  threshold integer NOT NULL
  current_spend_amount numeric(20,10) NOT NULL
  budget_limit_amount numeric(20,10) NOT NULL
  currency character(3) NOT NULL
  percent_used numeric(12,1) NOT NULL
  notified_via text[] NOT NULL DEFAULT '{}'::text[]
  alerted_at timestamp with time zone NOT NULL DEFAULT now()
  acknowledged_at timestamp with time zone
  acknowledged_by uuid
  CONSTRAINT cloud_pod_budget_alerts_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_budget_alerts_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT one_alert_per_threshold UNIQUE (tenant_id, year_month, threshold)
)
CREATE INDEX cloud_pod_budget_alerts_by_time ON public.cloud_pod_budget_alerts USING btree (alerted_at)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT SELECT, UPDATE (acknowledged_at, acknowledged_by) TO cloudpods_api

TABLE cloud_pod_budgets ROW LEVEL SECURITY (
  tenant_id uuid NOT NULL
  monthly_limit_amount numeric(20,10) NOT NULL
  currency character(3) NOT NULL
  alert_threshold_1 integer NOT NULL DEFAULT 50
  alert_threshold_2 integer NOT NULL DEFAULT 80
  alert_threshold_3 integer NOT NULL DEFAULT 100
  hard_limit_enabled boolean NOT NULL DEFAULT false
  hard_limit_action text NOT NULL DEFAULT 'notify_only'::text
  notification_emails text[] NOT NULL DEFAULT '{}'::text[]
  webhook_url text
  exhausted_month character(7)
  exhaustion_judged_at timestamp with time zone
  version integer NOT NULL DEFAULT 1
  created_at timestamp with time zone NOT NULL DEFAULT now()
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_budgets_pkey PRIMARY KEY (tenant_id)
  CONSTRAINT cloud_pod_budgets_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT hard_limit_action CHECK ((hard_limit_action = ANY (ARRAY['notify_only'::text, 'stop_pods'::text])))
  CONSTRAINT limit_above_nought CHECK ((monthly_limit_amount > (0)::numeric))
  CONSTRAINT thresholds_rise CHECK (((0 < alert_threshold_1) AND (alert_threshold_1 < alert_threshold_2) AND (alert_threshold_2 < alert_threshold_3)))
)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE (monthly_limit_amount, currency, alert_threshold_1, alert_threshold_2, alert_threshold_3, hard_limit_enabled, hard_limit_action, notification_emails, webhook_url, version, updated_at) TO cloudpods_api

TABLE cloud_pod_holds ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  kind text NOT NULL
  effect text NOT NULL
  actor text NOT NULL
  reason text
  since timestamp with time zone NOT NULL DEFAULT now()
  until timestamp with time zone
  previous_rate_limit_kib_per_second integer
  CONSTRAINT cloud_pod_holds_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_holds_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
  CONSTRAINT hold_effect CHECK ((effect = ANY (ARRAY['suspend'::text, 'stop'::text, 'throttle'::text])))
  CONSTRAINT hold_kind CHECK ((kind = ANY (ARRAY['customer'::text, 'billing'::text, 'budget'::text, 'abuse'::text, 'operator'::text, 'bandwidth'::text])))
)
CREATE INDEX cloud_pod_holds_open ON public.cloud_pod_holds USING btree (tenant_id, kind) WHERE (until IS NULL)
CREATE UNIQUE INDEX one_open_hold_of_a_kind ON public.cloud_pod_holds USING btree (pod_id, kind, effect) WHERE (until IS NULL)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE cloud_pod_moves ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  purpose text NOT NULL
  strategy text NOT NULL
  state text NOT NULL DEFAULT 'reserved'::text
  from_node_id uuid NOT NULL
  to_node_id uuid NOT NULL
  from_generation bigint NOT NULL
  to_generation bigint NOT NULL
  storage text NOT NULL
  bridge text NOT NULL
  pool text
  verdict jsonb NOT NULL
  archive_storage text
  archive_volume_id text
  archive_made_at timestamp with time zone
  archive_is_ours boolean NOT NULL DEFAULT true
  archive_removed_at timestamp with time zone
  archive_tries integer NOT NULL DEFAULT 0
  archive_given_up_at timestamp with time zone
  disk_gb integer NOT NULL
  runs boolean NOT NULL
  reason text NOT NULL
  requested_by text NOT NULL
  task_id uuid
  begun_at timestamp with time zone
  stopped_at timestamp with time zone
  source_freed_at timestamp with time zone
  restore_asked_at timestamp with time zone
  start_asked_at timestamp with time zone
  target_cleared_at timestamp with time zone
  found_on_target boolean NOT NULL DEFAULT false
  switched_at timestamp with time zone
  running_at timestamp with time zone
  source_removed_at timestamp with time zone
  downtime_ms integer
  error_code text
  error_message text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  ended_at timestamp with time zone
  CONSTRAINT a_move_goes_somewhere CHECK (((from_node_id <> to_node_id) AND (to_generation > from_generation)))
  CONSTRAINT cloud_pod_moves_downtime_ms_check CHECK ((downtime_ms >= 0))
  CONSTRAINT cloud_pod_moves_from_node_id_fkey FOREIGN KEY (from_node_id) REFERENCES nodes(id)
  CONSTRAINT cloud_pod_moves_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_moves_pod_id_to_generation_key UNIQUE (pod_id, to_generation)
  CONSTRAINT cloud_pod_moves_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
  CONSTRAINT cloud_pod_moves_to_node_id_fkey FOREIGN KEY (to_node_id) REFERENCES nodes(id)
  CONSTRAINT move_purpose CHECK ((purpose = ANY (ARRAY['migrate'::text, 'drain'::text, 'return'::text, 'evacuate'::text])))
  CONSTRAINT move_state CHECK ((state = ANY (ARRAY['reserved'::text, 'moving'::text, 'moved'::text, 'undone'::text, 'released'::text])))
  CONSTRAINT move_strategy CHECK ((strategy = ANY (ARRAY['cluster-migrate'::text, 'backup-restore'::text, 'take-over'::text, 'restore-newest'::text])))
)
CREATE INDEX cloud_pod_moves_archive_given_up ON public.cloud_pod_moves USING btree (to_node_id) WHERE (archive_given_up_at IS NOT NULL)
CREATE INDEX cloud_pod_moves_archive_left ON public.cloud_pod_moves USING btree (ended_at) WHERE (archive_is_ours AND (archive_volume_id IS NOT NULL) AND (archive_removed_at IS NULL))
CREATE INDEX cloud_pod_moves_by_end ON public.cloud_pod_moves USING btree (ended_at) WHERE (ended_at IS NOT NULL)
CREATE INDEX cloud_pod_moves_history ON public.cloud_pod_moves USING btree (strategy, ended_at) WHERE (downtime_ms IS NOT NULL)
CREATE INDEX cloud_pod_moves_of_pod ON public.cloud_pod_moves USING btree (pod_id, id)
CREATE UNIQUE INDEX one_open_move_per_pod ON public.cloud_pod_moves USING btree (pod_id) WHERE (state = ANY (ARRAY['reserved'::text, 'moving'::text]))
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT SELECT (id, tenant_id, pod_id, state, to_generation, switched_at, downtime_ms, created_at, ended_at) TO cloudpods_api

TABLE cloud_pod_placements ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  node_id uuid NOT NULL
  vmid integer NOT NULL
  generation bigint NOT NULL
  placed_from timestamp with time zone NOT NULL DEFAULT now()
  placed_to timestamp with time zone
  CONSTRAINT cloud_pod_placements_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT cloud_pod_placements_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_placements_pod_id_generation_key UNIQUE (pod_id, generation)
  CONSTRAINT cloud_pod_placements_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
CREATE INDEX cloud_pod_placements_on_node ON public.cloud_pod_placements USING btree (node_id, placed_to)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE cloud_pod_plan_prices (
  id uuid NOT NULL
  plan_code text NOT NULL
  currency character(3) NOT NULL
  amount numeric(20,10) NOT NULL
  valid tstzrange NOT NULL
  CONSTRAINT cloud_pod_plan_prices_amount_check CHECK ((amount >= (0)::numeric))
  CONSTRAINT cloud_pod_plan_prices_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_plan_prices_plan_code_fkey FOREIGN KEY (plan_code) REFERENCES cloud_pod_plans(code)
  CONSTRAINT one_plan_price_at_a_time EXCLUDE USING gist (plan_code WITH =, currency WITH =, valid WITH &&)
)
CREATE TRIGGER plan_priced_hours_are_marked AFTER INSERT OR UPDATE ON public.cloud_pod_plan_prices FOR EACH STATEMENT EXECUTE FUNCTION mark_priced_hours()
CREATE TRIGGER used_plan_prices_stay BEFORE INSERT OR DELETE OR UPDATE ON public.cloud_pod_plan_prices FOR EACH ROW EXECUTE FUNCTION used_prices_stay()
GRANT SELECT TO cloudpods_api

TABLE cloud_pod_plans (
  code text NOT NULL
  name text NOT NULL
  family text NOT NULL
  description text NOT NULL DEFAULT ''::text
  cores integer NOT NULL
  memory_mb integer NOT NULL
  swap_mb integer NOT NULL DEFAULT 512
  disk_gb integer NOT NULL
  bandwidth_gb integer
  overage_policy text NOT NULL DEFAULT 'none'::text
  websites_max integer
  emails_max integer
  max_per_tenant integer
  requires_verified_email boolean NOT NULL DEFAULT false
  features jsonb NOT NULL DEFAULT '[]'::jsonb
  sort integer NOT NULL DEFAULT 0
  is_active boolean NOT NULL DEFAULT true
  version integer NOT NULL DEFAULT 1
  CONSTRAINT cloud_pod_plans_cores_check CHECK ((cores > 0))
  CONSTRAINT cloud_pod_plans_disk_gb_check CHECK ((disk_gb > 0))
  CONSTRAINT cloud_pod_plans_memory_mb_check CHECK ((memory_mb >= 16))
  CONSTRAINT cloud_pod_plans_pkey PRIMARY KEY (code)
  CONSTRAINT overage_policy CHECK ((overage_policy = ANY (ARRAY['throttle'::text, 'charge'::text, 'none'::text])))
  CONSTRAINT plan_family CHECK ((family = ANY (ARRAY['shared'::text, 'managed'::text])))
)
GRANT SELECT TO cloudpods_api

TABLE cloud_pod_pricing (
  id uuid NOT NULL DEFAULT gen_random_uuid()
  name text NOT NULL
  currency character(3) NOT NULL
  cpu_per_hour numeric(20,10) NOT NULL
  memory_gb_per_hour numeric(20,10) NOT NULL
  disk_gb_per_month numeric(20,10) NOT NULL
  network_out_gb numeric(20,10) NOT NULL
  network_in_gb numeric(20,10) NOT NULL DEFAULT 0
  network_in_free boolean NOT NULL DEFAULT true
  is_default boolean NOT NULL DEFAULT false
  effective_from timestamp with time zone NOT NULL
  effective_until timestamp with time zone
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_pricing_cpu_per_hour_check CHECK ((cpu_per_hour >= (0)::numeric))
  CONSTRAINT cloud_pod_pricing_disk_gb_per_month_check CHECK ((disk_gb_per_month >= (0)::numeric))
  CONSTRAINT cloud_pod_pricing_memory_gb_per_hour_check CHECK ((memory_gb_per_hour >= (0)::numeric))
  CONSTRAINT cloud_pod_pricing_network_in_gb_check CHECK ((network_in_gb >= (0)::numeric))
  CONSTRAINT cloud_pod_pricing_network_out_gb_check CHECK ((network_out_gb >= (0)::numeric))
  CONSTRAINT cloud_pod_pricing_pkey PRIMARY KEY (id)
  CONSTRAINT one_default_pricing_at_a_time EXCLUDE USING gist (currency WITH =, tstzrange(effective_from, effective_until) WITH &&) WHERE (is_default)
  CONSTRAINT one_pricing_at_a_time EXCLUDE USING gist (name WITH =, currency WITH =, tstzrange(effective_from, effective_until) WITH &&)
  CONSTRAINT pricing_currency CHECK ((currency ~ '^[A-Z]{3}$'::text))
  CONSTRAINT pricing_has_a_time CHECK ((effective_until > effective_from))
  CONSTRAINT pricing_name CHECK ((name ~ '^[a-z0-9][a-z0-9-]{0,62}$'::text))
)
CREATE TRIGGER priced_hours_are_marked AFTER INSERT OR UPDATE ON public.cloud_pod_pricing FOR EACH STATEMENT EXECUTE FUNCTION mark_priced_hours()
CREATE TRIGGER used_pricing_stays BEFORE INSERT OR DELETE OR UPDATE ON public.cloud_pod_pricing FOR EACH ROW EXECUTE FUNCTION used_prices_stay()
GRANT SELECT TO cloudpods_api

TABLE cloud_pod_provisioning_tasks ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  type text NOT NULL
  state text NOT NULL DEFAULT 'queued'::text
  step text NOT NULL
  input jsonb NOT NULL DEFAULT '{}'::jsonb
  command_id uuid
  attempts integer NOT NULL DEFAULT 0
  run_after timestamp with time zone NOT NULL DEFAULT now()
  deadline_at timestamp with time zone NOT NULL
  worker_id text
  lease_until timestamp with time zone
  percent integer NOT NULL DEFAULT 0
  cancel_requested_at timestamp with time zone
  error_code text
  error_message text
  last_seq integer NOT NULL DEFAULT 0
  requested_by text NOT NULL
  request_id text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  finished_at timestamp with time zone
  percent_from smallint NOT NULL DEFAULT 0
  percent_to smallint NOT NULL DEFAULT 0
  CONSTRAINT cloud_pod_provisioning_tasks_percent_check CHECK (((percent >= 0) AND (percent <= 100)))
  CONSTRAINT cloud_pod_provisioning_tasks_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_provisioning_tasks_tenant_id_id_key UNIQUE (tenant_id, id)
  CONSTRAINT cloud_pod_provisioning_tasks_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
  CONSTRAINT task_state CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'waiting'::text, 'compensating'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text])))
  CONSTRAINT task_type CHECK ((type = ANY (ARRAY['create'::text, 'resize'::text, 'start'::text, 'stop'::text, 'restart'::text, 'suspend'::text, 'resume'::text, 'destroy'::text, 'backup'::text, 'restore'::text, 'migrate'::text, 'adopt'::text, 'set-rate'::text])))
)
CREATE INDEX tasks_by_command ON public.cloud_pod_provisioning_tasks USING btree (command_id) WHERE (command_id IS NOT NULL)
CREATE INDEX tasks_by_end ON public.cloud_pod_provisioning_tasks USING btree (finished_at) INCLUDE (type, state, created_at) WHERE (finished_at IS NOT NULL)
CREATE INDEX tasks_failed ON public.cloud_pod_provisioning_tasks USING btree (finished_at) WHERE (state = 'failed'::text)
CREATE INDEX tasks_of_pod ON public.cloud_pod_provisioning_tasks USING btree (pod_id, id)
CREATE INDEX tasks_of_tenant ON public.cloud_pod_provisioning_tasks USING btree (tenant_id, id)
CREATE INDEX tasks_to_run ON public.cloud_pod_provisioning_tasks USING btree (run_after) WHERE (state = ANY (ARRAY['queued'::text, 'running'::text, 'waiting'::text, 'compensating'::text]))
CREATE UNIQUE INDEX one_open_task_per_pod ON public.cloud_pod_provisioning_tasks USING btree (pod_id) WHERE (state <> ALL (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text]))
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE cloud_pod_quotas ROW LEVEL SECURITY (
  id uuid NOT NULL DEFAULT gen_random_uuid()
  tenant_id uuid NOT NULL
  source text NOT NULL DEFAULT 'tenant'::text
  max_cloud_pods integer NOT NULL DEFAULT 5
  max_cpu_cores integer NOT NULL DEFAULT 8
  max_ram_mb integer NOT NULL DEFAULT 16384
  max_disk_gb integer NOT NULL DEFAULT 100
  used_cloud_pods integer NOT NULL DEFAULT 0
  used_cpu_cores integer NOT NULL DEFAULT 0
  used_ram_mb integer NOT NULL DEFAULT 0
  used_disk_gb integer NOT NULL DEFAULT 0
  version integer NOT NULL DEFAULT 0
  created_at timestamp with time zone NOT NULL DEFAULT now()
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_quotas_max_cloud_pods_check CHECK ((max_cloud_pods >= 0))
  CONSTRAINT cloud_pod_quotas_max_cpu_cores_check CHECK ((max_cpu_cores >= 0))
  CONSTRAINT cloud_pod_quotas_max_disk_gb_check CHECK ((max_disk_gb >= 0))
  CONSTRAINT cloud_pod_quotas_max_ram_mb_check CHECK ((max_ram_mb >= 0))
  CONSTRAINT cloud_pod_quotas_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pod_quotas_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT cloud_pod_quotas_tenant_id_key UNIQUE (tenant_id)
  CONSTRAINT quota_source CHECK ((source = ANY (ARRAY['default'::text, 'tenant'::text])))
  CONSTRAINT used_cores_not_negative CHECK ((used_cpu_cores >= 0))
  CONSTRAINT used_disk_not_negative CHECK ((used_disk_gb >= 0))
  CONSTRAINT used_pods_not_negative CHECK ((used_cloud_pods >= 0))
  CONSTRAINT used_ram_not_negative CHECK ((used_ram_mb >= 0))
)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE cloud_pod_task_events ROW LEVEL SECURITY (
  task_id uuid NOT NULL
  seq integer NOT NULL
  tenant_id uuid NOT NULL
  at timestamp with time zone NOT NULL DEFAULT now()
  state text NOT NULL
  step text NOT NULL
  percent integer NOT NULL
  message text NOT NULL
  CONSTRAINT cloud_pod_task_events_pkey PRIMARY KEY (task_id, seq)
  CONSTRAINT cloud_pod_task_events_tenant_id_task_id_fkey FOREIGN KEY (tenant_id, task_id) REFERENCES cloud_pod_provisioning_tasks(tenant_id, id)
)
CREATE INDEX task_events_by_time ON public.cloud_pod_task_events USING brin (at)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT TO cloudpods_api

TABLE cloud_pod_usage_daily (
  date date NOT NULL
  pod_id uuid NOT NULL
  tenant_id uuid NOT NULL
  sample_count bigint NOT NULL
  uptime_ms bigint NOT NULL
  running_ms bigint NOT NULL
  cpu_usage_us bigint NOT NULL
  cpu_capacity_ms bigint NOT NULL
  cpu_max_basis_points integer NOT NULL
  cpu_histogram bigint[] NOT NULL
  memory_byte_ms numeric(30,0) NOT NULL
  memory_max_bytes bigint NOT NULL
  disk_byte_ms numeric(30,0) NOT NULL
  disk_max_bytes bigint NOT NULL
  guest_in_bytes bigint NOT NULL
  guest_out_bytes bigint NOT NULL
  io_read_bytes bigint NOT NULL
  io_write_bytes bigint NOT NULL
  measured_ms bigint NOT NULL
  late_ms bigint NOT NULL
  not_running_ms bigint NOT NULL
  missing_ms bigint NOT NULL
  core_ms bigint NOT NULL
  memory_mb_ms bigint NOT NULL
  disk_gb_ms bigint NOT NULL
  billable_in_bytes bigint NOT NULL
  billable_out_bytes bigint NOT NULL
  plan_out_bytes bigint NOT NULL
  unpriced_ms bigint NOT NULL
  currency character(3) NOT NULL
  cost_cpu numeric(20,10) NOT NULL
  cost_memory numeric(20,10) NOT NULL
  cost_disk numeric(20,10) NOT NULL
  cost_network_in numeric(20,10) NOT NULL
  cost_network_out numeric(20,10) NOT NULL
  cost_plan numeric(20,10) NOT NULL
  cost_total numeric(20,10) NOT NULL GENERATED AS (((((cost_cpu + cost_memory) + cost_disk) + cost_network_in) + cost_network_out) + cost_plan)
  hours integer NOT NULL
  sealed_base jsonb
  supplement boolean NOT NULL DEFAULT false
  rolled_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_usage_daily_pkey PRIMARY KEY (date, pod_id)
  CONSTRAINT no_negative_time CHECK ((LEAST(measured_ms, late_ms, not_running_ms, missing_ms, uptime_ms) >= 0))
)
CREATE INDEX cloud_pod_usage_daily_of_tenant ON public.cloud_pod_usage_daily USING btree (tenant_id, pod_id, date)

TABLE cloud_pod_usage_hourly (
  hour_start timestamp with time zone NOT NULL
  pod_id uuid NOT NULL
  tenant_id uuid NOT NULL
  sample_count bigint NOT NULL
  covered int4multirange NOT NULL
  uptime_ms bigint NOT NULL
  running_ms bigint NOT NULL
  cpu_usage_us bigint NOT NULL
  cpu_capacity_ms bigint NOT NULL
  cpu_max_basis_points integer NOT NULL
  cpu_histogram bigint[] NOT NULL
  memory_byte_ms numeric(30,0) NOT NULL
  memory_max_bytes bigint NOT NULL
  disk_byte_ms numeric(30,0) NOT NULL
  disk_max_bytes bigint NOT NULL
  guest_in_bytes bigint NOT NULL
  guest_out_bytes bigint NOT NULL
  io_read_bytes bigint NOT NULL
  io_write_bytes bigint NOT NULL
  traffic_points jsonb
  measured_ms bigint NOT NULL
  late_ms bigint NOT NULL
  not_running_ms bigint NOT NULL
  missing_ms bigint NOT NULL
  core_ms bigint NOT NULL
  memory_mb_ms bigint NOT NULL
  disk_gb_ms bigint NOT NULL
  billable_in_bytes bigint NOT NULL
  billable_out_bytes bigint NOT NULL
  plan_out_bytes bigint NOT NULL
  unpriced_ms bigint NOT NULL
  allowance_gb integer
  currency character(3) NOT NULL
  cost_cpu numeric(20,10) NOT NULL
  cost_memory numeric(20,10) NOT NULL
  cost_disk numeric(20,10) NOT NULL
  cost_network_in numeric(20,10) NOT NULL
  cost_network_out numeric(20,10) NOT NULL
  cost_plan numeric(20,10) NOT NULL
  cost_total numeric(20,10) NOT NULL GENERATED AS (((((cost_cpu + cost_memory) + cost_disk) + cost_network_in) + cost_network_out) + cost_plan)
  final_at timestamp with time zone
  timely int4multirange
  sealed_at timestamp with time zone
  sealed_base jsonb
  archive_samples bigint
  archive_digest bigint
  archive_sha256 bytea
  supplement boolean NOT NULL DEFAULT false
  rolled_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_usage_hourly_pkey PRIMARY KEY (hour_start, pod_id)
  CONSTRAINT no_negative_time CHECK ((LEAST(measured_ms, late_ms, not_running_ms, missing_ms, uptime_ms) >= 0))
)
CREATE INDEX cloud_pod_usage_hourly_of_tenant ON public.cloud_pod_usage_hourly USING btree (tenant_id, pod_id, hour_start)
CREATE INDEX cloud_pod_usage_hourly_open ON public.cloud_pod_usage_hourly USING btree (hour_start) WHERE (final_at IS NULL)

TABLE cloud_pod_usage_late_samples (
  pod_id uuid NOT NULL
  sample_time timestamp with time zone NOT NULL
  spool_no integer NOT NULL
  seq bigint NOT NULL
  start_time timestamp with time zone NOT NULL
  running_ms integer NOT NULL
  cpu_usage_us bigint NOT NULL
  cpu_max_basis_points integer NOT NULL
  memory_byte_ms bigint NOT NULL
  memory_max_bytes bigint NOT NULL
  disk_byte_ms bigint NOT NULL
  disk_max_bytes bigint NOT NULL
  guest_in_bytes bigint NOT NULL
  guest_out_bytes bigint NOT NULL
  io_read_bytes bigint NOT NULL
  io_write_bytes bigint NOT NULL
  sample_count integer NOT NULL
  cores integer NOT NULL
  memory_mb integer NOT NULL
  disk_gb integer NOT NULL
  incarnation text NOT NULL
  received_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
  CONSTRAINT cloud_pod_usage_late_samples_pkey PRIMARY KEY (pod_id, sample_time, spool_no, seq)
)
CREATE INDEX cloud_pod_usage_late_samples_by_time ON public.cloud_pod_usage_late_samples USING btree (sample_time)

TABLE cloud_pod_usage_monthly (
  year_month character(7) NOT NULL
  pod_id uuid NOT NULL
  tenant_id uuid NOT NULL
  sample_count bigint NOT NULL
  uptime_ms bigint NOT NULL
  running_ms bigint NOT NULL
  cpu_usage_us bigint NOT NULL
  cpu_capacity_ms bigint NOT NULL
  cpu_max_basis_points integer NOT NULL
  memory_byte_ms numeric(30,0) NOT NULL
  memory_max_bytes bigint NOT NULL
  disk_byte_ms numeric(30,0) NOT NULL
  disk_max_bytes bigint NOT NULL
  guest_in_bytes bigint NOT NULL
  guest_out_bytes bigint NOT NULL
  io_read_bytes bigint NOT NULL
  io_write_bytes bigint NOT NULL
  measured_ms bigint NOT NULL
  late_ms bigint NOT NULL
  not_running_ms bigint NOT NULL
  missing_ms bigint NOT NULL
  core_ms bigint NOT NULL
  memory_mb_ms bigint NOT NULL
  disk_gb_ms bigint NOT NULL
  billable_in_bytes bigint NOT NULL
  billable_out_bytes bigint NOT NULL
  plan_out_bytes bigint NOT NULL
  overage_bytes bigint NOT NULL
  unpriced_ms bigint NOT NULL
  currency character(3) NOT NULL
  cost_cpu numeric(20,10) NOT NULL
  cost_memory numeric(20,10) NOT NULL
  cost_disk numeric(20,10) NOT NULL
  cost_network_in numeric(20,10) NOT NULL
  cost_network_out numeric(20,10) NOT NULL
  cost_plan numeric(20,10) NOT NULL
  cost_overage numeric(20,10) NOT NULL
  cost_total numeric(20,10) NOT NULL GENERATED AS ((((((cost_cpu + cost_memory) + cost_disk) + cost_network_in) + cost_network_out) + cost_plan) + cost_overage)
  days integer NOT NULL
  closed_at timestamp with time zone
  billed_cost numeric(20,10)
  billed_uptime_ms bigint
  billed_out_bytes bigint
  adjusted_cost numeric(20,10) NOT NULL DEFAULT 0
  invoice_id uuid
  sealed_base jsonb
  rolled_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT cloud_pod_usage_monthly_pkey PRIMARY KEY (year_month, pod_id)
  CONSTRAINT no_negative_time CHECK ((LEAST(measured_ms, late_ms, not_running_ms, missing_ms, uptime_ms) >= 0))
)
CREATE INDEX cloud_pod_usage_monthly_of_tenant ON public.cloud_pod_usage_monthly USING btree (tenant_id, year_month)
CREATE INDEX cloud_pod_usage_monthly_open ON public.cloud_pod_usage_monthly USING btree (year_month) WHERE (closed_at IS NULL)
CREATE TRIGGER billed_figures_stay BEFORE DELETE OR UPDATE ON public.cloud_pod_usage_monthly FOR EACH ROW WHEN ((old.closed_at IS NOT NULL)) EXECUTE FUNCTION billed_figures_stay()

TABLE cloud_pod_usage_samples PARTITION BY RANGE (sample_time) (
  pod_id uuid NOT NULL
  sample_time timestamp with time zone NOT NULL
  spool_no integer NOT NULL
  seq bigint NOT NULL
  start_time timestamp with time zone NOT NULL
  running_ms integer NOT NULL
  cpu_usage_us bigint NOT NULL
  cpu_max_basis_points integer NOT NULL
  memory_byte_ms bigint NOT NULL
  memory_max_bytes bigint NOT NULL
  disk_byte_ms bigint NOT NULL
  disk_max_bytes bigint NOT NULL
  guest_in_bytes bigint NOT NULL
  guest_out_bytes bigint NOT NULL
  io_read_bytes bigint NOT NULL
  io_write_bytes bigint NOT NULL
  sample_count integer NOT NULL
  cores integer NOT NULL
  memory_mb integer NOT NULL
  disk_gb integer NOT NULL
  incarnation text NOT NULL
  CONSTRAINT cloud_pod_usage_samples_pkey PRIMARY KEY (pod_id, sample_time, spool_no, seq)
)
CREATE INDEX cloud_pod_usage_samples_by_time ON ONLY public.cloud_pod_usage_samples USING brin (sample_time, start_time) WITH (pages_per_range='32', autosummarize='on')

TABLE cloud_pods ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  vmid integer NOT NULL
  name text NOT NULL
  hostname text NOT NULL
  domain text
  region text NOT NULL
  status text NOT NULL DEFAULT 'provisioning'::text
  desired_power text NOT NULL DEFAULT 'running'::text
  observed_power text NOT NULL DEFAULT 'unknown'::text
  observed_at timestamp with time zone
  node_id uuid
  generation bigint NOT NULL DEFAULT 1
  revision bigint NOT NULL DEFAULT 0
  plan_code text
  billing_mode text NOT NULL DEFAULT 'plan'::text
  subscription_id uuid
  cores integer NOT NULL
  memory_mb integer NOT NULL
  swap_mb integer NOT NULL DEFAULT 512
  disk_gb integer NOT NULL
  storage text
  bridge text
  pool text
  template text
  template_digest text
  unprivileged boolean NOT NULL DEFAULT true
  nesting boolean NOT NULL DEFAULT true
  rate_limit_kib_per_second integer NOT NULL DEFAULT 0
  mac text NOT NULL
  ip text
  ssh_keys text[] NOT NULL DEFAULT '{}'::text[]
  labels jsonb NOT NULL DEFAULT '{}'::jsonb
  placement_request jsonb NOT NULL DEFAULT '{}'::jsonb
  placement_verdict jsonb NOT NULL DEFAULT '{}'::jsonb
  last_error_code text
  last_error_message text
  websites_used integer NOT NULL DEFAULT 0
  emails_used integer NOT NULL DEFAULT 0
  version integer NOT NULL DEFAULT 1
  ordered_at timestamp with time zone NOT NULL DEFAULT now()
  activated_at timestamp with time zone
  deletion_requested_at timestamp with time zone
  deleted_at timestamp with time zone
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  source_backup_id uuid
  source_volume_id text
  container_missing_since timestamp with time zone
  adopted_network jsonb
  CONSTRAINT a_place_is_whole CHECK (((node_id IS NULL) OR ((num_nulls(storage, bridge) = 0) AND ((template IS NOT NULL) OR (adopted_network IS NOT NULL)))))
  CONSTRAINT billing_mode CHECK ((billing_mode = ANY (ARRAY['plan'::text, 'metered'::text])))
  CONSTRAINT cloud_pods_cores_check CHECK ((cores > 0))
  CONSTRAINT cloud_pods_disk_gb_check CHECK ((disk_gb > 0))
  CONSTRAINT cloud_pods_memory_mb_check CHECK ((memory_mb >= 16))
  CONSTRAINT cloud_pods_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT cloud_pods_pkey PRIMARY KEY (id)
  CONSTRAINT cloud_pods_plan_code_fkey FOREIGN KEY (plan_code) REFERENCES cloud_pod_plans(code)
  CONSTRAINT cloud_pods_rate_limit_kib_per_second_check CHECK ((rate_limit_kib_per_second >= 0))
  CONSTRAINT cloud_pods_swap_mb_check CHECK ((swap_mb >= 0))
  CONSTRAINT cloud_pods_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT cloud_pods_tenant_id_id_key UNIQUE (tenant_id, id)
  CONSTRAINT cloud_pods_tenant_id_source_backup_id_fkey FOREIGN KEY (tenant_id, source_backup_id) REFERENCES cloud_pod_backups(tenant_id, id)
  CONSTRAINT cloud_pods_tenant_id_subscription_id_fkey FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions(tenant_id, id)
  CONSTRAINT desired_power CHECK ((desired_power = ANY (ARRAY['running'::text, 'stopped'::text])))
  CONSTRAINT observed_power CHECK ((observed_power = ANY (ARRAY['running'::text, 'stopped'::text, 'unknown'::text])))
  CONSTRAINT pod_status CHECK ((status = ANY (ARRAY['provisioning'::text, 'active'::text, 'suspended'::text, 'failed'::text, 'deleting'::text, 'deleted'::text])))
)
CREATE INDEX cloud_pods_made_from_backups ON public.cloud_pods USING btree (source_backup_id) WHERE (source_backup_id IS NOT NULL)
CREATE INDEX cloud_pods_not_active ON public.cloud_pods USING btree (status) WHERE (status <> ALL (ARRAY['active'::text, 'deleted'::text]))
CREATE INDEX cloud_pods_of_tenant ON public.cloud_pods USING btree (tenant_id, id)
CREATE INDEX cloud_pods_on_node ON public.cloud_pods USING btree (node_id) WHERE (status <> 'deleted'::text)
CREATE INDEX cloud_pods_power_drift ON public.cloud_pods USING btree (id) INCLUDE (desired_power) WHERE ((status = 'active'::text) AND (observed_power <> desired_power) AND (observed_power <> 'unknown'::text))
CREATE UNIQUE INDEX one_live_pod_per_vmid ON public.cloud_pods USING btree (vmid) WHERE (status <> 'deleted'::text)
CREATE TRIGGER allocations_end_with_the_wish AFTER UPDATE OF deletion_requested_at ON public.cloud_pods FOR EACH ROW WHEN (((new.deletion_requested_at IS NOT NULL) AND (old.deletion_requested_at IS NULL))) EXECUTE FUNCTION end_allocation()
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE clusters (
  id uuid NOT NULL
  name text NOT NULL
  fingerprint text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT clusters_fingerprint_key UNIQUE (fingerprint)
  CONSTRAINT clusters_pkey PRIMARY KEY (id)
)
GRANT SELECT TO cloudpods_api

TABLE control_plane_epoch (
  only_row boolean NOT NULL DEFAULT true
  epoch bigint NOT NULL DEFAULT 1
  declared_at timestamp with time zone NOT NULL DEFAULT now()
  reason text
  holds_orders boolean NOT NULL DEFAULT false
  CONSTRAINT control_plane_epoch_only_row_check CHECK (only_row)
  CONSTRAINT control_plane_epoch_pkey PRIMARY KEY (only_row)
)
GRANT SELECT TO cloudpods_api

TABLE control_plane_replicas (
  id uuid NOT NULL
  hostname text NOT NULL
  roles text[] NOT NULL
  gateway_address text
  broker_url text
  started_at timestamp with time zone NOT NULL DEFAULT now()
  seen_at timestamp with time zone NOT NULL DEFAULT now()
  authority_ids uuid[] NOT NULL DEFAULT '{}'::uuid[]
  signing_authority_id uuid
  CONSTRAINT control_plane_replicas_pkey PRIMARY KEY (id)
)

TABLE idempotency_keys ROW LEVEL SECURITY (
  tenant_id uuid NOT NULL
  principal text NOT NULL
  route text NOT NULL
  key text NOT NULL
  body_sha256 bytea NOT NULL
  status integer
  response jsonb
  unreplayable_id text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, principal, route, key)
)
CREATE INDEX idempotency_keys_by_age ON public.idempotency_keys USING btree (created_at)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE join_tokens (
  id uuid NOT NULL
  secret_sha256 bytea NOT NULL
  name text NOT NULL
  role text NOT NULL
  region text NOT NULL
  labels jsonb NOT NULL DEFAULT '{}'::jsonb
  replaces_node uuid
  created_by text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  expires_at timestamp with time zone NOT NULL
  used_at timestamp with time zone
  used_by_spki_sha256 text
  node_id uuid
  revoked_at timestamp with time zone
  CONSTRAINT join_tokens_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT join_tokens_pkey PRIMARY KEY (id)
  CONSTRAINT join_tokens_replaces_node_fkey FOREIGN KEY (replaces_node) REFERENCES nodes(id)
)

TABLE login_throttles (
  account text NOT NULL
  address text NOT NULL
  failures integer NOT NULL DEFAULT 0
  blocked_until timestamp with time zone
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT login_throttles_pkey PRIMARY KEY (account, address)
)

TABLE memberships ROW LEVEL SECURITY (
  tenant_id uuid NOT NULL
  user_id uuid NOT NULL
  role text NOT NULL
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT memberships_pkey PRIMARY KEY (tenant_id, user_id)
  CONSTRAINT memberships_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT memberships_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
  CONSTRAINT tenant_role CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'billing'::text, 'member'::text, 'viewer'::text])))
)
CREATE INDEX memberships_by_user ON public.memberships USING btree (user_id)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT DELETE, INSERT, SELECT TO cloudpods_api

TABLE node_capacity (
  node_id uuid NOT NULL
  cpu_total integer NOT NULL DEFAULT 0
  cpu_reserved integer NOT NULL DEFAULT 0
  cpu_overcommit numeric(6,2) NOT NULL DEFAULT 4
  cpu_allocatable integer NOT NULL GENERATED AS (GREATEST((0)::numeric, floor((((cpu_total - cpu_reserved))::numeric * cpu_overcommit))))::integer
  cpu_allocated integer NOT NULL DEFAULT 0
  memory_total_mb integer NOT NULL DEFAULT 0
  memory_reserved_mb integer NOT NULL DEFAULT 0
  memory_overcommit numeric(6,2) NOT NULL DEFAULT 1
  memory_allocatable_mb integer NOT NULL GENERATED AS (GREATEST((0)::numeric, floor((((memory_total_mb - memory_reserved_mb))::numeric * memory_overcommit))))::integer
  memory_allocated_mb integer NOT NULL DEFAULT 0
  CONSTRAINT cpu_allocated_not_negative CHECK ((cpu_allocated >= 0))
  CONSTRAINT memory_allocated_not_negative CHECK ((memory_allocated_mb >= 0))
  CONSTRAINT node_capacity_cpu_overcommit_check CHECK ((cpu_overcommit > (0)::numeric))
  CONSTRAINT node_capacity_cpu_reserved_check CHECK ((cpu_reserved >= 0))
  CONSTRAINT node_capacity_cpu_total_check CHECK ((cpu_total >= 0))
  CONSTRAINT node_capacity_memory_overcommit_check CHECK ((memory_overcommit > (0)::numeric))
  CONSTRAINT node_capacity_memory_reserved_mb_check CHECK ((memory_reserved_mb >= 0))
  CONSTRAINT node_capacity_memory_total_mb_check CHECK ((memory_total_mb >= 0))
  CONSTRAINT node_capacity_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_capacity_pkey PRIMARY KEY (node_id)
) WITH (fillfactor=70)
CREATE TRIGGER node_capacity_not_oversold AFTER UPDATE ON public.node_capacity FOR EACH ROW WHEN ((((new.cpu_allocated > old.cpu_allocated) AND (new.cpu_allocated > new.cpu_allocatable)) OR ((new.memory_allocated_mb > old.memory_allocated_mb) AND (new.memory_allocated_mb > new.memory_allocatable_mb)))) EXECUTE FUNCTION refuse_overselling()
GRANT SELECT, UPDATE (cpu_allocated, memory_allocated_mb) TO cloudpods_api

TABLE node_certificates (
  serial text NOT NULL
  node_id uuid NOT NULL
  spki_sha256 text NOT NULL
  pem text NOT NULL
  not_before timestamp with time zone NOT NULL
  not_after timestamp with time zone NOT NULL
  issued_at timestamp with time zone NOT NULL DEFAULT now()
  first_used_at timestamp with time zone
  revoked_at timestamp with time zone
  authority_id uuid
  CONSTRAINT node_certificates_authority_id_fkey FOREIGN KEY (authority_id) REFERENCES certificate_authorities(id)
  CONSTRAINT node_certificates_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_certificates_pkey PRIMARY KEY (serial)
)
CREATE INDEX node_certificates_by_node ON public.node_certificates USING btree (node_id, issued_at)
CREATE INDEX node_certificates_in_force ON public.node_certificates USING btree (not_after, node_id) WHERE (revoked_at IS NULL)

TABLE node_claims ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  node_id uuid NOT NULL
  storage_id uuid NOT NULL
  generation bigint NOT NULL
  purpose text NOT NULL DEFAULT 'home'::text
  cpu integer NOT NULL
  memory_mb integer NOT NULL
  disk_gb integer NOT NULL
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT claim_purpose CHECK ((purpose = ANY (ARRAY['home'::text, 'move'::text, 'restore'::text])))
  CONSTRAINT node_claims_cpu_check CHECK ((cpu >= 0))
  CONSTRAINT node_claims_disk_gb_check CHECK ((disk_gb >= 0))
  CONSTRAINT node_claims_memory_mb_check CHECK ((memory_mb >= 0))
  CONSTRAINT node_claims_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_claims_pkey PRIMARY KEY (id)
  CONSTRAINT node_claims_pod_id_generation_key UNIQUE (pod_id, generation)
  CONSTRAINT node_claims_storage_id_fkey FOREIGN KEY (storage_id) REFERENCES storages(id)
  CONSTRAINT node_claims_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
CREATE INDEX node_claims_of_tenant ON public.node_claims USING btree (tenant_id, node_id)
CREATE INDEX node_claims_on_node ON public.node_claims USING btree (node_id)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE node_commands ROW LEVEL SECURITY (
  id uuid NOT NULL
  node_id uuid NOT NULL
  tenant_id uuid
  pod_id uuid
  task_id uuid
  op text NOT NULL
  command jsonb NOT NULL
  fleet_epoch bigint NOT NULL
  generation bigint NOT NULL
  revision bigint NOT NULL
  state text NOT NULL DEFAULT 'pending'::text
  step text
  percent integer NOT NULL DEFAULT 0
  error_code text
  error_message text
  retryable boolean
  observation jsonb
  backup jsonb
  move jsonb
  command_lines text[] NOT NULL DEFAULT '{}'::text[]
  created_at timestamp with time zone NOT NULL DEFAULT now()
  sent_at timestamp with time zone
  accepted_at timestamp with time zone
  finished_at timestamp with time zone
  CONSTRAINT command_state CHECK ((state = ANY (ARRAY['pending'::text, 'sent'::text, 'accepted'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'stale'::text, 'superseded'::text, 'expired'::text, 'interrupted'::text, 'cancelled'::text, 'unsupported'::text])))
  CONSTRAINT node_commands_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_commands_pkey PRIMARY KEY (id)
  CONSTRAINT node_commands_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
CREATE INDEX node_commands_by_end ON public.node_commands USING btree (finished_at) WHERE (finished_at IS NOT NULL)
CREATE INDEX node_commands_of_pod ON public.node_commands USING btree (pod_id, id)
CREATE INDEX node_commands_open ON public.node_commands USING btree (node_id, id) WHERE (state = ANY (ARRAY['pending'::text, 'sent'::text, 'accepted'::text, 'running'::text]))
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE (state, error_code, finished_at) TO cloudpods_api

TABLE node_conditions (
  node_id uuid NOT NULL
  kind text NOT NULL
  message text NOT NULL
  since timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT node_conditions_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_conditions_pkey PRIMARY KEY (node_id, kind)
)

TABLE node_coverage (
  spool_no integer NOT NULL
  seq_from bigint NOT NULL
  covers_from timestamp with time zone NOT NULL
  covers_to timestamp with time zone NOT NULL
  unreadable_vmids integer[] NOT NULL DEFAULT '{}'::integer[]
  unsynchronised boolean NOT NULL DEFAULT false
  CONSTRAINT node_coverage_pkey PRIMARY KEY (spool_no, seq_from)
  CONSTRAINT node_coverage_spool_no_fkey FOREIGN KEY (spool_no) REFERENCES node_spools(spool_no)
)
CREATE INDEX node_coverage_by_time ON public.node_coverage USING btree (covers_to)

TABLE node_drain_pods ROW LEVEL SECURITY (
  drain_id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  state text NOT NULL DEFAULT 'pending'::text
  move_id uuid
  failed_targets uuid[] NOT NULL DEFAULT '{}'::uuid[]
  blocker_code text
  blocker_message text
  expected_downtime_ms integer
  archive_made_at timestamp with time zone
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  return_tries integer NOT NULL DEFAULT 0
  CONSTRAINT drain_pod_state CHECK ((state = ANY (ARRAY['pending'::text, 'claimed'::text, 'moving'::text, 'moved'::text, 'blocked'::text, 'failed'::text, 'left'::text, 'gone'::text, 'lost'::text, 'returning'::text, 'returned'::text, 'stayed'::text])))
  CONSTRAINT node_drain_pods_drain_id_fkey FOREIGN KEY (drain_id) REFERENCES node_drains(id)
  CONSTRAINT node_drain_pods_move_id_fkey FOREIGN KEY (move_id) REFERENCES cloud_pod_moves(id)
  CONSTRAINT node_drain_pods_pkey PRIMARY KEY (drain_id, pod_id)
  CONSTRAINT node_drain_pods_tenant_id_pod_id_fkey FOREIGN KEY (tenant_id, pod_id) REFERENCES cloud_pods(tenant_id, id)
)
CREATE INDEX node_drain_pods_of_pod ON public.node_drain_pods USING btree (pod_id)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))

TABLE node_drains (
  id uuid NOT NULL
  node_id uuid NOT NULL
  kind text NOT NULL
  state text NOT NULL DEFAULT 'planning'::text
  reason text NOT NULL
  requested_by text NOT NULL
  request_id text NOT NULL
  max_parallel integer NOT NULL
  deadline_at timestamp with time zone NOT NULL
  on_no_capacity text NOT NULL
  on_deadline text NOT NULL
  on_no_backup text NOT NULL DEFAULT 'keep'::text
  return_home boolean NOT NULL DEFAULT false
  cancel_requested_at timestamp with time zone
  outcome text
  version integer NOT NULL DEFAULT 1
  started_at timestamp with time zone NOT NULL DEFAULT now()
  finished_at timestamp with time zone
  returned_at timestamp with time zone
  CONSTRAINT an_end_has_an_instant CHECK (((finished_at IS NULL) = (state = ANY (ARRAY['planning'::text, 'moving'::text]))))
  CONSTRAINT drain_kind CHECK ((kind = ANY (ARRAY['drain'::text, 'evacuation'::text])))
  CONSTRAINT drain_on_deadline CHECK ((on_deadline = ANY (ARRAY['leave'::text, 'stop-and-restore'::text])))
  CONSTRAINT drain_on_no_backup CHECK ((on_no_backup = ANY (ARRAY['keep'::text, 'mark-lost'::text])))
  CONSTRAINT drain_on_no_capacity CHECK ((on_no_capacity = ANY (ARRAY['fail'::text, 'partial'::text])))
  CONSTRAINT drain_state CHECK ((state = ANY (ARRAY['planning'::text, 'moving'::text, 'drained'::text, 'incomplete'::text, 'cancelled'::text])))
  CONSTRAINT node_drains_max_parallel_check CHECK (((max_parallel >= 1) AND (max_parallel <= 64)))
  CONSTRAINT node_drains_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_drains_pkey PRIMARY KEY (id)
)
CREATE INDEX node_drains_by_start ON public.node_drains USING btree (node_id, id)
CREATE INDEX node_drains_to_return ON public.node_drains USING btree (finished_at) WHERE (return_home AND (finished_at IS NOT NULL) AND (returned_at IS NULL))
CREATE UNIQUE INDEX one_open_drain_per_node ON public.node_drains USING btree (node_id) WHERE (finished_at IS NULL)

TABLE node_events (
  id uuid NOT NULL
  node_id uuid NOT NULL
  at timestamp with time zone NOT NULL DEFAULT now()
  kind text NOT NULL
  message text NOT NULL
  detail jsonb NOT NULL DEFAULT '{}'::jsonb
  CONSTRAINT node_events_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_events_pkey PRIMARY KEY (id)
)
CREATE INDEX node_events_by_node ON public.node_events USING btree (node_id, id)
CREATE INDEX node_events_by_time ON public.node_events USING brin (at)

TABLE node_findings (
  id uuid NOT NULL
  node_id uuid NOT NULL
  vmid integer NOT NULL
  pod_id uuid
  kind text NOT NULL
  subject text NOT NULL
  evidence jsonb NOT NULL
  offered text[] NOT NULL
  state text NOT NULL DEFAULT 'open'::text
  first_seen_at timestamp with time zone NOT NULL
  last_seen_at timestamp with time zone NOT NULL
  sightings integer NOT NULL
  action text
  action_by text
  acted_at timestamp with time zone
  attempts integer NOT NULL DEFAULT 0
  command_id uuid
  task_id uuid
  resolved_at timestamp with time zone
  resolved_by text
  resolution text
  reason text
  CONSTRAINT an_end_has_a_time CHECK (((state = 'open'::text) = (resolved_at IS NULL)))
  CONSTRAINT finding_action CHECK ((action = ANY (ARRAY['stop'::text, 'remove'::text, 'repair'::text, 'accept'::text, 'restore'::text])))
  CONSTRAINT finding_kind CHECK ((kind = ANY (ARRAY['missing'::text, 'power'::text, 'resized'::text, 'drift'::text, 'lock'::text, 'orphan'::text, 'stale-copy'::text, 'half-created'::text, 'unmanaged'::text, 'left-archive'::text])))
  CONSTRAINT finding_state CHECK ((state = ANY (ARRAY['open'::text, 'dismissed'::text, 'resolved'::text])))
  CONSTRAINT node_findings_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_findings_pkey PRIMARY KEY (id)
)
CREATE INDEX node_findings_by_end ON public.node_findings USING btree (resolved_at) WHERE (state = 'resolved'::text)
CREATE INDEX node_findings_of_pod ON public.node_findings USING btree (pod_id) WHERE (state <> 'resolved'::text)
CREATE UNIQUE INDEX one_current_finding ON public.node_findings USING btree (node_id, vmid, kind) WHERE (state <> 'resolved'::text)

TABLE node_inventories (
  node_id uuid NOT NULL
  number bigint NOT NULL DEFAULT 1
  compared_number bigint NOT NULL DEFAULT 0
  observed_at timestamp with time zone NOT NULL
  received_at timestamp with time zone NOT NULL DEFAULT now()
  containers jsonb NOT NULL
  CONSTRAINT node_inventories_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_inventories_pkey PRIMARY KEY (node_id)
) WITH (fillfactor=70)
CREATE INDEX node_inventories_to_compare ON public.node_inventories USING btree (received_at) WHERE (number <> compared_number)

TABLE node_outages (
  node_id uuid NOT NULL
  period tstzrange NOT NULL
  CONSTRAINT node_outages_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT one_outage_at_a_time EXCLUDE USING gist (node_id WITH =, period WITH &&)
)

TABLE node_queries UNLOGGED (
  id uuid NOT NULL
  node_id uuid NOT NULL
  question jsonb NOT NULL
  asked_at timestamp with time zone NOT NULL DEFAULT now()
  sent_at timestamp with time zone
  answer jsonb
  CONSTRAINT node_queries_pkey PRIMARY KEY (id)
)
CREATE INDEX node_queries_open ON public.node_queries USING btree (node_id) WHERE (sent_at IS NULL)

TABLE node_samples (
  node_id uuid NOT NULL
  at timestamp with time zone NOT NULL
  cpu_busy_basis_points integer NOT NULL
  load1_centi integer NOT NULL
  memory_total_mb integer NOT NULL
  memory_available_mb integer NOT NULL
  CONSTRAINT node_samples_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_samples_pkey PRIMARY KEY (node_id, at)
)

TABLE node_spool_gaps (
  spool_no integer NOT NULL
  seq_from bigint NOT NULL
  seq_to bigint NOT NULL
  noticed_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT node_spool_gaps_pkey PRIMARY KEY (spool_no, seq_from)
  CONSTRAINT node_spool_gaps_spool_no_fkey FOREIGN KEY (spool_no) REFERENCES node_spools(spool_no)
)
CREATE INDEX node_spool_gaps_by_time ON public.node_spool_gaps USING brin (noticed_at)

TABLE node_spool_pending (
  spool_no integer NOT NULL
  seq_from bigint NOT NULL
  seq_to bigint NOT NULL
  complete_until timestamp with time zone
  CONSTRAINT node_spool_pending_check CHECK ((seq_to >= seq_from))
  CONSTRAINT node_spool_pending_pkey PRIMARY KEY (spool_no, seq_from)
  CONSTRAINT node_spool_pending_spool_no_fkey FOREIGN KEY (spool_no) REFERENCES node_spools(spool_no)
)

TABLE node_spools (
  spool_no integer NOT NULL IDENTITY ALWAYS
  node_id uuid NOT NULL
  spool_id uuid NOT NULL
  contiguous_seq bigint NOT NULL DEFAULT 0
  complete_until timestamp with time zone
  refused_since timestamp with time zone
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT node_spools_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_spools_node_id_spool_id_key UNIQUE (node_id, spool_id)
  CONSTRAINT node_spools_pkey PRIMARY KEY (spool_no)
) WITH (fillfactor=50)

TABLE node_status (
  node_id uuid NOT NULL
  state text NOT NULL DEFAULT 'enrolled'::text
  state_since timestamp with time zone NOT NULL DEFAULT now()
  session_epoch bigint NOT NULL DEFAULT 0
  session_replica uuid
  session_connected boolean NOT NULL DEFAULT false
  session_seen_at timestamp with time zone
  last_heartbeat_at timestamp with time zone
  presence_online boolean
  boot_id text
  machine_id text
  agent_version text
  pve_version text
  capabilities text[] NOT NULL DEFAULT '{}'::text[]
  certificate_serial text
  clock_skew_ms bigint
  quorate boolean
  fleet_epoch bigint NOT NULL DEFAULT 0
  cpu_busy_basis_points integer
  load1_centi integer
  memory_available_mb integer
  spool_depth bigint
  spool_oldest_at timestamp with time zone
  running_containers integer
  inventory_at timestamp with time zone
  recent_displacements timestamp with time zone[] NOT NULL DEFAULT '{}'::timestamp with time zone[]
  recent_hellos jsonb NOT NULL DEFAULT '[]'::jsonb
  CONSTRAINT node_state CHECK ((state = ANY (ARRAY['enrolled'::text, 'online'::text, 'degraded'::text, 'offline'::text, 'lost'::text, 'removed'::text])))
  CONSTRAINT node_status_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_status_pkey PRIMARY KEY (node_id)
) WITH (fillfactor=70)
CREATE TRIGGER node_outages_are_recorded AFTER INSERT OR UPDATE OF state ON public.node_status FOR EACH ROW EXECUTE FUNCTION record_outage()
GRANT SELECT TO cloudpods_api

TABLE node_storages (
  node_id uuid NOT NULL
  storage_id uuid NOT NULL
  available boolean NOT NULL DEFAULT true
  seen_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT node_storages_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_storages_pkey PRIMARY KEY (node_id, storage_id)
  CONSTRAINT node_storages_storage_id_fkey FOREIGN KEY (storage_id) REFERENCES storages(id)
)
GRANT SELECT TO cloudpods_api

TABLE node_templates (
  node_id uuid NOT NULL
  name text NOT NULL
  seen_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT node_templates_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT node_templates_pkey PRIMARY KEY (node_id, name)
)
GRANT SELECT TO cloudpods_api

TABLE nodes (
  id uuid NOT NULL
  name text NOT NULL
  pve_name text
  cluster_id uuid
  role text NOT NULL DEFAULT 'hypervisor'::text
  region text NOT NULL
  labels jsonb NOT NULL DEFAULT '{}'::jsonb
  schedulable boolean NOT NULL DEFAULT true
  cordon_reason text
  cordoned_at timestamp with time zone
  maintenance_note text
  default_storage text
  bridge text NOT NULL DEFAULT 'vmbr0'::text
  pool text
  template_vmid integer
  template_archive text
  storage_is_chosen boolean NOT NULL DEFAULT false
  template_is_chosen boolean NOT NULL DEFAULT false
  version integer NOT NULL DEFAULT 1
  created_at timestamp with time zone NOT NULL DEFAULT now()
  removed_at timestamp with time zone
  backup_storage text
  cordoned_until timestamp with time zone
  cordoned_by text
  CONSTRAINT node_role CHECK ((role = ANY (ARRAY['hypervisor'::text, 'web'::text, 'mail'::text, 'dns'::text, 'cloud'::text, 'db'::text, 'backup'::text])))
  CONSTRAINT nodes_cluster_id_fkey FOREIGN KEY (cluster_id) REFERENCES clusters(id)
  CONSTRAINT nodes_pkey PRIMARY KEY (id)
  CONSTRAINT only_a_cordon_ends CHECK (((cordoned_until IS NULL) OR (NOT schedulable)))
)
CREATE INDEX nodes_to_uncordon ON public.nodes USING btree (cordoned_until) WHERE (cordoned_until IS NOT NULL)
CREATE UNIQUE INDEX one_live_node_per_name ON public.nodes USING btree (name) WHERE (removed_at IS NULL)
GRANT SELECT, UPDATE (maintenance_note) TO cloudpods_api

TABLE notifications ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  channel text NOT NULL
  recipient text NOT NULL
  dedupe_key text NOT NULL
  payload jsonb NOT NULL
  attempts integer NOT NULL DEFAULT 0
  created_at timestamp with time zone NOT NULL DEFAULT now()
  queued_at timestamp with time zone NOT NULL DEFAULT now()
  next_try_at timestamp with time zone NOT NULL DEFAULT now()
  sent_at timestamp with time zone
  dead_at timestamp with time zone
  last_error_code text
  last_error_message text
  CONSTRAINT notification_channel CHECK ((channel = ANY (ARRAY['email'::text, 'webhook'::text])))
  CONSTRAINT notifications_pkey PRIMARY KEY (id)
  CONSTRAINT notifications_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT one_notification_per_occasion UNIQUE (tenant_id, dedupe_key, channel, recipient)
  CONSTRAINT sent_or_dead CHECK ((num_nonnulls(sent_at, dead_at) <= 1))
)
CREATE INDEX notifications_dead ON public.notifications USING btree (dead_at, id) WHERE (dead_at IS NOT NULL)
CREATE INDEX notifications_due ON public.notifications USING btree (next_try_at) WHERE ((sent_at IS NULL) AND (dead_at IS NULL))
CREATE INDEX notifications_sent ON public.notifications USING btree (sent_at) WHERE (sent_at IS NOT NULL)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT TO cloudpods_api

TABLE placement_failures ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  at timestamp with time zone NOT NULL DEFAULT now()
  request jsonb NOT NULL
  verdicts jsonb NOT NULL
  summary text NOT NULL
  CONSTRAINT placement_failures_pkey PRIMARY KEY (id)
  CONSTRAINT placement_failures_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
)
CREATE INDEX placement_failures_by_time ON public.placement_failures USING btree (at)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT TO cloudpods_api

TABLE plan_backup_policies (
  plan_code text NOT NULL
  enabled boolean NOT NULL DEFAULT true
  every_hours integer NOT NULL
  keep_last integer NOT NULL
  keep_daily integer NOT NULL DEFAULT 0
  keep_weekly integer NOT NULL DEFAULT 0
  version integer NOT NULL DEFAULT 1
  CONSTRAINT plan_backup_policies_every_hours_check CHECK (((every_hours >= 1) AND (every_hours <= 744)))
  CONSTRAINT plan_backup_policies_keep_daily_check CHECK (((keep_daily >= 0) AND (keep_daily <= 100)))
  CONSTRAINT plan_backup_policies_keep_last_check CHECK (((keep_last >= 1) AND (keep_last <= 100)))
  CONSTRAINT plan_backup_policies_keep_weekly_check CHECK (((keep_weekly >= 0) AND (keep_weekly <= 100)))
  CONSTRAINT plan_backup_policies_pkey PRIMARY KEY (plan_code)
  CONSTRAINT plan_backup_policies_plan_code_fkey FOREIGN KEY (plan_code) REFERENCES cloud_pod_plans(code) ON DELETE CASCADE
)
GRANT SELECT TO cloudpods_api

TABLE renewal_challenges (
  nonce text NOT NULL
  node_id uuid NOT NULL
  expires_at timestamp with time zone NOT NULL
  used_at timestamp with time zone
  CONSTRAINT renewal_challenges_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT renewal_challenges_pkey PRIMARY KEY (nonce)
)

TABLE reserved_vmids (
  vmid integer NOT NULL
  seen_on uuid
  seen_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT reserved_vmids_pkey PRIMARY KEY (vmid)
  CONSTRAINT reserved_vmids_seen_on_fkey FOREIGN KEY (seen_on) REFERENCES nodes(id)
)

TABLE sessions (
  id uuid NOT NULL
  user_id uuid NOT NULL
  token_sha256 bytea NOT NULL
  csrf_sha256 bytea
  user_agent text
  ip text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  last_used_at timestamp with time zone NOT NULL DEFAULT now()
  idle_expires_at timestamp with time zone NOT NULL
  expires_at timestamp with time zone NOT NULL
  revoked_at timestamp with time zone
  CONSTRAINT sessions_pkey PRIMARY KEY (id)
  CONSTRAINT sessions_token_sha256_key UNIQUE (token_sha256)
  CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
)
CREATE INDEX sessions_by_user ON public.sessions USING btree (user_id)

TABLE storages (
  id uuid NOT NULL
  cluster_id uuid
  node_id uuid
  name text NOT NULL
  type text NOT NULL
  shared boolean NOT NULL DEFAULT false
  holds_root_disks boolean NOT NULL DEFAULT true
  total_gb integer NOT NULL DEFAULT 0
  used_gb integer NOT NULL DEFAULT 0
  reserved_gb integer NOT NULL DEFAULT 0
  overcommit numeric(6,2) NOT NULL DEFAULT 1
  allocatable_gb integer NOT NULL GENERATED AS (GREATEST((0)::numeric, floor((((total_gb - reserved_gb))::numeric * overcommit))))::integer
  allocated_gb integer NOT NULL DEFAULT 0
  holds_backups boolean NOT NULL DEFAULT false
  backend text NOT NULL DEFAULT ''::text
  CONSTRAINT disk_allocated_not_negative CHECK ((allocated_gb >= 0))
  CONSTRAINT storage_has_one_owner CHECK ((num_nonnulls(cluster_id, node_id) = 1))
  CONSTRAINT storages_cluster_id_fkey FOREIGN KEY (cluster_id) REFERENCES clusters(id)
  CONSTRAINT storages_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT storages_overcommit_check CHECK ((overcommit > (0)::numeric))
  CONSTRAINT storages_pkey PRIMARY KEY (id)
  CONSTRAINT storages_reserved_gb_check CHECK ((reserved_gb >= 0))
  CONSTRAINT storages_total_gb_check CHECK ((total_gb >= 0))
) WITH (fillfactor=70)
CREATE UNIQUE INDEX storages_of_cluster ON public.storages USING btree (cluster_id, name) WHERE (cluster_id IS NOT NULL)
CREATE UNIQUE INDEX storages_of_node ON public.storages USING btree (node_id, name) WHERE (node_id IS NOT NULL)
CREATE TRIGGER storages_not_oversold AFTER UPDATE ON public.storages FOR EACH ROW WHEN (((new.allocated_gb > old.allocated_gb) AND (new.allocated_gb > new.allocatable_gb))) EXECUTE FUNCTION refuse_overselling()
GRANT SELECT, UPDATE (allocated_gb) TO cloudpods_api

TABLE subscriptions ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  plan_code text
  external_ref uuid NOT NULL
  state text NOT NULL DEFAULT 'PENDING_ACTIVATION'::text
  currency character(3) NOT NULL
  created_at timestamp with time zone NOT NULL DEFAULT now()
  activated_at timestamp with time zone
  ended_at timestamp with time zone
  CONSTRAINT subscription_state CHECK ((state = ANY (ARRAY['PENDING_ACTIVATION'::text, 'PENDING_PAYMENT'::text, 'PENDING_UPGRADE'::text, 'ACTIVE'::text, 'SUSPENDED'::text, 'CANCELLED'::text, 'EXPIRED'::text])))
  CONSTRAINT subscriptions_pkey PRIMARY KEY (id)
  CONSTRAINT subscriptions_plan_code_fkey FOREIGN KEY (plan_code) REFERENCES cloud_pod_plans(code)
  CONSTRAINT subscriptions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
  CONSTRAINT subscriptions_tenant_id_id_key UNIQUE (tenant_id, id)
)
CREATE UNIQUE INDEX one_live_subscription_per_pod ON public.subscriptions USING btree (external_ref) WHERE (ended_at IS NULL)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE telemetry_dead_letters (
  id uuid NOT NULL
  node_id uuid
  topic text NOT NULL
  reason text NOT NULL
  detail text NOT NULL DEFAULT ''::text
  payload bytea NOT NULL
  received_at timestamp with time zone NOT NULL DEFAULT now()
  retried_at timestamp with time zone
  CONSTRAINT telemetry_dead_letters_pkey PRIMARY KEY (id)
)
CREATE INDEX telemetry_dead_letters_by_time ON public.telemetry_dead_letters USING btree (received_at)
CREATE INDEX telemetry_dead_letters_waiting ON public.telemetry_dead_letters USING btree (received_at, id) WHERE (retried_at IS NULL)

TABLE tenant_pricing_names (
  tenant_id uuid NOT NULL
  pricing_name text
  valid tstzrange NOT NULL
  CONSTRAINT one_pricing_name_at_a_time EXCLUDE USING gist (tenant_id WITH =, valid WITH &&)
  CONSTRAINT tenant_pricing_names_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id) ON DELETE CASCADE
)

TABLE tenant_webhooks ROW LEVEL SECURITY (
  tenant_id uuid NOT NULL
  url text
  secret_sealed text NOT NULL
  secret_made_at timestamp with time zone NOT NULL DEFAULT now()
  version integer NOT NULL DEFAULT 1
  updated_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT tenant_webhooks_pkey PRIMARY KEY (tenant_id)
  CONSTRAINT tenant_webhooks_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT INSERT, SELECT, UPDATE TO cloudpods_api

TABLE tenants ROW LEVEL SECURITY (
  id uuid NOT NULL
  slug text NOT NULL
  name text NOT NULL
  status text NOT NULL DEFAULT 'active'::text
  region text
  currency character(3) NOT NULL DEFAULT 'USD'::bpchar
  billing_email text
  timezone text NOT NULL DEFAULT 'UTC'::text
  pricing_name text
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT slug_is_a_label CHECK ((slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'::text))
  CONSTRAINT tenant_status CHECK ((status = ANY (ARRAY['active'::text, 'suspended'::text, 'closed'::text])))
  CONSTRAINT tenants_pkey PRIMARY KEY (id)
  CONSTRAINT tenants_slug_key UNIQUE (slug)
)
CREATE TRIGGER pricing_names_are_recorded AFTER INSERT OR UPDATE OF pricing_name, currency ON public.tenants FOR EACH ROW EXECUTE FUNCTION record_pricing_name()
POLICY own_tenant TO cloudpods_api USING (id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT SELECT TO cloudpods_api

TABLE unmanaged_containers (
  node_id uuid NOT NULL
  vmid integer NOT NULL
  pod_id uuid
  observation jsonb NOT NULL
  first_seen_at timestamp with time zone NOT NULL DEFAULT now()
  last_seen_at timestamp with time zone NOT NULL DEFAULT now()
  sightings integer NOT NULL DEFAULT 1
  CONSTRAINT unmanaged_containers_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
  CONSTRAINT unmanaged_containers_pkey PRIMARY KEY (node_id, vmid)
)
CREATE INDEX unmanaged_containers_of_pod ON public.unmanaged_containers USING btree (pod_id) WHERE (pod_id IS NOT NULL)

TABLE usage_adjustments ROW LEVEL SECURITY (
  id uuid NOT NULL
  tenant_id uuid NOT NULL
  pod_id uuid NOT NULL
  year_month character(7) NOT NULL
  amount numeric(20,10) NOT NULL
  currency character(3) NOT NULL
  created_at timestamp with time zone NOT NULL DEFAULT now()
  settled_at timestamp with time zone
  CONSTRAINT usage_adjustments_pkey PRIMARY KEY (id)
  CONSTRAINT usage_adjustments_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
)
POLICY own_tenant TO cloudpods_api USING (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id)) CHECK (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id))
GRANT SELECT TO cloudpods_api

TABLE usage_archiving (
  one boolean NOT NULL DEFAULT true
  turn bigint NOT NULL
  CONSTRAINT usage_archiving_one_check CHECK (one)
  CONSTRAINT usage_archiving_pkey PRIMARY KEY (one)
)

TABLE usage_closed_months (
  tenant_id uuid NOT NULL
  year_month character(7) NOT NULL
  currency character(3) NOT NULL
  billed_cost numeric(20,10) NOT NULL
  closed_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT usage_closed_months_pkey PRIMARY KEY (tenant_id, year_month)
  CONSTRAINT usage_closed_months_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
)

TABLE usage_days (
  day date NOT NULL
  made_at timestamp with time zone NOT NULL DEFAULT now()
  sealed_at timestamp with time zone
  archived_at timestamp with time zone
  dropped_at timestamp with time zone
  hours_archived_at timestamp with time zone
  hours_archive_sha256 bytea
  CONSTRAINT usage_days_pkey PRIMARY KEY (day)
)

TABLE usage_dirty_days (
  id bigint NOT NULL IDENTITY ALWAYS
  date date NOT NULL
  pod_ids uuid[]
  CONSTRAINT usage_dirty_days_pkey PRIMARY KEY (id)
)

TABLE usage_dirty_hours (
  id bigint NOT NULL IDENTITY ALWAYS
  hour_start timestamp with time zone NOT NULL
  node_id uuid
  pod_id uuid
  CONSTRAINT a_mark_names_one CHECK ((num_nonnulls(node_id, pod_id) = 1))
  CONSTRAINT usage_dirty_hours_pkey PRIMARY KEY (id)
)
CREATE INDEX usage_dirty_hours_by_hour ON public.usage_dirty_hours USING btree (hour_start)

TABLE usage_dirty_months (
  id bigint NOT NULL IDENTITY ALWAYS
  year_month character(7) NOT NULL
  pod_ids uuid[]
  CONSTRAINT usage_dirty_months_pkey PRIMARY KEY (id)
)

TABLE usage_hours (
  hour_start timestamp with time zone NOT NULL
  rolled_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT usage_hours_pkey PRIMARY KEY (hour_start)
)

TABLE usage_months (
  year_month character(7) NOT NULL
  days_archived_at timestamp with time zone NOT NULL
  days_archive_sha256 bytea NOT NULL
  CONSTRAINT usage_months_pkey PRIMARY KEY (year_month)
)

TABLE usage_rejected_samples (
  id uuid NOT NULL
  node_id uuid NOT NULL
  spool_no integer NOT NULL
  seq bigint NOT NULL
  reason text NOT NULL
  sample jsonb NOT NULL
  received_at timestamp with time zone NOT NULL DEFAULT now()
  retried_at timestamp with time zone
  CONSTRAINT usage_rejected_samples_pkey PRIMARY KEY (id)
)
CREATE INDEX usage_rejected_samples_by_time ON public.usage_rejected_samples USING btree (received_at)
CREATE INDEX usage_rejected_samples_waiting ON public.usage_rejected_samples USING btree (received_at, id) WHERE (retried_at IS NULL)

TABLE usage_verifications (
  year_month character(7) NOT NULL
  verified_at timestamp with time zone NOT NULL
  findings_count integer NOT NULL
  disagreements_count integer NOT NULL
  findings jsonb NOT NULL
  CONSTRAINT usage_verifications_pkey PRIMARY KEY (year_month, verified_at)
)

TABLE users (
  id uuid NOT NULL
  email text NOT NULL
  name text
  phone text
  avatar_url text
  email_verified_at timestamp with time zone
  password_hash text NOT NULL
  platform_role text NOT NULL DEFAULT 'USER'::text
  is_active boolean NOT NULL DEFAULT true
  created_at timestamp with time zone NOT NULL DEFAULT now()
  CONSTRAINT platform_role CHECK ((platform_role = ANY (ARRAY['ADMINISTRATOR'::text, 'OPERATOR'::text, 'USER'::text])))
  CONSTRAINT users_pkey PRIMARY KEY (id)
)
CREATE UNIQUE INDEX users_email_without_case ON public.users USING btree (lower(email))

CREATE OR REPLACE FUNCTION public.app_tenant_id()
 RETURNS uuid
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$ SELECT nullif(current_setting('app.tenant_id', true), '')::uuid $function$

CREATE OR REPLACE FUNCTION public.audit_log_is_append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.chain_seq IS NULL
     AND (to_jsonb(NEW) - 'chain_seq' - 'hash') = (to_jsonb(OLD) - 'chain_seq' - 'hash') THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'restrict_violation';
END $function$

CREATE OR REPLACE FUNCTION public.audit_seals_are_append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION 'audit_seals is append-only' USING ERRCODE = 'restrict_violation';
END $function$

CREATE OR REPLACE FUNCTION public.billed_figures_stay()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF TG_OP = 'DELETE' OR ROW(NEW.closed_at, NEW.billed_cost, NEW.billed_uptime_ms, NEW.billed_out_bytes, NEW.currency)
     IS DISTINCT FROM ROW(OLD.closed_at, OLD.billed_cost, OLD.billed_uptime_ms, OLD.billed_out_bytes, OLD.currency) THEN
    RAISE EXCEPTION 'the month % of pod % is closed', OLD.year_month, OLD.pod_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $function$

CREATE OR REPLACE FUNCTION public.end_allocation()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public'
AS $function$
BEGIN
  DELETE FROM cloud_pod_allocations WHERE pod_id = NEW.id AND upper_inf(valid) AND lower(valid) >= NEW.deletion_requested_at;
  UPDATE cloud_pod_allocations SET valid = tstzrange(lower(valid), NEW.deletion_requested_at) WHERE pod_id = NEW.id AND upper_inf(valid);
  RETURN NULL;
END $function$

CREATE OR REPLACE FUNCTION public.gapped_length_ms(covered int4multirange)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN (SELECT (COALESCE(sum((upper(piece.piece) - lower(piece.piece))), (0)::bigint))::integer AS "coalesce" FROM unnest(gapped_length_ms.covered) piece(piece))

CREATE OR REPLACE FUNCTION public.histogram_p95(entries bigint[])
 RETURNS smallint
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN (SELECT (min(ranked.bucket))::smallint AS min FROM (SELECT (entry.entry >> 32) AS bucket, sum((entry.entry & '4294967295'::bigint)) OVER (ORDER BY (entry.entry >> 32)) AS up_to, sum((entry.entry & '4294967295'::bigint)) OVER () AS whole FROM unnest(histogram_p95.entries) entry(entry) WHERE (entry.entry IS NOT NULL)) ranked WHERE (((100)::numeric * ranked.up_to) >= ((95)::numeric * ranked.whole)))

CREATE OR REPLACE FUNCTION public.hours_to_mark(changed tstzrange)
 RETURNS SETOF timestamp with time zone
 LANGUAGE sql
 STABLE
AS $function$
  SELECT hour_start FROM usage_hours
  WHERE hour_start > lower(changed) - interval '1 hour' AND hour_start < coalesce(upper(changed), 'infinity')
  UNION
  SELECT last_made + step * interval '1 hour' FROM (SELECT max(hour_start) AS last_made FROM usage_hours) AS made, generate_series(1, 3) AS step
  WHERE last_made + (step + 1) * interval '1 hour' > lower(changed) AND last_made + step * interval '1 hour' < coalesce(upper(changed), 'infinity')
  UNION
  SELECT hour FROM generate_series(
    date_bin('1 hour', greatest(lower(changed), clock_timestamp() - interval '7 days'), '2000-01-01Z'), clock_timestamp(), '1 hour') AS hour
  WHERE hour < coalesce(upper(changed), 'infinity')
$function$

CREATE OR REPLACE FUNCTION public.length_ms(covered int4multirange)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN isempty(covered) THEN 0 WHEN (int4multirange(range_merge(covered)) = covered) THEN (upper(covered) - lower(covered)) ELSE gapped_length_ms(covered) END

CREATE OR REPLACE FUNCTION public.mark_allocated_hours()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE changed tstzrange; pod uuid;
BEGIN
  IF TG_OP = 'INSERT' THEN changed := NEW.valid; pod := NEW.pod_id;
  ELSIF TG_OP = 'DELETE' THEN changed := OLD.valid; pod := OLD.pod_id;
  ELSIF lower(NEW.valid) = lower(OLD.valid) AND to_jsonb(NEW) - 'valid' = to_jsonb(OLD) - 'valid' THEN
    -- Only the end moved.
    changed := tstzrange(least(upper(NEW.valid), upper(OLD.valid)), nullif(greatest(coalesce(upper(NEW.valid), 'infinity'), coalesce(upper(OLD.valid), 'infinity')), 'infinity'));
    pod := NEW.pod_id;
  ELSE
    changed := range_merge(NEW.valid, OLD.valid); pod := NEW.pod_id;
  END IF;
  INSERT INTO usage_dirty_hours (hour_start, pod_id)
  SELECT hour, pod FROM hours_to_mark(changed) AS hour WHERE NOT isempty(changed);
  RETURN NULL;
END $function$

CREATE OR REPLACE FUNCTION public.mark_priced_hours()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  INSERT INTO usage_dirty_hours (hour_start, node_id)
  SELECT hour, id FROM hours_to_mark(tstzrange(now() - interval '1 hour', NULL)) AS hour, nodes;
  RETURN NULL;
END $function$

CREATE OR REPLACE FUNCTION public.ms_between(first timestamp with time zone, last timestamp with time zone)
 RETURNS bigint
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN ((floor(((date_part('epoch'::text, (last - '2000-01-01 00:00:00+00'::timestamp with time zone)) * (1000)::double precision) + (0.0005)::double precision)))::bigint - (floor(((date_part('epoch'::text, (first - '2000-01-01 00:00:00+00'::timestamp with time zone)) * (1000)::double precision) + (0.0005)::double precision)))::bigint)

CREATE OR REPLACE FUNCTION public.ms_in_hour(at timestamp with time zone, hour_start timestamp with time zone)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN (floor(LEAST((3600000)::double precision, GREATEST((0)::double precision, ((date_part('epoch'::text, (at - hour_start)) * (1000)::double precision) + (0.0005)::double precision)))))::integer

CREATE OR REPLACE FUNCTION public.next_vmid()
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public'
AS $function$
DECLARE candidate integer;
BEGIN
  LOOP
    candidate := nextval('vmid_seq');
    EXIT WHEN NOT EXISTS (SELECT FROM reserved_vmids WHERE vmid = candidate);
  END LOOP;
  RETURN candidate;
END $function$

CREATE OR REPLACE FUNCTION public.proportion(amount numeric, part numeric, whole numeric)
 RETURNS numeric
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN (div((((('20000000000'::bigint)::numeric * amount) * part) + whole), ((2)::numeric * whole)) * 0.0000000001)

CREATE OR REPLACE FUNCTION public.record_outage()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE was_away boolean := TG_OP = 'UPDATE' AND OLD.state IN ('offline', 'lost');
BEGIN
  IF NEW.state IN ('offline', 'lost') AND NOT was_away THEN
    INSERT INTO node_outages (node_id, period)
    SELECT NEW.node_id, tstzrange(NEW.state_since, NULL)
    WHERE NOT EXISTS (SELECT FROM node_outages o WHERE o.node_id = NEW.node_id AND o.period && tstzrange(NEW.state_since, NULL));
  ELSIF NEW.state IN ('online', 'degraded') THEN
    -- One that ends where it began never was.
    DELETE FROM node_outages WHERE node_id = NEW.node_id AND upper_inf(period) AND lower(period) >= NEW.state_since;
    UPDATE node_outages SET period = tstzrange(lower(period), NEW.state_since) WHERE node_id = NEW.node_id AND upper_inf(period);
  ELSE
    RETURN NULL;
  END IF;
  INSERT INTO usage_dirty_hours (hour_start, node_id)
  SELECT hour, NEW.node_id FROM hours_to_mark(tstzrange(NEW.state_since, NULL)) AS hour;
  RETURN NULL;
END $function$

CREATE OR REPLACE FUNCTION public.record_pricing_name()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO tenant_pricing_names (tenant_id, pricing_name, valid) VALUES (NEW.id, NEW.pricing_name, tstzrange('-infinity', NULL));
    RETURN NULL;
  END IF;
  IF NEW.currency <> OLD.currency AND EXISTS (SELECT FROM cloud_pod_usage_hourly WHERE tenant_id = NEW.id) THEN
    RAISE EXCEPTION 'usage of tenant % was rated in %', NEW.id, OLD.currency USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.pricing_name IS DISTINCT FROM OLD.pricing_name THEN
    DELETE FROM tenant_pricing_names WHERE tenant_id = NEW.id AND upper_inf(valid) AND lower(valid) >= now();
    UPDATE tenant_pricing_names SET valid = tstzrange(lower(valid), now()) WHERE tenant_id = NEW.id AND upper_inf(valid);
    INSERT INTO tenant_pricing_names (tenant_id, pricing_name, valid) VALUES (NEW.id, NEW.pricing_name, tstzrange(now(), NULL));
    -- A change that commits after its hour was rated is rated again.
    INSERT INTO usage_dirty_hours (hour_start, pod_id)
    SELECT hour, p.id FROM cloud_pods p, hours_to_mark(tstzrange(now(), NULL)) AS hour
    WHERE p.tenant_id = NEW.id AND p.status <> 'deleted';
  END IF;
  RETURN NULL;
END $function$

CREATE OR REPLACE FUNCTION public.refuse_overselling()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF coalesce(current_setting('cloudpods.recounting', true), '') <> 'on' THEN
    RAISE EXCEPTION '% would be oversold: %', TG_TABLE_NAME, to_jsonb(NEW) USING ERRCODE = 'CP001';
  END IF;
  RETURN NULL;
END $function$

CREATE OR REPLACE FUNCTION public.used_prices_stay()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE
  before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
  after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
  changed tstzrange;
  ends text := CASE TG_TABLE_NAME WHEN 'cloud_pod_pricing' THEN 'effective_until' ELSE 'valid' END;
BEGIN
  IF TG_TABLE_NAME = 'cloud_pod_pricing' THEN
    changed := tstzrange(least((before ->> 'effective_from')::timestamptz, (after ->> 'effective_from')::timestamptz), NULL);
    IF TG_OP = 'UPDATE' AND before - ends = after - ends THEN
      changed := tstzrange(least((before ->> ends)::timestamptz, (after ->> ends)::timestamptz), NULL);
    END IF;
  ELSE
    changed := tstzrange(least(lower((before ->> ends)::tstzrange), lower((after ->> ends)::tstzrange)), NULL);
    IF TG_OP = 'UPDATE' AND before - ends = after - ends AND lower((before ->> ends)::tstzrange) = lower((after ->> ends)::tstzrange) THEN
      changed := tstzrange(least(upper((before ->> ends)::tstzrange), upper((after ->> ends)::tstzrange)), NULL);
    END IF;
  END IF;
  IF EXISTS (SELECT FROM usage_hours WHERE hour_start + interval '1 hour' > lower(changed)) THEN
    RAISE EXCEPTION 'usage after % was rated already', lower(changed) USING ERRCODE = 'CP002';
  END IF;
  RETURN coalesce(NEW, OLD);
END $function$

SEQUENCE vmid_seq FROM 100000 TO 999999999

VIEW tenant_closed_months WITH (security_barrier=true) AS
 SELECT year_month,
    currency,
    billed_cost,
    closed_at
   FROM usage_closed_months
  WHERE (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id));

VIEW tenant_usage_daily WITH (security_barrier=true) AS
 SELECT pod_id,
    date,
    sample_count,
    round(((uptime_ms)::numeric / 3600000.0), 4) AS uptime_hours,
    round((((cpu_usage_us)::numeric / 10.0) / (NULLIF(cpu_capacity_ms, 0))::numeric), 2) AS cpu_avg_percent,
    round(((cpu_max_basis_points)::numeric / 100.0), 2) AS cpu_max_percent,
    histogram_p95(cpu_histogram) AS cpu_p95_percent,
    round(((memory_byte_ms / (NULLIF(running_ms, 0))::numeric) / (1048576)::numeric), 1) AS memory_avg_mb,
    round(((memory_max_bytes)::numeric / 1048576.0), 1) AS memory_max_mb,
    round(((disk_byte_ms / (NULLIF(running_ms, 0))::numeric) / (1073741824)::numeric), 3) AS disk_avg_gb,
    round(((disk_max_bytes)::numeric / 1073741824.0), 3) AS disk_max_gb,
    round(((guest_in_bytes)::numeric / 1073741824.0), 9) AS network_in_total_gb,
    round(((guest_out_bytes)::numeric / 1073741824.0), 9) AS network_out_total_gb,
    round((((io_read_bytes)::numeric + (io_write_bytes)::numeric) / 1073741824.0), 9) AS disk_io_total_gb,
    round(((measured_ms)::numeric / 60000.0), 3) AS measured_minutes,
    round(((late_ms)::numeric / 60000.0), 3) AS late_minutes,
    round(((not_running_ms)::numeric / 60000.0), 3) AS not_running_minutes,
    round(((missing_ms)::numeric / 60000.0), 3) AS missing_minutes,
    guest_in_bytes,
    guest_out_bytes,
    uptime_ms,
    measured_ms,
    late_ms,
    not_running_ms,
    missing_ms,
    core_ms,
    memory_mb_ms,
    disk_gb_ms,
    billable_in_bytes,
    billable_out_bytes,
    plan_out_bytes,
    currency,
    cost_cpu,
    cost_memory,
    cost_disk,
    cost_network_in,
    cost_network_out,
    cost_plan,
    cost_total AS estimated_cost,
    hours
   FROM cloud_pod_usage_daily
  WHERE (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id));

VIEW tenant_usage_hourly WITH (security_barrier=true) AS
 SELECT pod_id,
    hour_start,
    sample_count,
    round(((uptime_ms)::numeric / 60000.0), 3) AS uptime_minutes,
    round((((cpu_usage_us)::numeric / 10.0) / (NULLIF(cpu_capacity_ms, 0))::numeric), 2) AS cpu_avg_percent,
    round(((cpu_max_basis_points)::numeric / 100.0), 2) AS cpu_max_percent,
    round(((memory_byte_ms / (NULLIF(running_ms, 0))::numeric) / (1048576)::numeric), 1) AS memory_avg_mb,
    round(((memory_max_bytes)::numeric / 1048576.0), 1) AS memory_max_mb,
    round(((disk_byte_ms / (NULLIF(running_ms, 0))::numeric) / (1073741824)::numeric), 3) AS disk_avg_gb,
    round(((guest_in_bytes)::numeric / 1048576.0), 6) AS network_in_total_mb,
    round(((guest_out_bytes)::numeric / 1048576.0), 6) AS network_out_total_mb,
    round(((io_read_bytes)::numeric / 1048576.0), 6) AS disk_read_total_mb,
    round(((io_write_bytes)::numeric / 1048576.0), 6) AS disk_write_total_mb,
    guest_in_bytes,
    guest_out_bytes,
    uptime_ms,
    measured_ms,
    late_ms,
    not_running_ms,
    missing_ms,
    core_ms,
    memory_mb_ms,
    disk_gb_ms,
    billable_in_bytes,
    billable_out_bytes,
    plan_out_bytes,
    currency,
    cost_cpu,
    cost_memory,
    cost_disk,
    cost_network_in,
    cost_network_out,
    cost_plan,
    cost_total,
    final_at,
    sealed_at
   FROM cloud_pod_usage_hourly
  WHERE (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id));

VIEW tenant_usage_monthly WITH (security_barrier=true) AS
 SELECT pod_id,
    year_month,
    round(((core_ms)::numeric / 3600000.0), 4) AS cpu_hours,
    round((((memory_mb_ms)::numeric / 1024.0) / (3600000)::numeric), 4) AS memory_gb_hours,
    round(((disk_gb_ms)::numeric / 3600000.0), 4) AS disk_gb_hours,
    round(((guest_in_bytes)::numeric / 1073741824.0), 9) AS network_in_gb,
    round(((guest_out_bytes)::numeric / 1073741824.0), 9) AS network_out_gb,
    round(((uptime_ms)::numeric / 3600000.0), 4) AS total_uptime_hours,
    guest_in_bytes,
    guest_out_bytes,
    uptime_ms,
    measured_ms,
    late_ms,
    not_running_ms,
    missing_ms,
    core_ms,
    memory_mb_ms,
    disk_gb_ms,
    billable_in_bytes,
    billable_out_bytes,
    plan_out_bytes,
    overage_bytes,
    currency,
    cost_cpu,
    cost_memory,
    cost_disk,
    cost_network_in,
    cost_network_out,
    cost_plan,
    cost_overage,
    cost_total AS estimated_cost,
    billed_cost,
    adjusted_cost,
    closed_at,
    invoice_id
   FROM cloud_pod_usage_monthly
  WHERE (tenant_id = ( SELECT app_tenant_id() AS app_tenant_id));

VIEW tenant_usage_samples WITH (security_barrier=true) AS
 SELECT s.pod_id,
    s.sample_time,
    s.spool_no,
    s.seq,
    s.start_time,
    s.running_ms,
    s.cpu_usage_us,
    s.cpu_max_basis_points,
    s.memory_byte_ms,
    s.memory_max_bytes,
    s.disk_byte_ms,
    s.disk_max_bytes,
    s.guest_in_bytes,
    s.guest_out_bytes,
    s.io_read_bytes,
    s.io_write_bytes,
    s.sample_count,
    s.cores,
    s.memory_mb,
    s.disk_gb,
    s.incarnation
   FROM (cloud_pod_usage_samples s
     JOIN cloud_pods p ON ((p.id = s.pod_id)))
  WHERE (p.tenant_id = ( SELECT app_tenant_id() AS app_tenant_id));
