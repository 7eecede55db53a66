import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import type { Queryable } from "../platform/database.ts";
import { noticesLoss } from "../platform/lost-connections.ts";
import type { Sql } from "../platform/sql.ts";

/** A transaction that can also COPY. */
export interface StoreTransaction extends Queryable {
  /** Sends a whole binary COPY stream; `target` is a table with its column list, never text from outside. */
  copyBinary(target: string, rows: Buffer): Promise<void>;
}

/** Connections that wait for each answer before the next statement, which COPY needs. */
export interface StorePool extends Queryable {
  /**
   * Runs `work` in a READ COMMITTED transaction whose commit waits for the disk. When `deadlineMs` passes the
   * connection is cut and the transaction has not happened, unless the cut came between commit and answer.
   */
  transaction<T>(deadlineMs: number, work: (tx: StoreTransaction) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** Opens the connections; they are made when they are needed. */
export function openStorePool(url: string, connectionsMax: number): StorePool {
  const pool = new pg.Pool({
    ...noticesLoss(url),
    application_name: "cloudpods-ingest",
    max: connectionsMax,
    connectionTimeoutMillis: 5_000,
    statement_timeout: 30_000,
    lock_timeout: 10_000,
  });
  // A connection that dies while idle is replaced on the next use.
  pool.on("error", () => {});
  // So is one that dies between two statements of a transaction: the next statement fails.
  pool.on("connect", (client) => client.on("error", () => {}));
  return {
    ...queryable(pool),
    transaction: (deadlineMs, work) => transact(pool, deadlineMs, work),
    close: () => pool.end(),
  };
}

function queryable(runner: pg.Pool | pg.PoolClient): Queryable {
  return {
    async query<Row>(statement: Sql) {
      const result = await runner.query(statement.text, [...statement.values]);
      // pg cannot know the columns; see Queryable.query.
      return result.rows as Row[];
    },
    async execute(statement) {
      return (await runner.query(statement.text, [...statement.values])).rowCount ?? 0;
    },
  };
}

async function transact<T>(pool: pg.Pool, deadlineMs: number, work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken = false;
  const deadline = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    broken = true;
    deadline.reject(new Error(`PostgreSQL did not finish a transaction within ${deadlineMs} ms`));
  }, deadlineMs);
  try {
    return await Promise.race([commitWork(client, work), deadline.promise]);
  } catch (error) {
    if (!broken)
      broken = await client.query("ROLLBACK").then(
        () => false,
        () => true,
      );
    throw error;
  } finally {
    clearTimeout(timer);
    client.release(broken);
  }
}

async function commitWork<T>(client: pg.PoolClient, work: (tx: StoreTransaction) => Promise<T>): Promise<T> {
  await client.query("BEGIN; SET LOCAL synchronous_commit = on");
  const result = await work({
    ...queryable(client),
    copyBinary: async (target, rows) => {
      await pipeline(Readable.from([rows]), client.query(copyFrom(`COPY ${target} FROM STDIN (FORMAT binary)`)));
    },
  });
  await client.query("COMMIT");
  return result;
}
