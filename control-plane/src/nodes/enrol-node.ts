import { createHmac, timingSafeEqual } from "node:crypto";
import { DomainError } from "@cloudpods/shared/errors";
import { isUuid, newId } from "@cloudpods/shared/ids";
import { violatedConstraint, type Database, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { refuseSpoolsOfNode } from "../samples-intake/trusted-spools.ts";
import { recordAudit } from "../security/audit.ts";
import { readCertificateRequest, type CertificateRequest } from "./certificate-request.ts";
import {
  identityAnswer,
  issueToNode,
  revokeCertificates,
  type IssuingDeps,
  type NodeIdentityAnswer,
} from "./node-certificates.ts";
import { appendNodeEvents } from "./node-events.ts";

/** What a host sends to join. */
export interface EnrolRequest {
  readonly tokenId: string;
  /** PEM certificate request. */
  readonly csr: string;
  /** Hex HMAC-SHA256 over the request's DER, keyed with SHA-256 of the token's secret. */
  readonly proof: string;
  /** SHA-256 (hex) of /etc/machine-id. */
  readonly machineId: string;
  readonly hostname: string;
  /** Name inside Proxmox; empty on hosts that are not hypervisors. */
  readonly pveName: string;
}

interface TokenRow {
  readonly id: string;
  readonly secretSha256: Buffer;
  readonly name: string;
  readonly role: string;
  readonly region: string;
  readonly labels: unknown;
  readonly replacesNode: string | null;
  readonly expired: boolean;
  readonly revokedAt: Date | null;
  readonly usedBySpki: string | null;
  readonly nodeId: string | null;
}

/**
 * Lets a host in: a certificate for its key, and the node's rows. The same token with the same key gets
 * the same answer within the token's time, because the first answer may have been lost.
 *
 * @throws DomainError `invalid` CSR_INVALID; `unauthenticated` JOIN_TOKEN_INVALID (unknown, or the proof is
 * wrong), JOIN_TOKEN_EXPIRED, JOIN_TOKEN_REVOKED; `conflict` JOIN_TOKEN_USED, NODE_NAME_TAKEN.
 */
export async function enrolNode(
  db: Database,
  deps: IssuingDeps,
  request: EnrolRequest,
  requestId: string | undefined,
): Promise<NodeIdentityAnswer> {
  const csr = await readCertificateRequest(request.csr);
  return await db.transaction(async (tx) => {
    const token = await lockToken(tx, request.tokenId);
    if (token === undefined || !proofMatches(token.secretSha256, csr.der, request.proof)) {
      throw new DomainError(
        "unauthenticated",
        "JOIN_TOKEN_INVALID",
        "The join token is unknown or the proof does not fit it.",
      );
    }
    if (token.revokedAt !== null)
      throw new DomainError("unauthenticated", "JOIN_TOKEN_REVOKED", "The join token was revoked.");
    if (token.expired)
      throw new DomainError("unauthenticated", "JOIN_TOKEN_EXPIRED", "The join token has expired; make a new one.");
    if (token.nodeId !== null) return await repeatAnswer(tx, deps, token, token.nodeId, csr);
    const nodeId = token.replacesNode ?? newId();
    if (token.replacesNode === null) await insertNode(tx, nodeId, token, request);
    else await takeOverNode(tx, nodeId, request);
    const certificate = await issueToNode(tx, deps.authorities, nodeId, csr);
    await tx.execute(sql`
      UPDATE join_tokens SET used_at = now(), used_by_spki_sha256 = ${csr.spkiSha256}, node_id = ${nodeId} WHERE id = ${token.id}`);
    await appendNodeEvents(tx, [
      {
        nodeId,
        kind: "ENROLLED",
        message: `${request.hostname} joined`,
        detail: { tokenId: token.id, hostname: request.hostname },
      },
    ]);
    await recordAudit(tx, {
      actor: { kind: "node", id: nodeId },
      requestId,
      tenantId: undefined,
      action: "node.enrol",
      targetType: "node",
      targetId: nodeId,
      detail: {
        tokenId: token.id,
        hostname: request.hostname,
        replaced: token.replacesNode !== null,
        serial: certificate.serial,
      },
    });
    return await identityAnswer(tx, deps, nodeId, certificate.pem);
  });
}

async function lockToken(tx: Transaction, id: string): Promise<TokenRow | undefined> {
  if (!isUuid(id)) return undefined;
  const [token] = await tx.query<TokenRow>(sql`
    SELECT id, secret_sha256 AS "secretSha256", name, role, region, labels, replaces_node AS "replacesNode", expires_at <= now() AS expired,
      revoked_at AS "revokedAt", used_by_spki_sha256 AS "usedBySpki", node_id AS "nodeId"
    FROM join_tokens WHERE id = ${id} FOR UPDATE`);
  return token;
}

/** Whether the sender knows the secret; takes equally long for every wrong proof. */
function proofMatches(secretSha256: Buffer, csrDer: Buffer, proof: string): boolean {
  const expected = createHmac("sha256", secretSha256).update(csrDer).digest();
  const given = Buffer.from(proof, "hex");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

async function repeatAnswer(
  tx: Transaction,
  deps: IssuingDeps,
  token: TokenRow,
  nodeId: string,
  csr: CertificateRequest,
): Promise<NodeIdentityAnswer> {
  const [certificate] = await tx.query<{ pem: string }>(sql`
    SELECT pem FROM node_certificates
    WHERE node_id = ${nodeId} AND spki_sha256 = ${csr.spkiSha256} AND revoked_at IS NULL ORDER BY issued_at LIMIT 1`);
  if (certificate === undefined || token.usedBySpki !== csr.spkiSha256) {
    throw new DomainError(
      "conflict",
      "JOIN_TOKEN_USED",
      "Another host has joined with this token; make a new one for this host.",
    );
  }
  return await identityAnswer(tx, deps, nodeId, certificate.pem);
}

async function insertNode(tx: Transaction, nodeId: string, token: TokenRow, request: EnrolRequest): Promise<void> {
  try {
    await tx.execute(sql`
      INSERT INTO nodes (id, name, pve_name, role, region, labels)
      VALUES (${nodeId}, ${token.name}, ${request.pveName === "" ? null : request.pveName}, ${token.role}, ${token.region}, ${JSON.stringify(token.labels)})`);
  } catch (error) {
    if (violatedConstraint(error) !== "one_live_node_per_name") throw error;
    throw new DomainError(
      "conflict",
      "NODE_NAME_TAKEN",
      `A node is named "${token.name}" already; make a token with another name.`,
      { cause: error },
    );
  }
  await tx.execute(sql`INSERT INTO node_status (node_id, machine_id) VALUES (${nodeId}, ${request.machineId})`);
  await tx.execute(sql`INSERT INTO node_capacity (node_id) VALUES (${nodeId})`);
}

/** A new machine under an old identity: whoever used it before is out. */
async function takeOverNode(tx: Transaction, nodeId: string, request: EnrolRequest): Promise<void> {
  const taken = await tx.execute(sql`
    UPDATE nodes SET pve_name = coalesce(${request.pveName === "" ? null : request.pveName}, pve_name) WHERE id = ${nodeId} AND removed_at IS NULL`);
  if (taken === 0)
    throw new DomainError(
      "conflict",
      "NODE_REMOVED",
      "The node that the token replaces was removed; make a token for a new node.",
    );
  await revokeCertificates(tx, nodeId);
  await refuseSpoolsOfNode(tx, nodeId);
  await tx.execute(sql`
    UPDATE node_status SET machine_id = ${request.machineId}, session_epoch = session_epoch + 1, session_connected = false,
      recent_hellos = '[]', recent_displacements = '{}'
    WHERE node_id = ${nodeId}`);
  await tx.execute(sql`DELETE FROM node_conditions WHERE node_id = ${nodeId} AND kind = 'DuplicateAgent'`);
}
