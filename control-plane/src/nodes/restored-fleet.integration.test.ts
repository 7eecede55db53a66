import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { newId } from "@cloudpods/shared/ids";
import { sql } from "../platform/sql.ts";
import { orderPod } from "../pods/order-pod.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { systemActor } from "../security/actor.ts";
import { declareRestored, endRestore, hostsToCompare } from "./declare-restored.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

// After a restore the hosts hold ids and generations that the database has forgotten. Giving one away again
// would let an order destroy somebody's container.
test("after a restore orders wait for every host, and no id in use is given away", async () => {
  const { id: tenantId } = await aTenant(db.system);
  const node = await anOnlineNode(db.system);
  const who = {
    tenantId,
    actor: systemActor("test"),
    requestId: newId(),
    defaultRegion: "local",
    fleet: createFleetView(),
    isEmailVerified: () => Promise.resolve(true),
  };
  const order = (hostname: string) =>
    db.api.transaction((tx) => orderPod(tx, who, { planCode: "STARTER", hostname }), { tenantId });

  await db.system.execute(
    sql`UPDATE node_status SET fleet_epoch = 7, inventory_at = now() - interval '1 hour' WHERE node_id = ${node.id}`,
  );
  await db.system.execute(sql`INSERT INTO reserved_vmids (vmid, seen_on) VALUES (200000, ${node.id})`);
  const epoch = await db.system.transaction((tx) => declareRestored(tx, "disk of the database server died"));
  expect(epoch).toBe(8n);
  expect(await hostsToCompare(db.system)).toEqual([node.name]);
  await expect(order("too-early")).rejects.toMatchObject({ code: "RESTORE_IN_PROGRESS", retryAfterSeconds: 30 });
  expect(await endRestore(db.system)).toBe(false);

  // The host reports: it has a container that was given in the lost hour.
  await db.system.execute(sql`INSERT INTO reserved_vmids (vmid, seen_on) VALUES (200001, ${node.id})`);
  await db.system.execute(sql`UPDATE node_status SET inventory_at = clock_timestamp() WHERE node_id = ${node.id}`);
  const { pod } = await order("after");
  expect(pod.vmid).toBe(200002);
  const [command] = await db.system.query<{ epoch: bigint }>(
    sql`SELECT fleet_epoch AS epoch FROM node_commands WHERE pod_id = ${pod.id}`,
  );
  expect(command?.epoch).toBe(8n);
  expect(await endRestore(db.system)).toBe(true);
  expect(await endRestore(db.system)).toBe(false);
});

test("whoever saw every host report ends no restore that was declared since", async () => {
  await db.system.transaction((tx) => declareRestored(tx, "disk of the database server died"));
  await db.system.execute(sql`UPDATE node_status SET inventory_at = clock_timestamp()`);
  const late = standingStill(db.system, 1, () =>
    db.system.transaction((tx) => declareRestored(tx, "the backup was the wrong one")),
  );
  expect(await endRestore(late)).toBe(false);
  expect(await db.system.query(sql`SELECT FROM control_plane_epoch WHERE holds_orders`)).toHaveLength(1);
});

test("a host that was given up on holds no order back", async () => {
  await db.system.execute(sql`UPDATE node_status SET inventory_at = NULL, state = 'lost'`);
  await db.system.transaction((tx) => declareRestored(tx, "again"));
  expect(await hostsToCompare(db.system)).toEqual([]);
});
