import {
  ContainerObservation,
  Hello,
  Power,
  type Welcome,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, expect, test } from "vitest";
import { enrolHost, issuingDeps, type EnrolledHost } from "../../../test/support/enrolled-host.ts";
import { insertTenants } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { insertCommand } from "../nodes/send-command.ts";
import { sql } from "../platform/sql.ts";
import { openSession } from "./open-session.ts";

let db: TestDatabase;
let hosts: EnrolledHost[];
let tenantId: string;

beforeAll(async () => {
  db = await createTestDatabase();
  const deps = await issuingDeps(db.system);
  hosts = [await enrolHost(db.system, deps), await enrolHost(db.system, deps)];
  [tenantId = ""] = await insertTenants(db.system, 1);
});
afterAll(() => db.close());

interface MovingPod {
  readonly id: string;
  readonly vmid: number;
}

/** A running pod of the first host; `isMoving`: to the second one, by the task. */
async function podOf(move?: { readonly taskId: string; readonly isStopped: boolean }): Promise<MovingPod> {
  const id = newId();
  const [from, to] = hosts.map(({ nodeId }) => nodeId);
  const [pod] = await db.system.query<MovingPod>(sql`
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, status, node_id, cores, memory_mb, disk_gb, storage, bridge, template, mac)
    VALUES (${id}, ${tenantId}, next_vmid(), 'pod', 'pod', 'local', 'active', ${from}, 1, 512, 4, 'local-lvm', 'vmbr0', 'ct:9000', ${`BC:24:11:${id.slice(-8, -6)}:${id.slice(-6, -4)}:${id.slice(-4, -2)}`})
    RETURNING id, vmid`);
  if (pod === undefined) throw new Error("no pod");
  if (move !== undefined) {
    await db.system.execute(sql`
      INSERT INTO cloud_pod_moves (id, tenant_id, pod_id, purpose, strategy, state, from_node_id, to_node_id, from_generation, to_generation,
        storage, bridge, verdict, disk_gb, runs, reason, requested_by, task_id, begun_at, stopped_at)
      VALUES (${newId()}, ${tenantId}, ${id}, 'migrate', 'backup-restore', 'moving', ${from}, ${to}, 1, 2,
        'local', 'vmbr0', '{}', 1, true, 'test', 'test', ${move.taskId}, now(), CASE WHEN ${move.isStopped} THEN now() END)`);
  }
  return pod;
}

/** The command for the archive of a move, as far as it has come. */
async function backup({ id: podId, vmid }: MovingPod, taskId: string, state: string): Promise<void> {
  const value = { backupId: newId(), storage: "backups", mode: "shut-down" };
  const about = { nodeId: hosts[0]?.nodeId ?? "", tenantId, podId, vmid, taskId, generation: 1n, revision: 1n };
  await db.system.transaction(async (tx) => {
    const id = await insertCommand(tx, { ...about, op: { $case: "backup", value } });
    await tx.execute(sql`
      UPDATE node_commands SET state = ${state}, finished_at = CASE WHEN ${state} IN ('succeeded', 'failed') THEN now() END WHERE id = ${id}`);
  });
}

async function welcome(host: EnrolledHost | undefined, copies: readonly MovingPod[] = []): Promise<Welcome> {
  if (host === undefined) throw new Error("no host");
  const settings = {
    replicaId: newId(),
    sampleIntervalMs: 60_000,
    heartbeatIntervalMs: 5_000,
    inventoryIntervalMs: 60_000,
    brokerUrl: () => Promise.resolve("mqtts://broker:8883"),
  };
  const containers = copies.map(({ id, vmid }) =>
    ContainerObservation.fromPartial({ podId: id, vmid, generation: 1n }),
  );
  const hello = Hello.fromPartial({ bootId: newId(), machineId: host.nodeId, inventory: { known: true, containers } });
  return (await openSession(db.system, settings, host, hello, false)).welcome;
}

test("a host does not start a pod whose archive is or may be begun, whether that is known yet or not", async () => {
  const expected = new Map<string, Power>();
  for (const [state, isStopped, power] of [
    ["succeeded", true, Power.POWER_STOPPED],
    ["succeeded", false, Power.POWER_STOPPED],
    ["running", false, Power.POWER_STOPPED],
    ["accepted", false, Power.POWER_STOPPED],
    ["sent", false, Power.POWER_STOPPED],
    // Its host has not heard of it, or has done nothing for it.
    ["pending", false, Power.POWER_RUNNING],
    ["failed", false, Power.POWER_RUNNING],
  ] as const) {
    const taskId = newId();
    const pod = await podOf({ taskId, isStopped });
    await backup(pod, taskId, state);
    expected.set(pod.id, power);
  }
  expected.set((await podOf()).id, Power.POWER_RUNNING);
  const { ownedPods } = await welcome(hosts[0]);
  expect(new Map(ownedPods.map(({ podId, desiredPower }) => [podId, desiredPower]))).toEqual(expected);
});

test("a copy that is just being given to a host is not told to be another's", async () => {
  const [given, left] = [await podOf({ taskId: newId(), isStopped: true }), await podOf()];
  const { placedElsewhere } = await welcome(hosts[1], [given, left]);
  expect(placedElsewhere.map(({ podId }) => podId)).toEqual([left.id]);
});
