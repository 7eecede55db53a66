import { afterAll, beforeAll, expect, test } from "vitest";
import type { Overview } from "../../control-plane/src/ops/overview-views.ts";
import { type AgentOnHost, createAgentOnHost } from "../support/agent-process.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
const agents: AgentOnHost[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: [] });
});
afterAll(async () => {
  await Promise.all(agents.map((agent) => agent.dispose()));
  await stack.finish();
  await database.close();
});

/** Lets a server in that has nothing of Proxmox on it. */
async function join(name: string, role: string): Promise<AgentOnHost> {
  const nothing = {
    PVE_ROOT: "/nonexistent/pve",
    PCT_PATH: "/nonexistent/pct",
    PVEVERSION_PATH: "/nonexistent/pveversion",
  };
  const environment = Object.fromEntries(
    Object.entries({ ...nothing, ROLE: role }).map(([key, value]) => [`CLOUDPODS_AGENT_${key}`, value]),
  );
  const agent = await createAgentOnHost({ environment });
  agents.push(agent);
  const { token } = await stack
    .admin()
    .request<{ token: string }>("POST", "/api/nodes/join-tokens", { name, role, region: "local" });
  const joined = await agent.run("join", "--server", stack.replicas[0].url, "--token", token);
  expect(joined.exitCode, joined.stderr).toBe(0);
  agent.start();
  return agent;
}

test("servers that are no hypervisors join, send heartbeats, are seen by role and take no pods", async () => {
  const roles = ["db", "mail"];
  await Promise.all(roles.map((role) => join(`srv-${role}`, role)));
  const overview = () => stack.admin().request<Overview>("GET", "/api/ops/platform-overview");
  const seen = await until(
    "all servers online",
    async () => {
      const found = await overview();
      const online = found.coreNodes.filter(({ states }) => states.every(({ state }) => state === "online"));
      return online.length === roles.length ? found : undefined;
    },
    90_000,
  );
  expect(seen.coreNodes.map(({ role }) => role)).toEqual(roles);
  expect(seen.coreNodes.find(({ role }) => role === "mail")).toMatchObject({
    total: 1,
    nodes: [{ name: "srv-mail", state: "online", conditions: [], memoryAvailableMb: expect.any(Number) }],
  });
  expect(seen.capacity).toEqual([]);
  await expect(
    stack.customer().request("POST", "/api/cloud-pods", { planCode: "CLOUD_POD_STUDENT", hostname: "nowhere" }),
  ).rejects.toThrow("NO_CAPACITY");
});
