import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import type { SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { batchOf, payloadOf, sampleOf, seedFleet, type FleetNode } from "../../../test/support/telemetry-fleet.ts";
import { buildWholeTestApp, type WholeTestApp } from "../../../test/support/whole-app.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { hostingCache } from "../samples-intake/hosting.ts";
import { storeMessages, type IncomingMessage, type StoreContext } from "../samples-intake/store-messages.ts";
import { openStorePool, type StorePool } from "../samples-intake/store-pool.ts";
import { usageDays } from "../samples-intake/usage-days.ts";

let db: TestDatabase;
let whole: WholeTestApp;
let pool: StorePool;
let operator: Person;
let context: StoreContext;
let node: FleetNode;
let other: FleetNode;
let spoolId: string;
const minuteMs = 60_000;
/** The end of a whole minute in the middle of an hour that is over. */
const endMs = Math.floor(Date.now() / 3_600_000) * 3_600_000 - 30 * minuteMs;

beforeAll(async () => {
  db = await createTestDatabase();
  whole = await buildWholeTestApp(db);
  pool = openStorePool(db.systemUrl, 4);
  operator = await makePerson(db, whole.app, { platformRole: "OPERATOR" });
});
afterAll(async () => {
  await whole.close();
  await pool.close();
  await db.close();
});
beforeEach(async () => {
  [node, other] = (await seedFleet(db.system, { nodes: 2, podsPerNode: 3 })) as [FleetNode, FleetNode];
  spoolId = newId();
  context = { pool, hosting: hostingCache(pool, Date.now), days: usageDays(pool), clock: Date.now };
  // Each test sees its own letters only.
  await db.system.execute(sql`DELETE FROM telemetry_dead_letters`);
  await db.system.execute(sql`DELETE FROM usage_rejected_samples`);
  await db.system.execute(sql`DELETE FROM usage_dirty_hours`);
});

const list = (query = "", person = operator) =>
  send(whole.app, "GET", `/api/ops/dead-letters${query}`, { headers: person.headers });
const retry = (id: string, person = operator) =>
  send(whole.app, "POST", `/api/ops/dead-letters/${id}/retry`, { headers: person.headers });

interface Listed {
  readonly id: string;
  readonly kind: string;
  readonly deadAt: string;
  readonly reason: string;
}
const listed = async (query = "") => (await list(query)).json["data"] as Listed[];

async function onlyLetter(): Promise<Listed> {
  const [letter, ...rest] = await listed();
  if (letter === undefined || rest.length > 0) throw new Error("there is not exactly one letter");
  return letter;
}

async function count(from: Sql): Promise<number> {
  const [row] = await db.system.query<{ n: number }>(sql`SELECT count(*)::integer AS n FROM ${from}`);
  return row?.n ?? 0;
}
const ofNode = (table: Sql) => count(sql`${table} JOIN node_spools USING (spool_no) WHERE node_id = ${node.nodeId}`);
const stored = () => ofNode(sql`cloud_pod_usage_samples`);
const late = () => ofNode(sql`cloud_pod_usage_late_samples`);
const marks = () => count(sql`usage_dirty_hours WHERE node_id = ${node.nodeId}`);
const gaps = () => ofNode(sql`node_spool_gaps`);
const audits = (id: string) => count(sql`audit_log WHERE target_id = ${id} AND action LIKE '%.retry'`);

const message = (changes: Partial<SampleBatch> = {}, seq = 1): IncomingMessage => ({
  nodeId: node.nodeId,
  payload: payloadOf(batchOf(node, spoolId, { from: seq }, endMs, changes)),
  receivedAtMs: Date.now(),
});

async function makeNotification(tenantId: string): Promise<string> {
  const id = newId();
  await db.system.execute(sql`
    INSERT INTO notifications (id, tenant_id, channel, recipient, dedupe_key, payload, attempts, dead_at, last_error_code, last_error_message)
    VALUES (${id}, ${tenantId}, 'email', 'ada@example.test', ${id}, '{"subject":"s","text":"private words"}', 14, now(), 'EMAIL_REFUSED', 'answered 550')`);
  return id;
}

describe("the list", () => {
  test("has every kind, newest first, page by page, or one kind; never what a message says", async () => {
    const tenantId = await makeTenant(db);
    await storeMessages(context, [{ ...message(), poison: "refused" }]);
    const notification = await makeNotification(tenantId);
    const samples = [0, 1].map((index) => sampleOf(other.pods[index] ?? expect.fail("no pod"), endMs));
    await storeMessages(context, [message({ samples }, 2)]);

    const all = await list();
    expect(all.text).not.toContain("private words");
    const letters = await listed();
    expect(letters.map(({ kind }) => kind)).toEqual([
      "rejected-sample",
      "rejected-sample",
      "notification",
      "telemetry-message",
    ]);
    expect(letters[2]).toMatchObject({ id: notification, tenantId, attempts: 14, reason: "EMAIL_REFUSED" });
    expect(letters[3]).toMatchObject({ nodeId: node.nodeId, reason: "REFUSED_BY_DATABASE", detail: "refused" });
    expect(letters[0]).toMatchObject({
      nodeId: node.nodeId,
      reason: "POD_NOT_PLACED_HERE",
      sample: { vmid: expect.any(Number) },
    });

    // The two samples are of one moment: only their ids tell them apart.
    const walked: string[] = [];
    for (let cursor = ""; cursor !== "null";) {
      const page = await list(`?limit=1${cursor}`);
      walked.push(...(page.json["data"] as Listed[]).map(({ id }) => id));
      const next = page.json["nextCursor"];
      cursor = typeof next === "string" ? `&cursor=${next}` : "null";
    }
    expect(walked).toEqual(letters.map(({ id }) => id));
    expect((await listed("?kind=telemetry-message")).map(({ kind }) => kind)).toEqual(["telemetry-message"]);
    await db.system.execute(sql`DELETE FROM notifications`);
  });

  test("is for operators, and so are retries", async () => {
    const tenantId = await makeTenant(db);
    const owner = await makePerson(db, whole.app, { tenants: { [tenantId]: "owner" } });
    await storeMessages(context, [{ ...message(), poison: "refused" }]);
    const { id } = await onlyLetter();
    expect((await list("", owner)).status).toBe(403);
    expect((await retry(id, owner)).status).toBe(403);
    expect(await stored()).toBe(0);
  });

  test.each([JSON.stringify(["yesterday", newId()]), JSON.stringify([newId()])])(
    "refuses the cursor %s",
    async (text) => {
      const refused = await list(`?cursor=${Buffer.from(text).toString("base64url")}`);
      expect([refused.status, refused.json["error"]]).toEqual([422, "CURSOR_INVALID"]);
    },
  );

  test("is counted in the metrics, and so are retries", async () => {
    await storeMessages(context, [{ ...message(), poison: "refused" }]);
    const { id } = await onlyLetter();
    const metrics = async () => await (await whole.app.request("/metrics")).text();
    expect(await metrics()).toContain('cloudpods_dead_letters{kind="telemetry-message"} 1');
    await retry(id);
    expect(await metrics()).toContain('cloudpods_dead_letters{kind="telemetry-message"} 0');
    expect(await metrics()).toMatch(
      /cloudpods_dead_letter_retries_total\{kind="telemetry-message",outcome="stored"\} \d/,
    );
  });
});

test("a notification is delivered anew, once", async () => {
  const id = await makeNotification(await makeTenant(db));
  expect(await retry(id)).toMatchObject({ status: 202, json: { kind: "notification", id, outcome: "queued" } });
  expect(await retry(id)).toMatchObject({ status: 404, json: { error: "DEAD_LETTER_NOT_FOUND" } });
  const [row] = await db.system.query(
    sql`SELECT next_try_at <= now() AS due, dead_at, attempts FROM notifications WHERE id = ${id}`,
  );
  expect(row).toEqual({ due: true, dead_at: null, attempts: 0 });
  expect(await audits(id)).toBe(1);
  expect(await retry(newId())).toMatchObject({ status: 404, json: { error: "DEAD_LETTER_NOT_FOUND" } });
});

describe("a message that was put aside", () => {
  /** The database refused it for a reason that is gone, and its number is settled as a gap; the next one was stored. */
  async function putAside(): Promise<string> {
    await storeMessages(context, [{ ...message(), poison: "refused" }, message({}, 2)]);
    expect([await stored(), await gaps()]).toEqual([3, 1]);
    return (await onlyLetter()).id;
  }

  test("is taken in once when two ask at the same time: samples, coverage and marks", async () => {
    const id = await putAside();
    const answers = await Promise.all([retry(id), retry(id)]);
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409]);
    expect(answers.find(({ status }) => status === 200)?.json).toMatchObject({
      kind: "telemetry-message",
      outcome: "stored",
      samples: { stored: 3, late: 0, rejected: 0 },
    });
    expect(answers.find(({ status }) => status === 409)?.json["error"]).toBe("DEAD_LETTER_RETRIED");
    expect([await stored(), await gaps(), await ofNode(sql`node_coverage`), await audits(id)]).toEqual([6, 0, 2, 1]);
    expect(await listed()).toEqual([]);
    expect(await retry(id)).toMatchObject({ status: 409, json: { error: "DEAD_LETTER_RETRIED" } });
  });

  test("counts once when its host offers it again meanwhile", async () => {
    const id = await putAside();
    const [again, host] = await Promise.all([retry(id), storeMessages(context, [message()])]);
    expect(again.status).toBe(200);
    // Whoever came first stored it.
    expect([
      ["stored", "duplicate"],
      ["duplicate", "new"],
    ]).toContainEqual([again.json["outcome"], host.verdicts[0]]);
    expect(await stored()).toBe(6);
  });

  test("does not count again without its mark: the watermark knows its number", async () => {
    const id = await putAside();
    await retry(id);
    await db.system.execute(sql`UPDATE telemetry_dead_letters SET retried_at = NULL`);
    expect(await retry(id)).toMatchObject({ status: 200, json: { outcome: "duplicate", samples: { stored: 0 } } });
    expect(await stored()).toBe(6);
    // Negative control: with neither mark nor watermark only the key of the row is left to refuse it.
    await db.system.execute(sql`UPDATE telemetry_dead_letters SET retried_at = NULL`);
    await db.system.execute(sql`DELETE FROM node_coverage`);
    await db.system.execute(sql`UPDATE node_spools SET contiguous_seq = 0 WHERE node_id = ${node.nodeId}`);
    expect(await retry(id)).toMatchObject({
      status: 409,
      json: { error: "DEAD_LETTER_STILL_REFUSED", details: { reason: "REFUSED_BY_DATABASE" } },
    });
  });

  test("of a host that was not known yet is taken in when it is", async () => {
    const stranger = newId();
    await storeMessages(context, [{ ...message(), nodeId: stranger }]);
    const { id } = await onlyLetter();
    expect(await retry(id)).toMatchObject({
      status: 409,
      json: { error: "DEAD_LETTER_STILL_REFUSED", details: { reason: "NODE_UNKNOWN" } },
    });
    await db.system.execute(sql`INSERT INTO nodes (id, name, region) VALUES (${stranger}, ${stranger}, 'test')`);
    await db.system.execute(sql`
      UPDATE cloud_pod_placements SET node_id = ${stranger} WHERE node_id = ${node.nodeId}`);
    expect(await retry(id)).toMatchObject({ status: 200, json: { samples: { stored: 3 } } });
  });

  test("stays as it is when it is still refused", async () => {
    await storeMessages(context, [message(), message({}, 2)]);
    const contradiction = payloadOf(batchOf(node, spoolId, { from: 2, to: 4 }, endMs));
    await storeMessages(context, [{ ...message(), payload: contradiction }]);
    const before = [await stored(), await gaps()];
    const letter = await onlyLetter();
    expect(await retry(letter.id)).toMatchObject({
      status: 409,
      json: { error: "DEAD_LETTER_STILL_REFUSED", details: { reason: "RANGE_OVERLAPS" } },
    });
    expect([await stored(), await gaps(), await audits(letter.id)]).toEqual([...before, 0]);
    expect(await onlyLetter()).toEqual(letter);
  });
});

