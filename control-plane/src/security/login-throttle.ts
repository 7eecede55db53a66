import { isIPv6 } from "node:net";
import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** How many failures cost nothing, and how long the wait grows after that. */
interface Limit {
  readonly freeFailures: number;
  readonly blockMaxSeconds: number;
}

const accountLimit: Limit = { freeFailures: 5, blockMaxSeconds: 900 };
/** Soft, because many people may sit behind one address: guessing goes on at some sixty an hour. */
const addressLimit: Limit = { freeFailures: 100, blockMaxSeconds: 60 };
/** Stands for all accounts; no e-mail address is like that. */
const allAccounts = "*";
const forgetAfterMs = 60 * 60 * 1_000;

/** Who tries to sign in from where. An attacker elsewhere does not slow the owner down. */
export interface SignInAttempt {
  /** E-mail address, whether or not there is such a user. */
  readonly account: string;
  readonly address: string | undefined;
}

/** How long to wait after so many failures in a row: nothing at first, then doubling from 1 s to the limit's most. */
export function blockSecondsAfter(failures: number, limit: Limit = accountLimit): number {
  return failures < limit.freeFailures ? 0 : Math.min(limit.blockMaxSeconds, 2 ** (failures - limit.freeFailures));
}

/**
 * What counts as one address: of IPv6 the /64, since whoever has one address of a network has 2^64 (RFC 4291, 2.5.4:
 * the interface identifier is the lower half).
 */
export function throttledAddress(address: string | undefined): string {
  const plain = address?.replace(/%.*$/, "") ?? "unknown";
  if (!isIPv6(plain)) return plain;
  // The URL parser writes IPv6 in one form only, without a dotted part (https://url.spec.whatwg.org/#concept-ipv6-serializer).
  const [head = "", tail] = new URL(`http://[${plain}]/`).hostname.slice(1, -1).split("::");
  const [front, back] = [head, tail ?? ""].map((part) => (part === "" ? [] : part.split(":")));
  const gap = tail === undefined ? 0 : 8 - (front?.length ?? 0) - (back?.length ?? 0);
  const groups = [...(front ?? []), ...Array<string>(gap).fill("0"), ...(back ?? [])];
  return `${groups.slice(0, 4).join(":")}::/64`;
}

/**
 * Counts an attempt as failed before the password is looked at, so that attempts made at the same time cannot
 * slip past the limit together; `forgiveAttempts` takes it back after a success. Failures of an account count
 * where they come from, and those of all accounts together with a far higher limit.
 *
 * @throws DomainError `rate-limited` TOO_MANY_SIGN_INS with the time to wait.
 */
export async function countAttempt(system: Queryable, attempt: SignInAttempt, now: Date): Promise<void> {
  const address = throttledAddress(attempt.address);
  // Whoever has to wait because of others at his address shall not pay with failures of his own account.
  if (attempt.address !== undefined) await refuseBlocked(system, { account: allAccounts, address }, now);
  await countAt(system, { account: attempt.account.toLowerCase(), address }, accountLimit, now);
  if (attempt.address !== undefined) await countAt(system, { account: allAccounts, address }, addressLimit, now);
}

interface ThrottleKey {
  readonly account: string;
  readonly address: string;
}

async function countAt(system: Queryable, key: ThrottleKey, limit: Limit, now: Date): Promise<void> {
  const { account, address } = key;
  // Only the locked row knows the count: the waits go along, and it picks the one of its count.
  const waits = Array.from({ length: limit.freeFailures + 11 }, (_, failures) =>
    blockSecondsAfter(failures + 1, limit),
  );
  const longAgo = new Date(now.getTime() - forgetAfterMs);
  const counted = await system.execute(sql`
    INSERT INTO login_throttles AS t (account, address, failures, updated_at) VALUES (${account}, ${address}, 1, ${now})
    ON CONFLICT (account, address) DO UPDATE
      SET failures = CASE WHEN t.updated_at < ${longAgo} THEN 1 ELSE t.failures + 1 END,
          blocked_until = CASE WHEN t.updated_at < ${longAgo} THEN NULL
            ELSE ${now}::timestamptz + make_interval(secs => (${waits}::int[])[least(t.failures + 1, ${waits.length})]) END,
          updated_at = ${now}
      WHERE t.blocked_until IS NULL OR t.blocked_until <= ${now}`);
  if (counted === 1) return;
  await refuseBlocked(system, key, now);
  // The block ended between the two statements.
  throw tooMany(1);
}

async function refuseBlocked(system: Queryable, { account, address }: ThrottleKey, now: Date): Promise<void> {
  const [row] = await system.query<{ until: Date }>(sql`
    SELECT blocked_until AS until FROM login_throttles
    WHERE account = ${account} AND address = ${address} AND blocked_until > ${now}`);
  if (row !== undefined) throw tooMany(Math.ceil((row.until.getTime() - now.getTime()) / 1_000));
}

function tooMany(retryAfterSeconds: number): DomainError {
  return new DomainError(
    "rate-limited",
    "TOO_MANY_SIGN_INS",
    "Too many failed attempts to sign in; wait before the next.",
    { retryAfterSeconds: Math.max(1, retryAfterSeconds) },
  );
}

/**
 * Forgets the failures of the account after a success; of the address only this attempt, because an attacker
 * with an account of his own could wipe out the others.
 */
export async function forgiveAttempts(system: Queryable, attempt: SignInAttempt): Promise<void> {
  const address = throttledAddress(attempt.address);
  await system.execute(sql`
    DELETE FROM login_throttles WHERE account = ${attempt.account.toLowerCase()} AND address = ${address}`);
  await system.execute(sql`
    UPDATE login_throttles SET failures = greatest(0, failures - 1), blocked_until = NULL
    WHERE account = ${allAccounts} AND address = ${address}`);
}
