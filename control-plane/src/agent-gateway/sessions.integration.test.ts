// The X.509 library resolves its parts by metadata of this polyfill, which has to be there before it.
import "reflect-metadata";
import { randomUUID, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { CommandOutcome, CommandResult, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { readCertificate } from "../../../node-agent/src/enrolment/check-certificate.ts";
import {
  connectAgent,
  smallInventory,
  type ConnectedAgent,
  type ConnectOptions,
} from "../../../test/support/connected-agent.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { startGatewayUnderTest, type GatewayUnderTest } from "../../../test/support/gateway-under-test.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import {
  issueNodeCertificate,
  issueReplicaCertificate,
  issueServerCertificate,
  makeAuthority,
  openAuthority,
} from "../nodes/certificate-authority.ts";
import type { IssuingDeps } from "../nodes/node-certificates.ts";
import { recordInventory } from "../nodes/record-inventory.ts";
import { removeNode } from "../nodes/remove-node.ts";
import { SessionSuperseded } from "../nodes/session-fence.ts";
import { sql } from "../platform/sql.ts";
import { storeResult } from "./store-report.ts";

let db: TestDatabase;
let deps: IssuingDeps;
let one: GatewayUnderTest;
let two: GatewayUnderTest;
const agents: ConnectedAgent[] = [];
/** A look a second on a machine that may stand still for seconds; nothing else would end these sessions at all. */
const soonMs = 15_000;

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

function connect(host: EnrolledHost, options: ConnectOptions = {}, gateway = one): ConnectedAgent {
  const agent = connectAgent(host, gateway.port, options);
  agents.push(agent);
  return agent;
}

async function statusOf(nodeId: string) {
  const [row] = await db.system.query<{ epoch: bigint; connected: boolean; seenAt: Date | null }>(sql`
    SELECT session_epoch AS epoch, session_connected AS connected, session_seen_at AS "seenAt" FROM node_status WHERE node_id = ${nodeId}`);
  if (row === undefined) throw new Error("no status row");
  return row;
}

/** A host whose certificate another authority of the same name signed, with this serial and validity. */
async function forge(host: EnrolledHost, now: Date): Promise<EnrolledHost> {
  const { certificate, privateKeyPem } = await makeAuthority(deps.authorities.active.id, now);
  const authority = await openAuthority(deps.authorities.active.id, certificate.pem, privateKeyPem);
  return await certify(host, (publicKey) => issueNodeCertificate(authority, host.nodeId, publicKey, now));
}

async function certify(
  host: EnrolledHost,
  issue: (publicKey: x509.PublicKey) => Promise<{ pem: string }>,
): Promise<EnrolledHost> {
  const keys = await webcrypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const { pem } = await issue(new x509.PublicKey(await webcrypto.subtle.exportKey("spki", keys.publicKey)));
  const keyPem = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  return { ...host, certificatePem: pem, keyPem, serial: readCertificate(pem).serial };
}

describe("who gets a session", () => {
  test("an enrolled host, and it is told what it needs", async () => {
    const host = await enrolHost(db.system, deps);
    const spoolId = randomUUID();
    await db.system.execute(
      sql`INSERT INTO node_spools (node_id, spool_id, contiguous_seq, refused_since) VALUES (${host.nodeId}, ${spoolId}, 41, now())`,
    );
    const welcome = await connect(host, { hello: { spoolId } }).welcome();
    expect(welcome).toMatchObject({
      nodeId: host.nodeId,
      sessionEpoch: 1n,
      fleetEpoch: 1n,
      spoolContiguousSeq: 41n,
      sampleIntervalMs: 60_000,
      ownedPods: [],
    });
    expect(welcome.caBundlePem).toBe(deps.authorities.pems.join(""));
    const unknownSpool = await connect(host, { hello: { spoolId: randomUUID() } }).welcome();
    expect(unknownSpool).toMatchObject({ sessionEpoch: 2n, spoolContiguousSeq: -1n });
    const believed = await db.system.query(
      sql`SELECT FROM node_spools WHERE node_id = ${host.nodeId} AND refused_since IS NULL`,
    );
    expect(believed).toHaveLength(2);
    const [used] = await db.system.query<{ at: Date | null }>(
      sql`SELECT first_used_at AS at FROM node_certificates WHERE serial = ${host.serial}`,
    );
    expect(used?.at).toBeInstanceOf(Date);
  });

  test("forged, expired, foreign, server's, replica's and revoked certificates do not", async () => {
    const host = await enrolHost(db.system, deps);
    const longAgo = new Date(Date.now() - 400 * 86_400_000);
    // Reported by TLS exactly as our own expired certificate would be: issuer name and expiry fit.
    const forgedExpired = await forge(host, longAgo);
    const forgedValid = await forge(host, new Date());
    const expired = await certify(host, (publicKey) =>
      issueNodeCertificate(deps.authorities.active, host.nodeId, publicKey, longAgo),
    );
    const server = await issueServerCertificate(deps.authorities.active, [host.nodeId], new Date());
    const asServer = { ...host, certificatePem: server.pem, keyPem: server.privateKeyPem };
    for (const wrong of [forgedExpired, forgedValid, expired, asServer]) {
      const agent = connect(wrong);
      expect(await until("a refusal", () => agent.fault())).toMatchObject({ code: 14 });
    }
    const replica = await issueReplicaCertificate(deps.authorities.active, new Date());
    expect(await connect({ ...host, certificatePem: replica.pem, keyPem: replica.privateKeyPem }).refusal()).toBe(
      "NOT_A_NODE",
    );
    // Signed by our key but never issued: not in the database.
    const unissued = await certify(host, (publicKey) =>
      issueNodeCertificate(deps.authorities.active, host.nodeId, publicKey, new Date()),
    );
    expect(await connect(unissued).refusal()).toBe("CERTIFICATE_REFUSED");
    await db.system.execute(sql`UPDATE node_certificates SET revoked_at = now() WHERE node_id = ${host.nodeId}`);
    expect(await connect(host).refusal()).toBe("CERTIFICATE_REFUSED");
    expect((await statusOf(host.nodeId)).epoch).toBe(0n);
  });

  test("who breaks the protocol loses his session, and nobody else does", async () => {
    const [host, bystander] = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const watching = connect(bystander);
    await watching.welcome();
    const before = await one.count("cloudpods_gateway_malformed_messages_total");
    const noise = connect(host);
    await noise.welcome();
    // A Hello that announces more bytes than follow. Random bytes would be a valid message now and then.
    noise.sayBytes(Buffer.from([0x0a, 0x7f, ...Array<number>(12).fill(0xff)]));
    expect(await noise.refusal()).toBe("PROTOCOL_ERROR");
    const early = connect(host, { silent: true });
    early.say({ $case: "accepted", value: { commandId: newId() } });
    expect(await early.refusal()).toBe("PROTOCOL_ERROR");
    const noUuid = connect(host);
    await noUuid.welcome();
    noUuid.say({ $case: "accepted", value: { commandId: "'; DROP TABLE nodes" } });
    expect(await noUuid.refusal()).toBe("PROTOCOL_ERROR");
    expect(await connect(host, { hello: { protocolVersion: 9 } }).refusal()).toBe("PROTOCOL_VERSION");
    expect(await one.count("cloudpods_gateway_malformed_messages_total")).toBe(before + 3);
    watching.say({ $case: "clockRequest", value: { agentMonotonicUs: 7n } });
    const reply = await until("a clock reply", () => watching.heard.find((message) => message.$case === "clockReply"));
    expect(reply.value.agentMonotonicUs).toBe(7n);
    expect(Math.abs(Number(reply.value.serverTimeMs) - Date.now())).toBeLessThan(5_000);
  });

  test("too many at once are sent away for a random while", async () => {
    const small = await startGatewayUnderTest(db, deps, { openingMax: 0, waitingMax: 0 });
    try {
      const host = await enrolHost(db.system, deps);
      const agent = connect(host, {}, small);
      expect(await agent.refusal()).toBe("GATEWAY_BUSY");
      const fault = agent.fault();
      const waitMs =
        fault === undefined || fault === "closed" ? Number.NaN : Number(fault.metadata.get("retry-after-ms")[0]);
      expect(waitMs).toBeGreaterThanOrEqual(500);
      expect(waitMs).toBeLessThanOrEqual(5_000);
    } finally {
      await small.stop();
    }
  });
});

describe("one session per node", () => {
  test("a newer one on another replica ends the older one soon", async () => {
    const host = await enrolHost(db.system, deps);
    const older = connect(host);
    await older.welcome();
    const newer = connect(host, {}, two);
    expect((await newer.welcome()).sessionEpoch).toBe(2n);
    const startedMs = performance.now();
    expect(await older.refusal()).toBe("SESSION_SUPERSEDED");
    expect(performance.now() - startedMs).toBeLessThan(soonMs);
    expect(newer.fault()).toBeUndefined();
    expect(await statusOf(host.nodeId)).toMatchObject({ epoch: 2n, connected: true });
  });

  test("nothing is written for a session that is over", async () => {
    const host = await enrolHost(db.system, deps);
    await connect(host).welcome();
    const session = { nodeId: host.nodeId, epoch: 1n };
    const inventory = smallInventory({ storages: [] });
    const hooks = { onAddress: async () => {} };
    expect(await recordInventory(db.system, session, inventory, hooks)).toBe(true);
    await connect(host, {}, two).welcome();
    await expect(recordInventory(db.system, session, inventory, hooks)).rejects.toThrow(SessionSuperseded);
    const result = CommandResult.fromPartial({ commandId: newId(), outcome: CommandOutcome.COMMAND_OUTCOME_SUCCEEDED });
    await expect(storeResult(db.system, session, result, hooks)).rejects.toThrow(SessionSuperseded);
    // The guard is what refuses: under the present epoch the same writes go through.
    expect(await recordInventory(db.system, { ...session, epoch: 2n }, inventory, hooks)).toBe(true);
    expect(await storeResult(db.system, { ...session, epoch: 2n }, result, hooks)).toBe("unknown");
  });

  test("the third displacement within a minute refuses both clones, until their machines differ", async () => {
    const host = await enrolHost(db.system, deps);
    const [original, clone] = [{ bootId: "boot-a" }, { bootId: "boot-b" }];
    for (const hello of [original, clone, original]) await connect(host, { hello }).welcome();
    expect(await connect(host, { hello: clone }).refusal()).toBe("DUPLICATE_AGENT");
    expect(await connect(host, { hello: original }, two).refusal()).toBe("DUPLICATE_AGENT");
    expect(await statusOf(host.nodeId)).toMatchObject({ connected: false });
    const [condition] = await db.system.query(sql`SELECT kind FROM node_conditions WHERE node_id = ${host.nodeId}`);
    expect(condition).toEqual({ kind: "DuplicateAgent" });
    await until("the end of all sessions", () => one.gateway.sessionCount() + two.gateway.sessionCount() === 0);
    const renamed = { ...clone, machineId: "ff".repeat(32) };
    expect(await connect(host, { hello: renamed }).refusal()).toBe("DUPLICATE_AGENT");
    await connect(host, { hello: original }).welcome();
    expect(await connect(host, { hello: renamed }).refusal()).toBe("DUPLICATE_AGENT");
  });

  test("a host that comes back from gateways that died is no clone of itself", async () => {
    const host = await enrolHost(db.system, deps);
    const hello = { bootId: "boot-a" };
    for (let death = 0; death < 5; death++) {
      // What a gateway leaves that was killed: a session that is noted as connected and seen just now.
      await db.system.execute(sql`
        UPDATE node_status SET session_connected = true, session_seen_at = now(), session_replica = ${newId()}, boot_id = 'boot-a'
        WHERE node_id = ${host.nodeId}`);
      const agent = connect(host, { hello });
      await agent.welcome();
      agent.close();
      await until("the note", async () => !(await statusOf(host.nodeId)).connected);
    }
    const conditions = await db.system.query(sql`SELECT kind FROM node_conditions WHERE node_id = ${host.nodeId}`);
    expect(conditions).not.toContainEqual({ kind: "DuplicateAgent" });
  });

  test("removing the node ends its session soon", async () => {
    const host = await enrolHost(db.system, deps);
    const agent = connect(host);
    await agent.welcome();
    await db.system.transaction((tx) =>
      removeNode(tx, host.nodeId, { actor: { kind: "system", id: "test" }, requestId: undefined }),
    );
    const startedMs = performance.now();
    expect(await agent.refusal()).toBe("SESSION_SUPERSEDED");
    expect(performance.now() - startedMs).toBeLessThan(soonMs);
    expect(await connect(host).refusal()).toBe("CERTIFICATE_REFUSED");
  });

  test("a broken connection is noted, not later than when it may have broken", async () => {
    const host = await enrolHost(db.system, deps);
    const agent = connect(host);
    await agent.welcome();
    agent.close();
    const status = await until("the note", async () => {
      const found = await statusOf(host.nodeId);
      return !found.connected && found;
    });
    expect(Date.now() - (status.seenAt?.getTime() ?? 0)).toBeGreaterThanOrEqual(9_000);
  });
});

test("a stopping gateway sends its agents away and notes it", async () => {
  const third = await startGatewayUnderTest(db, deps);
  const host = await enrolHost(db.system, deps);
  const agent = connect(host, {}, third);
  await agent.welcome();
  const startedMs = performance.now();
  await third.stop();
  expect(performance.now() - startedMs).toBeLessThan(4_000);
  expect(await agent.refusal()).toBe("GATEWAY_STOPPING");
  await until("the note", async () => !(await statusOf(host.nodeId)).connected);
});

test("a renewed server certificate is used for new connections while old sessions go on", async () => {
  const host = await enrolHost(db.system, deps);
  const agent = connect(host);
  await agent.welcome();
  const next = await issueServerCertificate(deps.authorities.active, ["other.example"], new Date());
  one.gateway.updateTls({ cert: next.pem, key: next.privateKeyPem, ca: deps.authorities.pems });
  const misled = connect(host);
  expect(await until("a refusal of the wrong name", () => misled.fault())).toMatchObject({ code: 14 });
  const right = await issueServerCertificate(deps.authorities.active, ["127.0.0.1"], new Date());
  one.gateway.updateTls({ cert: right.pem, key: right.privateKeyPem, ca: deps.authorities.pems });
  expect(agent.fault()).toBeUndefined();
  expect((await connect(host).welcome()).ownedPods.map((pod) => pod.desiredPower)).not.toContain(
    Power.POWER_UNSPECIFIED,
  );
});
