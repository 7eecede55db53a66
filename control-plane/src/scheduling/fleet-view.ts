import type { Queryable } from "../platform/database.ts";
import type { FleetSnapshot } from "./fleet-snapshot.ts";
import type { PlacementRequest } from "./placement-request.ts";
import { rankForAnyone, type TenantlessRanking } from "./rank-nodes.ts";
import { readSnapshot } from "./read-snapshot.ts";

/**
 * The fleet as this process last saw it, shared by all its placements. It may be a little old: the claim
 * looks again at the node that it takes. Make one in compose.
 */
export interface FleetView {
  /** A snapshot that is a moment old at most; read through `tx` when there is none. */
  recent(tx: Queryable): Promise<FleetSnapshot>;
  /** A snapshot whose reading began after this call; calls at the same time share it. */
  fresh(tx: Queryable): Promise<FleetSnapshot>;
  /** What the snapshot offers for a request, whoever asks; worked out once per shape of request. */
  rank(request: PlacementRequest, snapshot: FleetSnapshot): TenantlessRanking;
  /**
   * Ids of nodes that placements of this process found full for this ranking since its snapshot was read.
   * Grows; gone with the snapshot.
   */
  fullSince(ranking: TenantlessRanking): Set<string>;
}

const ageMinMs = 200;
/** Of the time no more than a fiftieth goes into reading, however large the fleet. */
const readingShare = 50;
/** While another placement reads the next snapshot, the last one may be as many times older. */
const patience = 3;
const shapesMax = 64;

interface Seen {
  readonly snapshot: FleetSnapshot;
  readonly atMs: number;
  readonly readMs: number;
}

/** A view that has seen nothing yet. Reads use the connection of the transaction that needs them, so they can never wait for a free one. */
export function createFleetView(read: (tx: Queryable) => Promise<FleetSnapshot> = readSnapshot): FleetView {
  let seen: Seen | undefined;
  let current: Promise<FleetSnapshot> | undefined;
  let next: Promise<FleetSnapshot> | undefined;
  const rankings = new WeakMap<FleetSnapshot, Map<string, TenantlessRanking>>();
  const full = new WeakMap<TenantlessRanking, Set<string>>();

  async function look(tx: Queryable): Promise<FleetSnapshot> {
    const startMs = performance.now();
    const snapshot = await read(tx);
    seen = { snapshot, atMs: startMs, readMs: performance.now() - startMs };
    return snapshot;
  }

  async function lookNext(tx: Queryable): Promise<FleetSnapshot> {
    await current?.catch(() => {}); // its own callers hear of a failure
    current = look(tx).finally(() => {
      current = undefined;
    });
    next = undefined;
    return await current;
  }

  async function fresh(tx: Queryable): Promise<FleetSnapshot> {
    if (next !== undefined) {
      // When the transaction that reads for all fails, each looks for itself.
      return await next.catch(() => look(tx));
    }
    next = lookNext(tx);
    return await next;
  }

  return {
    fresh,
    async recent(tx) {
      if (seen !== undefined) {
        const ageMs = performance.now() - seen.atMs;
        const someoneReads = current !== undefined || next !== undefined;
        const dueMs = Math.max(ageMinMs, seen.readMs * readingShare);
        if (ageMs < (someoneReads ? dueMs * patience : dueMs)) return seen.snapshot;
      }
      return await fresh(tx);
    },
    rank(request, snapshot) {
      const known = rankings.get(snapshot) ?? new Map<string, TenantlessRanking>();
      rankings.set(snapshot, known);
      const shape = shapeOf(request);
      const ranking = known.get(shape) ?? rankForAnyone(request, snapshot);
      if (known.size < shapesMax) known.set(shape, ranking);
      return ranking;
    },
    fullSince(ranking) {
      const ids = full.get(ranking) ?? new Set<string>();
      full.set(ranking, ids);
      return ids;
    },
  };
}

function shapeOf(request: PlacementRequest): string {
  const { cores, memoryMb, diskGb, region, template, storage, nodeLabels, capabilities, only, named } = request;
  return JSON.stringify([cores, memoryMb, diskGb, region, template, storage, nodeLabels, capabilities, only, named]);
}
