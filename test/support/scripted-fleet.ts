import {
  Command,
  ContainerObservation,
  Power,
  type ContainerSpec,
} from "../../shared/gen/cloudpods/agent/v1/agent_gateway.ts";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { prepared, sql } from "../../control-plane/src/platform/sql.ts";
import { bellOf, unrungMs } from "./bell.ts";
import type { ScriptedEnd } from "./scripted-host.ts";

/**
 * How a command ends; `interrupted` with `hadEffect`: the agent died after it had done it. `awayMs`: so long the container
 * stood still in vain.
 */
export type FleetEnd = ScriptedEnd & { readonly hadEffect?: true; readonly awayMs?: number };

/** A command as a host of the fleet gets it. */
export type FleetCommand = Command & { readonly nodeId: string };

interface FleetContainer extends ContainerObservation {
  /** What the guest has written: the archive must hold it, and the target after it. */
  readonly written: number;
}

/** What a host refuses: older placements, older wishes, and what is not there. */
interface Fence {
  generation: bigint;
  revision: bigint;
}

const looks = new Set(["inspect", "verifyBackup"]);

/**
 * Several hosts that answer commands at the tables as gateways and agents together would: each with its containers and its
 * fence, all with the same archives. Hosts of one cluster share the ids. It notes whenever two hosts run one container.
 */
