import { status } from "@grpc/grpc-js";
import { Power, Welcome, type Hello, type OwnedPod } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { isUuid } from "@cloudpods/shared/ids";
import { readAuthorityPems } from "../nodes/ensure-certificate-authority.ts";
import { appendNodeEvents } from "../nodes/node-events.ts";
import { registerHost } from "../nodes/register-host.ts";
import type { SessionRef } from "../nodes/session-fence.ts";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { isKeptStopped } from "../pods/holds.ts";
import { trustSpools } from "../samples-intake/trusted-spools.ts";
import { judgeHello, type HelloTrace } from "./duplicate-agent.ts";
import { SessionEnd } from "./session-end.ts";

/** Who asks for a session, as his certificate says. */
export interface PeerIdentity {
  readonly nodeId: string;
  /** Lower-case hex. */
  readonly serial: string;
}

/** What every agent is told when its session begins. */
export interface SessionSettings {
  readonly replicaId: string;
  readonly sampleIntervalMs: number;
  readonly heartbeatIntervalMs: number;
  readonly inventoryIntervalMs: number;
  readonly brokerUrl: () => Promise<string>;
}

/**
 * Begins a session: checks the certificate against the database, takes over what the host says of
 * itself and displaces an older session of the node.
 *
 * @param isHeldHere whether this very gateway serves a session of the node now
 * @throws SessionEnd CERTIFICATE_REFUSED, DUPLICATE_AGENT.
 */
export async function openSession(
  db: Database,
  settings: SessionSettings,
  peer: PeerIdentity,
  hello: Hello,
  isHeldHere: boolean,
): Promise<{ session: SessionRef; welcome: Welcome }> {
  const brokerUrl = await settings.brokerUrl();
  const opened = await db.transaction(
    async (tx) => {
      const known = await lockNodeStatus(tx, peer, { bootId: hello.bootId, isHeldHere });
      const judgement = await judge(tx, peer.nodeId, known, hello);
      if (!judgement) return undefined;
      const [status] = await tx.query<{ epoch: bigint }>(sql`
      UPDATE node_status SET session_epoch = session_epoch + 1, session_replica = ${settings.replicaId}, session_connected = true,
        session_seen_at = now(), boot_id = ${hello.bootId}, machine_id = coalesce(machine_id, ${hello.machineId}),
        agent_version = ${hello.agentVersion}, pve_version = ${hello.pveVersion}, capabilities = ${hello.capabilities},
        certificate_serial = ${peer.serial}, fleet_epoch = ${hello.fleetEpoch}
      WHERE node_id = ${peer.nodeId} RETURNING session_epoch AS epoch`);
      if (status === undefined) throw new Error(`node ${peer.nodeId} has no status row`);
      await registerHost(tx, peer.nodeId, hello);
      const [welcome] = await Promise.all([
        readWelcome(tx, peer.nodeId, hello),
        tx.execute(
          sql`UPDATE node_certificates SET first_used_at = now() WHERE serial = ${peer.serial} AND first_used_at IS NULL`,
        ),
      ]);
      if (isUuid(hello.spoolId)) await trustSpools(tx, [{ nodeId: peer.nodeId, spoolId: hello.spoolId }]);
      return { epoch: status.epoch, welcome };
    },
    { prepares: true },
  );
  if (opened === undefined) throw duplicateAgent();
  const { epoch, welcome } = opened;
  return {
    session: { nodeId: peer.nodeId, epoch },
    welcome: Welcome.fromPartial({
      ...welcome,
      sessionEpoch: epoch,
      nodeId: peer.nodeId,
      brokerUrl,
      serverTimeMs: BigInt(Date.now()),
      sampleIntervalMs: settings.sampleIntervalMs,
      heartbeatIntervalMs: settings.heartbeatIntervalMs,
      inventoryIntervalMs: settings.inventoryIntervalMs,
    }),
  };
}

interface KnownNode {
  readonly connected: boolean;
  readonly machineId: string | null;
  readonly displacements: readonly Date[];
  readonly hellos: readonly HelloTrace[];
  readonly duplicateSince: Date | null;
}

/**
 * Locks in the order of all who change hosts: node, then status. A gateway that was killed leaves its
 * sessions noted as connected: the same boot of a host that comes back from there is no second agent.
 */
