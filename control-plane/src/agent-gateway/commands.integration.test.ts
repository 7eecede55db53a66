import {
  BackupObservation,
  ContainerObservation,
  ContainerSpec,
  Inventory,
  Power,
  type Command,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { connectAgent, type ConnectedAgent, type ConnectOptions } from "../../../test/support/connected-agent.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { startGatewayUnderTest, type GatewayUnderTest } from "../../../test/support/gateway-under-test.ts";
import { insertTenants } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import type { IssuingDeps } from "../nodes/node-certificates.ts";
import { insertCommand, type NewCommand } from "../nodes/send-command.ts";
import { sql } from "../platform/sql.ts";
import { dispatchCommands } from "./dispatch-commands.ts";
import type { LiveSession } from "./live-session.ts";

let db: TestDatabase;
let deps: IssuingDeps;
let one: GatewayUnderTest;
let two: GatewayUnderTest;
let tenantId: string;
const agents: ConnectedAgent[] = [];

beforeAll(async () => {
  db = await createTestDatabase();
  deps = await issuingDeps(db.system);
  one = await startGatewayUnderTest(db, deps);
  two = await startGatewayUnderTest(db, deps);
  [tenantId = ""] = await insertTenants(db.system, 1);
});
afterEach(() => agents.splice(0).forEach((agent) => agent.close()));
afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await db.close();
});

async function connect(host: EnrolledHost, gateway = one, options: ConnectOptions = {}): Promise<ConnectedAgent> {
  const agent = connectAgent(host, gateway.port, options);
  agents.push(agent);
  await agent.welcome();
  return agent;
}

interface PlacedPod {
  readonly id: string;
  readonly vmid: number;
}

/** A pod that is placed on the host, generation 1. */
async function placePod(host: EnrolledHost): Promise<PlacedPod> {
  const id = newId();
  const [row] = await db.system.query<PlacedPod>(sql`
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, status, node_id, cores, memory_mb, disk_gb, storage, bridge, template, mac)
    VALUES (${id}, ${tenantId}, next_vmid(), 'pod', 'pod', 'local', 'active', ${host.nodeId}, 1, 512, 4, 'local-lvm', 'vmbr0', 'ct:9000', ${`BC:24:11:${id.slice(-8, -6)}:${id.slice(-6, -4)}:${id.slice(-4, -2)}`})
    RETURNING id, vmid`);
  if (row === undefined) throw new Error("no pod");
  return row;
}

async function order(
  host: EnrolledHost,
  pod: PlacedPod,
  revision: number,
  changes: Partial<NewCommand> = {},
): Promise<string> {
  const op = { $case: "ensurePower", value: { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 30 } } as const;
  const command = {
    nodeId: host.nodeId,
    tenantId,
    podId: pod.id,
    vmid: pod.vmid,
    generation: 1n,
    revision: BigInt(revision),
    op,
    ...changes,
  };
  return await db.system.transaction((tx) => insertCommand(tx, command));
}

async function stateOf(commandId: string): Promise<string | undefined> {
  const [row] = await db.system.query<{ state: string }>(sql`SELECT state FROM node_commands WHERE id = ${commandId}`);
  return row?.state;
}

const observationOf = (pod: PlacedPod, changes: Partial<ContainerObservation> = {}): ContainerObservation =>
  ContainerObservation.fromPartial({
    vmid: pod.vmid,
    podId: pod.id,
    generation: 1n,
    power: Power.POWER_RUNNING,
    ip: "10.0.0.9",
    ...changes,
  });

async function podRow(pod: PlacedPod) {
  const [row] = await db.system.query<{ power: string; ip: string | null }>(
    sql`SELECT observed_power AS power, ip FROM cloud_pods WHERE id = ${pod.id}`,
  );
  return row;
}

