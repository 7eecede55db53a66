import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { commandLine } from "../tenancy/author.ts";
import { issueServerCertificate, makeRevocationList } from "./certificate-authority.ts";
import type { TrustedAuthorities } from "./ensure-certificate-authority.ts";

const yearMs = 365 * 86_400_000;

/**
 * Files that a broker of somebody else needs, by name. The certificate lasts a year and makes its holder the
 * broker to every host, so the audit log keeps that it was made.
 */
export async function externalBrokerFiles(
  db: Queryable,
  authorities: TrustedAuthorities,
  names: readonly string[],
  now: Date,
): Promise<Readonly<Record<"ca.pem" | "cert.pem" | "key.pem" | "crl.pem", string>>> {
  const certificate = await issueServerCertificate(authorities.active, names, now, yearMs);
  await recordAudit(db, {
    actor: commandLine.actor,
    requestId: commandLine.requestId,
    tenantId: undefined,
    action: "broker-certificate.issue",
    targetType: "broker-certificate",
    targetId: certificate.serial,
    detail: { names, notAfter: certificate.notAfter },
  });
  return {
    "ca.pem": authorities.pems.join(""),
    "cert.pem": certificate.pem,
    "key.pem": certificate.privateKeyPem,
    "crl.pem": await revocationList(db, authorities, now),
  };
}

/** PEM, one list for each authority that is believed, of the certificates of hosts that were removed or replaced and have not expired. */
export async function revocationList(db: Queryable, authorities: TrustedAuthorities, now: Date): Promise<string> {
  const revoked = await db.query<{ serial: string; revokedAt: Date; authorityId: string | null }>(sql`
    SELECT serial, revoked_at AS "revokedAt", authority_id AS "authorityId" FROM node_certificates
    WHERE revoked_at IS NOT NULL AND not_after > ${now} ORDER BY revoked_at`);
  const lists = authorities.all.map((authority) => {
    const own = revoked.filter(({ authorityId }) => (authorityId ?? authorities.active.id) === authority.id);
    return makeRevocationList(authority, own, now);
  });
  return (await Promise.all(lists)).join("");
}
