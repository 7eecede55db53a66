import type { Queryable } from "../platform/database.ts";
import { prepared, sql } from "../platform/sql.ts";
import { claimNode, findFull, type ClaimPurpose } from "./claim-node.ts";
import type { FleetView } from "./fleet-view.ts";
import { NoCapacityError } from "./no-capacity.ts";
import type { PlacementRequest, TenantFootprint } from "./placement-request.ts";
import { regardTenant, type Candidate } from "./rank-nodes.ts";
import { keptVerdict, verdictOf, type PlacementVerdict, type VerdictLimits } from "./verdict.ts";

/** A pod that looks for its place. Its row exists already in the transaction. */
export interface PodToPlace {
  readonly tenantId: string;
  readonly podId: string;
  readonly vmid: number;
  /** Of the placement that this call makes. */
  readonly generation: bigint;
  /** Absent: a home. */
  readonly purpose?: ClaimPurpose;
  readonly request: PlacementRequest;
}

/** A place for a pod, and what its row and its container need to know of it. */
export interface Place {
  readonly nodeId: string;
  readonly node: string;
  readonly region: string;
  readonly storageId: string;
  /** Name of the storage for the root disk. */
  readonly storage: string;
  readonly bridge: string;
  readonly pool: string | null;
  /** `ct:<vmid>` of a template container, or the volume id of an archive; null when the pod needs none. */
  readonly template: string | null;
}

/** The place that a pod got. */
export interface Placement extends Place {
  /** To be stored with the pod. */
  readonly verdict: PlacementVerdict;
}

/** The place that a pod would get. */
export interface PlacementPreview {
  /** Undefined: there is none. */
  readonly place: Place | undefined;
  readonly verdict: PlacementVerdict;
}

/** So many are rarely all being claimed: some have filled up since the snapshot, and those behind it need not try them again. */
const passedOverMany = 8;

const nowhere: TenantFootprint = { podsByNode: new Map(), conflictingNodes: new Set() };

/** Looks at the fleet before giving up; more than one, because others may take what the last look found. */
const freshLooksMax = 3;

/**
 * Chooses a node, claims its capacity and writes the claim and the placement history. Call it after
 * everything that does not need its answer: it holds the node's row until the transaction ends. Losing a
 * race means the next candidate, and nothing is refused on an old view of the fleet. Works under both logins.
 * @throws NoCapacityError (NO_CAPACITY, 503) when no node can take the pod
 */
export async function placePod(tx: Queryable, fleet: FleetView, pod: PodToPlace): Promise<Placement> {
  const { request } = pod;
  const tenant = await readFootprint(tx, pod.tenantId, request.antiAffinity);
  let snapshot = await fleet.recent(tx);
  for (let look = 0; ; look++) {
    const forAnyone = fleet.rank(request, snapshot);
    const ranking = regardTenant(forAnyone, tenant);
    const known = fleet.fullSince(forAnyone);
    const claim = { ...pod, ...request };
    const { chosen, passedOver } = await claimNode(tx, claim, without(known, ranking.candidates));
    if (passedOver.length >= passedOverMany) {
      for (const nodeId of await findFull(tx, claim, passedOver)) known.add(nodeId);
    }
    if (chosen !== undefined) return { ...placeOf(chosen, request), verdict: verdictOf(ranking, chosen, keptVerdict) };
    const isFinal = look === freshLooksMax || (look > 0 && ranking.fitting === 0);
    if (isFinal) throw new NoCapacityError(request, verdictOf(ranking, undefined, keptVerdict));
    snapshot = await fleet.fresh(tx);
  }
}

function* without(full: ReadonlySet<string>, candidates: Iterable<Candidate>): Generator<Candidate, undefined> {
  for (const candidate of candidates) if (!full.has(candidate.node.id)) yield candidate;
}

/** Where a pod would be placed now, of this tenant or of one without pods; nothing is claimed. */
export async function previewPlacement(
  tx: Queryable,
  fleet: FleetView,
  tenantId: string | undefined,
  request: PlacementRequest,
  limits: VerdictLimits = keptVerdict,
): Promise<PlacementPreview> {
  const tenant = tenantId === undefined ? nowhere : await readFootprint(tx, tenantId, request.antiAffinity);
  const ranking = regardTenant(fleet.rank(request, await fleet.fresh(tx)), tenant);
  const [best] = Iterator.from(ranking.candidates).take(1);
  return { place: best && placeOf(best, request), verdict: verdictOf(ranking, best, limits) };
}

/** Where the tenant's pods occupy nodes, whatever their state. */
async function readFootprint(
  tx: Queryable,
  tenantId: string,
  apartFrom: PlacementRequest["antiAffinity"],
): Promise<TenantFootprint> {
  const rows = await tx.query<{ nodeId: string; pods: number; conflicts: boolean }>(
    apartFrom === undefined
      ? prepared(
          sql`SELECT node_id AS "nodeId", count(*)::integer AS pods, false AS conflicts FROM node_claims WHERE tenant_id = ${tenantId} GROUP BY node_id`,
        )
      : sql`
        SELECT k.node_id AS "nodeId", count(*)::integer AS pods, bool_or(p.labels @> ${JSON.stringify(apartFrom)}::jsonb) AS conflicts
        FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id WHERE k.tenant_id = ${tenantId} GROUP BY k.node_id`,
  );
  return {
    podsByNode: new Map(rows.map(({ nodeId, pods }) => [nodeId, pods])),
    conflictingNodes: new Set(rows.filter(({ conflicts }) => conflicts).map(({ nodeId }) => nodeId)),
  };
}

function placeOf({ node, storage }: Candidate, request: PlacementRequest): Place {
  const template = request.template === undefined ? node.defaultTemplate : request.template;
  if (template === null && request.template === undefined)
    throw new Error(`node ${node.name} was chosen without a template`);
  return {
    nodeId: node.id,
    node: node.name,
    region: node.region,
    storageId: storage.id,
    storage: storage.name,
    bridge: node.bridge,
    pool: node.pool,
    template,
  };
}
