import { setTimeout as sleep } from "node:timers/promises";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { expect, test } from "vitest";
import { MoveWorkbench } from "../../../test/support/move-workbench.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { sendErrands } from "./send-errands.ts";

const bench = new MoveWorkbench();
const log = pino({ level: "silent" });
const inAWeek = new Date(Date.now() + 8 * 86_400_000);

/** A backup of a pod where it is, that is to be read again. */
async function addBackup(pod: Pod, dueSince: Date): Promise<string> {
  const id = newId();
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at, checked_at, errand_after)
    SELECT ${id}, ${pod.tenantId}, ${pod.id}, ${pod.nodeId}, s.id, s.name, 'manual', 'stop', 'available', ${`backups:backup/${id}.tar.zst`}, ${pod.generation},
      ${pod.vmid}, '{}', now(), now(), ${dueSince} FROM storages s WHERE s.node_id = ${pod.nodeId} AND s.holds_backups`);
  return id;
}

/** The database of a replica that, before its first change is made, waits until something is so. */
function waitingBeforeItsChange(isSo: () => Promise<boolean>): Database {
  const { system } = bench.db;
  let hasWaited = false;
  return {
    ...system,
    transaction: (work, how) =>
      system.transaction(
        (tx) =>
          work({
            ...tx,
            async execute(statement) {
              if (!hasWaited) await expect.poll(isSo, { timeout: 60_000 }).toBe(true);
              hasWaited = true;
              return await tx.execute(statement);
            },
          }),
        how,
      ),
  };
}

test("a host reads one archive at a time, also where two ask it at once for different ones", async () => {
  const [node] = await bench.nodes(1);
  bench.work();
  if (node === undefined) throw new Error("no host");
  const pod = await bench.podOn(node);
  bench.hosts.away.add(node.id);
  await addBackup(pod, new Date("2026-01-02T00:00:00Z"));
  let second: Promise<string[]> | undefined;
  // The first has chosen and not committed; the second ends by itself or waits for it.
  const hasEndedOrWaits = async (): Promise<boolean> => {
    second ??= addBackup(pod, new Date("2026-01-01T00:00:00Z")).then(() =>
      sendErrands({ db: bench.db.system, log }, inAWeek),
    );
    const waiting = await bench.db.system.query(
      sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return waiting.length > 0 || (await Promise.race([second.then(() => true), sleep(20, false)]));
  };
  const first = await sendErrands({ db: waitingBeforeItsChange(hasEndedOrWaits), log }, inAWeek);
  expect([...first, ...((await second) ?? [])]).toEqual([node.id]);
});
