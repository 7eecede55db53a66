import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { MoveWorkbench } from "../../../test/support/move-workbench.ts";
import { sql } from "../platform/sql.ts";
import { scalePod } from "../pods/scale-pod.ts";
import { systemActor } from "../security/actor.ts";
import { selectDrains, type Drain } from "./drain.ts";
import { claimForDrain } from "./place-drain-pod.ts";
import { enlistPods } from "./read-drain-facts.ts";

const bench = new MoveWorkbench();
const drains = drainsOf(bench);

test.each([
  ["down", 0.5],
  ["up", 2],
])("a pod that is scaled %s while its place is kept gets one of its new size", async (_, factor) => {
  const [from, to] = await bench.nodes(2);
  if (from === undefined || to === undefined) throw new Error("two hosts");
  const pod = await bench.podOn(from);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { reason: "memory is replaced" });
  const [drain] = await bench.db.system.query<Drain>(sql`${selectDrains} WHERE d.node_id = ${from.id}`);
  if (drain === undefined) throw new Error("no drain");
  await bench.inSystem(async (tx) => {
    await enlistPods(tx, drain);
    await claimForDrain(tx, bench.fleet, drain, pod.id);
  });
  const who = {
    tenantId: bench.tenantId,
    actor: systemActor("test"),
    requestId: newId(),
    isEmailVerified: () => Promise.resolve(true),
  };
  const memoryMb = pod.memoryMb * factor;
  const { task } = await bench.inSystem((tx) => scalePod(tx, who, pod.id, { resources: { memoryMb } }));
  expect((await bench.end(task.id)).state).toBe("succeeded");
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained" });
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, memoryMb });
  const claims = sql`SELECT node_id AS "nodeId", memory_mb AS "memoryMb", purpose FROM node_claims WHERE pod_id = ${pod.id}`;
  expect(await bench.db.system.query(claims)).toEqual([{ nodeId: to.id, memoryMb, purpose: "home" }]);
  // It was seen before anything was done for the wrong place.
  const refused = sql`SELECT error_code AS code FROM cloud_pod_moves WHERE pod_id = ${pod.id} AND state = 'undone'`;
  expect(await bench.db.system.query(refused)).toEqual([{ code: "CLAIM_OUTDATED" }]);
});
