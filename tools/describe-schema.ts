import type { Queryable } from "../control-plane/src/platform/database.ts";
import { sql } from "../control-plane/src/platform/sql.ts";

/**
 * The schema as text: tables with columns, options, constraints, indexes, triggers, policies, grants, and views,
 * functions and sequences, in an order that does not depend on how it came about. From the catalogue of
 * the server itself, because a dump program of the right version is not at hand everywhere.
 */
export async function describeSchema(db: Queryable): Promise<string> {
  const sections = await Promise.all([tables(db), others(db)]);
  return `-- Written by npm run schema from the migrations; read it, do not edit it.\n\n${sections.join("\n")}`;
}

async function tables(db: Queryable): Promise<string> {
  const rows = await db.query<{ name: string; kind: string; secured: boolean; options: string }>(sql`
    SELECT c.relname AS name, c.relrowsecurity AS secured, coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '') AS options,
      CASE WHEN c.relkind = 'p' THEN ' PARTITION BY ' || pg_get_partkeydef(c.oid) WHEN c.relpersistence = 'u' THEN ' UNLOGGED' ELSE '' END AS kind
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relname <> 'schema_migrations' ORDER BY c.relname`);
  const parts: string[] = [];
  for (const table of rows) {
    const lines = [...(await columns(db, table.name)), ...(await constraints(db, table.name))].map(
      (line) => `  ${line}`,
    );
    const after = [
      ...(await indexes(db, table.name)),
      ...(await triggers(db, table.name)),
      ...(await policies(db, table.name)),
      ...(await grants(db, table.name)),
    ];
    parts.push(
      [
        `TABLE ${table.name}${table.kind}${table.secured ? " ROW LEVEL SECURITY" : ""} (`,
        ...lines,
        `)${table.options}`,
        ...after,
        "",
      ].join("\n"),
    );
  }
  return parts.join("\n");
}

async function lines(rows: Promise<{ line: string }[]>): Promise<string[]> {
  return (await rows).map((row) => row.line);
}

async function columns(db: Queryable, table: string): Promise<string[]> {
  return await lines(
    db.query(sql`
      SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
        || CASE a.attidentity WHEN 'a' THEN ' IDENTITY ALWAYS' WHEN 'd' THEN ' IDENTITY' ELSE '' END
        || CASE WHEN a.attgenerated <> '' THEN ' GENERATED AS ' ELSE coalesce(' DEFAULT ' || CASE WHEN d.oid IS NULL THEN NULL ELSE '' END, '') END
        || coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS line
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = ${table}::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`),
  );
}

async function constraints(db: Queryable, table: string): Promise<string[]> {
  return await lines(
    db.query(sql`
      SELECT 'CONSTRAINT ' || conname || ' ' || pg_get_constraintdef(oid) AS line FROM pg_constraint
      WHERE conrelid = ${table}::regclass AND contype <> 'n' ORDER BY conname`),
  );
}

async function indexes(db: Queryable, table: string): Promise<string[]> {
  return await lines(
    db.query(sql`
      SELECT pg_get_indexdef(i.indexrelid) AS line FROM pg_index i
      WHERE i.indrelid = ${table}::regclass AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x'))
      ORDER BY 1`),
  );
}

async function triggers(db: Queryable, table: string): Promise<string[]> {
  return await lines(
    db.query(
      sql`SELECT pg_get_triggerdef(oid) AS line FROM pg_trigger WHERE tgrelid = ${table}::regclass AND NOT tgisinternal ORDER BY tgname`,
    ),
  );
}

async function policies(db: Queryable, table: string): Promise<string[]> {
  return await lines(
    db.query(sql`
      SELECT 'POLICY ' || policyname || ' TO ' || array_to_string(roles, ', ') || ' USING ' || coalesce(qual, '') || coalesce(' CHECK ' || with_check, '') AS line
      FROM pg_policies WHERE tablename = ${table} ORDER BY policyname`),
  );
}

async function grants(db: Queryable, table: string): Promise<string[]> {
  return await lines(
    db.query(sql`
      SELECT 'GRANT ' || string_agg(privilege, ', ' ORDER BY privilege) || ' TO cloudpods_api' AS line FROM (
        SELECT acl.privilege_type AS privilege FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = ${table}::regclass AND acl.grantee = 'cloudpods_api'::regrole
        UNION ALL
        SELECT acl.privilege_type || ' (' || string_agg(a.attname, ', ' ORDER BY a.attnum) || ')' FROM pg_attribute a, aclexplode(a.attacl) acl
        WHERE a.attrelid = ${table}::regclass AND acl.grantee = 'cloudpods_api'::regrole GROUP BY acl.privilege_type) given
      HAVING count(*) > 0`),
  );
}

async function others(db: Queryable): Promise<string> {
  const rows = await lines(
    db.query(sql`
      SELECT line FROM (
        SELECT 'VIEW ' || c.relname || coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '') || ' AS' || E'\n' || pg_get_viewdef(c.oid) AS line
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
        UNION ALL
        SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
        UNION ALL
        SELECT 'SEQUENCE ' || sequencename || ' FROM ' || start_value || ' TO ' || max_value FROM pg_sequences WHERE schemaname = 'public'
          AND sequencename NOT LIKE '%\\_no_seq' AND sequencename NOT LIKE '%\\_id_seq') found
      ORDER BY line`),
  );
  return `${rows.map((row) => row.trimEnd()).join("\n\n")}\n`;
}
