import { newId } from "@cloudpods/shared/ids";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "./actor.ts";
import { recordAudit } from "./audit.ts";
import { proveAudit } from "./prove-audit.ts";
import { sealAudit } from "./seal-audit.ts";
import { sealAuditLoop } from "./seal-audit-loop.ts";
import { verifyAuditChain } from "./verify-audit-chain.ts";

let db: TestDatabase;
beforeEach(async () => {
  db = await createTestDatabase();
});
afterEach(() => db.close());

async function change(action: string, targetId = newId()): Promise<void> {
  await db.system.transaction((tx) =>
    recordAudit(tx, {
      actor: systemActor("test"),
      requestId: "request-1",
      tenantId: undefined,
      action,
      targetType: "thing",
      targetId,
      detail: { size: 10n, text: 'ä "quoted"', price: 1.5 },
    }),
  );
}

/** A log of nine rows under three seals. */
async function sealedLog(): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    for (let index = 0; index < 3; index += 1) await change(`thing.${round * 3 + index + 1}`);
    expect(await sealAudit(db.system)).toMatchObject({ rows: 3, last: { toSeq: BigInt(round * 3 + 3) } });
  }
}

/** What someone does who may do anything with the tables. */
async function tamper(statement: string): Promise<void> {
  await db.system.transaction(async (tx) => {
    await tx.execute(sql`ALTER TABLE audit_log DISABLE TRIGGER USER`);
    await tx.execute(sql`ALTER TABLE audit_seals DISABLE TRIGGER USER`);
    await tx.execute({ text: statement, values: [] });
    await tx.execute(sql`ALTER TABLE audit_log ENABLE TRIGGER USER`);
    await tx.execute(sql`ALTER TABLE audit_seals ENABLE TRIGGER USER`);
  });
}

const fault = async () => (await verifyAuditChain(db.system)).fault;