describe("a rejected sample", () => {
  const longAgoMs = endMs - 10 * 86_400_000;

  /** A sample of a pod that was not placed on the node. */
  async function reject(atMs = endMs): Promise<string> {
    const samples = [sampleOf(other.pods[0] ?? expect.fail("no pod"), atMs)];
    await storeMessages(context, [message({ samples })]);
    await db.system.execute(sql`DELETE FROM usage_dirty_hours`);
    return (await onlyLetter()).id;
  }
  const correctPlacement = () =>
    db.system.execute(sql`UPDATE cloud_pod_placements SET node_id = ${node.nodeId} WHERE node_id = ${other.nodeId}`);

  test("stays rejected as long as its reason holds", async () => {
    const id = await reject();
    expect(await retry(id)).toMatchObject({
      status: 409,
      json: { error: "DEAD_LETTER_STILL_REFUSED", details: { reason: "POD_NOT_PLACED_HERE" } },
    });
    await correctPlacement();
    await db.system.execute(sql`UPDATE node_spools SET refused_since = now() WHERE node_id = ${node.nodeId}`);
    expect(await retry(id)).toMatchObject({ json: { details: { reason: "CERTIFICATE_REVOKED" } } });
    await db.system.execute(sql`UPDATE node_spools SET refused_since = NULL WHERE node_id = ${node.nodeId}`);
    await db.system.execute(sql`UPDATE nodes SET removed_at = now() WHERE id = ${node.nodeId}`);
    expect(await retry(id)).toMatchObject({ json: { details: { reason: "NODE_REMOVED" } } });
    expect([await stored(), await late(), await marks(), await audits(id)]).toEqual([0, 0, 0, 0]);
    expect((await onlyLetter()).id).toBe(id);
  });

  test("counts once the placement is corrected, once when two ask at the same time", async () => {
    const id = await reject();
    await correctPlacement();
    const answers = await Promise.all([retry(id), retry(id)]);
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409]);
    expect(answers.find(({ status }) => status === 200)?.json).toMatchObject({
      kind: "rejected-sample",
      outcome: "stored",
      samples: { stored: 1, late: 0 },
    });
    expect([await stored(), await late(), await marks(), await audits(id)]).toEqual([1, 0, 1, 1]);
    const [row] = await db.system.query(sql`
      SELECT guest_in_bytes, seq FROM cloud_pod_usage_samples WHERE pod_id = ${other.pods[0]?.podId}`);
    expect(row).toEqual({ guest_in_bytes: BigInt(endMs % 10_000_000), seq: 1n });
  });

  test("is late when its day is sealed; its mark alone keeps it from counting twice then", async () => {
    const id = await reject(longAgoMs);
    await context.days.make([Math.floor((longAgoMs - 1) / 86_400_000)]);
    await correctPlacement();
    await retry(id);
    expect([await stored(), await late()]).toEqual([1, 0]);
    await db.system.execute(
      sql`UPDATE usage_days SET sealed_at = now() WHERE day = ${new Date(longAgoMs - 1).toISOString().slice(0, 10)}`,
    );
    expect((await retry(id)).status).toBe(409);
    // Negative control: the key of the rows does not reach from one table to the other.
    await db.system.execute(sql`UPDATE usage_rejected_samples SET retried_at = NULL`);
    expect(await retry(id)).toMatchObject({ status: 200, json: { samples: { stored: 0, late: 1 } } });
    expect([await stored(), await late(), await marks()]).toEqual([1, 1, 2]);
  });
});
