import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { ContainerObservation, Inventory } from "../../shared/gen/cloudpods/agent/v1/agent_gateway.ts";
import { newId } from "../../shared/src/ids.ts";
import { requestMove } from "../../control-plane/src/moves/request-move.ts";
import { keepInventory } from "../../control-plane/src/nodes/latest-inventory.ts";
import type { Transaction } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { destroyPodNow } from "../../control-plane/src/pods/destroy-pod.ts";
import { orderPod } from "../../control-plane/src/pods/order-pod.ts";
import { lockPodById, type Pod } from "../../control-plane/src/pods/pod.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { systemActor } from "../../control-plane/src/security/actor.ts";
import { findTask } from "../../control-plane/src/tasks/change-task.ts";
import type { Boundary, TaskWorker } from "../../control-plane/src/tasks/task-worker.ts";
import type { Task } from "../../control-plane/src/tasks/task.ts";
import { bellOf, untilRung } from "./bell.ts";
import { createTestDatabase, type TestDatabase } from "./postgres.ts";
import { countOversold } from "./placement-fleet.ts";
import { aTenant, anOnlineNode } from "./rows.ts";
import { ScriptedFleet } from "./scripted-fleet.ts";
import { startTestWorker } from "./test-worker.ts";

/** What the agents of a release that can move pods say of themselves. */
const capabilities = [
  "ensure_container",
  "ensure_power",
  "ensure_absent",
  "reboot",
  "inspect",
  "adopt",
  "migrate",
  "backup",
  "restore",
  "verify_backup",
  "delete_backup",
];

/** A host of the workbench. */
export interface BenchNode {
  readonly id: string;
  readonly name: string;
}

/**
 * A database and hosts that follow a script, each test with hosts and a tenant of its own. Make it at the top of a test file:
 * it hooks itself into the file's tests.
 */
export class MoveWorkbench {
  fleet = createFleetView();
  tenantId = "";
  #db: TestDatabase | undefined;
  #hosts: ScriptedFleet | undefined;
  #workers: TaskWorker[] = [];