describe("commands", () => {
  test("written by one replica, delivered by another, stored and confirmed once", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const agent = await connect(host, two);
    const finished: string[] = [];
    const stopListening = one.hints.on("commands_finished", (id) => finished.push(id));
    const id = await order(host, pod, 1);
    one.hints.send("node_commands", host.nodeId);
    const command = await agent.command(id);
    expect(command).toMatchObject({
      podId: pod.id,
      vmid: pod.vmid,
      fleetEpoch: 1n,
      generation: 1n,
      revision: 1n,
      op: { $case: "ensurePower" },
    });
    agent.say({ $case: "accepted", value: { commandId: id } });
    await until("the acceptance", async () => (await stateOf(id)) === "accepted");
    agent.say({ $case: "progress", value: { commandId: id, step: "start", percent: 140, detail: "starting" } });
    await until("the progress", async () => (await stateOf(id)) === "running");
    await agent.succeed(command, { observation: observationOf(pod), commandLines: [`pct start ${pod.vmid}`] });
    const [row] = await db.system.query(sql`
      SELECT state, step, percent, command_lines AS lines, observation->>'ip' AS ip FROM node_commands WHERE id = ${id}`);
    expect(row).toEqual({
      state: "succeeded",
      step: "start",
      percent: 100,
      lines: [`pct start ${pod.vmid}`],
      ip: "10.0.0.9",
    });
    expect(await podRow(pod)).toEqual({ power: "running", ip: "10.0.0.9" });
    // A second result, even another one, is confirmed and changes nothing.
    await agent.succeed(command, { outcome: 2, error: { code: "LOCKED", message: "no", retryable: true } });
    expect(await stateOf(id)).toBe("succeeded");
    expect(await two.count("cloudpods_gateway_results_total", { fate: "repeated" })).toBe(1);
    await until("the hint on the other replica", () => finished.includes(id));
    expect(finished).toEqual([id]);
    stopListening();
  });

  test("keep what their host saw of an archive and of a move", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const agent = await connect(host);
    const op = { $case: "verifyBackup", value: { volumeId: "local:backup/x", atOnce: false } } as const;
    const id = await order(host, pod, 1, { op });
    one.hints.send("node_commands", host.nodeId);
    const backup = BackupObservation.fromPartial({ volumeId: "local:backup/x", sizeBytes: 2n ** 60n, found: true });
    await agent.succeed(await agent.command(id), { backup, move: { pveName: "b", power: 1, downtimeMs: 6_000n } });
    const [row] = await db.system.query(sql`SELECT backup, move FROM node_commands WHERE id = ${id}`);
    expect(row).toEqual({
      backup: { volumeId: "local:backup/x", sizeBytes: "1152921504606846976", found: true },
      move: { pveName: "b", power: "POWER_RUNNING", downtimeMs: "6000" },
    });
  });

  test("keep no keys of customers once they have ended", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const agent = await connect(host);
    const spec = ContainerSpec.fromPartial({ hostname: "pod", sshAuthorizedKeys: ["ssh-ed25519 AAAA alice"] });
    const id = await order(host, pod, 1, {
      op: { $case: "ensureContainer", value: { spec } },
    });
    one.hints.send("node_commands", host.nodeId);
    const command = await agent.command(id);
    expect(command.op).toMatchObject({ value: { spec: { sshAuthorizedKeys: ["ssh-ed25519 AAAA alice"] } } });
    const stored = async () => {
      const [row] = await db.system.query<{ text: string }>(
        sql`SELECT command::text AS text FROM node_commands WHERE id = ${id}`,
      );
      return row?.text;
    };
    expect(await stored()).toContain("alice");
    await agent.succeed(command, { observation: observationOf(pod) });
    expect(await stored()).not.toContain("alice");
    expect(await stored()).toContain('"hostname": "pod"');
  });

  test("unfinished ones are sent again in a new session, in order; journalled ones are not", async () => {
    const host = await enrolHost(db.system, deps);
    const pods = [await placePod(host), await placePod(host), await placePod(host)] as const;
    const agent = await connect(host);
    const ids = [await order(host, pods[0], 1), await order(host, pods[1], 1), await order(host, pods[2], 1)] as const;
    one.hints.send("node_commands", host.nodeId);
    await agent.command(ids[2]);
    agent.say({ $case: "accepted", value: { commandId: ids[0] } });
    await until("the acceptance", async () => (await stateOf(ids[0])) === "accepted");
    agent.close();
    const again = await connect(host, two, { hello: { runningCommandIds: [ids[0]] } });
    await again.command(ids[2]);
    expect(again.commands().map((command) => command.commandId)).toEqual([ids[1], ids[2]]);
    const third = await connect(host, one);
    await third.command(ids[2]);
    expect(third.commands().map((command) => command.commandId)).toEqual([...ids]);
  });

  test("of undelivered wishes only the newest leaves, and the overtaken ones end", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const stop = { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 30 } } as const;
    const [first, second, third] = [
      await order(host, pod, 1),
      await order(host, pod, 2, { op: stop }),
      await order(host, pod, 3),
    ];
    const agent = await connect(host);
    await agent.command(third);
    expect(agent.commands()).toHaveLength(1);
    expect([await stateOf(first), await stateOf(second)]).toEqual(["superseded", "superseded"]);
  });

  test("results of another placement are counted and not stored", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const agent = await connect(host);
    const id = await order(host, pod, 1);
    one.hints.send("node_commands", host.nodeId);
    const command = await agent.command(id);
    const before = await one.count("cloudpods_gateway_results_total", { fate: "stale" });
    await agent.succeed({ ...command, generation: 0n }, { observation: observationOf(pod, { generation: 0n }) });
    expect(await stateOf(id)).toBe("sent");
    expect(await podRow(pod)).toEqual({ power: "unknown", ip: null });
    expect(await one.count("cloudpods_gateway_results_total", { fate: "stale" })).toBe(before + 1);
    // The pod moved meanwhile: its old host may end its own command, but says nothing of the pod any more.
    await db.system.execute(sql`UPDATE cloud_pods SET generation = 2 WHERE id = ${pod.id}`);
    await agent.succeed(command, { observation: observationOf(pod) });
    expect(await stateOf(id)).toBe("succeeded");
    expect(await podRow(pod)).toEqual({ power: "unknown", ip: null });
    // The generation is what refused: with the present one the observation counts.
    const next = await order(host, pod, 2, { generation: 2n });
    one.hints.send("node_commands", host.nodeId);
    await agent.succeed(await agent.command(next), { observation: observationOf(pod, { generation: 2n }) });
    expect(await podRow(pod)).toEqual({ power: "running", ip: "10.0.0.9" });
  });

  test("nobody can end another node's command", async () => {
    const [host, other] = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const pod = await placePod(host);
    const id = await order(host, pod, 1);
    const thief = await connect(other);
    await thief.succeed({ commandId: id, generation: 1n }, { observation: observationOf(pod) });
    expect(await stateOf(id)).toBe("pending");
    expect(await podRow(pod)).toEqual({ power: "unknown", ip: null });
  });

  test("texts with NUL characters are stored without them", async () => {
    const host = await enrolHost(db.system, deps);
    const pod = await placePod(host);
    const agent = await connect(host);
    const id = await order(host, pod, 1);
    one.hints.send("node_commands", host.nodeId);
    await agent.succeed(await agent.command(id), {
      outcome: 2,
      error: { code: "FAILED", message: "a\0b", retryable: false },
      observation: observationOf(pod, { hostname: "x\0y" }),
    });
    const [row] = await db.system.query(
      sql`SELECT state, error_message AS message, observation->>'hostname' AS hostname FROM node_commands WHERE id = ${id}`,
    );
    expect(row).toEqual({ state: "failed", message: "ab", hostname: "xy" });
  });

  test("without any hint the slow poll delivers", async () => {
    const slow = await startGatewayUnderTest(db, deps, { pollMs: 300 });
    try {
      const host = await enrolHost(db.system, deps);
      const agent = await connect(host, slow);
      const id = await order(host, await placePod(host), 1);
      await agent.command(id);
    } finally {
      await slow.stop();
    }
  });

  test("a long queue goes through a bounded window, whole and in order", async () => {
    const host = await enrolHost(db.system, deps);
    const ids: string[] = [];
    for (let index = 0; index < 300; index++) {
      const op = { $case: "cancelCommand", value: { commandId: newId() } } as const;
      const command = { nodeId: host.nodeId, generation: 0n, revision: 0n, op };
      ids.push(await db.system.transaction((tx) => insertCommand(tx, command)));
    }
    const agent = await connect(host);
    await until("the first window", () => agent.commands().length === 64);
    const answers = new Map<string, Promise<void>>();
    await until("all commands", () => {
      for (const { commandId } of agent.commands()) {
        if (!answers.has(commandId)) answers.set(commandId, agent.succeed({ commandId, generation: 0n }));
      }
      return answers.size === ids.length;
    });
    await Promise.all(answers.values());
    expect(agent.commands().map((command: Command) => command.commandId)).toEqual(ids);
    const [row] = await db.system.query<{ open: number }>(sql`
      SELECT count(*)::integer AS open FROM node_commands WHERE node_id = ${host.nodeId} AND finished_at IS NULL`);
    expect(row?.open).toBe(0);
  });

  test("a tenant's order reaches the agent by its hint, long before any poll", async () => {
    const hinted = await startGatewayUnderTest(db, deps, { pollMs: 600_000 });
    try {
      const host = await enrolHost(db.system, deps);
      const agent = await connect(host, hinted);
      const pod = await placePod(host);
      const about = { nodeId: host.nodeId, tenantId, podId: pod.id, vmid: pod.vmid, generation: 1n, revision: 1n };
      const op = { $case: "reboot", value: { shutdownTimeoutSeconds: 10 } } as const;
      const id = await db.api.transaction((tx) => insertCommand(tx, { ...about, ttlMs: 60_000, op }), { tenantId });
      two.hints.send("node_commands", host.nodeId);
      expect(await agent.command(id)).toMatchObject({ ttlMs: 60_000n, op: { $case: "reboot" } });
    } finally {
      await hinted.stop();
    }
  });
});

