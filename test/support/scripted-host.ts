import { Command, ContainerObservation, Power } from "../../shared/gen/cloudpods/agent/v1/agent_gateway.ts";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { prepared, sql } from "../../control-plane/src/platform/sql.ts";
import { bellOf, unrungMs } from "./bell.ts";

/** How a command of the script ends. */
export interface ScriptedEnd {
  readonly state: "succeeded" | "failed" | "interrupted" | "cancelled";
  readonly errorCode?: string;
  readonly retryable?: boolean;
  /** Says that it succeeded and did nothing. */
  readonly lies?: true;
}

/** A host that answers commands at the tables, as gateway and agent together would: for tests of what sends them. */
export interface ScriptedHost {
  /** Containers that exist now. */
  readonly containers: ReadonlyMap<number, ContainerObservation>;
  /** How often a container was made; making what is there does not count. */
  readonly made: ReadonlyMap<number, number>;
  /** Commands in the order in which they were carried out. */
  readonly carriedOut: readonly string[];
  /** Somebody makes or changes a container by hand. */
  meddle(container: ContainerObservation): void;
  /** Somebody destroys a container by hand. */
  lose(vmid: number): void;
  stop(): Promise<void>;
}

const takeCommand = sql`
  UPDATE node_commands SET state = 'sent', sent_at = now()
  WHERE id = (SELECT id FROM node_commands WHERE state = 'pending' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id, command`;

/** Starts to answer. `script` may end a command in another way than with success; nothing is done then. */
export function startScriptedHost(
  db: Database,
  script: (command: Command) => ScriptedEnd | undefined = () => undefined,
): ScriptedHost {
  const containers = new Map<number, ContainerObservation>();
  const made = new Map<number, number>();
  const carriedOut: string[] = [];
  const stopping = new AbortController();
  const bell = bellOf(db);
  const loop = (async () => {
    while (!stopping.signal.aborted) {
      const { rings } = bell;
      const [row] = await db.query<{ id: string; command: unknown }>(prepared(takeCommand));
      if (row === undefined) {
        await bell.heard(rings, unrungMs, stopping.signal);
        continue;
      }
      const command = Command.fromJSON(row.command);
      const end: ScriptedEnd = script(command) ?? { state: "succeeded" };
      if (end.state === "succeeded" && end.lies === undefined) carryOut(command);
      await db.execute(sql`
        UPDATE node_commands SET state = ${end.state}, error_code = ${end.errorCode ?? null}, retryable = ${end.retryable ?? null},
          observation = ${observationOf(command.vmid)}::jsonb, finished_at = now()
        WHERE id = ${row.id} AND finished_at IS NULL`);
      bell.ring();
    }
  })();

  function observationOf(vmid: number): string | null {
    const container = containers.get(vmid);
    return container === undefined ? null : JSON.stringify(ContainerObservation.toJSON(container));
  }

  function carryOut(command: Command): void {
    const { op, vmid } = command;
    carriedOut.push(op?.$case ?? "nothing");
    if (op?.$case === "ensureContainer" && op.value.spec !== undefined) {
      if (!containers.has(vmid) && op.value.spec.source === undefined) return; // nothing to make it from
      if (!containers.has(vmid)) made.set(vmid, (made.get(vmid) ?? 0) + 1);
      containers.set(vmid, {
        ...observe(command),
        ...op.value.spec,
        mac: op.value.spec.network?.mac ?? "",
        rateLimitKibPerSecond: op.value.spec.network?.rateLimitKibPerSecond ?? 0,
        power: containers.get(vmid)?.power ?? Power.POWER_STOPPED,
      });
    }
    const container = containers.get(vmid);
    if (op?.$case === "ensurePower" && container !== undefined)
      containers.set(vmid, { ...container, power: op.value.power });
    if (op?.$case === "inspect" && container !== undefined)
      containers.set(vmid, { ...container, ip: `10.0.${(vmid >> 8) & 255}.${vmid & 255}` });
    if (op?.$case === "adopt" && container !== undefined)
      containers.set(vmid, { ...container, podId: command.podId, generation: command.generation });
    if (op?.$case === "ensureAbsent") containers.delete(vmid);
  }

  return {
    containers,
    made,
    carriedOut,
    meddle: (container) => void containers.set(container.vmid, container),
    lose: (vmid) => void containers.delete(vmid),
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}

function observe({ vmid, podId, generation }: Command): ContainerObservation {
  return ContainerObservation.fromPartial({ vmid, podId, generation, power: Power.POWER_STOPPED });
}
