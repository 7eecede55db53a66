import { Power, QueryAnswer, type PlanQuestion } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { connectAgent, type ConnectedAgent } from "../../../test/support/connected-agent.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { startGatewayUnderTest, type GatewayUnderTest } from "../../../test/support/gateway-under-test.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { askPlan } from "../nodes/ask-node.ts";
import type { IssuingDeps } from "../nodes/node-certificates.ts";
import { sql } from "../platform/sql.ts";

let db: TestDatabase;
let deps: IssuingDeps;
let one: GatewayUnderTest;
let two: GatewayUnderTest;
const agents: ConnectedAgent[] = [];

beforeAll(async () => {
  db = await createTestDatabase();
  deps = await issuingDeps(db.system);
  one = await startGatewayUnderTest(db, deps);
  two = await startGatewayUnderTest(db, deps);
});
afterEach(() => agents.splice(0).forEach((agent) => agent.close()));
afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await db.close();
});

async function connect(host: EnrolledHost, gateway = one): Promise<ConnectedAgent> {
  const agent = connectAgent(host, gateway.port);
  agents.push(agent);
  await agent.welcome();
  return agent;
}

const question: PlanQuestion = {
  podId: newId(),
  vmid: 0,
  generation: 1n,
  spec: undefined,
  power: Power.POWER_RUNNING,
  absent: false,
};

test("questions are answered by the host, whichever replica has its session", async () => {
  const host = await enrolHost(db.system, deps);
  const agent = await connect(host, two);
  const asked = askPlan({ db: db.system, hints: one.hints }, host.nodeId, question);
  const query = await until("the question", () => agent.heard.find((message) => message.$case === "query"));
  expect(query.value.question).toMatchObject({ $case: "plan", value: { podId: question.podId } });
  agent.say({
    $case: "queryAnswer",
    value: QueryAnswer.fromPartial({ queryId: query.value.queryId, commandLines: ["pct start 100000"] }),
  });
  expect(await asked).toEqual({ commandLines: ["pct start 100000"] });
});

test("questions are answered by the present session only", async () => {
  const host = await enrolHost(db.system, deps);
  const agent = await connect(host, two);
  const asked = askPlan({ db: db.system, hints: one.hints }, host.nodeId, question, 1_000);
  const query = await until("the question", () => agent.heard.find((message) => message.$case === "query"));
  await db.system.execute(sql`UPDATE node_status SET session_epoch = session_epoch + 1 WHERE node_id = ${host.nodeId}`);
  agent.say({
    $case: "queryAnswer",
    value: QueryAnswer.fromPartial({ queryId: query.value.queryId, commandLines: ["pct start 100000"] }),
  });
  expect(await asked).toEqual({ reason: "The node did not answer within 1 s." });
});

test("questions of one tenant are no other tenant's to read", async () => {
  await expect(db.api.query(sql`SELECT FROM node_queries`)).rejects.toMatchObject({ code: "42501" });
});

test("questions that nobody answers say so in time", async () => {
  const host = await enrolHost(db.system, deps);
  const startedMs = performance.now();
  expect(await askPlan({ db: db.system, hints: one.hints }, host.nodeId, question, 400)).toEqual({
    reason: "The node did not answer within 0.4 s.",
  });
  expect(performance.now() - startedMs).toBeLessThan(1_500);
  const agent = await connect(host);
  const asked = askPlan({ db: db.system, hints: one.hints }, host.nodeId, question);
  const query = await until("the question", () => agent.heard.findLast((message) => message.$case === "query"));
  agent.say({
    $case: "queryAnswer",
    value: {
      queryId: query.value.queryId,
      commandLines: [],
      error: { code: "NODE_BUSY", message: "later", retryable: true },
    },
  });
  expect(await asked).toEqual({ reason: "NODE_BUSY: later" });
});
