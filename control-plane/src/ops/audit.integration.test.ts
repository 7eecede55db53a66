import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { proveAudit } from "../security/prove-audit.ts";
import { sealAudit } from "../security/seal-audit.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerAuditRoutes } from "./audit.http.ts";

let db: TestDatabase;
let app: TestApp["app"];
let operator: Person;
let tenantId: string;
beforeAll(async () => {
  db = await createTestDatabase();
  ({ app } = buildTestApp(db, {
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerAuditRoutes(routes);
    },
  }));
  operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  tenantId = await makeTenant(db);
  for (let index = 1; index <= 7; index += 1) {
    await change(index);
    // Times are told in milliseconds, and each row is to have one of its own.
    await sleep(2);
  }
});
afterAll(() => db.close());

async function change(index: number): Promise<void> {
  await db.system.transaction((tx) =>
    recordAudit(tx, {
      actor: systemActor(`loop-${index % 2}`),
      requestId: `request-${index}`,
      tenantId: index > 5 ? tenantId : undefined,
      action: index === 3 ? "thing.paint" : "thing.move",
      targetType: "thing",
      targetId: `thing-${index}`,
      detail: { index },
    }),
  );
}

interface Page {
  readonly data: readonly { targetId: string; at: string; seq: string | null; detail: unknown }[];
  readonly nextCursor: string | null;
}

async function read(query: string): Promise<Page> {
  const answer = await send(app, "GET", `/api/ops/audit?${query}`, { headers: operator.headers });
  expect(answer.status, answer.text).toBe(200);
  return answer.json as unknown as Page;
}

const targets = (page: Page) => page.data.map(({ targetId }) => targetId);

describe("GET /api/ops/audit", () => {
  test("lists changes newest first, page by page, without a gap and nothing twice", async () => {
    const all = targets(await read("targetType=thing"));
    expect(all).toEqual([7, 6, 5, 4, 3, 2, 1].map((index) => `thing-${index}`));
    const paged: string[] = [];
    let cursor = "";
    for (;;) {
      const page = await read(`targetType=thing&limit=2${cursor}`);
      paged.push(...targets(page));
      if (page.nextCursor === null) break;
      cursor = `&cursor=${page.nextCursor}`;
    }
    expect(paged).toEqual(all);
  });

  test("rows of one transaction, which have one instant, are divided between pages", async () => {
    await db.system.transaction(async (tx) => {
      for (const targetId of ["twin-1", "twin-2", "twin-3"]) {
        await recordAudit(tx, {
          actor: systemActor("test"),
          requestId: undefined,
          tenantId: undefined,
          action: "twin.make",
          targetType: "twin",
          targetId,
        });
      }
    });
    const first = await read("action=twin.make&limit=2");
    const second = await read(`action=twin.make&limit=2&cursor=${first.nextCursor}`);
    expect([...targets(first), ...targets(second)].toSorted()).toEqual(["twin-1", "twin-2", "twin-3"]);
  });

  test.each([
    ["actor=loop-1&targetType=thing", [7, 5, 3, 1]],
    ["action=thing.paint", [3]],
    ["target=thing-4", [4]],
    ["action=thing.move&actor=loop-0", [6, 4, 2]],
    ["since=2999-01-01T00:00:00Z", []],
  ])("filters by %s", async (query, expected) => {
    expect(targets(await read(query))).toEqual(expected.map((index) => `thing-${index}`));
  });

  test("filters by time, the end exclusive", async () => {
    // Milliseconds of the instants: the rows lie at microseconds between them.
    const { data } = await read("targetType=thing");
    const [third, fifth] = ["thing-3", "thing-5"].map((id) => data.find(({ targetId }) => targetId === id)?.at ?? "");
    const between = targets(await read(`targetType=thing&since=${third}&until=${fifth}`));
    expect(between).toContain("thing-4");
    expect(between).not.toContain("thing-6");
    expect(between).not.toContain("thing-1");
  });

  test("asked about a tenant, shows his rows and leaves a trace there", async () => {
    const page = await expectAudited(
      db,
      { action: "audit.read", tenant_id: tenantId, actor_id: operator.userId, detail: { targetType: "thing" } },
      () => read(`tenant=${tenantId}&targetType=thing`),
    );
    expect(targets(page)).toEqual(["thing-7", "thing-6"]);
    expect(page.data[0]?.detail).toEqual({ index: 7 });
  });

  test.each([
    "cursor=eA",
    `cursor=${Buffer.from('["x","00000000-0000-7000-8000-000000000000"]').toString("base64url")}`,
  ])("refuses %s", async (query) => {
    const answer = await send(app, "GET", `/api/ops/audit?${query}`, { headers: operator.headers });
    expect([answer.status, answer.json["error"]]).toEqual([422, "CURSOR_INVALID"]);
  });
});

