import { mkdirSync } from "node:fs";
import { onTestFinished, expect, test } from "vitest";
import { insertCommand } from "../../../control-plane/src/nodes/send-command.ts";
import { sql } from "../../../control-plane/src/platform/sql.ts";
import { createAgentOnHost } from "../../../test/support/agent-process.ts";
import { enrolHost, issuingDeps } from "../../../test/support/enrolled-host.ts";
import { startGatewayUnderTest } from "../../../test/support/gateway-under-test.ts";
import { createTestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { saveIdentity } from "../enrolment/identity-files.ts";

test("the control plane's own gateway welcomes the agent, commands it and takes its results", async () => {
  const db = await createTestDatabase();
  const deps = await issuingDeps(db.system);
  const gateway = await startGatewayUnderTest(db, deps);
  const { nodeId, keyPem, certificatePem, caPem } = await enrolHost(db.system, deps);
  const agent = await createAgentOnHost();
  onTestFinished(async () => {
    await agent.dispose();
    await gateway.stop();
    await db.close();
  });
  mkdirSync(agent.stateDir, { recursive: true, mode: 0o700 });
  saveIdentity(agent.stateDir, {
    nodeId,
    // Nobody listens there: a renewal fails, which is an answer too.
    serverUrl: "http://127.0.0.1:1",
    gatewayAddress: `127.0.0.1:${gateway.port}`,
    brokerUrl: "mqtts://127.0.0.1:1",
    keyPem,
    certificatePem,
    caPem,
  });
  agent.start();
  const status = await until("the session", async () => {
    const [row] = await db.system.query<{ connected: boolean; version: string }>(sql`
      SELECT session_connected AS connected, agent_version AS version FROM node_status WHERE node_id = ${nodeId}`);
    return row?.connected === true && row;
  });
  expect(status.version).toBe("0.1.0");
  const commandId = await insertCommand(db.system, {
    nodeId,
    generation: 0n,
    revision: 0n,
    op: { $case: "renewCertificate", value: {} },
  });
  gateway.hints.send("node_commands", nodeId);
  const errorCode = await until("the stored result", async () => {
    const [row] = await db.system.query<{ errorCode: string | null }>(sql`
      SELECT error_code AS "errorCode" FROM node_commands WHERE id = ${commandId} AND state = 'failed'`);
    return row?.errorCode ?? undefined;
  });
  expect(errorCode).toBe("CONTROL_PLANE_UNREACHABLE");
});
