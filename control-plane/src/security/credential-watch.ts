import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Credential } from "./actor.ts";

// A revoked credential must lose its open streams within a second.
const checkEveryMs = 500;

/** Watches the credentials of open streams. */
export interface CredentialWatch {
  /** Calls `ended` once when the credential is revoked, has expired or its user is switched off. Returns the way to stop. */
  watch(credential: Credential, ended: () => void): () => void;
}

interface Watched {
  readonly credential: Credential;
  readonly ended: () => void;
}

/**
 * One question to the database for all open streams together, twice a second and only while there are any.
 * While the database does not answer, streams stay open: they have nothing to send then either.
 */
export function createCredentialWatch(system: Database, clock: () => Date): CredentialWatch {
  const watched = new Set<Watched>();
  let timer: NodeJS.Timeout | undefined;

  async function check(): Promise<void> {
    const asked = [...watched];
    const valid = await validIds(
      system,
      asked.map((entry) => entry.credential.id),
      clock(),
    ).catch(() => undefined);
    if (valid !== undefined) {
      for (const entry of asked) {
        if (valid.has(entry.credential.id) || !watched.delete(entry)) continue;
        entry.ended();
      }
    }
    timer = watched.size === 0 ? undefined : schedule();
  }

  function schedule(): NodeJS.Timeout {
    return setTimeout(() => void check(), checkEveryMs).unref();
  }

  return {
    watch(credential, ended) {
      const entry = { credential, ended };
      watched.add(entry);
      timer ??= schedule();
      return () => void watched.delete(entry);
    },
  };
}

async function validIds(system: Database, ids: readonly string[], now: Date): Promise<ReadonlySet<string>> {
  const rows = await system.query<{ id: string }>(sql`
    SELECT s.id FROM sessions s JOIN users u ON u.id = s.user_id
     WHERE s.id = ANY(${ids}) AND s.revoked_at IS NULL AND s.expires_at > ${now} AND s.idle_expires_at > ${now} AND u.is_active
    UNION ALL
    SELECT t.id FROM api_tokens t JOIN users u ON u.id = t.user_id
     WHERE t.id = ANY(${ids}) AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ${now}) AND u.is_active`);
  return new Set(rows.map((row) => row.id));
}