async function lockNodeStatus(
  tx: Transaction,
  peer: PeerIdentity,
  asking: { readonly bootId: string; readonly isHeldHere: boolean },
): Promise<KnownNode> {
  const [admitted] = await tx.query(sql`
    SELECT FROM nodes n JOIN node_certificates c ON c.node_id = n.id
    WHERE n.id = ${peer.nodeId} AND n.removed_at IS NULL AND c.serial = ${peer.serial} AND c.revoked_at IS NULL
    FOR NO KEY UPDATE OF n`);
  if (admitted === undefined) {
    throw new SessionEnd(
      status.PERMISSION_DENIED,
      "CERTIFICATE_REFUSED",
      "the certificate was revoked, is not of this fleet, or its node was removed",
    );
  }
  const [known] = await tx.query<KnownNode>(sql`
    SELECT session_connected AND session_seen_at > now() - interval '15 s'
        AND (boot_id IS DISTINCT FROM ${asking.bootId} OR ${asking.isHeldHere}) AS connected, machine_id AS "machineId",
      recent_displacements AS displacements, recent_hellos AS hellos,
      (SELECT since FROM node_conditions c WHERE c.node_id = s.node_id AND c.kind = 'DuplicateAgent') AS "duplicateSince"
    FROM node_status s WHERE node_id = ${peer.nodeId} FOR NO KEY UPDATE`);
  if (known === undefined) throw new Error(`node ${peer.nodeId} has no status row`);
  return known;
}

/** Whether the session may begin; what was learned about duplicates is stored either way. */
async function judge(tx: Transaction, nodeId: string, known: KnownNode, hello: Hello): Promise<boolean> {
  const verdict = judgeHello(
    {
      duplicateSinceMs: known.duplicateSince?.getTime(),
      displacementsMs: known.displacements.map((at) => at.getTime()),
      hellos: known.hellos,
      machineId: known.machineId,
      connected: known.connected,
    },
    { atMs: Date.now(), machineId: hello.machineId, bootId: hello.bootId },
  );
  await tx.execute(sql`
    UPDATE node_status SET recent_hellos = ${JSON.stringify(verdict.hellos)},
      recent_displacements = ${verdict.displacementsMs.map((ms) => new Date(ms))}::timestamptz[]
    WHERE node_id = ${nodeId}`);
  if (known.connected && verdict.admitted) {
    await appendNodeEvents(tx, [
      {
        nodeId,
        kind: "SESSION_DISPLACED",
        message: "a newer session displaced a live one",
        detail: { bootId: hello.bootId },
      },
    ]);
  }
  if (verdict.condition === "raise") await raiseDuplicate(tx, nodeId);
  if (verdict.condition === "clear")
    await tx.execute(sql`DELETE FROM node_conditions WHERE node_id = ${nodeId} AND kind = 'DuplicateAgent'`);
  return verdict.admitted;
}

/** Ends the live session too: nobody knows which of the two is the right one. */
async function raiseDuplicate(tx: Transaction, nodeId: string): Promise<void> {
  const message =
    "Two live agents use this node's identity (a cloned host?). Both are refused until their machine ids differ or one is gone.";
  await tx.execute(sql`
    INSERT INTO node_conditions (node_id, kind, message) VALUES (${nodeId}, 'DuplicateAgent', ${message}) ON CONFLICT (node_id, kind) DO NOTHING`);
  await tx.execute(
    sql`UPDATE node_status SET session_epoch = session_epoch + 1, session_connected = false WHERE node_id = ${nodeId}`,
  );
  await appendNodeEvents(tx, [
    {
      nodeId,
      kind: "CONDITION_RAISED",
      message: `DuplicateAgent: ${message}`,
      detail: { condition: "DuplicateAgent" },
    },
  ]);
}

function duplicateAgent(): SessionEnd {
  return new SessionEnd(
    status.FAILED_PRECONDITION,
    "DUPLICATE_AGENT",
    "two live agents use this node's identity; give the clone an identity of its own",
    30_000,
  );
}

