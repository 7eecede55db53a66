import { Power, type Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { startScriptedHost, type ScriptedEnd, type ScriptedHost } from "../../../test/support/scripted-host.ts";
import { expectBooksBalanced, finishWork, workAndDie } from "../../../test/support/worker-kills.ts";
import { setThrottle } from "../bandwidth/throttle-pod.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { systemActor } from "../security/actor.ts";
import { changePower, resumePod, suspendPod } from "./change-power.ts";
import { destroyPodNow } from "./destroy-pod.ts";
import { orderPod } from "./order-pod.ts";
import { findPod, type Pod } from "./pod.ts";
import { scalePod } from "./scale-pod.ts";

const fleet = createFleetView();

let db: TestDatabase;
let tenantId: string;
let host: ScriptedHost | undefined;
beforeAll(async () => {
  db = await createTestDatabase();
  tenantId = (await aTenant(db.system)).id;
  await anOnlineNode(db.system);
});
afterAll(() => db.close());
afterEach(() => host?.stop());

const who = () => ({
  tenantId,
  actor: systemActor("test"),
  requestId: newId(),
  defaultRegion: "local",
  fleet,
  isEmailVerified: () => Promise.resolve(true),
});
const inTenant = <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => db.api.transaction(work, { tenantId });
const podNow = (id: string): Promise<Pod> => inTenant((tx) => findPod(tx, tenantId, id));

async function activePod(): Promise<Pod> {
  const hostname = `pod-${newId().slice(-12)}`;
  const { pod } = await inTenant((tx) => orderPod(tx, who(), { planCode: "STARTER", hostname }));
  await finishWork(db, fleet, pod.id);
  return await podNow(pod.id);
}

interface Change {
  /** Asks for the n-th change of the pod. */
  readonly ask: (pod: Pod, nth: number) => Promise<unknown>;
  /** What must be so after the n-th, whoever died. */
  readonly check: (pod: Pod, nth: number) => Promise<void> | void;
  /** Makes the pod such that it can be asked again; absent where it is such. */
  readonly reset?: (pod: Pod) => Promise<unknown>;
  /** Whether each change needs a pod of its own. */
  readonly usesPodUp?: true;
  readonly script?: (command: Command) => ScriptedEnd | undefined;
}

/** Asks again and again, a worker dying one boundary later each time, until one gets through. */
async function dieEverywhere({ ask, check, reset, usesPodUp, script }: Change): Promise<string[]> {
  host = startScriptedHost(db.system, script);
  const died: string[] = [];
  let pod = await activePod();
  for (let nth = 1; ; nth++) {
    await ask(pod, nth);
    const where = await workAndDie(db, pod.id, nth);
    await finishWork(db, fleet, pod.id);
    await check(await podNow(pod.id), nth);
    await expectBooksBalanced(db);
    if (where === undefined) return died;
    died.push(where);
    if (usesPodUp === true) pod = await activePod();
    if (reset === undefined) continue;
    await reset(pod);
    await finishWork(db, fleet, pod.id);
  }
}

const powerOf = ({ vmid }: Pod): Power | undefined => host?.containers.get(vmid)?.power;
const power = (verb: "start" | "stop" | "restart") => (pod: Pod) =>
  inTenant((tx) => changePower(tx, who(), pod.id, verb));
const suspend = (pod: Pod) => inTenant((tx) => suspendPod(tx, who(), pod.id, "customer", undefined));
const resume = (pod: Pod) => inTenant((tx) => resumePod(tx, who(), pod.id, "customer"));
const cores = (count: number) => (pod: Pod) =>
  inTenant((tx) => scalePod(tx, who(), pod.id, { resources: { cores: count } }));

async function allocationsOf({ id }: Pod): Promise<{ count: number; open: number }> {
  const [row] = await db.system.query<{ count: number; open: number }>(sql`
    SELECT count(*)::integer AS count, (count(*) FILTER (WHERE upper_inf(valid)))::integer AS open FROM cloud_pod_allocations WHERE pod_id = ${id}`);
  return row ?? { count: 0, open: 0 };
}

const isStopped = (pod: Pod): void => expect(powerOf(pod)).toBe(Power.POWER_STOPPED);
const isRunning = (pod: Pod): void => expect(powerOf(pod)).toBe(Power.POWER_RUNNING);

const changes: [string, string[], Change][] = [
  ["stop", ["stop"], { ask: power("stop"), check: isStopped, reset: power("start") }],
  [
    "start",
    ["start"],
    {
      ask: async (pod, nth) => {
        if (nth === 1) {
          await power("stop")(pod);
          await finishWork(db, fleet, pod.id);
        }
        await power("start")(pod);
      },
      check: isRunning,
      reset: power("stop"),
    },
  ],
  [
    "restart",
    ["reboot"],
    {
      ask: power("restart"),
      check: (pod, nth) => {
        isRunning(pod);
        // The deed is done once for each time that it was asked for.
        expect(host?.carriedOut.filter((name) => name === "reboot")).toHaveLength(nth);
      },
    },
  ],
  [
    "suspend",
    ["stop"],
    {
      ask: suspend,
      check: (pod) => {
        isStopped(pod);
        expect(pod.status).toBe("suspended");
      },
      reset: resume,
    },
  ],
  [
    "resume",
    ["start"],
    {
      ask: async (pod, nth) => {
        if (nth === 1) {
          await suspend(pod);
          await finishWork(db, fleet, pod.id);
        }
        await resume(pod);
      },
      check: (pod) => {
        isRunning(pod);
        expect(pod.status).toBe("active");
      },
      reset: suspend,
    },
  ],
  [
    "resize",
    ["resize"],
    {
      ask: (pod, nth) => cores(nth % 2 === 1 ? 2 : 1)(pod),
      check: async (pod, nth) => {
        expect(pod.cores).toBe(nth % 2 === 1 ? 2 : 1);
        expect(host?.containers.get(pod.vmid)?.cores).toBe(pod.cores);
        // What is billed changed once for each change.
        expect(await allocationsOf(pod)).toEqual({ count: nth + 1, open: 1 });
      },
    },
  ],
  [
    "set-rate",
    ["set-rate"],
    {
      ask: (pod, nth) =>
        db.system.transaction(async (tx) => await setThrottle(tx, await findPod(tx, tenantId, pod.id), nth % 2 === 1)),
      check: (pod, nth) => {
        // The plan of these tests has no limit of its own.
        expect(pod.rateLimitKibPerSecond > 0).toBe(nth % 2 === 1);
        expect(host?.containers.get(pod.vmid)?.rateLimitKibPerSecond).toBe(pod.rateLimitKibPerSecond);
      },
    },
  ],
  [
    "destroy",
    ["remove", "release"],
    {
      usesPodUp: true,
      ask: (pod) => inTenant((tx) => destroyPodNow(tx, who(), pod.id, new Date())),
      check: async (pod) => {
        expect(pod.status).toBe("deleted");
        expect(host?.containers.has(pod.vmid)).toBe(false);
        expect(await allocationsOf(pod)).toMatchObject({ open: 0 });
      },
    },
  ],
];

// A worker that dies between any two commits must leave work that another one carries to the very same end.
test.each(changes)(
  "kill -9 of a worker at every boundary of a %s changes nothing about its end",
  async (type, steps, change) => {
    const died = await dieEverywhere(change);
    for (const step of steps)
      for (const boundary of ["stepped", "committed"]) expect(died).toContain(`${boundary} ${type} ${step}`);
  },
  600_000,
);

test("kill -9 of a worker at every boundary of a resize that fails leaves what was before", async () => {
  const script = ({ op }: Command): ScriptedEnd | undefined =>
    op?.$case === "ensureContainer" && op.value.spec?.cores === 2
      ? { state: "failed", errorCode: "RESIZE_FAILED", retryable: false }
      : undefined;
  const died = await dieEverywhere({
    script,
    ask: cores(2),
    check: async (pod) => {
      expect(pod.cores).toBe(1);
      expect(host?.containers.get(pod.vmid)?.cores).toBe(1);
      expect(await allocationsOf(pod)).toMatchObject({ open: 1 });
    },
  });
  for (const step of ["undo-reserve", "undo-resize"]) expect(died).toContain(`committed resize ${step}`);
}, 600_000);
