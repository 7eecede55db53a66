import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { DemoHost } from "../../tools/demo/demo-hosts.ts";

/** How many batches an agent has written down and not merged; one for each tick with containers. */
export function spooledBatches(host: DemoHost): number {
  const spool = new DatabaseSync(join(host.stateDirectory, "spool.db"), { readOnly: true, timeout: 5_000 });
  try {
    return Number(spool.prepare("SELECT count(*) AS batches FROM batches").get()?.["batches"]);
  } finally {
    spool.close();
  }
}
