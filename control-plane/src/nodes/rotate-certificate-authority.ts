import { DomainError } from "@cloudpods/shared/errors";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import type { MasterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { commandLine } from "../tenancy/author.ts";
import { readAuthorities, storeAuthority } from "./ensure-certificate-authority.ts";
import { insertCommand } from "./send-command.ts";

/** How far a rotation is and what its next step waits for. */
export interface Rotation {
  /** `none`: one authority, which signs. `published`: hosts learn the next one. `leaving`: the next one signs, the former is still believed. */
  readonly stage: "none" | "published" | "leaving";
  /** When the stage began; null without one. */
  readonly since: Date | null;
  /** Hosts that are not ready for the next step, by name. */
  readonly hosts: readonly UnreadyHost[];
  readonly hostsInAll: number;
  /** What else is not ready, in words. */
  readonly others: readonly string[];
  /** Replicas that would refuse certificates of the next authority, in words: nobody goes on without them. */
  readonly replicas: readonly string[];
  /** Until when something that the leaving authority signed is valid. */
  readonly validUntil: Date | null;
}

/** A host that the next step of a rotation waits for. */
export interface UnreadyHost {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  /** It has the certificate that it needs since a moment ago: its session with it, or its inventory in that, is to come. */
  readonly hasRenewed: boolean;
}

/** What a call did. */
export interface RotationStep extends Rotation {
  readonly done: "published" | "activated" | "retired" | "nothing";
  /** Hosts that were told to fetch a new certificate now. */
  readonly told: number;
}

export interface RotationWish {
  /** Make the next authority where there is none. Who goes on with one that was begun must not begin another. */
  readonly begins: boolean;
  /** Go on without hosts that are not ready, which come back by a renewal, and what counts still counts no more. */
  readonly force: boolean;
  /** An external broker is configured; its operator says that it has the present files. */
  readonly externalBroker: { readonly isUpToDate: boolean } | undefined;
}

/** At a time, so that a fleet does not renew within a second. */
const toldMax = 200;
/** By then a host that has renewed has sent an inventory. */
const speaksWithin = "3 minutes";
/** Server and client certificates of replicas live so long. */
const replicaCertificateDays = 7;
/** A replica that was not seen for so long does not run any more. */
const replicaSilence = "1 minute";
/** Of advisory locks: the steps of a rotation, one at a time. */
const rotationLock = 0x6361_0003;

/**
 * Takes the next step of a rotation that is safe now, or none, and tells hosts that are in the way to fetch a certificate.
 * In order: the next authority is made and published; it signs, once every replica believes it and every host has begun a
 * session since, in which it was told; the former one is believed until nothing that it signed is valid and in use, then
 * retired. Called again and again it goes through all of them.
 * @throws DomainError `BROKER_NOT_CONFIRMED`
 */
export async function rotateAuthority(db: Database, master: MasterKey, wish: RotationWish): Promise<RotationStep> {
  const done = await db.transaction(async (tx) => {
    await tx.query(sql`SELECT pg_advisory_xact_lock(${rotationLock})`);
    const { stage, hosts, others, replicas } = await readRotation(tx);
    if (stage === "none") return wish.begins ? await publish(tx, master) : "nothing";
    if (replicas.length > 0 || (hosts.length + others.length > 0 && !wish.force)) return "nothing";
    requireBroker(wish);
    return stage === "published" ? await activate(tx, wish.force) : await retire(tx, wish.force);
  });
  // Only what is committed was told to whoever asks from now on.
  await db.execute(
    sql`UPDATE certificate_authorities SET published_at = clock_timestamp() WHERE state = 'next' AND published_at IS NULL`,
  );
  const now = await readRotation(db);
  return { ...now, done, told: await db.transaction((tx) => tellHosts(tx, now)) };
}

function requireBroker({ externalBroker }: RotationWish): void {
  if (externalBroker === undefined || externalBroker.isUpToDate) return;
  const message =
    "Give the broker the present files first (cloudpods admin broker-files), then say so with --broker-is-up-to-date.";
  throw new DomainError("wrong-state", "BROKER_NOT_CONFIRMED", message);
}

/** How far the rotation is; changes nothing. */
export async function readRotation(db: Queryable): Promise<Rotation> {
  const [fleet] = await db.query<{ hosts: number }>(
    sql`SELECT count(*)::integer AS hosts FROM nodes WHERE removed_at IS NULL`,
  );
  return { ...(await readStage(db)), hostsInAll: fleet?.hosts ?? 0 };
}

async function readStage(db: Queryable): Promise<Omit<Rotation, "hostsInAll">> {
  const authorities = await db.query<{ id: string; state: string; publishedAt: Date | null }>(sql`
    SELECT id, state, published_at AS "publishedAt" FROM certificate_authorities WHERE state <> 'retired'`);
  const next = authorities.find(({ state }) => state === "next");
  if (next !== undefined) {
    return {
      stage: "published",
      since: next.publishedAt,
      hosts: await hostsWithout(db, sql`c.issued_at > ${next.publishedAt}::timestamptz`),
      others: await openTokens(db),
      replicas: await replicasThat(db, sql`NOT ${next.id} = ANY(authority_ids)`, "do not believe"),
      validUntil: null,
    };
  }
  const [leaving] = await db.query<{ leftAt: Date; activeId: string }>(sql`
    SELECT max(l.left_at) AS "leftAt", a.id AS "activeId" FROM certificate_authorities l, certificate_authorities a
    WHERE l.state = 'leaving' AND a.state = 'active' GROUP BY a.id`);
  if (leaving === undefined)
    return { stage: "none", since: null, hosts: [], others: [], replicas: [], validUntil: null };
  const [used] = await db.query<{ until: Date | null }>(sql`
    SELECT max(until) AS until FROM (
      -- Replicas may have signed for themselves until they had seen the change.
      SELECT ${leaving.leftAt}::timestamptz + interval '1 minute' + ${replicaCertificateDays} * interval '1 day' AS until
      UNION ALL SELECT (detail->>'notAfter')::timestamptz FROM audit_log
        WHERE action = 'broker-certificate.issue' AND at < ${leaving.leftAt}::timestamptz + interval '1 minute') ends WHERE until > now()`);
  const validUntil = used?.until ?? null;
  return {
    stage: "leaving",
    since: leaving.leftAt,
    hosts: await hostsWithout(db, sql`c.authority_id = ${leaving.activeId}`),
    others: [
      ...(await replicasThat(db, sql`signing_authority_id IS DISTINCT FROM ${leaving.activeId}`, "do not sign by")),
      ...(validUntil === null ? [] : [`certificates of replicas and brokers count until ${validUntil.toISOString()}`]),
    ],
    replicas: [],
    validUntil,
  };
}

/** Hosts that have not begun a session with such a certificate `c` and spoken in it: only then they had the Welcome with all authorities. */
async function hostsWithout(db: Queryable, which: ReturnType<typeof sql>): Promise<Rotation["hosts"]> {
  return await db.query(sql`
    SELECT n.id, n.name, s.state, EXISTS (
      SELECT FROM node_certificates c WHERE c.node_id = n.id AND c.revoked_at IS NULL AND ${which}
        AND c.issued_at > now() - ${speaksWithin}::interval) AS "hasRenewed"
    FROM nodes n JOIN node_status s ON s.node_id = n.id
    WHERE n.removed_at IS NULL AND NOT EXISTS (
      SELECT FROM node_certificates c WHERE c.node_id = n.id AND c.revoked_at IS NULL AND ${which}
        AND c.first_used_at IS NOT NULL AND s.inventory_at > c.first_used_at)
    ORDER BY n.name`);
}

async function replicasThat(db: Queryable, which: ReturnType<typeof sql>, what: string): Promise<string[]> {
  const rows = await db.query<{ hostname: string }>(sql`
    SELECT hostname FROM control_plane_replicas WHERE seen_at > now() - ${replicaSilence}::interval AND ${which} ORDER BY hostname`);
  return rows.length === 0
    ? []
    : [`replicas that ${what} the new authority yet: ${rows.map(({ hostname }) => hostname).join(", ")}`];
}

/** A token names the authority that its host will believe. */
async function openTokens(db: Queryable): Promise<string[]> {
  const rows = await db.query<{ name: string }>(sql`
    SELECT name FROM join_tokens WHERE used_at IS NULL AND revoked_at IS NULL AND expires_at > now() ORDER BY name`);
  return rows.length === 0 ? [] : [`join tokens that are not used: ${rows.map(({ name }) => name).join(", ")}`];
}

async function publish(tx: Transaction, master: MasterKey): Promise<"published"> {
  const { active } = await readAuthorities(tx, master);
  const id = await storeAuthority(tx, master, "next", active);
  await audit(tx, "published", id, {});
  return "published";
}

async function activate(tx: Transaction, isForced: boolean): Promise<"activated"> {
  await tx.execute(
    sql`UPDATE certificate_authorities SET state = 'leaving', left_at = clock_timestamp() WHERE state = 'active'`,
  );
  const [row] = await tx.query<{ id: string }>(sql`
    UPDATE certificate_authorities SET state = 'active', activated_at = clock_timestamp() WHERE state = 'next' RETURNING id`);
  await audit(tx, "activated", row?.id ?? "", { isForced });
  return "activated";
}

async function retire(tx: Transaction, isForced: boolean): Promise<"retired"> {
  const rows = await tx.query<{ id: string }>(
    sql`UPDATE certificate_authorities SET state = 'retired' WHERE state = 'leaving' RETURNING id`,
  );
  for (const { id } of rows) await audit(tx, "retired", id, { isForced });
  return "retired";
}

/**
 * A renewal ends with a new session, whose Welcome has all authorities. Hosts that are away are told when they are back. One
 * that was answered by a replica that had not seen the last step yet has to come again.
 */
async function tellHosts(tx: Transaction, { hosts }: Rotation): Promise<number> {
  const waiting = hosts.filter(({ hasRenewed }) => !hasRenewed).map(({ id }) => id);
  const told = await tx.query<{ id: string }>(sql`
    SELECT n.id FROM nodes n JOIN node_status s ON s.node_id = n.id
    WHERE n.id = ANY(${waiting}::uuid[]) AND 'renew_certificate' = ANY(s.capabilities)
      AND NOT EXISTS (SELECT FROM node_commands c WHERE c.node_id = n.id AND c.op = 'renew_certificate' AND c.finished_at IS NULL)
    ORDER BY s.session_connected DESC, n.id LIMIT ${toldMax}`);
  for (const { id } of told)
    await insertCommand(tx, { nodeId: id, generation: 0n, revision: 0n, op: { $case: "renewCertificate", value: {} } });
  return told.length;
}

async function audit(
  tx: Transaction,
  what: string,
  id: string,
  detail: Readonly<Record<string, unknown>>,
): Promise<void> {
  await recordAudit(tx, {
    actor: commandLine.actor,
    requestId: commandLine.requestId,
    tenantId: undefined,
    action: `certificate-authority.${what}`,
    targetType: "certificate-authority",
    targetId: id,
    detail,
  });
}
