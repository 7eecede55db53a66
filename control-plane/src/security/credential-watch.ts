import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Caller } from "./actor.ts";
import type { PlatformRole, TenantRole } from "./scopes.ts";

// A revoked credential must lose its open streams within a second.
const checkEveryMs = 500;

/** Who has a stream open, and where he acts; undefined where the route acts in no tenant. */
export interface Listener {
  readonly caller: Caller;
  readonly tenantId: string | undefined;
}

/** Watches the credentials and roles by which streams are open. */
export interface CredentialWatch {
  /**
   * Calls `ended` once when the credential is revoked or has expired, or its user is switched off or has another
   * role than when the stream was opened. Returns the way to stop.
   */
  watch(listener: Listener, ended: () => void): () => void;
}

interface Watched {
  readonly listener: Listener;
  readonly ended: () => void;
}

/** What holds of a credential that is still good. */
interface Standing {
  readonly id: string;
  readonly platformRole: PlatformRole;
  /** By the id of the tenant. */
  readonly roles: Readonly<Record<string, TenantRole>>;
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
    const ids = asked.map(({ listener }) => listener.caller.credential.id);
    const standings = await standingsOf(system, ids, clock()).catch(() => undefined);
    if (standings !== undefined) {
      for (const entry of asked) {
        const standing = standings.get(entry.listener.caller.credential.id);
        if (isUnchanged(entry.listener, standing) || !watched.delete(entry)) continue;
        entry.ended();
      }
    }
    timer = watched.size === 0 ? undefined : schedule();
  }

  function schedule(): NodeJS.Timeout {
    return setTimeout(() => void check(), checkEveryMs).unref();
  }

  return {
    watch(listener, ended) {
      const entry = { listener, ended };
      watched.add(entry);
      timer ??= schedule();
      return () => void watched.delete(entry);
    },
  };
}

function isUnchanged({ caller, tenantId }: Listener, standing: Standing | undefined): boolean {
  if (standing?.platformRole !== caller.platformRole) return false;
  if (tenantId === undefined) return true;
  const role = caller.memberships.find((membership) => membership.tenantId === tenantId)?.role;
  return standing.roles[tenantId] === role;
}

async function standingsOf(
  system: Database,
  ids: readonly string[],
  now: Date,
): Promise<ReadonlyMap<string, Standing>> {
  const rows = await system.query<Standing>(sql`
    WITH valid AS (
      SELECT id, user_id FROM sessions
       WHERE id = ANY(${ids}) AND revoked_at IS NULL AND expires_at > ${now} AND idle_expires_at > ${now}
      UNION ALL
      SELECT id, user_id FROM api_tokens
       WHERE id = ANY(${ids}) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${now}))
    SELECT v.id, u.platform_role AS "platformRole",
           coalesce((SELECT jsonb_object_agg(m.tenant_id, m.role) FROM memberships m WHERE m.user_id = u.id), '{}') AS roles
      FROM valid v JOIN users u ON u.id = v.user_id WHERE u.is_active`);
  return new Map(rows.map((row) => [row.id, row]));
}
