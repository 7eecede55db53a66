import type { Logger } from "pino";
import { Gauge, type Registry } from "prom-client";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { readOrphans, type Orphans } from "./read-containers.ts";
import { countNodes, type StateCount } from "./read-core-nodes.ts";
import { readMeteringLag, readRollUpState, type MeteringLag, type RollUpState } from "./read-metering.ts";
import { readOpenCommands, readOpenTasks, readOutbox, type Queues } from "./read-queues.ts";
import { readSealState, type SealState } from "./read-security.ts";

interface FleetFigures extends Omit<Queues, "deadLetters"> {
  readonly states: readonly StateCount[];
  readonly lag: MeteringLag;
  readonly rollUp: RollUpState;
  readonly seals: SealState;
  readonly orphans: Orphans;
}

type Value = readonly [labels: Readonly<Record<string, string>>, value: number];

interface GaugeDefinition {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly string[];
  readonly values: (figures: FleetFigures) => readonly Value[];
}

/** To add a gauge, add one here. */
const gauges: readonly GaugeDefinition[] = [
  {
    name: "cloudpods_nodes",
    help: "Hosts by role and state.",
    labelNames: ["role", "state"],
    values: ({ states }) => states.map(({ role, state, nodes }) => [{ role, state }, nodes]),
  },
  {
    name: "cloudpods_metering_lag_seconds",
    help: "How far back the samples of hosts that can be heard are complete.",
    labelNames: ["quantile"],
    values: ({ lag }) => [
      ...known({ quantile: "0.5" }, lag.p50Seconds),
      ...known({ quantile: "0.95" }, lag.p95Seconds),
      ...known({ quantile: "1" }, lag.maxSeconds),
    ],
  },
  plain("cloudpods_spool_depth_max", "Batches that wait on the host with the most.", ({ lag }) => lag.spoolMax),
  plain("cloudpods_spool_depth_total", "Batches that wait on all hosts.", ({ lag }) => lag.spoolTotal),
  plain(
    "cloudpods_lost_batches",
    "Batches that were given up in the last 24 hours.",
    ({ rollUp }) => rollUp.lostBatches,
  ),
  plain("cloudpods_dirty_hours", "Ended hours whose usage must be rolled up.", ({ rollUp }) => rollUp.dirtyHours),
  {
    name: "cloudpods_tasks_open",
    help: "Tasks that have not ended.",
    labelNames: ["type", "state"],
    values: ({ tasks }) => tasks.map((row) => [{ type: row.type, state: row.state }, row.tasks]),
  },
  {
    name: "cloudpods_task_oldest_seconds",
    help: "Age of the oldest task in each state.",
    labelNames: ["state"],
    values: ({ tasks }) =>
      [...Map.groupBy(tasks, ({ state }) => state)].map(([state, rows]) => [
        { state },
        Math.max(...rows.map(({ oldestSeconds }) => oldestSeconds)),
      ]),
  },
  {
    name: "cloudpods_commands_open",
    help: "Commands to hosts whose result has not come.",
    labelNames: ["state"],
    values: ({ commands }) => commands.map((row) => [{ state: row.state }, row.commands]),
  },
  {
    name: "cloudpods_command_oldest_seconds",
    help: "Age of the oldest command in each state.",
    labelNames: ["state"],
    values: ({ commands }) => commands.map(({ state, oldestSeconds }) => [{ state }, oldestSeconds]),
  },
  {
    name: "cloudpods_notifications_waiting",
    help: "Messages to tenants that are not delivered yet.",
    labelNames: ["channel"],
    values: ({ notifications }) => notifications.map(({ channel, waiting }) => [{ channel }, waiting]),
  },
  {
    name: "cloudpods_notification_oldest_seconds",
    help: "Age of the oldest message that is not delivered yet.",
    labelNames: ["channel"],
    values: ({ notifications }) => notifications.map(({ channel, oldestSeconds }) => [{ channel }, oldestSeconds]),
  },
  plain(
    "cloudpods_audit_seal_lag_seconds",
    "Age of the oldest row of the audit log without a place in the chain.",
    ({ seals }) => seals.sealLagSeconds,
  ),
  {
    name: "cloudpods_orphan_containers",
    help: "Containers that no pod on their host accounts for: without a mark of ours, or with a pod's mark in the wrong place.",
    labelNames: ["kind"],
    values: ({ orphans }) => [
      [{ kind: "unmanaged" }, orphans.unmanaged],
      [{ kind: "misplaced" }, orphans.misplaced],
    ],
  },
];

function plain(name: string, help: string, value: (figures: FleetFigures) => number): GaugeDefinition {
  return { name, help, labelNames: [], values: (figures) => [[{}, value(figures)]] };
}

function known(labels: Value[0], value: number | null): Value[] {
  return value === null ? [] : [[labels, value]];
}

const figuresAgeMs = 5_000;

/**
 * Registers gauges of what an operator would be woken for. The database is asked when somebody reads them, once for
 * all of them and at most every five seconds; while it does not answer, they have no value. Every replica that
 * registers them shows the same.
 */
export function fleetMetrics(registry: Registry, db: Database, log: Logger): void {
  let last: { readonly atMs: number; readonly figures: Promise<FleetFigures | undefined> } | undefined;
  const recent = (): Promise<FleetFigures | undefined> => {
    if (last === undefined || performance.now() - last.atMs > figuresAgeMs) {
      const figures = readFigures(db).catch((error: unknown) => {
        log.warn({ err: error }, "the figures of the fleet cannot be read");
        return undefined;
      });
      last = { atMs: performance.now(), figures };
    }
    return last.figures;
  };
  for (const { name, help, labelNames, values } of gauges) {
    new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [registry],
      async collect() {
        const figures = await recent();
        this.reset();
        // A gauge without labels is nought after a reset, which is no figure.
        if (labelNames.length === 0) this.remove();
        for (const [labels, value] of figures === undefined ? [] : values(figures)) this.set({ ...labels }, value);
      },
    });
  }
}

/** Of one instant, and given up soon: whoever reads metrics does not wait long. */
async function readFigures(db: Database): Promise<FleetFigures> {
  return await db.transaction(async (tx) => {
    await tx.execute(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`);
    await tx.execute(sql`SET LOCAL statement_timeout = '3s'`);
    const [states, lag, rollUp, seals, orphans, queues] = await Promise.all([
      countNodes(tx),
      readMeteringLag(tx),
      readRollUpState(tx),
      readSealState(tx),
      readOrphans(tx),
      Promise.all([readOpenTasks(tx), readOpenCommands(tx), readOutbox(tx)]),
    ]);
    const [tasks, commands, notifications] = queues;
    return { states, lag, rollUp, seals, orphans, tasks, commands, notifications };
  });
}
