import { newId } from "@cloudpods/shared/ids";
import type { Logger } from "pino";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { seal, unseal, type MasterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { makeAuthority, openAuthority, vouchFor, type SigningAuthority } from "./certificate-authority.ts";

/** The authority that signs, and every authority whose certificates count. */
export interface TrustedAuthorities {
  readonly active: SigningAuthority;
  /** All that are not retired, the active one first. */
  readonly all: readonly SigningAuthority[];
  /** PEM of each of them. */
  readonly pems: readonly string[];
}

/** Authorities that are always those of the database. */
export interface FollowedAuthorities extends TrustedAuthorities {
  /** Calls back when another one signs or when others are believed. */
  onChange(callback: () => void): void;
  stop(): void;
}

const sealedAs = "certificate authority";
/** Of advisory locks: the making of the first authority. */
const makingLock = 0x6361_0001;
/** A replica believes a new authority after that; no step of a rotation is taken before all of them do. */
const lookMs = 5_000;

/**
 * The fleet's authority; the first call of all replicas makes it, the others wait for it.
 * @throws Error when the stored key was sealed with another master key.
 */
export async function ensureCertificateAuthority(db: Database, master: MasterKey): Promise<TrustedAuthorities> {
  await db.transaction(async (tx) => {
    if (await hasActive(tx)) return;
    await tx.query(sql`SELECT pg_advisory_xact_lock(${makingLock})`);
    if (!(await hasActive(tx))) await storeAuthority(tx, master, "active", undefined);
  });
  return await readAuthorities(db, master);
}

/** Every authority that is not retired, opened. @throws Error when there is no active one, or it was sealed with another master key */
export async function readAuthorities(db: Queryable, master: MasterKey): Promise<TrustedAuthorities> {
  const rows = await db.query<{ id: string; pem: string; sealed: string; isActive: boolean }>(sql`
    SELECT id, pem, private_key_sealed AS sealed, state = 'active' AS "isActive" FROM certificate_authorities
    WHERE state <> 'retired' ORDER BY state = 'active' DESC, created_at`);
  const all = await Promise.all(
    rows.map(({ id, pem, sealed }) => openAuthority(id, pem, unseal(master, sealedAs, sealed))),
  );
  const [active] = all;
  if (active === undefined || rows[0]?.isActive !== true) throw new Error("there is no active certificate authority");
  return { active, all, pems: rows.map(({ pem }) => pem) };
}

/** The authorities, read again every few seconds: a rotation reaches replicas while they run. */
export async function followAuthorities(
  db: Database,
  master: MasterKey,
  log: Logger,
  pauseMs = lookMs,
): Promise<FollowedAuthorities> {
  const callbacks = new Set<() => void>();
  let current = await ensureCertificateAuthority(db, master);
  let isLooking = false;
  const look = async (): Promise<void> => {
    if (isLooking) return;
    isLooking = true;
    try {
      const found = await readAuthorities(db, master);
      if (isSame(found, current)) return;
      current = found;
      log.info({ active: found.active.id, believed: found.all.map(({ id }) => id) }, "certificate authorities changed");
      for (const callback of callbacks) callback();
    } catch (error) {
      log.warn({ err: error }, "cannot look at the certificate authorities");
    } finally {
      isLooking = false;
    }
  };
  const timer = setInterval(() => void look(), pauseMs);
  timer.unref();
  return {
    get active() {
      return current.active;
    },
    get all() {
      return current.all;
    },
    get pems() {
      return current.pems;
    },
    onChange: (callback) => void callbacks.add(callback),
    stop: () => clearInterval(timer),
  };
}

function isSame(a: TrustedAuthorities, b: TrustedAuthorities): boolean {
  return a.all.length === b.all.length && a.all.every(({ id }, index) => id === b.all[index]?.id);
}

/** PEM of every authority that is not retired, the signing one first. */
export async function readAuthorityPems(db: Queryable): Promise<string[]> {
  const rows = await db.query<{ pem: string }>(sql`
    SELECT pem FROM certificate_authorities WHERE state <> 'retired' ORDER BY state = 'active' DESC, created_at`);
  return rows.map((row) => row.pem);
}

/** PEM of certificates by which whoever knows one authority can believe the next, also long after the former is retired. */
export async function readVouchers(db: Queryable): Promise<string[]> {
  const rows = await db.query<{ pem: string }>(sql`
    SELECT vouched_pem AS pem FROM certificate_authorities WHERE vouched_pem IS NOT NULL ORDER BY created_at`);
  return rows.map((row) => row.pem);
}

async function hasActive(tx: Queryable): Promise<boolean> {
  return (await tx.query(sql`SELECT FROM certificate_authorities WHERE state = 'active'`)).length > 0;
}

/** Makes an authority. `voucher`: the one whose word the hosts that know it take for it. @returns its id */
export async function storeAuthority(
  tx: Transaction,
  master: MasterKey,
  state: "next" | "active",
  voucher: SigningAuthority | undefined,
): Promise<string> {
  const id = newId();
  const { certificate, privateKeyPem } = await makeAuthority(id, new Date());
  const vouched = voucher === undefined ? null : await vouchFor(voucher, certificate.pem);
  await tx.execute(sql`
    INSERT INTO certificate_authorities (id, pem, spki_sha256, private_key_sealed, state, not_before, not_after, vouched_pem, activated_at)
    VALUES (${id}, ${certificate.pem}, ${certificate.spkiSha256}, ${seal(master, sealedAs, privateKeyPem)}, ${state},
      ${certificate.notBefore}, ${certificate.notAfter}, ${vouched}, ${state === "active" ? new Date() : null})`);
  return id;
}
