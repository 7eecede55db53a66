import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { issueNodeCertificate, type IssuedCertificate } from "./certificate-authority.ts";
import type { CertificateRequest } from "./certificate-request.ts";
import { readAuthorityPems, readVouchers, type TrustedAuthorities } from "./ensure-certificate-authority.ts";

/** What a host gets when it joins and when it renews. */
export interface NodeIdentityAnswer {
  readonly nodeId: string;
  /** PEM. */
  readonly certificate: string;
  /** PEM of every authority in force. */
  readonly caBundle: string;
  /** PEM of certificates by which whoever knows a former authority can believe those of the bundle. */
  readonly vouchers: string;
  /** `host:port` of the gateway. */
  readonly gatewayAddress: string;
  /** `mqtts://host:port` of the broker. */
  readonly brokerUrl: string;
}

/** What enrolment and renewal need besides the database. */
export interface IssuingDeps {
  readonly authorities: TrustedAuthorities;
  /** Where hosts find gateway and broker; asked for each answer because the broker may move. */
  readonly addresses: () => Promise<{ readonly gatewayAddress: string; readonly brokerUrl: string }>;
}

/** A stored certificate of a host. */
export interface NodeCertificate {
  readonly serial: string;
  readonly spkiSha256: string;
  readonly pem: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** Signs the request's key for a node and stores the certificate in the same transaction. */
export async function issueToNode(
  tx: Transaction,
  authorities: TrustedAuthorities,
  nodeId: string,
  request: CertificateRequest,
): Promise<IssuedCertificate> {
  const { active } = authorities;
  const certificate = await issueNodeCertificate(active, nodeId, request.publicKey, new Date());
  await tx.execute(sql`
    INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, authority_id)
    VALUES (${certificate.serial}, ${nodeId}, ${certificate.spkiSha256}, ${certificate.pem}, ${certificate.notBefore}, ${certificate.notAfter}, ${active.id})`);
  return certificate;
}

/** The certificate issued last to a node and, when different, the newest that was ever used in a session. */
export async function recentCertificates(db: Queryable, nodeId: string): Promise<NodeCertificate[]> {
  return await db.query<NodeCertificate>(sql`
    SELECT serial, spki_sha256 AS "spkiSha256", pem, not_before AS "notBefore", not_after AS "notAfter" FROM (
      SELECT *, rank() OVER (ORDER BY issued_at DESC, serial) AS newest,
        rank() OVER (ORDER BY (first_used_at IS NULL), issued_at DESC, serial) AS newest_used
      FROM node_certificates WHERE node_id = ${nodeId} AND revoked_at IS NULL) AS ranked
    WHERE newest = 1 OR (newest_used = 1 AND first_used_at IS NOT NULL)
    ORDER BY newest`);
}

/** Makes every certificate of a node worthless. */
export async function revokeCertificates(tx: Transaction, nodeId: string): Promise<void> {
  await tx.execute(
    sql`UPDATE node_certificates SET revoked_at = now() WHERE node_id = ${nodeId} AND revoked_at IS NULL`,
  );
}

/** Whether a certificate (lower-case hex serial) lets its node connect now: issued by us, not revoked, node not removed. */
export async function isNodeAuthorized(db: Queryable, nodeId: string, serial: string): Promise<boolean> {
  const [row] = await db.query(sql`
    SELECT FROM node_certificates c JOIN nodes n ON n.id = c.node_id
    WHERE c.serial = ${serial} AND c.node_id = ${nodeId} AND c.revoked_at IS NULL AND n.removed_at IS NULL`);
  return row !== undefined;
}

/** The answer that hands a certificate to its host. */
export async function identityAnswer(
  db: Queryable,
  deps: IssuingDeps,
  nodeId: string,
  certificatePem: string,
): Promise<NodeIdentityAnswer> {
  const [pems, vouchers] = await Promise.all([readAuthorityPems(db), readVouchers(db)]);
  const bundle = { caBundle: pems.join(""), vouchers: vouchers.join("") };
  return { nodeId, certificate: certificatePem, ...bundle, ...(await deps.addresses()) };
}
