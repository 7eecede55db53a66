import { X509Certificate, randomBytes, verify } from "node:crypto";
import { DomainError } from "@cloudpods/shared/errors";
import { isUuid } from "@cloudpods/shared/ids";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { readCertificateRequest } from "./certificate-request.ts";
import { nodeNotFound } from "./find-node.ts";
import {
  identityAnswer,
  issueToNode,
  recentCertificates,
  type IssuingDeps,
  type NodeCertificate,
  type NodeIdentityAnswer,
} from "./node-certificates.ts";
import { appendNodeEvents } from "./node-events.ts";

const challengeLifeSeconds = 60;
/** A host needs one; the bound keeps strangers from filling the table. */
const openChallengesMax = 20;

/**
 * Gives out a nonce for one renewal within 60 s.
 * @throws DomainError `not-found` NODE_NOT_FOUND; `rate-limited` TOO_MANY_CHALLENGES.
 */
export async function makeRenewalChallenge(db: Database, nodeId: string): Promise<{ nonce: string }> {
  if (!isUuid(nodeId)) throw nodeNotFound();
  const nonce = randomBytes(32).toString("hex");
  return await db.transaction(async (tx) => {
    // The node's row lock makes the count below exact.
    const [node] = await tx.query(sql`SELECT FROM nodes WHERE id = ${nodeId} AND removed_at IS NULL FOR NO KEY UPDATE`);
    if (node === undefined) throw nodeNotFound();
    await tx.execute(
      sql`DELETE FROM renewal_challenges WHERE node_id = ${nodeId} AND (expires_at < now() OR used_at IS NOT NULL)`,
    );
    const made = await tx.execute(sql`
      INSERT INTO renewal_challenges (nonce, node_id, expires_at)
      SELECT ${nonce}, ${nodeId}, now() + ${challengeLifeSeconds} * interval '1 s'
      WHERE (SELECT count(*) FROM renewal_challenges WHERE node_id = ${nodeId}) < ${openChallengesMax}`);
    if (made === 0) {
      throw new DomainError("rate-limited", "TOO_MANY_CHALLENGES", "Too many renewals of this node are open.", {
        retryAfterSeconds: challengeLifeSeconds,
      });
    }
    return { nonce };
  });
}

/** What a host sends to renew. */
export interface RenewRequest {
  readonly nodeId: string;
  readonly nonce: string;
  /** PEM certificate request; it may hold a new key. */
  readonly csr: string;
  /** Hex DER of an ECDSA-SHA256 signature over `nodeId "\n" nonce "\n" base64(csr DER)`. */
  readonly signature: string;
}

/**
 * Issues the next certificate to the holder of the key of the last one, or of the newest one ever used in
 * a session (the last answer may have been lost). No handshake and no clock is involved, so it works
 * before and after expiry for as long as the node is not removed.
 *
 * @throws DomainError `invalid` CSR_INVALID; `unauthenticated` CHALLENGE_INVALID, SIGNATURE_INVALID.
 */
export async function renewNodeCertificate(
  db: Database,
  deps: IssuingDeps,
  request: RenewRequest,
  requestId: string | undefined,
): Promise<NodeIdentityAnswer> {
  const csr = await readCertificateRequest(request.csr);
  await useChallenge(db, request);
  return await db.transaction(async (tx) => {
    // Renewals of one node wait for each other and for its removal.
    const [node] = await tx.query(
      sql`SELECT FROM nodes WHERE id = ${request.nodeId} AND removed_at IS NULL FOR NO KEY UPDATE`,
    );
    const known = node === undefined ? [] : await recentCertificates(tx, request.nodeId);
    const signed = Buffer.from(`${request.nodeId}\n${request.nonce}\n${csr.der.toString("base64")}`, "utf8");
    if (!known.some((certificate) => isSignedBy(certificate, signed, request.signature))) {
      throw new DomainError(
        "unauthenticated",
        "SIGNATURE_INVALID",
        "The request is not signed by the key of this node's certificate.",
      );
    }
    const [last] = known;
    if (last !== undefined && last.spkiSha256 === csr.spkiSha256 && isYoung(last)) {
      return await identityAnswer(tx, deps, request.nodeId, last.pem);
    }
    const certificate = await issueToNode(tx, deps.authorities, request.nodeId, csr);
    await appendNodeEvents(tx, [
      {
        nodeId: request.nodeId,
        kind: "CERTIFICATE_RENEWED",
        message: `valid until ${certificate.notAfter.toISOString()}`,
        detail: { serial: certificate.serial },
      },
    ]);
    await recordAudit(tx, {
      actor: { kind: "node", id: request.nodeId },
      requestId,
      tenantId: undefined,
      action: "node.renew",
      targetType: "node",
      targetId: request.nodeId,
      detail: { serial: certificate.serial, notAfter: certificate.notAfter },
    });
    return await identityAnswer(tx, deps, request.nodeId, certificate.pem);
  });
}

/** Uses the nonce up, whatever becomes of the request. */
async function useChallenge(db: Database, request: RenewRequest): Promise<void> {
  const used = !isUuid(request.nodeId)
    ? 0
    : await db.execute(sql`
        UPDATE renewal_challenges SET used_at = now()
        WHERE nonce = ${request.nonce} AND node_id = ${request.nodeId} AND used_at IS NULL AND expires_at > now()`);
  if (used === 0)
    throw new DomainError(
      "unauthenticated",
      "CHALLENGE_INVALID",
      "The nonce is unknown, used or too old; ask for a new one.",
    );
}

function isSignedBy(certificate: NodeCertificate, signed: Buffer, signatureHex: string): boolean {
  try {
    return verify("sha256", signed, new X509Certificate(certificate.pem).publicKey, Buffer.from(signatureHex, "hex"));
  } catch {
    return false; // not a DER signature
  }
}

/** The answer with it was lost just now: it is given again. */
function isYoung(certificate: NodeCertificate): boolean {
  const lifeMs = certificate.notAfter.getTime() - certificate.notBefore.getTime();
  return Date.now() - certificate.notBefore.getTime() < lifeMs / 3;
}
