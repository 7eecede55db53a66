import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Checks at the start that the tenants' login cannot see beyond its tenant: it is another login than the
 * owner's, is neither superuser nor exempt from row-level security, owns nothing, is a member of nothing, every
 * table with tenants' rows that it may read has row-level security, and without a tenant it sees no row.
 *
 * @throws Error naming every fault; the process must not serve then.
 */
export async function assertLoginsAreSafe(system: Database, api: Database): Promise<void> {
  const faults = [...(await faultsOfLogin(system, api)), ...(await faultsOfTables(api))];
  if (faults.length > 0) throw new Error(`the database login of tenants' requests is not safe: ${faults.join("; ")}`);
}

interface LoginRow {
  readonly name: string;
  readonly rolsuper: boolean;
  readonly rolbypassrls: boolean;
  readonly rolcreaterole: boolean;
  readonly owned: bigint;
  readonly member_of: string[] | null;
}

async function faultsOfLogin(system: Database, api: Database): Promise<string[]> {
  const [login] = await api.query<LoginRow>(sql`
    SELECT rolname::text AS name, rolsuper, rolbypassrls, rolcreaterole,
           (SELECT count(*) FROM pg_class WHERE relowner = r.oid) AS owned,
           (SELECT array_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = r.oid) AS member_of
      FROM pg_roles r WHERE rolname = current_user`);
  const [owner] = await system.query<{ name: string }>(sql`SELECT current_user::text AS name`);
  if (login === undefined || owner === undefined) return ["the catalogue does not know it"];
  return [
    ...(login.name === owner.name ? [`it is the owner's login ${owner.name}`] : []),
    ...(login.rolsuper ? ["it is a superuser"] : []),
    ...(login.rolbypassrls ? ["it has BYPASSRLS"] : []),
    ...(login.rolcreaterole ? ["it may create roles"] : []),
    ...(login.owned > 0n ? [`it owns ${login.owned} relations`] : []),
    ...(login.member_of === null ? [] : [`it is a member of ${login.member_of.join(", ")}`]),
  ];
}

async function faultsOfTables(api: Database): Promise<string[]> {
  const tables = await api.query<{ name: string; relrowsecurity: boolean }>(sql`
    SELECT c.relname::text AS name, c.relrowsecurity
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT')
       AND (c.relname = 'tenants'
            OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
     ORDER BY 1`);
  if (tables.length === 0) return ["it may read no table of tenants; are the migrations done?"];
  const open = tables
    .filter((table) => !table.relrowsecurity)
    .map((table) => `${table.name} has no row-level security`);
  // Names come from the catalogue, as identifiers of our own migrations; they cannot be parameters.
  const probes = tables.map(({ name }) => ({
    text: `SELECT '${name}' AS name WHERE EXISTS (SELECT FROM "${name}")`,
    values: [],
  }));
  const seen = await Promise.all(probes.map((probe) => api.query<{ name: string }>(probe)));
  return [...open, ...seen.flat().map(({ name }) => `without a tenant it sees rows of ${name}`)];
}