/** A session without a stream; `give` is told the ids of commands. */
const tableSession = (host: EnrolledHost, epoch: bigint, give: (commandId: string) => void): LiveSession => ({
  nodeId: host.nodeId,
  epoch,
  serial: host.serial,
  welcome: { brokerUrl: "" },
  inFlight: new Set(),
  send: (message) => give(message.$case === "command" ? message.value.commandId : message.$case),
  end: () => {},
});

test("a command whose result comes while the open ones are read is not given again, and keeps back no other", async () => {
  const host = await enrolHost(db.system, deps);
  const [ending, next] = [await order(host, await placePod(host), 1), await order(host, await placePod(host), 1)];
  await db.system.execute(sql`UPDATE node_commands SET state = 'sent' WHERE id = ${ending}`);
  const given: string[] = [];
  let looks = 0;
  const session = tableSession(host, 0n, (id) => given.push(id));
  Object.defineProperty(session, "inFlight", { get: () => new Set(looks++ === 0 ? [ending] : []) });
  await dispatchCommands(db.system, [session]);
  expect(given).toEqual([next]);
});

describe("a session that is being displaced", () => {
  test("is given nothing, neither while the newer one begins nor afterwards", async () => {
    const host = await enrolHost(db.system, deps);
    const id = await order(host, await placePod(host), 1);
    const given: string[] = [];
    const session = (epoch: bigint): LiveSession => tableSession(host, epoch, (id) => given.push(id));
    await db.system.transaction(async (tx) => {
      await tx.execute(sql`UPDATE node_status SET session_epoch = session_epoch + 1 WHERE node_id = ${host.nodeId}`);
      expect((await dispatchCommands(db.system, [session(0n)])).notReached).toEqual([host.nodeId]);
    });
    expect((await dispatchCommands(db.system, [session(0n)])).notReached).toEqual([host.nodeId]);
    expect([given, await stateOf(id)]).toEqual([[], "pending"]);
    // It is the epoch that refused: the newer session gets the command.
    expect((await dispatchCommands(db.system, [session(1n)])).notReached).toEqual([]);
    expect([given, await stateOf(id)]).toEqual([[id], "sent"]);
  });
});