async function readWelcome(
  tx: Queryable,
  nodeId: string,
  hello: Hello,
): Promise<Pick<Welcome, "fleetEpoch" | "spoolContiguousSeq" | "ownedPods" | "placedElsewhere" | "caBundlePem">> {
  const spoolId = isUuid(hello.spoolId) ? hello.spoolId : null;
  const held = (hello.inventory?.containers ?? []).filter(({ podId }) => isUuid(podId));
  const [[facts], pods, elsewhere, authorities] = await Promise.all([
    tx.query<{ fleetEpoch: bigint; watermark: bigint | null }>(sql`
      SELECT epoch AS "fleetEpoch", (SELECT contiguous_seq FROM node_spools WHERE node_id = ${nodeId} AND spool_id = ${spoolId}) AS watermark
      FROM control_plane_epoch`),
    tx.query<{ podId: string; vmid: number; generation: bigint; run: boolean }>(sql`
      SELECT id AS "podId", vmid, generation, desired_power = 'running' AND status IN ('provisioning', 'active') AND NOT ${isKeptStopped}
        -- What is written after its archive was begun would be lost with the move. It may be made already and nobody knows yet: what
        -- has not begun ends with the boot of its host, and the pod is started then.
        AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = p.id AND m.state = 'moving' AND (m.stopped_at IS NOT NULL OR EXISTS (
          SELECT FROM node_commands c WHERE c.pod_id = p.id AND c.task_id = m.task_id AND c.op = 'backup' AND c.state IN ('sent', 'accepted', 'running', 'succeeded'))))
        AND NOT EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND t.type = 'restore' AND t.step = 'restore'
          AND t.state IN ('running', 'waiting')) AS run
      FROM cloud_pods p WHERE node_id = ${nodeId} AND status <> 'deleted' ORDER BY vmid`),
    readElsewhere(tx, nodeId, held),
    readAuthorityPems(tx),
  ]);
  if (facts === undefined) throw new Error("control_plane_epoch has no row");
  return {
    fleetEpoch: facts.fleetEpoch,
    spoolContiguousSeq: facts.watermark ?? -1n,
    ownedPods: pods.map(({ run, ...pod }): OwnedPod => ({
      ...pod,
      desiredPower: run ? Power.POWER_RUNNING : Power.POWER_STOPPED,
    })),
    placedElsewhere: elsewhere.map((pod): OwnedPod => ({ ...pod, desiredPower: Power.POWER_STOPPED })),
    caBundlePem: authorities.join(""),
  };
}

/**
 * Pods of which the host has a copy that it does not own and is not just being given. They are told with a generation
 * above the copy's, also where the copy is of an attempt that came to nothing: it must not run. A pod may also have been
 * deleted while the host was away. What an adoption in vain has marked is whose it was before, and runs on.
 */
async function readElsewhere(
  tx: Queryable,
  nodeId: string,
  held: readonly { readonly podId: string; readonly vmid: number; readonly generation: bigint }[],
): Promise<{ podId: string; vmid: number; generation: bigint }[]> {
  return await tx.query(sql`
    SELECT p.id AS "podId", p.vmid, greatest(p.generation, max(held.generation) + 1) AS generation
    FROM unnest(${held.map(({ podId }) => podId)}::uuid[], ${held.map(({ vmid }) => vmid)}::integer[],
      ${held.map(({ generation }) => generation)}::bigint[]) AS held (pod_id, vmid, generation)
    JOIN cloud_pods p ON p.id = held.pod_id
    WHERE p.node_id IS DISTINCT FROM ${nodeId} AND (p.status <> 'deleted' OR p.vmid = held.vmid)
      AND NOT (p.adopted_network IS NOT NULL AND p.activated_at IS NULL)
      AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = p.id AND m.state = 'moving' AND m.to_node_id = ${nodeId})
    GROUP BY p.id ORDER BY p.vmid`);
}

/**
 * Notes that a session has ended, unless a newer one has begun. `silentMs`: how long ago the host may have
 * fallen silent already, for connections that broke.
 */
export async function closeSession(db: Queryable, session: SessionRef, silentMs: number): Promise<void> {
  await db.execute(sql`
    UPDATE node_status SET session_connected = false, session_seen_at = now() - ${silentMs} * interval '1 ms'
    WHERE node_id = ${session.nodeId} AND session_epoch = ${session.epoch}`);
}
