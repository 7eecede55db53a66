import { Command, Power, QueryAnswer, type PlanQuestion } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { connectAgent, type ConnectedAgent } from "../../../test/support/connected-agent.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { startGatewayUnderTest, type GatewayUnderTest } from "../../../test/support/gateway-under-test.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { askCommands, askPlan } from "../nodes/ask-node.ts";
import type { IssuingDeps } from "../nodes/node-certificates.ts";
import { sql } from "../platform/sql.ts";

let db: TestDatabase;
let deps: IssuingDeps;
let one: GatewayUnderTest;
let two: GatewayUnderTest;
const agents: ConnectedAgent[] = [];
/** For answers that the test gives. */
const patientMs = 60_000;

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
  volumes: [],
};

test("questions are answered by the host, whichever replica has its session", async () => {
  const host = await enrolHost(db.system, deps);
  const agent = await connect(host, two);
  const asked = askPlan({ db: db.system, hints: one.hints }, host.nodeId, question, patientMs);
  const query = await until("the question", () => agent.heard.find((message) => message.$case === "query"));
  expect(query.value.question).toMatchObject({ $case: "plan", value: { podId: question.podId } });
  agent.say({
    $case: "queryAnswer",
    value: QueryAnswer.fromPartial({ queryId: query.value.queryId, commandLines: ["pct start 100000"] }),
  });
  expect(await asked).toEqual({ commandLines: ["pct start 100000"] });
});

test("commands that nobody sends are answered one by one; an agent that does not know the question says nothing", async () => {
  const host = await enrolHost(db.system, deps);
  const agent = await connect(host, two);
  const commands = [1, 2, 3].map((vmid) =>
    Command.fromPartial({ vmid, op: { $case: "ensureAbsent", value: { volumes: [] } } }),
  );
  const asked = askCommands({ db: db.system, hints: one.hints }, host.nodeId, commands, patientMs);
  const query = await until("the question", () => agent.heard.find((message) => message.$case === "query"));
  expect(query.value.question).toMatchObject({ $case: "commands", value: { commands: [{ vmid: 1 }, {}, {}] } });
  const error = { code: "LOCKED", message: "CT 2 is locked", retryable: true };
  const plans = [{ commandLines: ["pct destroy 1"] }, { error }];
  agent.say({ $case: "queryAnswer", value: QueryAnswer.fromPartial({ queryId: query.value.queryId, plans }) });
  expect(await asked).toEqual([
    { commandLines: ["pct destroy 1"] },
    { reason: "LOCKED: CT 2 is locked" },
    { reason: "The node's agent is too old to tell." },
  ]);
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
  expect(performance.now() - startedMs).toBeLessThan(15_000);
  const agent = await connect(host);
  // It hears the first one as well, which nobody waits for any more.
  const second = { ...question, podId: newId() };
  const answer = askPlan({ db: db.system, hints: one.hints }, host.nodeId, second, patientMs);
  const heard = () => agent.heard.flatMap((message) => (message.$case === "query" ? [message.value] : []));
  const query = await until("the question", () =>
    heard().find(({ question: asked }) => asked?.$case === "plan" && asked.value.podId === second.podId),
  );
  agent.say({
    $case: "queryAnswer",
    value: {
      queryId: query.queryId,
      commandLines: [],
      error: { code: "NODE_BUSY", message: "later", retryable: true },
      plans: [],
    },
  });
  expect(await answer).toEqual({ reason: "NODE_BUSY: later" });
});
