import { newId } from "@cloudpods/shared/ids";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { seal, unseal, type MasterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { makeAuthority, openAuthority, type SigningAuthority } from "./certificate-authority.ts";

/** The authority that signs, and every authority whose certificates count. */
export interface TrustedAuthorities {
  readonly active: SigningAuthority;
  /** PEM of every authority that is not retired. */
  readonly pems: readonly string[];
}

const sealedAs = "certificate authority";
/** Of advisory locks: the making of the first authority. */
const makingLock = 0x6361_0001;

/**
 * The fleet's authority; the first call of all replicas makes it, the others wait for it.
 * @throws Error when the stored key was sealed with another master key.
 */
export async function ensureCertificateAuthority(db: Database, master: MasterKey): Promise<TrustedAuthorities> {
  return await db.transaction(async (tx) => {
    const known = await readActive(tx);
    if (known === undefined) {
      await tx.query(sql`SELECT pg_advisory_xact_lock(${makingLock})`);
      if ((await readActive(tx)) === undefined) await storeNewAuthority(tx, master);
    }
    const active = known ?? (await readActive(tx));
    if (active === undefined) throw new Error("the certificate authority that was just made is not there");
    return {
      active: await openAuthority(active.id, active.pem, unseal(master, sealedAs, active.sealed)),
      pems: await readAuthorityPems(tx),
    };
  });
}

/** PEM of every authority that is not retired, the signing one first. */
export async function readAuthorityPems(db: Queryable): Promise<string[]> {
  const rows = await db.query<{ pem: string }>(sql`
    SELECT pem FROM certificate_authorities WHERE state <> 'retired' ORDER BY state, created_at`);
  return rows.map((row) => row.pem);
}

async function readActive(tx: Queryable): Promise<{ id: string; pem: string; sealed: string } | undefined> {
  const [row] = await tx.query<{ id: string; pem: string; sealed: string }>(sql`
    SELECT id, pem, private_key_sealed AS sealed FROM certificate_authorities WHERE state = 'active'`);
  return row;
}

async function storeNewAuthority(tx: Transaction, master: MasterKey): Promise<void> {
  const id = newId();
  const { certificate, privateKeyPem } = await makeAuthority(id, new Date());
  await tx.execute(sql`
    INSERT INTO certificate_authorities (id, pem, spki_sha256, private_key_sealed, state, not_before, not_after)
    VALUES (${id}, ${certificate.pem}, ${certificate.spkiSha256}, ${seal(master, sealedAs, privateKeyPem)}, 'active',
      ${certificate.notBefore}, ${certificate.notAfter})`);
}
