import type { Database } from "../platform/database.ts";
import type { Loop } from "../platform/loops.ts";
import { sealAudit, type Seal } from "./seal-audit.ts";

const noteEveryMs = 3_600_000;

/**
 * Seals the audit log and lets the newest root be logged, by each replica once an hour at most: whoever may write the
 * tables can cut their end off and nothing in them shows it, but not what the machine's own log has.
 *
 * @param nowMs milliseconds since any instant; never goes back
 */
export function sealAuditLoop(db: Database, nowMs = (): number => performance.now()): Loop {
  let newest: Seal | undefined;
  let notedAtMs = -Infinity;
  return {
    name: "seal-audit",
    everyMs: 1_000,
    async run() {
      newest = (await sealAudit(db)).last ?? newest;
      if (newest === undefined || nowMs() - notedAtMs < noteEveryMs) return undefined;
      const { toSeq, root } = newest;
      newest = undefined;
      notedAtMs = nowMs();
      return { toSeq: String(toSeq), root };
    },
  };
}
