import { newId } from "@cloudpods/shared/ids";
import { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { afterAll, beforeAll, expect, test } from "vitest";
import { enrolHost, issuingDeps } from "../../../test/support/enrolled-host.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { sql } from "../platform/sql.ts";
import { writeHeartbeats } from "./heartbeats.ts";
import { trustSpools } from "./trusted-spools.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

test("a first heartbeat and a session that begins name the same new spool, and neither is in the other's way", async () => {
  const host = await enrolHost(db.system, await issuingDeps(db.system));
  const key = { nodeId: host.nodeId, spoolId: newId() };
  const heartbeat = Heartbeat.fromPartial({ spoolId: key.spoolId, certificateSerial: host.serial });
  let written: Promise<number> | undefined;
  await db.system.transaction(
    async (tx) => {
      await tx.execute(sql`SELECT FROM node_status WHERE node_id = ${host.nodeId} FOR NO KEY UPDATE`);
      written = writeHeartbeats(db.system, [{ nodeId: host.nodeId, receivedAtMs: Date.now(), heartbeat }], []);
      await until("the heartbeat waits", async () => {
        const waiting = await db.system.query(
          sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        return waiting.length > 0;
      });
      // Waiting for the heartbeat, which waits for us, would end only when the database finds the deadlock.
      await tx.execute(sql`SET LOCAL lock_timeout = '500ms'`);
      await trustSpools(tx, [key]);
    },
    { retriesMax: 0 },
  );
  expect(await written).toBe(0);
  const spools = await db.system.query(sql`SELECT FROM node_spools WHERE node_id = ${host.nodeId}`);
  expect(spools).toHaveLength(1);
});
