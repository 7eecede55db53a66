import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import type { Loop } from "../platform/loops.ts";
import { podHints } from "../pods/pod-hints.ts";
import { abandonBackups } from "./abandon-backups.ts";
import { collectErrands } from "./collect-errands.ts";
import { followPlans } from "./plan-backup-rules.ts";
import { pruneBackups } from "./prune-backups.ts";
import { runSchedules } from "./run-schedules.ts";
import { sendErrands } from "./send-errands.ts";
import { tidyBackups } from "./tidy-backups.ts";

const minuteMs = 60_000;

/** Makes the backups that are due, and looks after those that there are. */
export function backupLoops({
  db,
  log,
  hints,
}: {
  readonly db: Database;
  readonly log: Logger;
  readonly hints: Hints;
}): Loop[] {
  return [
    {
      name: "backup-schedules",
      everyMs: minuteMs / 2,
      run: async () => told({ ...(await runSchedules({ db, log, hints: podHints(hints) }, new Date())) }),
    },
    {
      name: "backup-rules",
      everyMs: minuteMs,
      run: async () => told({ changed: await followPlans({ db, log }) }),
    },
    {
      name: "backup-retention",
      everyMs: 10 * minuteMs,
      run: async () => told({ pruned: await pruneBackups({ db, log }, new Date()) }),
    },
    {
      name: "backup-errands",
      everyMs: 5_000,
      async run() {
        const now = new Date();
        const answered = await collectErrands({ db, log }, now);
        const abandoned = await tidyBackups(db, now);
        const unreachable = await abandonBackups({ db, log }, now);
        for (const nodeId of await sendErrands({ db, log }, now)) hints.send("node_commands", nodeId);
        return told({ ...answered, abandoned, unreachable });
      },
    },
  ];
}

function told(report: Readonly<Record<string, number>>): Readonly<Record<string, number>> | undefined {
  return Object.values(report).every((count) => count === 0) ? undefined : report;
}
