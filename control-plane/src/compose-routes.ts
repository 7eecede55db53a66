import { registerBackupPolicyRoutes } from "./backups/backup-policy.http.ts";
import { registerBackupRoutes } from "./backups/backups.http.ts";
import { registerPlanBackupRoutes } from "./backups/plan-backup-rules.http.ts";
import { registerBudgetRoutes } from "./budgets/budgets.http.ts";
import { registerDrainRoutes } from "./drains/drains.http.ts";
import type { RouteTable } from "./http/route-table.ts";
import { registerMeteringRoutes } from "./metering/metering.http.ts";
import { registerMoveRoutes } from "./moves/moves.http.ts";
import type { IssuingDeps } from "./nodes/node-certificates.ts";
import { registerNodeRoutes } from "./nodes/nodes.http.ts";
import { registerNotificationRoutes } from "./notifications/notifications.http.ts";
import type { WebhookRules } from "./notifications/webhook-target.ts";
import { registerAuditRoutes } from "./ops/audit.http.ts";
import type { DeadLetterMetrics } from "./ops/dead-letter-metrics.ts";
import { registerDeadLetterRoutes } from "./ops/dead-letters.http.ts";
import { registerOverviewRoutes } from "./ops/overview.http.ts";
import { registerPlanAdminRoutes } from "./plans/plans-admin.http.ts";
import { registerPlanRoutes } from "./plans/plans.http.ts";
import type { Hints } from "./platform/hints.ts";
import type { MasterKey } from "./platform/sealing.ts";
import { registerAdoptRoute } from "./pods/adopt.http.ts";
import { registerPodAdminRoutes } from "./pods/pods-admin.http.ts";
import { registerPodOrderRoutes } from "./pods/pod-orders.http.ts";
import { podHints } from "./pods/pod-hints.ts";
import { registerPodPowerRoutes } from "./pods/pod-power.http.ts";
import { registerPodRoutes } from "./pods/pods.http.ts";
import { prepareRetry } from "./pods/retry-work.ts";
import { registerPricingRoutes } from "./rating/pricing.http.ts";
import { registerFindingRoutes } from "./reconciling/findings.http.ts";
import { registerQuotaRoutes } from "./quotas/quotas.http.ts";
import { accrueMonth } from "./rating/accrual.ts";
import type { StorePool } from "./samples-intake/store-pool.ts";
import type { FleetView } from "./scheduling/fleet-view.ts";
import { registerSchedulerRoutes } from "./scheduling/scheduler.http.ts";
import { registerSecurityRoutes } from "./security/security.http.ts";
import type { Saga } from "./tasks/saga.ts";
import { registerTaskRoutes } from "./tasks/tasks.http.ts";
import { registerTenancyRoutes } from "./tenancy/tenancy.http.ts";
import { registerUsageRoutes } from "./usage/usage.http.ts";

/** What the routes of all modules need. */
export interface RouteDeps {
  readonly hints: Hints;
  readonly fleet: FleetView;
  readonly sagas: readonly Saga[];
  readonly issuing: IssuingDeps;
  readonly defaultRegion: string;
  readonly masterKey: MasterKey;
  readonly webhookRules: WebhookRules;
  readonly sampleIntervalMs: number;
  readonly secureCookies: boolean;
  /** For samples that are taken in again. */
  readonly storePool: StorePool;
  readonly deadLetterMetrics: DeadLetterMetrics;
}

/** Every route of the control plane; also what the test of every route walks. */
export function registerRoutes(routes: RouteTable, deps: RouteDeps): void {
  const pods = podHints(deps.hints);
  registerSecurityRoutes(routes, { secureCookies: deps.secureCookies });
  registerTenancyRoutes(routes);
  registerPlanRoutes(routes);
  registerPlanAdminRoutes(routes);
  registerPricingRoutes(routes);
  registerQuotaRoutes(routes);
  registerPodRoutes(routes);
  const ordering = { hints: pods, allHints: deps.hints, fleet: deps.fleet, defaultRegion: deps.defaultRegion };
  registerPodOrderRoutes(routes, ordering);
  registerBackupRoutes(routes, ordering);
  registerBackupPolicyRoutes(routes);
  registerPlanBackupRoutes(routes);
  registerPodPowerRoutes(routes, pods);
  registerPodAdminRoutes(routes, pods);
  registerAdoptRoute(routes, pods);
  registerDrainRoutes(routes, { fleet: deps.fleet, hints: deps.hints });
  registerMoveRoutes(routes, { fleet: deps.fleet, hints: pods, allHints: deps.hints });
  registerTaskRoutes(routes, { hints: deps.hints, sagas: deps.sagas, prepareRetry });
  registerMeteringRoutes(routes);
  registerUsageRoutes(routes);
  registerNodeRoutes(routes, { ...deps.issuing, hints: deps.hints });
  registerFindingRoutes(routes, { hints: deps.hints, pods });
  registerNotificationRoutes(routes, deps);
  registerDeadLetterRoutes(routes, deps);
  registerBudgetRoutes(routes, { ...deps, accrue: accrueMonth });
  registerSchedulerRoutes(routes, { fleet: deps.fleet });
  registerAuditRoutes(routes);
  registerOverviewRoutes(routes);
}
