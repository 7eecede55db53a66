import { createHash } from "node:crypto";
import { DomainError } from "@cloudpods/shared/errors";
import { sqlState, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { AnswerHeaders } from "./route-table.ts";

/** What a key is unique for, and the request that it stands for. */
export interface IdempotentRequest {
  /** The nil UUID for routes that act in no tenant. */
  readonly tenantId: string;
  /** The caller: another user or token may use the same key for something else. */
  readonly principal: string;
  readonly route: string;
  readonly key: string;
  readonly bodySha256: Buffer;
}

/** An answer as it is sent and kept. */
export interface StoredAnswer {
  readonly status: number;
  /** JSON; undefined: no body. */
  readonly text: string | undefined;
  readonly headers: AnswerHeaders;
}

const waitMs = 2_000;
const lockNotAvailable = "55P03";

/** Tenant part of the keys of routes that act in no tenant. */
export const noTenantId = "00000000-0000-0000-0000-000000000000";

/**
 * The key of a request.
 * @throws DomainError `invalid` IDEMPOTENCY_KEY_INVALID.
 */
export function parseIdempotencyKey(header: string | undefined): string | undefined {
  if (header === undefined || /^[\x21-\x7e]{1,255}$/.test(header)) return header;
  throw new DomainError(
    "invalid",
    "IDEMPOTENCY_KEY_INVALID",
    "Idempotency-Key must be 1 to 255 visible ASCII characters.",
  );
}

/** Fingerprint of a request: its validated parts, so that spacing and the order of members do not matter. */
export function fingerprintOf(validatedJson: string): Buffer {
  return createHash("sha256").update(validatedJson).digest();
}

/**
 * Claims the key as the first statement of the effect's transaction; a key older than a day is free again.
 * Gives the stored answer when the request has been done before. A request with the same key that is under
 * way is waited for, at most 2 s.
 *
 * @throws DomainError `conflict` IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_RESULT_NOT_REPLAYABLE.
 */
export async function claimKey(tx: Transaction, request: IdempotentRequest): Promise<StoredAnswer | undefined> {
  const { tenantId, principal, route, key, bodySha256 } = request;
  try {
    // Queued without waiting, so that all share one network flight with BEGIN.
    const [, claimed] = await Promise.all([
      tx.query(sql`SELECT set_config('lock_timeout', ${`${waitMs}ms`}, true)`),
      tx.execute(sql`
        INSERT INTO idempotency_keys (tenant_id, principal, route, key, body_sha256)
        VALUES (${tenantId}, ${principal}, ${route}, ${key}, ${bodySha256})
        ON CONFLICT (tenant_id, principal, route, key) DO UPDATE
          SET body_sha256 = excluded.body_sha256, status = NULL, response = NULL, unreplayable_id = NULL, created_at = now()
          WHERE idempotency_keys.created_at < now() - interval '24 hours'`),
      tx.query(sql`SELECT set_config('lock_timeout', '0', true)`),
    ]);
    if (claimed === 1) return undefined;
  } catch (error) {
    if (sqlState(error) !== lockNotAvailable) throw error;
    throw new DomainError(
      "conflict",
      "IDEMPOTENCY_IN_PROGRESS",
      "A request with this Idempotency-Key is still under way.",
      {
        retryAfterSeconds: 1,
      },
    );
  }
  return await storedAnswer(tx, request);
}

interface KeyRow {
  readonly body_sha256: Buffer;
  readonly status: number;
  readonly response: { text?: string; headers: AnswerHeaders } | null;
  readonly unreplayable_id: string | null;
}

async function storedAnswer(tx: Transaction, request: IdempotentRequest): Promise<StoredAnswer> {
  const [row] = await tx.query<KeyRow>(sql`
    SELECT body_sha256, status, response, unreplayable_id FROM idempotency_keys
     WHERE tenant_id = ${request.tenantId} AND principal = ${request.principal} AND route = ${request.route} AND key = ${request.key}`);
  if (row === undefined) throw new Error("an idempotency key conflicted and is not there");
  if (!row.body_sha256.equals(request.bodySha256)) {
    throw new DomainError("conflict", "IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key was used for another request.");
  }
  if (row.response === null) {
    throw new DomainError(
      "conflict",
      "IDEMPOTENCY_RESULT_NOT_REPLAYABLE",
      "This request was done before; its answer had a secret that is shown only once.",
      { details: { id: row.unreplayable_id } },
    );
  }
  return { status: row.status, text: row.response.text, headers: row.response.headers };
}

/**
 * Keeps the answer, as the last statement of the effect's transaction. With `unreplayableId` only the id of
 * what was made is kept: the answer has a secret that must not lie in clear for a day.
 */
export async function storeAnswer(
  tx: Transaction,
  request: IdempotentRequest,
  answer: StoredAnswer,
  unreplayableId: string | undefined,
): Promise<void> {
  const response = unreplayableId === undefined ? JSON.stringify({ text: answer.text, headers: answer.headers }) : null;
  await tx.execute(sql`
    UPDATE idempotency_keys SET status = ${answer.status}, response = ${response}, unreplayable_id = ${unreplayableId ?? null}
     WHERE tenant_id = ${request.tenantId} AND principal = ${request.principal} AND route = ${request.route} AND key = ${request.key}`);
}