describe("what a new session owns", () => {
  test("and what it still has of pods that are placed elsewhere now, or nowhere any more", async () => {
    const [host, other] = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
    const [moved, kept, gone] = [await placePod(other), await placePod(host), await placePod(other)];
    // One was copied by hand, the other is somebody's own that an adoption in vain has marked.
    const [copied, own] = [await placePod(other), await placePod(other)];
    await db.system.execute(sql`
      UPDATE cloud_pods SET generation = 2, adopted_network = CASE id WHEN ${own.id} THEN '{}'::jsonb END,
        status = CASE id WHEN ${moved.id} THEN status ELSE 'deleted' END WHERE id IN (${moved.id}, ${gone.id}, ${copied.id}, ${own.id})`);
    const containers = [moved, kept, gone, own, { ...copied, vmid: 900 }].map((pod) => observationOf(pod));
    const inventory = Inventory.fromPartial({ known: true, containers: [...containers, { podId: "no pod" }] });
    const { placedElsewhere } = await (await connect(host, one, { hello: { inventory } })).welcome();
    const told = { generation: 2n, desiredPower: Power.POWER_STOPPED };
    expect(placedElsewhere).toEqual([moved, gone].map(({ id, vmid }) => ({ podId: id, vmid, ...told })));
  });

  test("its pods, with the power that holds and states allow", async () => {
    const host = await enrolHost(db.system, deps);
    const [runs, held] = [await placePod(host), await placePod(host)];
    const [stopped, gone] = [await placePod(host), await placePod(host)];
    await db.system.execute(sql`
      INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor) VALUES (${newId()}, ${tenantId}, ${held.id}, 'billing', 'suspend', 'test')`);
    await db.system.execute(sql`UPDATE cloud_pods SET desired_power = 'stopped' WHERE id = ${stopped.id}`);
    await db.system.execute(sql`UPDATE cloud_pods SET status = 'deleted' WHERE id = ${gone.id}`);
    const { ownedPods } = await (await connect(host)).welcome();
    expect(ownedPods).toEqual([
      { podId: runs.id, vmid: runs.vmid, generation: 1n, desiredPower: Power.POWER_RUNNING },
      { podId: held.id, vmid: held.vmid, generation: 1n, desiredPower: Power.POWER_STOPPED },
      { podId: stopped.id, vmid: stopped.vmid, generation: 1n, desiredPower: Power.POWER_STOPPED },
    ]);
  });
});
