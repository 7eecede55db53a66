import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { archiveSamples, dropArchivedPartitions, withOwnClient, type ArchiveOptions } from "./archive-samples.ts";
import { rollUpDirty } from "./roll-up.ts";
import { sealDays } from "./seal-days.ts";
import { verifyMetering } from "./verify-metering.ts";

const hours = [new Date("2026-01-31T21:00:00Z"), new Date("2026-01-31T22:00:00Z")];
const later = new Date("2026-02-04T01:06:00Z");

let db: TestDatabase;
let fleet: DeliveringFleet;
let archive: ArchiveOptions;

beforeEach(async () => {
  db = await createTestDatabase();
  archive = { databaseUrl: db.systemUrl, archiveDirectory: await mkdtemp(join(tmpdir(), "usage-archive-")) };
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 2, since: hours[0] ?? later });
  for (const node of fleet.nodes)
    for (const pod of node.pods) await allocate(db.system, pod, { from: hours[0] ?? later });
  for (const hour of hours) for (const node of fleet.nodes) await fleet.deliverHour(node, hour);
  while ((await rollUpDirty(db.system, later)).hours > 0);
  await sealDays(db.system, later);
});
afterEach(async () => {
  await fleet.close();
  await db.close();
  await rm(archive.archiveDirectory, { recursive: true });
});

/** The database as a process sees it that stands still before its n-th transaction, until `meanwhile` has happened. */
function standingStillAt(transaction: number, meanwhile: () => Promise<void>): Database {
  let count = 0;
  return {
    ...db.system,
    async transaction(work, how) {
      if (++count === transaction) await meanwhile();
      return await db.system.transaction(work, how);
    },
  };
}

/** After the check of the day comes one for each hour: this is the one of 21:00. */
const amidTheFirstHour = 23;

async function archiveAndDrop(): Promise<void> {
  await archiveSamples(db.system, archive);
  expect(await dropArchivedPartitions(db.system, archive)).toContain("2026-01-31");
}

const findings = async () =>
  (await verifyMetering(db.system, "2026-01", { directory: archive.archiveDirectory, since: new Date(0) })).findings;

test("who archives on after another has begun changes nothing of what that one has written", async () => {
  const late = archiveSamples(standingStillAt(amidTheFirstHour, archiveAndDrop), archive);
  await expect(late).rejects.toThrow("Another process has begun to archive usage.");
  expect(await findings()).toEqual([]);
});

test("negative control: with his turn given back he replaces archives by empty ones, and the proof names them", async () => {
  const [before] = await db.system.query<{ turn: bigint }>(sql`SELECT turn FROM usage_archiving`);
  await archiveSamples(
    standingStillAt(amidTheFirstHour, async () => {
      await archiveAndDrop();
      await db.system.execute(sql`UPDATE usage_archiving SET turn = ${(before?.turn ?? 0n) + 1n}`);
    }),
    archive,
  );
  expect((await findings()).map(({ check, figure, period, found }) => ({ check, figure, period, found }))).toEqual(
    expect.arrayContaining(
      hours.map((hour) => ({
        check: "archive-hours",
        figure: "archive_samples",
        period: expect.stringContaining(hour.toISOString().slice(0, 13).replace("T", " ")),
        found: "0",
      })),
    ),
  );
});

test("a database that ends the connection between two statements ends the archiving and nothing else", async () => {
  // Without a listener the process would end with the connection's error, and this file of tests with it.
  const archiving = withOwnClient(db.systemUrl, async (client) => {
    const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    const ended = new Promise((resolve) => client.once("end", resolve));
    await db.system.execute(sql`SELECT pg_terminate_backend(${rows[0]?.pid})`);
    await ended;
    await client.query("SELECT 1");
  });
  await expect(archiving).rejects.toThrow(/not queryable/u);
});
