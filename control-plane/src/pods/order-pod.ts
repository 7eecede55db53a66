import { newId } from "@cloudpods/shared/ids";
import type { BackupWish } from "../backups/backup-policy.ts";
import type { UsableBackup } from "../backups/backup.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { createTask } from "../tasks/create-task.ts";
import type { Task } from "../tasks/task.ts";
import { checkOrder, type CheckedOrder } from "./check-order.ts";
import { sendWish } from "./command-steps.ts";
import { newMacAddress } from "./mac-address.ts";
import { findPod, type Pod } from "./pod.ts";
import { orderDeadlineMs, createSpan, orderWish } from "./provision-pod.saga.ts";
import type { PlacementWish } from "./placement-wish.ts";
import { reservePlace } from "./reserve-place.ts";

/** What a customer orders, after validation. Either a plan or resources of his own. */
export interface PodOrder {
  readonly planCode?: string | undefined;
  readonly resources?:
    | {
        readonly cores: number;
        readonly memoryMb: number;
        readonly swapMb?: number | undefined;
        readonly diskGb: number;
      }
    | undefined;
  readonly name?: string | undefined;
  readonly hostname: string;
  readonly domain?: string | undefined;
  readonly region?: string | undefined;
  readonly template?: string | undefined;
  readonly sshKeys?: readonly string[] | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly placement?: PlacementWish | undefined;
  /** Rules for its backups, as far as they shall not be the plan's. */
  readonly backup?: BackupWish | undefined;
  /** The backup that it is made from; absent: it is made from a template. */
  readonly source?: Pick<UsableBackup, "id" | "volumeId" | "spec">;
}

/** Who orders, for whom. */
export interface Ordering {
  readonly tenantId: string;
  readonly actor: Actor;
  readonly requestId: string;
  readonly defaultRegion: string;
  readonly fleet: FleetView;
  /** Whether the address of the user who orders is proven; asked only for plans that need it. */
  readonly isEmailVerified: () => Promise<boolean>;
}

/**
 * Takes an order: quota, pod, subscription, place, first command and task in the caller's one
 * transaction, so that there is either all of it or nothing. The claim of the place comes after all
 * that does not depend on it, since it locks a row that other orders want.
 * @throws DomainError as `checkOrder`, `QUOTA_EXCEEDED`, `NO_CAPACITY`
 */
export async function orderPod(tx: Transaction, who: Ordering, order: PodOrder): Promise<{ pod: Pod; task: Task }> {
  const checked = await checkOrder(tx, who, order, (wanted) => reserveQuota(tx, who.tenantId, wanted));
  const { size } = checked;
  const podId = newId();
  await insertPod(tx, who, podId, order, checked);
  await recordAudit(tx, {
    actor: who.actor,
    requestId: who.requestId,
    tenantId: who.tenantId,
    action: "pod.order",
    targetType: "pod",
    targetId: podId,
    detail: {
      planCode: size.plan?.code ?? null,
      cores: size.cores,
      memoryMb: size.memoryMb,
      diskGb: size.diskGb,
      hostname: order.hostname,
      ...(order.source === undefined ? {} : { backupId: order.source.id }),
    },
  });
  const placed = await reservePlace(tx, who.fleet, await findPod(tx, who.tenantId, podId));
  const taskId = newId();
  const { commandId } = await sendWish(tx, placed, taskId, orderWish(placed));
  const task = await createTask(tx, {
    id: taskId,
    tenantId: who.tenantId,
    podId,
    type: "create",
    step: "create",
    commandId,
    percent: createSpan.from,
    percentTo: createSpan.to,
    input: order.backup === undefined ? {} : { backup: order.backup },
    deadlineMs: orderDeadlineMs(order.source !== undefined),
    requestedBy: `${who.actor.kind}:${who.actor.id}`,
    requestId: who.requestId,
    message: `Reserved on ${placed.nodeName ?? "a host"}; creating the container`,
  });
  return { pod: await findPod(tx, who.tenantId, podId), task };
}

async function insertPod(
  tx: Transaction,
  who: Ordering,
  podId: string,
  order: PodOrder,
  { size, region }: CheckedOrder<void>,
): Promise<void> {
  const subscriptionId = newId();
  await tx.execute(sql`
    WITH subscription AS (
      INSERT INTO subscriptions (id, tenant_id, plan_code, external_ref, currency)
      SELECT ${subscriptionId}, id, ${size.plan?.code ?? null}, ${podId}, currency FROM tenants WHERE id = ${who.tenantId})
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, domain, region, plan_code, billing_mode, cores, memory_mb, swap_mb, disk_gb,
      template, source_backup_id, source_volume_id, mac, ssh_keys, labels, placement_request)
    VALUES (${podId}, ${who.tenantId}, next_vmid(), ${order.name ?? order.hostname}, ${order.hostname}, ${order.domain ?? null},
      ${region}, ${size.plan?.code ?? null}, ${size.billingMode}, ${size.cores}, ${size.memoryMb}, ${size.swapMb},
      ${size.diskGb}, ${order.source?.spec.template ?? order.template ?? null}, ${order.source?.id ?? null}, ${order.source?.volumeId ?? null}, ${newMacAddress()}, ${order.sshKeys ?? []}, ${JSON.stringify(order.labels ?? {})},
      ${JSON.stringify(order.placement ?? {})})`);
  // The subscription refers to nothing; the pod's reference is checked once both rows are there.
  await tx.execute(sql`UPDATE cloud_pods SET subscription_id = ${subscriptionId} WHERE id = ${podId}`);
}
