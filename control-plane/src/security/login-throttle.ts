import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

const freeFailures = 5;
const blockMaxSeconds = 900;
const forgetAfterMs = 60 * 60 * 1_000;

/** Who tries to sign in from where. An attacker elsewhere does not slow the owner down. */
export interface SignInAttempt {
  /** E-mail address, whether or not there is such a user. */
  readonly account: string;
  readonly address: string | undefined;
}

/** How long to wait after so many failures in a row: nothing for five, then doubling from 1 s to 15 min. */
export function blockSecondsAfter(failures: number): number {
  return failures < freeFailures ? 0 : Math.min(blockMaxSeconds, 2 ** (failures - freeFailures));
}

/**
 * Counts an attempt as failed before the password is looked at, so that attempts made at the same time cannot
 * slip past the limit together; `forgiveAttempts` takes it back after a success.
 *
 * @throws DomainError `rate-limited` TOO_MANY_SIGN_INS with the time to wait.
 */
export async function countAttempt(system: Queryable, attempt: SignInAttempt, now: Date): Promise<void> {
  const account = attempt.account.toLowerCase();
  const address = attempt.address ?? "unknown";
  // Only the locked row knows the count: the waits go along, and it picks the one of its count.
  const waits = Array.from({ length: freeFailures + 11 }, (_, failures) => blockSecondsAfter(failures + 1));
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
  const [row] = await system.query<{ blocked_until: Date | null }>(
    sql`SELECT blocked_until FROM login_throttles WHERE account = ${account} AND address = ${address}`,
  );
  const waitMs = (row?.blocked_until?.getTime() ?? now.getTime()) - now.getTime();
  throw new DomainError(
    "rate-limited",
    "TOO_MANY_SIGN_INS",
    "Too many failed attempts to sign in; wait before the next.",
    {
      retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1_000)),
    },
  );
}

/** Forgets the failures after a success. */
export async function forgiveAttempts(system: Queryable, attempt: SignInAttempt): Promise<void> {
  await system.execute(sql`
    DELETE FROM login_throttles WHERE account = ${attempt.account.toLowerCase()} AND address = ${attempt.address ?? "unknown"}`);
}
