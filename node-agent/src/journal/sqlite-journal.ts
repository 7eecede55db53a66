import type { DatabaseSync, SQLOutputValue } from "node:sqlite";
import { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { type Fence, type Journal, type JournalledCommand, knownPower } from "./journal.ts";

type Row = Record<string, SQLOutputValue>;

/** The journal on an open database (see openJournalFile). */
export function createJournal(database: DatabaseSync): Journal {
  const sql = prepareStatements(database);
  return {
    find: (commandId) => optional(sql.find.get(commandId), toCommand),
    findFence: (podId) => optional(sql.findFence.get(podId), toFence),
    fences: () => sql.fences.all().map(toFence),
    accept(command, fence) {
      inTransaction(database, () => {
        sql.accept.run(
          command.commandId,
          command.operation,
          command.podId,
          command.vmid,
          command.envelope,
          command.acceptedAtMs,
          command.acceptedIn.bootId,
          command.acceptedIn.monotonicMs,
        );
        if (fence !== undefined) putFence(sql.putFence, fence);
      });
    },
    start: (commandId, startedAtMs) => void sql.start.run(startedAtMs, commandId),
    recordVmidAbsent: (commandId) => void sql.recordAbsent.run(commandId),
    wasVmidAbsent: (podId, vmid) => sql.wasAbsent.get(podId, vmid) !== undefined,
    forgetVmidAbsent: (podId) => void sql.forgetAbsent.run(podId),
    finish: (commandId, result, finishedAtMs) => void sql.finish.run(result, finishedAtMs, commandId),
    confirm: (commandId, confirmedAtMs) => void sql.confirm.run(confirmedAtMs, commandId),
    unfinished: () => sql.unfinished.all().map(toCommand),
    unconfirmed: (limit) =>
      sql.unconfirmed.all(limit).map((row) => ({ commandId: text(row, "command_id"), result: bytes(row, "result") })),
    prune: (confirmedBeforeMs) => Number(sql.prune.run(confirmedBeforeMs).changes),
    fleetEpoch: () => BigInt(optional(sql.getFact.get("fleet_epoch"), (row) => text(row, "value")) ?? "0"),
    raiseFleetEpoch(epoch) {
      if (epoch > this.fleetEpoch()) sql.putFact.run("fleet_epoch", String(epoch));
    },
    ownershipBootId: () => optional(sql.getFact.get("ownership_boot_id"), (row) => text(row, "value")),
    confirmOwnership: (bootId) => void sql.putFact.run("ownership_boot_id", bootId),
    close: () => database.close(),
  };
}

function prepareStatements(database: DatabaseSync) {
  return {
    find: database.prepare("SELECT * FROM commands WHERE command_id = ?"),
    findFence: database.prepare("SELECT * FROM fence WHERE pod_id = ?"),
    fences: database.prepare("SELECT * FROM fence ORDER BY vmid"),
    accept: database.prepare(
      `INSERT INTO commands (command_id, operation, pod_id, vmid, envelope, state, accepted_at_ms, accepted_boot_id,
         accepted_monotonic_ms)
       VALUES (?, ?, ?, ?, ?, 'accepted', ?, ?, ?)`,
    ),
    putFence: database.prepare(
      `INSERT INTO fence (pod_id, vmid, fleet_epoch, generation, revision, present, spec, power,
         shutdown_timeout_seconds)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (pod_id) DO UPDATE SET vmid = excluded.vmid, fleet_epoch = excluded.fleet_epoch,
         generation = excluded.generation, revision = excluded.revision, present = excluded.present,
         spec = excluded.spec, power = excluded.power,
         shutdown_timeout_seconds = excluded.shutdown_timeout_seconds`,
    ),
    start: database.prepare(
      `UPDATE commands SET state = 'running', started_at_ms = coalesce(started_at_ms, ?)
       WHERE command_id = ? AND state <> 'finished'`,
    ),
    recordAbsent: database.prepare("UPDATE commands SET vmid_absent_before = 1 WHERE command_id = ?"),
    wasAbsent: database.prepare(
      "SELECT 1 FROM commands WHERE pod_id = ? AND vmid = ? AND vmid_absent_before = 1 LIMIT 1",
    ),
    forgetAbsent: database.prepare(
      "UPDATE commands SET vmid_absent_before = 0 WHERE pod_id = ? AND vmid_absent_before = 1",
    ),
    finish: database.prepare(
      `UPDATE commands SET state = 'finished', result = ?, finished_at_ms = ?
       WHERE command_id = ? AND state <> 'finished'`,
    ),
    confirm: database.prepare(
      `UPDATE commands SET confirmed_at_ms = ?
       WHERE command_id = ? AND state = 'finished' AND confirmed_at_ms IS NULL`,
    ),
    unfinished: database.prepare("SELECT * FROM commands WHERE state <> 'finished' ORDER BY rowid"),
    unconfirmed: database.prepare(
      `SELECT command_id, result FROM commands
       WHERE state = 'finished' AND confirmed_at_ms IS NULL ORDER BY finished_at_ms LIMIT ?`,
    ),
    prune: database.prepare("DELETE FROM commands WHERE confirmed_at_ms < ?"),
    getFact: database.prepare("SELECT value FROM facts WHERE name = ?"),
    putFact: database.prepare(
      "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    ),
  };
}

function putFence(statement: ReturnType<typeof prepareStatements>["putFence"], fence: Fence): void {
  statement.run(
    fence.podId,
    fence.vmid,
    fence.fleetEpoch,
    fence.generation,
    fence.revision,
    fence.present ? 1 : 0,
    fence.spec === undefined ? null : ContainerSpec.encode(fence.spec).finish(),
    fence.power,
    fence.shutdownTimeoutSeconds,
  );
}

function inTransaction(database: DatabaseSync, work: () => void): void {
  database.exec("BEGIN IMMEDIATE");
  try {
    work();
    database.exec("COMMIT");
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
}

function toCommand(row: Row): JournalledCommand {
  const state = text(row, "state");
  if (state !== "accepted" && state !== "running" && state !== "finished") {
    throw new Error(`journal: unknown command state ${state}`);
  }
  return {
    commandId: text(row, "command_id"),
    operation: text(row, "operation"),
    podId: text(row, "pod_id"),
    vmid: number(row, "vmid"),
    envelope: bytes(row, "envelope"),
    state,
    acceptedAtMs: number(row, "accepted_at_ms"),
    acceptedIn: { bootId: text(row, "accepted_boot_id"), monotonicMs: number(row, "accepted_monotonic_ms") },
    startedAtMs: row["started_at_ms"] === null ? undefined : number(row, "started_at_ms"),
    result: row["result"] === null ? undefined : bytes(row, "result"),
  };
}

function toFence(row: Row): Fence {
  return {
    podId: text(row, "pod_id"),
    vmid: number(row, "vmid"),
    fleetEpoch: BigInt(integer(row, "fleet_epoch")),
    generation: BigInt(integer(row, "generation")),
    revision: BigInt(integer(row, "revision")),
    present: number(row, "present") === 1,
    spec: row["spec"] === null ? undefined : ContainerSpec.decode(bytes(row, "spec")),
    power: knownPower(number(row, "power")),
    shutdownTimeoutSeconds: number(row, "shutdown_timeout_seconds"),
  };
}

function optional<T>(row: Row | undefined, read: (row: Row) => T): T | undefined {
  return row === undefined ? undefined : read(row);
}

function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value === "string") return value;
  throw new Error(`journal: ${column} is not text`);
}

function integer(row: Row, column: string): bigint | number {
  const value = row[column];
  if (typeof value === "bigint" || typeof value === "number") return value;
  throw new Error(`journal: ${column} is not an integer`);
}

function number(row: Row, column: string): number {
  return Number(integer(row, column));
}

function bytes(row: Row, column: string): Uint8Array {
  const value = row[column];
  if (value instanceof Uint8Array) return value;
  throw new Error(`journal: ${column} is not a blob`);
}
