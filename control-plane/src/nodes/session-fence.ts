import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** One session of a host. A newer session of the same host has a higher epoch. */
export interface SessionRef {
  readonly nodeId: string;
  readonly epoch: bigint;
}

/** The session is over: a newer one has begun, or the host was removed. Nothing may be written for it. */
export class SessionSuperseded extends Error {
  override readonly name = "SessionSuperseded";

  constructor() {
    super("a newer session of the node has begun, or the node was removed");
  }
}

/**
 * Keeps a session the node's present one until the transaction ends: whoever begins a newer one waits.
 * @throws SessionSuperseded when it is not the present one.
 */
export async function holdSession(tx: Transaction, session: SessionRef): Promise<void> {
  const [held] = await tx.query(sql`
    SELECT FROM node_status WHERE node_id = ${session.nodeId} AND session_epoch = ${session.epoch} FOR SHARE`);
  if (held === undefined) throw new SessionSuperseded();
}
