import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import type { Loop } from "../platform/loops.ts";
import { sql } from "../platform/sql.ts";
import { readComparison, readMayAct } from "./read-comparison.ts";
import { reconcile, type Deed } from "./reconcile.ts";
import { storeFindings } from "./store-findings.ts";
import { takeDeed } from "./take-deed.ts";

/** What comparing needs. */
export interface ReconcilerOptions {
  readonly db: Database;
  readonly log: Logger;
  /** How long a container without a place must have been there before it is removed, ms. */
  readonly graceMs: number;
  /** Tells a host's session of a command; after the commit. */
  readonly onCommand: (nodeId: string) => void;
}

/** Hosts that one pass compares; the others wait for the next. */
const nodesAtOnce = 200;
const everyMs = 5_000;
/** A single look may have fallen into a moment of which nobody knows yet. */
const sightingsMin = 2;

/** The loop that compares every host with our books, once for each inventory. */
export function reconcilerLoop(options: ReconcilerOptions): Loop {
  return {
    name: "reconcile-nodes",
    everyMs,
    async run() {
      const deeds = await reconcileNodes(options);
      return deeds.length === 0 ? undefined : { deeds };
    },
  };
}

/** Compares the hosts that have told something new. @returns what was done */
export async function reconcileNodes(options: ReconcilerOptions): Promise<Deed[]> {
  const nodes = await options.db.query<{ id: string }>(sql`
    SELECT i.node_id AS id FROM node_inventories i JOIN nodes n ON n.id = i.node_id
    WHERE i.number <> i.compared_number AND n.removed_at IS NULL ORDER BY i.received_at LIMIT ${nodesAtOnce}`);
  const done: Deed[] = [];
  for (const { id } of nodes) {
    try {
      done.push(...(await reconcileNode(options, id)));
    } catch (error) {
      // The others shall not wait for one that cannot be compared.
      options.log.warn({ err: error, nodeId: id }, "a host could not be compared with what it should have");
    }
  }
  return done;
}

/** Compares one host and does what is due about it. */
async function reconcileNode({ db, graceMs, onCommand }: ReconcilerOptions, nodeId: string): Promise<Deed[]> {
  const now = new Date();
  const due = await db.transaction(async (tx) => {
    const comparison = await readComparison(tx, nodeId);
    if (comparison === undefined) return [];
    const found = reconcile(comparison, { now, graceMs, sightingsMin, mayAct: await readMayAct(tx) });
    return (await storeFindings(tx, comparison, found, now)) ? found.deeds : [];
  });
  const done: Deed[] = [];
  for (const deed of due) {
    if ((await takeDeed(db, nodeId, deed, { now, graceMs, sightingsMin })) === undefined) continue;
    onCommand(nodeId);
    done.push(deed);
  }
  return done;
}