describe("the chain of the audit log", () => {
  test("holds every row in its order, also those that commit late", async () => {
    expect(await verifyAuditChain(db.system)).toEqual({
      fromSeq: 1n,
      verifiedRows: 0n,
      unsealedRows: 0n,
      root: "",
      nextSeq: undefined,
      fault: undefined,
    });
    const late = await db.system.pool.connect();
    await late.query("BEGIN");
    await late.query(
      `INSERT INTO audit_log (id, actor_kind, action, target_type) VALUES ('${newId()}', 'system', 'thing.late', 'thing')`,
    );
    await sealedLog();
    await late.query("COMMIT");
    late.release();
    expect(await verifyAuditChain(db.system)).toMatchObject({ verifiedRows: 9n, unsealedRows: 1n, fault: undefined });
    const sealed = await sealAudit(db.system);
    expect(await sealAudit(db.system)).toEqual({ rows: 0, last: undefined });
    const verdict = await verifyAuditChain(db.system);
    expect(sealed).toEqual({ rows: 1, last: { toSeq: 10n, root: verdict.root } });
    expect(verdict).toMatchObject({ verifiedRows: 10n, unsealedRows: 0n, fault: undefined });
    expect(verdict.root).toMatch(/^[0-9a-f]{64}$/);
    const [last] = await db.system.query(sql`SELECT action FROM audit_log WHERE chain_seq = 10`);
    expect(last).toEqual({ action: "thing.late" });
  });

  test("is one, however many seal at the same time", async () => {
    for (let index = 0; index < 20; index += 1) await change(`thing.${index}`);
    const sealed = await Promise.all(Array.from({ length: 4 }, () => sealAudit(db.system)));
    expect(sealed.reduce((sum, { rows }) => sum + rows, 0)).toBe(20);
    expect(await verifyAuditChain(db.system)).toMatchObject({ verifiedRows: 20n, fault: undefined });
  });

  test("does not depend on the time zone of who looks", async () => {
    await sealedLog();
    await db.system.transaction(async (tx) => {
      await tx.execute(sql`SET LOCAL TimeZone = 'Asia/Kolkata'`);
      expect(await verifyAuditChain(tx)).toMatchObject({ verifiedRows: 9n, fault: undefined });
    });
  });

  test.each([
    ["a changed deed", "UPDATE audit_log SET action = 'thing.nothing' WHERE chain_seq = 5", 5n, "ROW_CHANGED"],
    [
      "a changed detail",
      `UPDATE audit_log SET detail = detail || '{"price": 1}' WHERE chain_seq = 9`,
      9n,
      "ROW_CHANGED",
    ],
    ["a changed time", "UPDATE audit_log SET at = at + interval '1 us' WHERE chain_seq = 1", 1n, "ROW_CHANGED"],
    ["a changed actor", "UPDATE audit_log SET actor_id = 'nobody' WHERE chain_seq = 4", 4n, "ROW_CHANGED"],
    ["a deleted row", "DELETE FROM audit_log WHERE chain_seq = 5", 5n, "ROW_MISSING"],
    ["a deleted last row", "DELETE FROM audit_log WHERE chain_seq = 9", 9n, "ROW_MISSING"],
    ["a row taken out", "UPDATE audit_log SET chain_seq = NULL, hash = NULL WHERE chain_seq = 6", 6n, "ROW_MISSING"],
    ["a seal taken away", "DELETE FROM audit_seals WHERE from_seq = 4", 4n, "SEAL_BROKEN"],
    ["the last seal taken away", "DELETE FROM audit_seals WHERE from_seq = 7", 7n, "ROW_UNSEALED"],
    ["a changed seal", "UPDATE audit_seals SET root = sha256('x') WHERE from_seq = 4", 4n, "SEAL_BROKEN"],
    [
      "two rows that changed places",
      "UPDATE audit_log a SET chain_seq = -b.chain_seq, hash = b.hash FROM audit_log b WHERE a.chain_seq IN (4, 5) AND b.chain_seq = 9 - a.chain_seq; UPDATE audit_log SET chain_seq = -chain_seq WHERE chain_seq < 0",
      4n,
      "ROW_CHANGED",
    ],
    ["a row without a hash", "UPDATE audit_log SET hash = NULL WHERE chain_seq = 8", 8n, "ROW_CHANGED"],
    [
      "a row that was put before the first",
      "INSERT INTO audit_log (id, actor_kind, action, target_type, chain_seq) VALUES (gen_random_uuid(), 'user', 'x', 'x', 0)",
      0n,
      "ROW_UNSEALED",
    ],
    [
      "a seal that was slipped in",
      "INSERT INTO audit_seals (from_seq, to_seq, root, prev) VALUES (5, 6, sha256('x'), sha256('y'))",
      7n,
      "SEAL_BROKEN",
    ],
    ["a seal over the whole log", "UPDATE audit_seals SET to_seq = 1000000000 WHERE from_seq = 7", 7n, "SEAL_BROKEN"],
    ["a seal that follows nothing", "UPDATE audit_seals SET prev = NULL WHERE from_seq = 4", 4n, "SEAL_BROKEN"],
  ])("shows %s", async (_, statement, seq, code) => {
    await sealedLog();
    await tamper(statement);
    expect(await fault()).toEqual({ seq, code });
  });

  test("can be looked at in parts, each going on where the one before ended", async () => {
    await sealedLog();
    const first = await verifyAuditChain(db.system, { rowsMax: 4n });
    expect(first).toMatchObject({ fromSeq: 1n, verifiedRows: 6n, nextSeq: 7n, fault: undefined });
    const last = await verifyAuditChain(db.system, { fromSeq: 7n, rootBefore: first.root, rowsMax: 4n });
    expect(last).toMatchObject({ fromSeq: 7n, verifiedRows: 3n, nextSeq: undefined, fault: undefined });
    expect(last.root).toBe((await verifyAuditChain(db.system)).root);
    expect(await verifyAuditChain(db.system, { fromSeq: 5n })).toMatchObject({ fromSeq: 4n, verifiedRows: 6n });
    expect(await verifyAuditChain(db.system, { fromSeq: 10n, rootBefore: last.root })).toMatchObject({
      verifiedRows: 0n,
      fault: undefined,
    });
  });

  test("that was cut off and made anew shows against a root that was noted", async () => {
    await sealedLog();
    const { root } = await verifyAuditChain(db.system);
    await tamper("DELETE FROM audit_log WHERE chain_seq > 6; DELETE FROM audit_seals WHERE from_seq > 6");
    expect(await fault()).toBeUndefined();
    const noted = { fromSeq: 10n, rootBefore: root };
    expect((await verifyAuditChain(db.system, noted)).fault).toEqual({ seq: 10n, code: "ROOT_DIFFERS" });
    for (let index = 0; index < 3; index += 1) await change("thing.else");
    await sealAudit(db.system);
    expect(await fault()).toBeUndefined();
    expect((await verifyAuditChain(db.system, noted)).fault).toEqual({ seq: 10n, code: "ROOT_DIFFERS" });
  });

  test.each([
    "DELETE FROM audit_seals WHERE from_seq = 7",
    "UPDATE audit_seals SET root = sha256('x')",
    "TRUNCATE audit_seals",
  ])("loses no seal by accident: %s", async (statement) => {
    await sealedLog();
    await expect(db.system.execute({ text: statement, values: [] })).rejects.toThrow("audit_seals is append-only");
    expect(await fault()).toBeUndefined();
  });

  test("is proved by itself: what is new at each look, all of it once a day", async () => {
    const proof = async () => (await db.system.query<Record<string, unknown>>(sql`SELECT * FROM audit_proof`))[0] ?? {};
    const age = sql`UPDATE audit_proof SET whole_at = now() - interval '25 hours'`;
    expect(await proveAudit(db.system)).toBeUndefined();
    await sealedLog();
    expect(await proveAudit(db.system, 4n)).toBeUndefined();
    expect(await proof()).toMatchObject({ tail_seq: 7n, fault_code: null });
    expect(await proveAudit(db.system, 4n)).toBeUndefined();
    expect(await proof()).toMatchObject({ tail_seq: 10n, whole_at: expect.any(Date) as Date });
    // Old rows are nobody's business until a day is over; then the walk finds what was done to them.
    await tamper("UPDATE audit_log SET action = 'thing.nothing' WHERE chain_seq = 8");
    expect(await proveAudit(db.system, 4n)).toBeUndefined();
    await db.system.execute(age);
    expect(await proveAudit(db.system, 4n)).toBeUndefined();
    expect(await proof()).toMatchObject({ walk_seq: 7n });
    expect(await proveAudit(db.system, 4n)).toEqual({ seq: 8n, code: "ROW_CHANGED" });
    expect(await proof()).toMatchObject({ fault_seq: 8n, fault_code: "ROW_CHANGED" });
    await tamper("UPDATE audit_log SET action = 'thing.8' WHERE chain_seq = 8");
    expect(await proveAudit(db.system, 4n)).toBeUndefined();
    expect(await proof()).toMatchObject({ walk_seq: null, fault_code: null });
  });

  test("shows at the next look that its end was cut off, and goes on showing it", async () => {
    await sealedLog();
    expect(await proveAudit(db.system)).toBeUndefined();
    await tamper("DELETE FROM audit_log WHERE chain_seq > 6; DELETE FROM audit_seals WHERE from_seq > 6");
    for (let index = 0; index < 3; index += 1) await change("thing.else");
    await sealAudit(db.system);
    await db.system.execute(sql`UPDATE audit_proof SET whole_at = now() - interval '25 hours'`);
    for (let look = 0; look < 2; look += 1)
      expect(await proveAudit(db.system)).toEqual({ seq: 10n, code: "ROOT_DIFFERS" });
  });

  test("has its root logged once an hour, which shows an end that was cut off", async () => {
    let nowMs = 0;
    const loop = sealAuditLoop(db.system, () => nowMs);
    expect(await loop.run()).toBeUndefined();
    for (let index = 0; index < 3; index += 1) await change(`thing.${index}`);
    const first = await loop.run();
    expect(first).toEqual({ toSeq: "3", root: (await verifyAuditChain(db.system)).root });
    await change("thing.more");
    nowMs = 3_599_999;
    expect(await loop.run()).toBeUndefined();
    nowMs = 3_600_000;
    // Also when nothing has come since.
    const { root } = await verifyAuditChain(db.system);
    expect(await loop.run()).toEqual({ toSeq: "4", root });
    const noted = { fromSeq: 5n, rootBefore: root };
    expect((await verifyAuditChain(db.system, noted)).fault).toBeUndefined();
    await tamper("DELETE FROM audit_log WHERE chain_seq > 3; DELETE FROM audit_seals WHERE from_seq > 3");
    expect(await fault()).toBeUndefined();
    expect((await verifyAuditChain(db.system, noted)).fault).toEqual({ seq: 5n, code: "ROOT_DIFFERS" });
  });

  test("shows a row whose hash was made to fit: the next one does not", async () => {
    await sealedLog();
    await tamper("UPDATE audit_log SET action = 'thing.nothing', hash = sha256('x') WHERE chain_seq = 5");
    expect(await fault()).toEqual({ seq: 5n, code: "ROW_CHANGED" });
  });

  test("is written by nobody but the loop: a tenant's login cannot choose a place in it", async () => {
    await expect(
      db.api.query(
        sql`INSERT INTO audit_log (id, actor_kind, action, target_type, chain_seq) VALUES (${newId()}, 'user', 'x', 'x', 1)`,
      ),
    ).rejects.toThrow("permission denied");
  });
});