  constructor() {
    beforeAll(async () => {
      this.#db = await createTestDatabase();
    });
    afterAll(() => this.db.close());
    beforeEach(async () => {
      // Hosts of earlier tests are in no one's way.
      await this.db.system.execute(sql`UPDATE nodes SET schedulable = false`);
      this.fleet = createFleetView();
      this.tenantId = (await aTenant(this.db.system)).id;
      this.#hosts = new ScriptedFleet(this.db.system);
    });
    afterEach(async () => {
      await Promise.all(this.#workers.map((worker) => worker.stop()));
      this.#workers = [];
      await this.hosts.stop();
      expect(this.hosts.doubleRuns).toEqual([]);
      expect(await countOversold(this.db.system)).toEqual({ oversold: 0, differing: 0 });
    });
  }

  get db(): TestDatabase {
    return made(this.#db);
  }

  get hosts(): ScriptedFleet {
    return made(this.#hosts);
  }

  /** Starts a worker; `onBoundary` may kill it. */
  work(onBoundary?: (boundary: Boundary, task: Task) => Promise<void>): TaskWorker {
    const worker = startTestWorker(this.db.system, this.fleet, onBoundary);
    this.#workers.push(worker);
    return worker;
  }

  /** Hosts that are online; together in a cluster, or alone with a storage for backups that all of them see. */
  async nodes(
    count: number,
    how: {
      readonly cluster?: boolean;
      readonly backups?: boolean;
      readonly size?: Parameters<typeof anOnlineNode>[1];
    } = {},
  ): Promise<BenchNode[]> {
    const nodes: BenchNode[] = [];
    for (let index = 0; index < count; index++) nodes.push(await anOnlineNode(this.db.system, how.size));
    const ids = nodes.map(({ id }) => id);
    await this.db.system.execute(
      sql`UPDATE node_status SET capabilities = ${capabilities} WHERE node_id = ANY(${ids}::uuid[])`,
    );
    if (how.cluster === true) {
      const clusterId = newId();
      await this.db.system.execute(sql`INSERT INTO clusters (id, name) VALUES (${clusterId}, 'bench')`);
      await this.db.system.execute(sql`UPDATE nodes SET cluster_id = ${clusterId} WHERE id = ANY(${ids}::uuid[])`);
      // A copy on this kind of storage is whole, so that it can be migrated.
      await this.db.system.execute(sql`UPDATE storages SET type = 'dir' WHERE node_id = ANY(${ids}::uuid[])`);
    }
    if (how.backups !== false) {
      await this.db.system.execute(sql`
        WITH made AS (
          INSERT INTO storages (id, node_id, name, type, shared, holds_root_disks, holds_backups, backend, total_gb)
          SELECT gen_random_uuid(), id, 'backups', 'nfs', true, false, true, 'nfs:10.0.0.5:/backups', 1000 FROM unnest(${ids}::uuid[]) AS given (id)
          RETURNING id, node_id)
        INSERT INTO node_storages (node_id, storage_id) SELECT node_id, id FROM made`);
    }
    return nodes;
  }

  /** A pod that runs on the host, or is stopped there. */
  async podOn(node: BenchNode, power: "running" | "stopped" = "running", plan = "STARTER"): Promise<Pod> {
    await this.db.system.execute(sql`UPDATE nodes SET labels = jsonb_build_object('host', name) WHERE id = ${node.id}`);
    const who = {
      tenantId: this.tenantId,
      actor: systemActor("test"),
      requestId: newId(),
      defaultRegion: "local",
      fleet: this.fleet,
      isEmailVerified: () => Promise.resolve(true),
    };
    const { pod, task } = await this.db.api.transaction(
      (tx) => orderPod(tx, who, { planCode: plan, hostname: "shop", placement: { nodeLabels: { host: node.name } } }),
      { tenantId: this.tenantId },
    );
    bellOf(this.db.system).ring();
    await this.end(task.id);
    await this.db.system.execute(sql`
      UPDATE cloud_pods SET placement_request = '{}', desired_power = ${power}, observed_power = ${power} WHERE id = ${pod.id}`);
    const container = this.hosts.at(node.id, pod.vmid);
    if (container !== undefined)
      this.hosts.containers.get(node.id)?.set(pod.vmid, { ...container, power: power === "running" ? 1 : 2 });
    this.hosts.write(pod.vmid);
    return await this.podNow(pod.id);
  }

  /** The host's newest inventory shows volumes that somebody gave the pod's container by hand. */
  async giveVolumes(node: BenchNode, { id: podId, vmid }: Pod, partsOfNoPod: string[]): Promise<void> {
    const container = ContainerObservation.fromPartial({ vmid, podId, partsOfNoPod });
    const inventory = Inventory.fromPartial({
      quorate: true,
      observedAtMs: BigInt(Date.now()),
      containers: [container],
    });
    await this.inSystem((tx) => keepInventory(tx, node.id, inventory));
  }

  /** Asks for the removal of a pod. */
  async destroy(pod: Pod): Promise<void> {
    const who = { tenantId: this.tenantId, actor: systemActor("test"), requestId: newId() };
    await this.db.api.transaction((tx) => destroyPodNow(tx, who, pod.id, new Date()), { tenantId: this.tenantId });
  }

  podNow(id: string): Promise<Pod> {
    return this.db.system.transaction((tx) => lockPodById(tx, id));
  }

  async inSystem<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    const result = await this.db.system.transaction(work);
    bellOf(this.db.system).ring();
    return result;
  }

  /** Asks for the move of a pod, as an operator does. @returns the task */
  async move(pod: Pod, target?: BenchNode): Promise<string> {
    const who = { actor: systemActor("test"), requestId: newId() };
    const request = { targetNodeId: target?.id, reason: "test" };
    const locked = await this.podNow(pod.id);
    return (await this.inSystem((tx) => requestMove(tx, this.fleet, who, locked, request))).task.id;
  }

  /** Whether a task, which nobody cancels, has ended. */
  async isOver(taskId: string): Promise<boolean> {
    return ["succeeded", "failed"].includes((await findTask(this.db.system, taskId)).state);
  }

  /** How a task ended, once it has. */
  async end(taskId: string): Promise<{ state: string; errorCode: string | null }> {
    const finished = ["succeeded", "failed", "cancelled"];
    return await untilRung(`the end of task ${taskId}`, this.db.system, async () => {
      const { state, errorCode } = await findTask(this.db.system, taskId);
      return finished.includes(state) && { state, errorCode };
    });
  }

  /** Places and claims of a pod, oldest first. */
  async books(podId: string): Promise<{
    claims: { nodeId: string; generation: bigint; purpose: string }[];
    stays: { nodeId: string; open: boolean }[];
  }> {
    const [claims, stays] = await Promise.all([
      this.db.system.query<{ nodeId: string; generation: bigint; purpose: string }>(
        sql`SELECT node_id AS "nodeId", generation, purpose FROM node_claims WHERE pod_id = ${podId} ORDER BY generation`,
      ),
      this.db.system.query<{ nodeId: string; open: boolean }>(
        sql`SELECT node_id AS "nodeId", placed_to IS NULL AS open FROM cloud_pod_placements WHERE pod_id = ${podId} ORDER BY generation`,
      ),
    ]);
    return { claims, stays };
  }
}

function made<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("used outside of a test");
  return value;
}
