import { expect } from "vitest";
import { newId } from "../../shared/src/ids.ts";
import { selectBackups, type Backup } from "../../control-plane/src/backups/backup.ts";
import { requestBackup } from "../../control-plane/src/backups/request-backup.ts";
import { requestRestore } from "../../control-plane/src/backups/request-restore.ts";
import type { Transaction } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { Accepted } from "../../control-plane/src/pods/change-power.ts";
import type { Pod } from "../../control-plane/src/pods/pod.ts";
import type { Requester } from "../../control-plane/src/pods/request-work.ts";
import { systemActor } from "../../control-plane/src/security/actor.ts";
import { MoveWorkbench, type BenchNode } from "./move-workbench.ts";
import type { FleetCommand, FleetEnd } from "./scripted-fleet.ts";

/** The workbench of moves, with what tests of backups and restores ask for. */
export class BackupWorkbench extends MoveWorkbench {
  inTenant<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.db.api.transaction(work, { tenantId: this.tenantId });
  }

  get who(): Requester {
    return { tenantId: this.tenantId, actor: systemActor("test"), requestId: newId() };
  }

  backUp(pod: Pod): Promise<Accepted & { readonly backupId: string }> {
    return this.inTenant((tx) => requestBackup(tx, this.who, pod.id, {}));
  }

  /** Where the pod is. */
  restore(pod: Pod, backupId: string): Promise<Accepted> {
    return this.inTenant((tx) => requestRestore(tx, this.who, pod.id, backupId));
  }

  async backupOf(id: string): Promise<Backup> {
    const [backup] = await this.db.system.query<Backup>(sql`${selectBackups} WHERE b.id = ${id}`);
    if (backup === undefined) throw new Error("no backup");
    return backup;
  }

  /** What was asked for, once it is done. */
  async done<T extends Accepted>(work: Promise<T>): Promise<T> {
    const accepted = await work;
    expect(await this.end(accepted.task.id)).toEqual({ state: "succeeded", errorCode: null });
    return accepted;
  }

  /** A pod with a backup of it, on the first of two hosts. */
  async backedUp(
    power: "running" | "stopped" = "running",
  ): Promise<{ pod: Pod; backupId: string; nodes: [BenchNode, BenchNode] }> {
    const [here, there] = await this.nodes(2);
    if (here === undefined || there === undefined) throw new Error("no host");
    this.work();
    const pod = await this.podOn(here, power);
    const { backupId } = await this.done(this.backUp(pod));
    return { pod: await this.podNow(pod.id), backupId, nodes: [here, there] };
  }

  /** What the guest has written, as its host has it. */
  writtenIn(pod: Pod): number | undefined {
    return this.hosts.at(pod.nodeId ?? "", pod.vmid)?.written;
  }
}

/** A script by which a command fails for good, and has no effect. */
export const failing =
  (op: string, errorCode: string) =>
  (command: FleetCommand): FleetEnd | undefined =>
    command.op?.$case === op ? { state: "failed", errorCode, retryable: false } : undefined;
