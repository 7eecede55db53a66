import pg from "pg";
import { noticesLoss } from "./lost-connections.ts";
import type { Sql } from "./sql.ts";

// COUNT and bigint columns come back exact; timestamps as Date, numeric as string (pg's default).
pg.types.setTypeParser(pg.types.builtins.INT8, (text) => BigInt(text));

/** Anything that can run a statement: the database itself or a transaction. */
export interface Queryable {
  /** Runs one statement. `Row` is the caller's knowledge of the columns; the integration tests hold it. */
  query<Row = Record<string, unknown>>(statement: Sql): Promise<Row[]>;
  /** As `query`, and the number of rows that an INSERT, UPDATE or DELETE touched. */
  execute(statement: Sql): Promise<number>;
}

/**
 * An open transaction. What does not build on each other may be sent together (`Promise.all`), where each branch is a single
 * statement: one of several could go on after another branch has failed and everything was rolled back.
 */
export interface Transaction extends Queryable {
  /** The connection, for COPY. Never leave the transaction through it. */
  readonly client: pg.PoolClient;
}

/** How a transaction runs. */
export interface TransactionOptions {
  /** Tenant whose rows the transaction may see; set in the same flight as BEGIN. Only for the tenants' login. */
  readonly tenantId?: string;
  /** How often to run again after a deadlock or a serialisation failure; default 3. */
  readonly retriesMax?: number;
  /** All of its statements are `prepared`. For what runs all the time with few texts: planning is more than half of the work of small statements. */
  readonly prepares?: boolean;
}

/** One login of the database with its pool. */
export interface Database extends Queryable {
  /** Runs `work` in READ COMMITTED; commits when it returns, rolls back when it throws. */
  transaction<T>(work: (tx: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T>;
  readonly pool: pg.Pool;
  close(): Promise<void>;
}

/** Options of a pool. */
export interface DatabaseOptions {
  readonly url: string;
  readonly applicationName: string;
  readonly connectionsMax: number;
  /** After this a statement is ended by the server. */
  readonly statementTimeoutMs?: number;
}

/** Named, so that it is planned once on each connection. */
const setTenant = { name: "set-tenant", text: "SELECT set_config('app.tenant_id', $1, true)" };

const retryableStates = new Set(["40001", "40P01"]);

/** SQLSTATE of a database error, or undefined for anything else. */
export function sqlState(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : undefined;
}

/** Name of the violated constraint of a database error, or undefined. */
export function violatedConstraint(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("constraint" in error)) return undefined;
  return typeof error.constraint === "string" ? error.constraint : undefined;
}

/** Opens a pool; connections are made when they are needed. */
export function openDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    ...noticesLoss(options.url),
    application_name: options.applicationName,
    max: options.connectionsMax,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 30_000,
    statement_timeout: options.statementTimeoutMs ?? 30_000,
    // Statements queued without waiting for each other share a network flight: BEGIN, the tenant and
    // the first statement cost one round trip.
    pipeline: true,
  } as pg.PoolConfig); // `pipeline` is newer than the type package
  // A connection that dies while idle is replaced on the next use; without a listener it would end the process.
  pool.on("error", () => {});
  // The same while it is borrowed: what it was asked for fails by itself.
  pool.on("connect", (client) => client.on("error", () => {}));
  return {
    ...queryable(pool),
    pool,
    transaction: (work, how = {}) => transact(pool, work, how),
    close: () => pool.end(),
  };
}

function queryable(runner: pg.Pool | pg.PoolClient, toQuery: (statement: Sql) => pg.QueryConfig = asItSays): Queryable {
  return {
    async query<Row>(statement: Sql) {
      const result = await runner.query(toQuery(statement));
      // pg cannot know the columns; see Queryable.query.
      return result.rows as Row[];
    },
    async execute(statement) {
      return (await runner.query(toQuery(statement))).rowCount ?? 0;
    },
  };
}

function asItSays(statement: Sql): pg.QueryConfig {
  if (statement.isPrepared === true) return byName(statement);
  return { text: statement.text, values: [...statement.values] };
}

/** Names of prepared statements by their text. */
const namesByText = new Map<string, string>();

function byName({ text, values }: Sql): pg.QueryConfig {
  const name = namesByText.get(text) ?? `statement-${namesByText.size}`;
  namesByText.set(text, name);
  return { text, values: [...values], name };
}

async function transact<T>(
  pool: pg.Pool,
  work: (tx: Transaction) => Promise<T>,
  options: TransactionOptions,
): Promise<T> {
  const retriesMax = options.retriesMax ?? 3;
  for (let attempt = 0; ; attempt++) {
    try {
      return await transactOnce(pool, work, options);
    } catch (error) {
      if (attempt >= retriesMax || !retryableStates.has(sqlState(error) ?? "")) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * 2 ** attempt));
    }
  }
}

async function transactOnce<T>(
  pool: pg.Pool,
  work: (tx: Transaction) => Promise<T>,
  options: TransactionOptions,
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    const begun: Promise<unknown>[] = [client.query("BEGIN")];
    if (options.tenantId !== undefined) {
      begun.push(client.query({ ...setTenant, values: [options.tenantId] }));
    }
    // A failure of BEGIN is reported by the work's own first statement too; wait for both.
    const [result] = await Promise.all([
      work({ ...queryable(client, options.prepares === true ? byName : asItSays), client }),
      ...begun,
    ]);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch((rollbackError: unknown) => {
      broken = rollbackError instanceof Error ? rollbackError : new Error(String(rollbackError));
    });
    throw error;
  } finally {
    client.release(broken);
  }
}