export class ScriptedFleet {
  /** By host, then by VMID. */
  readonly containers = new Map<string, Map<number, FleetContainer>>();
  /** Volume ids of archives that are there, with what the guest had written. */
  readonly archives = new Map<string, FleetContainer>();
  /** Those of them that cannot be read to their end. */
  readonly unreadable = new Set<string>();
  /** Hosts that see none of them, as when their storage is not mounted. */
  readonly blind = new Set<string>();
  /** In the order in which they were carried out: `<op>@<host>`. */
  readonly carriedOut: string[] = [];
  readonly doubleRuns: string[] = [];
  /** Hosts that do not answer. */
  readonly away = new Set<string>();
  /** Nobody says where a container is after a migration. */
  forgetMoves = false;
  script: (command: FleetCommand) => FleetEnd | undefined = () => undefined;
  readonly #fences = new Map<string, Fence>();
  readonly #names = new Map<string, string>();
  readonly #clusters = new Map<string, string>();
  readonly #stopping = new AbortController();
  readonly #loop: Promise<void>;
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
    this.#loop = this.#answer();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loop;
  }

  /** Where a container is, and where it runs. */
  copies(vmid: number): { here: string[]; running: string[] } {
    const having = [...this.containers].filter(([, containers]) => containers.has(vmid));
    const running = having.filter(([, containers]) => containers.get(vmid)?.power === Power.POWER_RUNNING);
    return { here: having.map(([nodeId]) => nodeId), running: running.map(([nodeId]) => nodeId) };
  }

  at(nodeId: string, vmid: number): FleetContainer | undefined {
    return this.containers.get(nodeId)?.get(vmid);
  }

  /** A container that somebody made by hand, or that came there by whatever way. */
  put(nodeId: string, changes: Partial<ContainerObservation>): ContainerObservation {
    const container = { ...ContainerObservation.fromPartial({ power: Power.POWER_RUNNING, ...changes }), written: 0 };
    const here = this.containers.get(nodeId) ?? new Map<number, FleetContainer>();
    this.containers.set(nodeId, here.set(container.vmid, container));
    return container;
  }

  /** Somebody starts a container by hand, or its host has booted. */
  start(nodeId: string, vmid: number): void {
    const container = this.at(nodeId, vmid);
    if (container !== undefined) this.containers.get(nodeId)?.set(vmid, { ...container, power: Power.POWER_RUNNING });
  }

  /** The guest writes something, if it runs. */
  write(vmid: number): void {
    for (const containers of this.containers.values()) {
      const container = containers.get(vmid);
      if (container?.power === Power.POWER_RUNNING)
        containers.set(vmid, { ...container, written: container.written + 1 });
    }
  }

  async #answer(): Promise<void> {
    const bell = bellOf(this.#db);
    while (!this.#stopping.signal.aborted) {
      const { rings } = bell;
      const row = await this.#next().catch(() => undefined);
      if (row === undefined) {
        await bell.heard(rings, unrungMs, this.#stopping.signal);
        continue;
      }
      await this.#finish(row.id, Object.assign(Command.fromJSON(row.command), { nodeId: row.nodeId }));
      bell.ring();
    }
  }

  async #next(): Promise<{ id: string; nodeId: string; command: unknown } | undefined> {
    const statement = sql`
      UPDATE node_commands SET state = 'sent', sent_at = now()
      WHERE id = (SELECT id FROM node_commands WHERE state = 'pending' AND node_id <> ALL(${[...this.away]}::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
      RETURNING id, node_id AS "nodeId", command`;
    const [row] = await this.#db.query<{ id: string; nodeId: string; command: unknown }>(prepared(statement));
    if (row !== undefined) await this.#learnNames();
    return row;
  }

  async #learnNames(): Promise<void> {
    const nodes = await this.#db.query<{ id: string; name: string; clusterId: string | null }>(
      sql`SELECT id, coalesce(pve_name, name) AS name, cluster_id AS "clusterId" FROM nodes`,
    );
    for (const { id, name, clusterId } of nodes) {
      this.#names.set(id, name);
      if (clusterId !== null) this.#clusters.set(id, clusterId);
    }
  }

  /** From now on a restore to the host fails, and the copy that it left cannot be removed. */
  keepFailedCopyOn(nodeId: string): void {
    this.script = (command) => {
      if (command.nodeId !== nodeId) return undefined;
      if (command.op?.$case === "restore")
        return { state: "failed", errorCode: "STORAGE_FULL", retryable: false, hadEffect: true };
      const isRemoval = command.op?.$case === "ensureAbsent";
      return isRemoval ? { state: "failed", errorCode: "VMID_CONFLICT", retryable: false } : undefined;
    };
  }

  /** From now on a restore fails as Proxmox's do: what was there has gone for it. */
  loseAtRestore(errorCode: string): void {
    this.script = ({ op, nodeId, vmid }) => {
      if (op?.$case !== "restore") return undefined;
      this.containers.get(nodeId)?.delete(vmid);
      return { state: "failed", errorCode, retryable: false };
    };
  }

  async #finish(id: string, command: FleetCommand): Promise<void> {
    const refusal = this.#refuse(command);
    const end: FleetEnd = refusal ?? this.script(command) ?? { state: "succeeded" };
    const happens =
      refusal === undefined && ((end.state === "succeeded" && end.lies === undefined) || end.hadEffect === true);
    const before = this.at(command.nodeId, command.vmid)?.power;
    const failure = happens ? this.#carryOut(command) : undefined;
    for (const { running } of [this.copies(command.vmid)])
      if (running.length > 1) this.doubleRuns.push(`${command.vmid} after ${command.op?.$case}`);
    const { state, errorCode, retryable } = failure ?? end;
    const seen = this.at(command.nodeId, command.vmid);
    const hasStopped = before === Power.POWER_RUNNING && seen?.power === Power.POWER_STOPPED;
    const lines = hasStopped ? [`pct shutdown ${command.vmid} --timeout=60`] : [];
    await this.#db.execute(sql`
      UPDATE node_commands SET state = ${state}, error_code = ${errorCode ?? null}, retryable = ${retryable ?? null},
        observation = ${seen === undefined ? null : JSON.stringify(ContainerObservation.toJSON(seen))}::jsonb,
        backup = ${this.#backupOf(command)}::jsonb, move = ${this.#moveOf(command, happens ? undefined : (end.awayMs ?? 0))}::jsonb, command_lines = ${lines}, finished_at = now()
      WHERE id = ${id} AND finished_at IS NULL`);
  }

  #refuse({ op, nodeId, podId, generation, revision }: FleetCommand): FleetEnd | undefined {
    const key = `${nodeId} ${podId}`;
    const fence = this.#fences.get(key);
    if (fence !== undefined && generation < fence.generation)
      return { state: "failed", errorCode: "STALE_GENERATION", retryable: false };
    const isWish = op?.$case === "ensureContainer" || op?.$case === "ensurePower" || op?.$case === "ensureAbsent";
    if (!isWish) return undefined;
    if (fence !== undefined && generation === fence.generation && revision <= fence.revision)
      return { state: "failed", errorCode: "SUPERSEDED", retryable: false };
    this.#fences.set(key, { generation, revision });
    return undefined;
  }

  #elsewhere(nodeId: string, vmid: number): string | undefined {
    const cluster = this.#clusters.get(nodeId);
    if (cluster === undefined) return undefined;
    return this.copies(vmid).here.find((other) => other !== nodeId && this.#clusters.get(other) === cluster);
  }

  #carryOut(command: FleetCommand): FleetEnd | undefined {
    const { op, nodeId, vmid } = command;
    if (!looks.has(op?.$case ?? "")) this.carriedOut.push(`${op?.$case}@${this.#names.get(nodeId)}`);
    const here = this.containers.get(nodeId) ?? new Map<number, FleetContainer>();
    this.containers.set(nodeId, here);
    const container = here.get(vmid);
    const failed = (errorCode: string): FleetEnd => ({ state: "failed", errorCode, retryable: false });
    if (
      container === undefined &&
      this.#elsewhere(nodeId, vmid) !== undefined &&
      op?.$case !== "verifyBackup" &&
      op?.$case !== "deleteBackup"
    ) {
      const isTakenOver = op?.$case === "restore" && op.value.takeOverFrom !== "";
      const isMoved = op?.$case === "migrate";
      // Whether the host would take it over is the script's to say.
      const isAsked = op?.$case === "inspect" && op.value.beforeRestore !== undefined;
      if (isAsked) return undefined;
      if (!isTakenOver && !isMoved) return failed("ON_OTHER_NODE");
    }
    switch (op?.$case) {
      case "ensureContainer":
        if (op.value.spec !== undefined) here.set(vmid, made(command, op.value.spec, container));
        return undefined;
      case "ensurePower":
        if (container === undefined) return failed("CONTAINER_MISSING");
        here.set(vmid, { ...container, power: op.value.power });
        return undefined;
      case "ensureAbsent":
        here.delete(vmid);
        return undefined;
      case "adopt":
        if (container === undefined) return failed("CONTAINER_MISSING");
        here.set(vmid, { ...container, podId: command.podId, generation: command.generation });
        return undefined;
      case "inspect":
        if (container !== undefined) here.set(vmid, { ...container, ip: `10.0.${(vmid >> 8) & 255}.${vmid & 255}` });
        return undefined;
      case "migrate":
        return this.#migrate(command, op.value.target);
      case "backup":
        if (container === undefined) return failed("CONTAINER_MISSING");
        this.archives.set(volumeOf(op.value.backupId), container);
        if (op.value.mode === "shut-down") here.set(vmid, { ...container, power: Power.POWER_STOPPED });
        return undefined;
      case "deleteBackup":
        this.archives.delete(op.value.volumeId);
        return undefined;
      case "restore":
        return this.#restore(command, op.value) ? undefined : failed("BACKUP_MISSING");
      default:
        return undefined;
    }
  }

  #migrate({ nodeId, vmid }: FleetCommand, targetName: string): FleetEnd | undefined {
    const target = [...this.#names].find(([, name]) => name === targetName)?.[0] ?? "";
    const container = this.at(nodeId, vmid);
    // Asked again after it was done.
    if (container === undefined)
      return this.at(target, vmid) === undefined
        ? { state: "failed", errorCode: "CONTAINER_MISSING", retryable: false }
        : undefined;
    this.containers.get(nodeId)?.delete(vmid);
    const there = this.containers.get(target) ?? new Map<number, FleetContainer>();
    this.containers.set(target, there.set(vmid, container));
    return undefined;
  }

  #restore(
    command: FleetCommand,
    { volumeId, spec, takeOverFrom }: { volumeId: string; spec?: ContainerSpec | undefined; takeOverFrom: string },
  ): boolean {
    const { nodeId, vmid } = command;
    const dead = [...this.#names].find(([, name]) => name === takeOverFrom)?.[0];
    const taken = dead === undefined ? undefined : this.at(dead, vmid);
    if (dead !== undefined) this.containers.get(dead)?.delete(vmid);
    const source = this.archives.get(volumeId) ?? taken ?? this.at(nodeId, vmid);
    if (source === undefined) return false;
    const restored = spec === undefined ? source : made(command, spec, source);
    this.containers.get(nodeId)?.set(vmid, { ...restored, power: Power.POWER_STOPPED });
    return true;
  }

  #backupOf({ op, nodeId }: FleetCommand): string | null {
    if (op?.$case === "backup") return this.#archive(nodeId, volumeOf(op.value.backupId));
    if (op?.$case === "verifyBackup" || op?.$case === "deleteBackup" || op?.$case === "restore")
      return this.#archive(nodeId, op.value.volumeId);
    return null;
  }

  #archive(nodeId: string, volumeId: string): string {
    const found = this.archives.has(volumeId) && !this.blind.has(nodeId);
    return JSON.stringify({
      volumeId: found ? volumeId : "",
      found,
      readable: found && !this.unreadable.has(volumeId),
      restored: found,
      sizeBytes: "1",
    });
  }

  #moveOf({ op, vmid }: FleetCommand, inVainMs: number | undefined): string | null {
    const isTold = op?.$case === "migrate" || (op?.$case === "backup" && (inVainMs ?? 0) > 0);
    if (!isTold || this.forgetMoves) return null;
    const where = this.copies(vmid).here[0];
    const downtimeMs = String(inVainMs ?? 1_500);
    return JSON.stringify({ pveName: where === undefined ? "" : this.#names.get(where), downtimeMs });
  }
}

function volumeOf(backupId: string): string {
  return `backups:backup/${backupId}.tar.zst`;
}

function made(command: FleetCommand, spec: ContainerSpec, before: FleetContainer | undefined): FleetContainer {
  const { vmid, podId, generation } = command;
  const observed = ContainerObservation.fromPartial({ ...spec, vmid, podId, generation, mac: spec.network?.mac ?? "" });
  return { ...observed, power: before?.power ?? Power.POWER_STOPPED, written: before?.written ?? 0 };
}
