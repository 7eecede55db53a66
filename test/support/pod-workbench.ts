import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import type { Command } from "../../shared/gen/cloudpods/agent/v1/agent_gateway.ts";
import { newId } from "../../shared/src/ids.ts";
import type { Transaction } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { Accepted } from "../../control-plane/src/pods/change-power.ts";
import { orderPod, type PodOrder } from "../../control-plane/src/pods/order-pod.ts";
import { findPod, type Pod } from "../../control-plane/src/pods/pod.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { findTask } from "../../control-plane/src/tasks/change-task.ts";
import type { TaskWorker } from "../../control-plane/src/tasks/task-worker.ts";
import { bellOf, untilRung } from "./bell.ts";
import { createTestDatabase, type TestDatabase } from "./postgres.ts";
import { aTenant, anOnlineNode } from "./rows.ts";
import { startScriptedHost, type ScriptedEnd, type ScriptedHost } from "./scripted-host.ts";
import { startTestWorker } from "./test-worker.ts";

/**
 * A database with one host that follows a script, a worker, and a tenant of its own for each test. Make it
 * at the top of a test file: it hooks itself into the file's tests.
 */
export class PodWorkbench {
  /** How the host answers; reset to success before each test. */
  script: (command: Command) => ScriptedEnd | undefined = () => undefined;
  readonly fleet = createFleetView();
  tenantId = "";
  nodeId = "";
  #db: TestDatabase | undefined;
  #host: ScriptedHost | undefined;
  #worker: TaskWorker | undefined;

  constructor() {
    beforeAll(async () => {
      this.#db = await createTestDatabase();
      this.nodeId = (await anOnlineNode(this.db.system)).id;
    });
    afterAll(() => this.db.close());
    beforeEach(async () => {
      this.tenantId = (await aTenant(this.db.system)).id;
      this.script = () => undefined;
      this.#host = startScriptedHost(this.db.system, (command) => this.script(command));
      this.#worker = startTestWorker(this.db.system, this.fleet);
    });
    afterEach(async () => {
      await this.worker.stop();
      await this.host.stop();
    });
  }

  get db(): TestDatabase {
    return made(this.#db);
  }

  get host(): ScriptedHost {
    return made(this.#host);
  }

  get worker(): TaskWorker {
    return made(this.#worker);
  }

  /** The customer, as verbs want to know him. */
  who() {
    return { tenantId: this.tenantId, actor: { kind: "user" as const, id: "customer" }, requestId: newId() };
  }

  /** The customer with a proven address. */
  proven() {
    return { ...this.who(), isEmailVerified: () => Promise.resolve(true) };
  }

  async inTenant<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    const result = await this.db.api.transaction(work, { tenantId: this.tenantId });
    bellOf(this.db.system).ring();
    return result;
  }

  order(wish: Partial<PodOrder> = { planCode: "STARTER" }): Promise<Accepted> {
    const ordering = {
      ...this.who(),
      defaultRegion: "local",
      fleet: this.fleet,
      isEmailVerified: () => Promise.resolve(false),
    };
    return this.inTenant((tx) => orderPod(tx, ordering, { hostname: "shop", ...wish }));
  }

  /** How a task ended, once it has. */
  async end(taskId: string): Promise<{ state: string; errorCode: string | null }> {
    const finished = ["succeeded", "failed", "cancelled"];
    return await untilRung(`the end of task ${taskId}`, this.db.system, async () => {
      const { state, errorCode } = await findTask(this.db.system, taskId);
      return finished.includes(state) && { state, errorCode };
    });
  }

  async activePod(): Promise<Pod> {
    const { pod, task } = await this.order();
    expect(await this.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
    return await this.podNow(pod.id);
  }

  podNow(id: string): Promise<Pod> {
    return this.inTenant((tx) => findPod(tx, this.tenantId, id));
  }

  /** What counts against the tenant's quota. */
  async used(): Promise<Record<string, unknown> | undefined> {
    const [row] = await this.db.system.query(sql`
      SELECT used_cloud_pods AS pods, used_cpu_cores AS cores, used_ram_mb AS "memoryMb", used_disk_gb AS "diskGb"
      FROM cloud_pod_quotas WHERE tenant_id = ${this.tenantId}`);
    return row;
  }

  /** What a pod occupies on its host. */
  async claim(podId: string): Promise<Record<string, unknown> | undefined> {
    const [row] = await this.db.system.query(
      sql`SELECT cpu, memory_mb AS "memoryMb", disk_gb AS "diskGb" FROM node_claims WHERE pod_id = ${podId}`,
    );
    return row;
  }

  /** What a pod was, one after the other. */
  async allocations(podId: string): Promise<{ cores: number; open: boolean }[]> {
    return await this.db.system.query(
      sql`SELECT cores, upper_inf(valid) AS open FROM cloud_pod_allocations WHERE pod_id = ${podId} ORDER BY lower(valid)`,
    );
  }
}

/** A script by which one operation fails for good. */
export function failing(operation: string, errorCode: string): (command: Command) => ScriptedEnd | undefined {
  return (command) => (command.op?.$case === operation ? { state: "failed", errorCode, retryable: false } : undefined);
}

/** A script by which one operation fails once for good. */
export function failingOnce(operation: string, errorCode: string): (command: Command) => ScriptedEnd | undefined {
  let hasFailed = false;
  return (command) => {
    if (hasFailed || command.op?.$case !== operation) return undefined;
    hasFailed = true;
    return { state: "failed", errorCode, retryable: false };
  };
}

function made<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("used outside of a test");
  return value;
}