describe("GET /api/ops/audit/verify", () => {
  const verify = async (query = "") =>
    (await send(app, "GET", `/api/ops/audit/verify?${query}`, { headers: operator.headers })).json;

  async function tamper(statement: string): Promise<void> {
    await db.system.transaction(async (tx) => {
      await tx.execute(sql`ALTER TABLE audit_log DISABLE TRIGGER USER`);
      await tx.execute({ text: statement, values: [] });
      await tx.execute(sql`ALTER TABLE audit_log ENABLE TRIGGER USER`);
    });
  }

  test("says so while the log is as it was written, in parts that follow each other", async () => {
    await sealAudit(db.system);
    for (let index = 20; index < 24; index += 1) await change(index);
    await sealAudit(db.system);
    const first = await verify("limit=1");
    expect(first).toMatchObject({ intact: true, from: "1", fault: null, next: { root: first["root"] } });
    const next = first["next"] as { from: string; root: string };
    const rest = await verify(`from=${next.from}&root=${next.root}`);
    expect(rest).toMatchObject({ intact: true, from: next.from, verifiedRows: "4", next: null });
    const [deed] = await db.system.query<{ root: string }>(
      sql`SELECT detail ->> 'root' AS root FROM audit_log WHERE action = 'audit.verify' ORDER BY at DESC, id DESC LIMIT 1`,
    );
    expect(deed?.root).toBe(rest["root"]);
    // Itself a deed; it is sealed later.
    expect(await verify()).toMatchObject({ intact: true, unsealedRows: "2", root: rest["root"] });
  });

  test("what it finds the control plane's own proof finds at its next look, not a day later", async () => {
    await sealAudit(db.system);
    expect(await proveAudit(db.system)).toBeUndefined();
    const begun = await verify("from=3&root=".padEnd(76, "0"));
    expect(begun).toMatchObject({ fault: { code: "ROOT_DIFFERS" } });
    await tamper("UPDATE audit_log SET action = 'thing.hide' WHERE target_id = 'thing-4'");
    expect(await proveAudit(db.system)).toBeUndefined();
    const { fault } = await verify();
    expect(fault).toMatchObject({ code: "ROW_CHANGED" });
    const { seq } = fault as { seq: string };
    expect(await proveAudit(db.system)).toEqual({ seq: BigInt(seq), code: "ROW_CHANGED" });
    await tamper("UPDATE audit_log SET action = 'thing.move' WHERE target_id = 'thing-4'");
    expect(await proveAudit(db.system)).toBeUndefined();
    // Also where a walk that is under way has passed that row already.
    await db.system.execute(sql`UPDATE audit_proof SET whole_at = now() - interval '2 days'`);
    expect(await proveAudit(db.system, BigInt(seq))).toBeUndefined();
    await tamper("UPDATE audit_log SET action = 'thing.hide' WHERE target_id = 'thing-4'");
    expect(await proveAudit(db.system, 1n)).toBeUndefined();
    await verify();
    expect(await proveAudit(db.system)).toMatchObject({ code: "ROW_CHANGED" });
    await tamper("UPDATE audit_log SET action = 'thing.move' WHERE target_id = 'thing-4'");
    expect(await proveAudit(db.system)).toBeUndefined();
  });

  test.each([
    ["an edit", "UPDATE audit_log SET actor_id = 'nobody' WHERE target_id = 'thing-2'", "thing-2", "ROW_CHANGED"],
    ["a deletion", "DELETE FROM audit_log WHERE target_id = 'thing-2'", "thing-2", "ROW_MISSING"],
  ])("finds %s and notes that it did", async (_, statement, target, code) => {
    const [row] = await db.system.query<{ seq: bigint }>(
      sql`SELECT chain_seq AS seq FROM audit_log WHERE target_id = ${target}`,
    );
    const found = await expectAudited(
      db,
      {
        action: "audit.verify",
        actor_id: operator.userId,
        detail: expect.objectContaining({ fault: expect.anything() }),
      },
      async () => {
        await tamper(statement);
        return await verify();
      },
    );
    expect(found).toMatchObject({ intact: false, next: null, fault: { seq: String(row?.seq), code } });
  });

  test.each(["from=x", "limit=0", "limit=50001", "root=zz"])("refuses %s", async (query) => {
    const answer = await send(app, "GET", `/api/ops/audit/verify?${query}`, { headers: operator.headers });
    expect([answer.status, answer.json["error"]]).toEqual([422, "VALIDATION_FAILED"]);
  });
});
