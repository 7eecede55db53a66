import { Money } from "@cloudpods/shared/money";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { accrueAsTold } from "../../../test/support/accrued.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant } from "../../../test/support/rows.ts";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { changePower } from "../pods/change-power.ts";
import { systemActor } from "../security/actor.ts";
import { writeBudget } from "./budget.ts";
import { evaluateBudgets } from "./evaluate-budgets.ts";

/*
 * An evaluation lists pods and then stops them or gives them back one by one, each behind the lock of its row. What
 * happens in between, on another connection, is seen by the second look there. Each test is told again with that
 * look taken away: the pod, its hold and the budget are believed to be what they were in the list.
 */
let db: TestDatabase;
let tenantId: string;
let podId: string;
const spend = "10";
const lists = {
  stopping: "SELECT p.id, p.labels FROM cloud_pods p\n",
  givingBack: "FROM cloud_pods p JOIN cloud_pod_holds h",
};

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  tenantId = (await aTenant(db.system)).id;
  podId = (await makePod(db, tenantId, { hostname: "shop" })).id;
  await db.system.execute(sql`UPDATE cloud_pods SET desired_power = 'running' WHERE id = ${podId}`);
  await setLimit("10");
});

async function setLimit(limit: string): Promise<void> {
  await writeBudget(db.system, tenantId, {
    limit: Money.of(limit, "USD"),
    thresholds: [50, 80, 100],
    hardLimitEnabled: true,
    hardLimitAction: "stop_pods",
    emails: [],
    webhookUrl: null,
  });
}

/** One pass of a replica; what it asked of hosts is done at once. */
async function evaluate(database: Database = db.system): Promise<void> {
  const deps = {
    db: database,
    log: pino({ level: "silent" }),
    hints: { workQueued: () => {} },
    accrue: accrueAsTold((id) => (id === tenantId ? { spend } : {})),
  };
  expect(await evaluateBudgets(deps, new Date())).toMatchObject({ failed: 0 });
  await finishWork();
}

async function finishWork(): Promise<void> {
  await db.system.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET state = 'succeeded', finished_at = now() WHERE tenant_id = ${tenantId} AND finished_at IS NULL`);
}

async function stopByOwner(): Promise<void> {
  const who = { tenantId, actor: systemActor("test"), requestId: newId() };
  await db.api.transaction((tx) => changePower(tx, who, podId, "stop"), { tenantId });
  await finishWork();
}

/** The database of a replica under which something happens as soon as it has its list. */
function interrupted(list: string, meanwhile: () => Promise<void>, looksAgain: boolean): Database {
  let isPending = true;
  return {
    ...db.system,
    async query<Row>(statement: Sql) {
      const rows = await db.system.query<Row>(statement);
      if (isPending && statement.text.includes(list) && statement.values.includes(tenantId)) {
        isPending = false;
        await meanwhile();
      }
      return rows;
    },
    transaction: (work, options) =>
      db.system.transaction((tx) => work(looksAgain ? tx : { ...tx, query: withoutLooking(tx) }), options),
  };
}

function withoutLooking(tx: Transaction): Queryable["query"] {
  return async <Row>({ text, values }: Sql) => {
    // That a month is spent is believed by whoever stops, that none is by whoever gives back.
    if (text.includes("FOR SHARE")) return (text.includes("IS NOT NULL") ? [] : [{}]) as Row[];
    const isLift = text.includes("UPDATE cloud_pod_holds SET until");
    const rows = await tx.query<Row>({ text: isLift ? text.replace("AND until IS NULL", "") : text, values });
    return text.includes("FOR UPDATE OF p") ? rows.map((row) => ({ ...row, desiredPower: "running" })) : rows;
  };
}

/** Whether the budget holds the pod, and what the budget asked of its host. */
async function outcome(): Promise<{ isHeld: boolean; asked: string[] }> {
  const holds = await db.system.query(
    sql`SELECT FROM cloud_pod_holds WHERE pod_id = ${podId} AND kind = 'budget' AND until IS NULL`,
  );
  const tasks = await db.system.query<{ type: string }>(sql`
    SELECT type FROM cloud_pod_provisioning_tasks WHERE pod_id = ${podId} AND requested_by = 'system:budgets' ORDER BY id`);
  return { isHeld: holds.length > 0, asked: tasks.map(({ type }) => type) };
}

describe("between the list and the stop", () => {
  const raised = async () => {
    await setLimit("100");
    await evaluate();
  };
  test.each([
    ["the budget is raised, and another replica has judged that", raised],
    ["the owner has stopped the pod", stopByOwner],
  ])("%s: it is not held", async (_, meanwhile) => {
    await evaluate(interrupted(lists.stopping, meanwhile, true));
    expect(await outcome()).toEqual({ isHeld: false, asked: [] });
  });

  test.each([
    ["the budget is raised", raised],
    ["the owner has stopped the pod", stopByOwner],
  ])("negative control: %s, and without looking again the pod is held all the same", async (_, meanwhile) => {
    await evaluate(interrupted(lists.stopping, meanwhile, false));
    expect(await outcome()).toEqual({ isHeld: true, asked: ["stop"] });
  });
});

describe("between the list and the giving back", () => {
  beforeEach(async () => {
    await evaluate();
    expect(await outcome()).toEqual({ isHeld: true, asked: ["stop"] });
    await setLimit("50");
  });
  const spentAgain = async () => {
    await setLimit("5");
    await evaluate();
  };

  test.each([
    ["the budget is spent again: the pod stays held", spentAgain, { isHeld: true, asked: ["stop"] }],
    ["the owner has stopped the pod: only the hold goes", stopByOwner, { isHeld: false, asked: ["stop"] }],
    ["another replica gave it back: it starts once", () => evaluate(), { isHeld: false, asked: ["stop", "start"] }],
  ])("%s", async (_, meanwhile, expected) => {
    await evaluate(interrupted(lists.givingBack, meanwhile, true));
    expect(await outcome()).toEqual(expected);
  });

  test.each([
    ["a spent budget", spentAgain, ["stop", "start"]],
    ["a pod that its owner stopped", stopByOwner, ["stop", "start"]],
    ["a pod that was given back", () => evaluate(), ["stop", "start", "start"]],
  ])("negative control: without looking again %s starts pods", async (_, meanwhile, asked) => {
    await evaluate(interrupted(lists.givingBack, meanwhile, false));
    expect(await outcome()).toEqual({ isHeld: false, asked });
  });
});

test("figures from before the budget was spent give nothing back", async () => {
  const told = accrueAsTold((id) => (id === tenantId ? { spend: "9" } : {}));
  const deps = {
    db: db.system,
    log: pino({ level: "silent" }),
    hints: { workQueued: () => {} },
    // It stands still with them while another replica has newer ones.
    accrue: async (...asked: Parameters<typeof told>) => {
      const figures = await told(...asked);
      await evaluate();
      return figures;
    },
  };
  expect(await evaluateBudgets(deps, new Date(Date.now() - 1_000))).toMatchObject({ givenBack: 0, failed: 0 });
  const held = await db.system.query(
    sql`SELECT FROM cloud_pod_holds WHERE pod_id = ${podId} AND kind = 'budget' AND until IS NULL`,
  );
  expect(held).toHaveLength(1);
});
