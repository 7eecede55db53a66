import type { Loop } from "../platform/loops.ts";
import { sql } from "../platform/sql.ts";
import { deliverNotifications, type DeliveryDeps } from "./deliver-notifications.ts";

const deliverEveryMs = 2_000;
const pruneEveryMs = 3_600_000;

/** What sends the messages of the outbox, and clears away the old ones. */
export function notificationLoops(deps: DeliveryDeps): Loop[] {
  return [
    {
      name: "deliver-notifications",
      everyMs: deliverEveryMs,
      async run() {
        const report = await deliverNotifications(deps);
        return report.sent + report.failed + report.dead === 0 ? undefined : { ...report };
      },
    },
    {
      name: "prune-notifications",
      everyMs: pruneEveryMs,
      async run() {
        // Occasions are months at the longest, so none comes again after its message has gone.
        await deps.db.execute(sql`DELETE FROM notifications WHERE sent_at < now() - interval '90 days'`);
        await deps.db.execute(sql`DELETE FROM notifications WHERE dead_at < now() - interval '400 days'`);
        return undefined;
      },
    },
  ];
}
