/**
 * The metering half of a replica: ingest over a real broker and everything that `usageLoops` does, with the
 * time of a story. It works until it is killed; started by story-replica.ts, with which it talks over
 * the channel of `fork`.
 */
import { flushCompileCache } from "node:module";
import { pino } from "pino";
import { Registry } from "prom-client";
import { archiveDays, archiveHours } from "../../control-plane/src/metering/archive-rollups.ts";
import {
  type ArchiveOptions,
  archiveSamples,
  dropArchivedPartitions,
} from "../../control-plane/src/metering/archive-samples.ts";
import { closeMonths } from "../../control-plane/src/metering/close-months.ts";
import { rollUpDirty } from "../../control-plane/src/metering/roll-up.ts";
import { sealDays } from "../../control-plane/src/metering/seal-days.ts";
import { type Database, openDatabase } from "../../control-plane/src/platform/database.ts";
import { type Loop, startLoops } from "../../control-plane/src/platform/loops.ts";
import type { IngestTls } from "../../control-plane/src/samples-intake/broker-link.ts";
import { startIngest } from "../../control-plane/src/samples-intake/ingest.ts";

/** What a replica is started with. */
export interface ReplicaWork {
  readonly replicaId: string;
  readonly databaseUrl: string;
  readonly mqttUrl: string;
  readonly tls: IngestTls;
  readonly archiveDirectory: string;
  readonly nowMs: number;
}

/** What a replica is told: to begin, or what time it is. */
export type ReplicaOrder = { readonly begin: ReplicaWork } | { readonly nowMs: number };
/** It has heard the time, or failed at something as it may when its systems are away. */
export type ReplicaWord = "loaded" | { readonly heardMs: number } | { readonly failed: string };

const tell = (word: ReplicaWord): void => void process.send?.(word);
/** Real time between passes: a story's hours are short. */
const everyMs = { rollUp: 200, retain: 2_000 };
let nowMs = 0;

/** What usage-loops.ts does, at the story's time. */
function storyLoops(db: Database, archive: ArchiveOptions): Loop[] {
  const now = (): Date => new Date(nowMs);
  return [
    {
      name: "roll-up-usage",
      everyMs: everyMs.rollUp,
      async run() {
        await rollUpDirty(db, now());
        await closeMonths(db, now());
        return undefined;
      },
    },
    {
      name: "retain-usage",
      everyMs: everyMs.retain,
      async run() {
        await sealDays(db, now());
        const { refused } = await archiveSamples(db, archive);
        if (refused.length > 0) tell({ failed: `not archived: ${JSON.stringify(refused)}` });
        await dropArchivedPartitions(db, archive);
        await archiveHours(db, archive, now());
        await archiveDays(db, archive, now());
        return undefined;
      },
    },
  ];
}

function work({ databaseUrl, mqttUrl, tls, replicaId, archiveDirectory }: ReplicaWork): void {
  const database = openDatabase({ url: databaseUrl, applicationName: "story-replica", connectionsMax: 6 });
  startIngest({
    database,
    databaseUrl,
    mqttUrl: () => mqttUrl,
    tls: () => tls,
    replicaId,
    log: pino({ level: "silent" }),
    registry: new Registry(),
    clock: () => nowMs,
  });
  const log = pino({ level: "warn" }, { write: (line) => tell({ failed: reasonOf(line) }) });
  startLoops(database, log, storyLoops(database, { databaseUrl, archiveDirectory }));
}

/** Which loop failed, and why, of a line of the log. */
function reasonOf(line: string): string {
  const { loop = "", err }: { loop?: string; err?: { message?: string } } = JSON.parse(line);
  return `${loop}: ${err?.message ?? line}`;
}

process.on("message", (order: ReplicaOrder) => {
  nowMs = "begin" in order ? order.begin.nowMs : order.nowMs;
  if ("begin" in order) work(order.begin);
  tell({ heardMs: nowMs });
});
process.on("disconnect", () => process.exit(0));
// It ends by a kill.
flushCompileCache();
tell("loaded");
