import { newId } from "@cloudpods/shared/ids";
import { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { afterAll, beforeAll, expect, test } from "vitest";
import { enrolHost, issuingDeps } from "../../../test/support/enrolled-host.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { writeHeartbeats } from "./heartbeats.ts";
import { trustSpools } from "./trusted-spools.ts";

let db: TestDatabase;
let deps: Awaited<ReturnType<typeof issuingDeps>>;
beforeAll(async () => {
  db = await createTestDatabase();
  deps = await issuingDeps(db.system);
});
afterAll(() => db.close());

/** A heartbeat of a new host, which names its spool. */
async function firstHeartbeat() {
  const host = await enrolHost(db.system, deps);
  const spoolId = newId();
  const heartbeat = Heartbeat.fromPartial({ spoolId, certificateSerial: host.serial });
  return { nodeId: host.nodeId, spoolId, receivedAtMs: Date.now(), heartbeat };
}

test("who waits for nobody: a host whose session begins is left for later, all others are written", async () => {
  const [busy, free] = [await firstHeartbeat(), await firstHeartbeat()];
  await db.system.transaction(
    async (tx) => {
      await tx.execute(sql`SELECT FROM node_status WHERE node_id = ${busy.nodeId} FOR NO KEY UPDATE`);
      const presence = { nodeId: busy.nodeId, online: false };
      expect(await writeHeartbeats(db.system, [busy, free], [presence])).toEqual({
        refused: 0,
        busy: new Set([busy.nodeId]),
      });
      // The session's first words name the spool too, and the heartbeats keep nobody from it.
      await tx.execute(sql`SET LOCAL lock_timeout = '500ms'`);
      await trustSpools(tx, [busy]);
    },
    { retriesMax: 0 },
  );
  expect(await writeHeartbeats(db.system, [busy], [])).toEqual({ refused: 0, busy: new Set() });
  const spools = await db.system.query(sql`
    SELECT FROM node_spools s JOIN node_status t ON t.node_id = s.node_id WHERE s.node_id = ANY(${[busy.nodeId, free.nodeId]}::uuid[]) AND t.presence_online`);
  expect(spools).toHaveLength(2);
});

test("a heartbeat of a host that nobody knows is refused, not kept", async () => {
  const unknown = { ...(await firstHeartbeat()), nodeId: newId() };
  expect(await writeHeartbeats(db.system, [unknown], [])).toEqual({ refused: 1, busy: new Set() });
});
