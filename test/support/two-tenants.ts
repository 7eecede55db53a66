import { newId } from "@cloudpods/shared/ids";
import type { App } from "../../control-plane/src/http/trail.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { scopes, scopesOfRoles, type Scope } from "../../control-plane/src/security/scopes.ts";
import { newSecretToken } from "../../control-plane/src/security/secret-token.ts";
import { bearer, makeApiToken, makePerson, makeTenant, type Person } from "./people.ts";
import { makePod, type MadePod } from "./pods.ts";
import type { TestDatabase } from "./postgres.ts";

/** Headers that say who calls. */
export type Credential = Readonly<Record<string, string>>;

/** Two tenants, of which the one must never see or touch what the other has. */
export interface TwoTenants {
  readonly victim: {
    readonly tenantId: string;
    readonly owner: Person;
    readonly pod: MadePod;
    readonly tokenId: string;
    /** Of a threshold of his budget. */
    readonly alertId: string;
    /** Of his pod; it could be restored. */
    readonly backupId: string;
  };
  /** A new session of the other tenant's owner: routes under test end sessions. */
  attacker(): Promise<Credential>;
  readonly attackersTenantId: string;
  readonly operator: Person;
  /** Credentials that are worth nothing any more, by what has become of them. */
  readonly dead: Readonly<Record<string, Credential>>;
  /** The attacker's token with every scope but this one. */
  readonly tokenWithout: Readonly<Record<Scope, Credential>>;
  /** Of a user with the platform role, with every scope that he can give it but this one. */
  readonly platformTokenWithout: Readonly<Record<"OPERATOR" | "ADMINISTRATOR", Partial<Record<Scope, Credential>>>>;
  /** Everything that the victim has, as one text; changes when anything of it does. */
  stateOfVictim(): Promise<string>;
  /** Texts that no answer to the attacker may hold. */
  readonly victimsMarks: readonly string[];
}

/** Makes the two tenants by the public doors, and the victim's pod in the database. */
export async function makeTwoTenants(db: TestDatabase, app: App): Promise<TwoTenants> {
  const [victimTenant, attackerTenant] = [await makeTenant(db, "victim-co"), await makeTenant(db, "attacker-co")];
  const owner = await makePerson(db, app, { tenants: { [victimTenant]: "owner" } });
  const attacker = await makePerson(db, app, { tenants: { [attackerTenant]: "owner" } });
  const operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  const pod = await makePod(db, victimTenant, { hostname: "victims-pod" });
  const token = await makeApiToken(app, owner, { scopes: ["READ"] });
  const alertId = newId();
  await db.system.execute(sql`
    INSERT INTO cloud_pod_budget_alerts
      (id, tenant_id, year_month, threshold, current_spend_amount, budget_limit_amount, currency, percent_used)
    VALUES (${alertId}, ${victimTenant}, '2026-01', 50, 5, 10, 'USD', 50.0)`);
  const backupId = await makeBackup(db, pod.id);
  return {
    victim: { tenantId: victimTenant, owner, pod, tokenId: token.id, alertId, backupId },
    attacker: () => openSession(db, attacker.userId),
    attackersTenantId: attackerTenant,
    operator,
    dead: await makeDeadCredentials(db, app, attackerTenant),
    tokenWithout: await tokensWithout(app, attacker),
    platformTokenWithout: await platformTokensWithout(db, app, attackerTenant, operator),
    stateOfVictim: () => stateOf(db, victimTenant, owner.userId),
    victimsMarks: [
      victimTenant,
      "victim-co",
      "victims-pod",
      pod.id,
      pod.taskId,
      token.id,
      alertId,
      backupId,
      owner.userId,
      owner.email,
      owner.sessionId,
    ],
  };
}

/** A backup on a storage of a host that is otherwise in no one's way. */
async function makeBackup(db: TestDatabase, podId: string): Promise<string> {
  const [id, nodeId, storageId] = [newId(), newId(), newId()];
  await db.system.transaction(async (tx) => {
    await tx.execute(
      sql`INSERT INTO nodes (id, name, region, schedulable) VALUES (${nodeId}, 'backup-host', 'elsewhere', false)`,
    );
    await tx.execute(sql`
      INSERT INTO storages (id, node_id, name, type, holds_root_disks, holds_backups, total_gb)
      VALUES (${storageId}, ${nodeId}, 'backups', 'dir', false, true, 100)`);
    await tx.execute(sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${nodeId}, ${storageId})`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at)
      SELECT ${id}, tenant_id, id, ${nodeId}, ${storageId}, 'backups', 'manual', 'stop', 'available', 'backups:backup/victims.tar.zst', generation, vmid,
        jsonb_build_object('hostname', hostname, 'cores', cores, 'memoryMb', memory_mb, 'swapMb', swap_mb, 'diskGb', disk_gb, 'template', 'ct:9000', 'planCode', plan_code),
        now() FROM cloud_pods WHERE id = ${podId}`);
  });
  return id;
}

async function tokensWithout(app: App, person: Person): Promise<Record<Scope, Credential>> {
  const without = async (scope: Scope) =>
    (await makeApiToken(app, person, { scopes: scopes.filter((other) => other !== scope) })).headers;
  return {
    READ: await without("READ"),
    WRITE: await without("WRITE"),
    ADMIN: await without("ADMIN"),
    BILLING: await without("BILLING"),
    PROVISIONING: await without("PROVISIONING"),
    SECURITY: await without("SECURITY"),
  };
}

async function platformTokensWithout(db: TestDatabase, app: App, tenantId: string, operator: Person) {
  const administrator = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
  const token = async (person: Person, held: ReadonlySet<Scope>, missing: Scope) =>
    (await makeApiToken(app, person, { tenantId, scopes: [...held].filter((scope) => scope !== missing) })).headers;
  const [ofOperator, ofAdministrator] = [scopesOfRoles("OPERATOR", undefined), new Set(scopes)];
  return {
    OPERATOR: {
      READ: await token(operator, ofOperator, "READ"),
      WRITE: await token(operator, ofOperator, "WRITE"),
    },
    ADMINISTRATOR: {
      READ: await token(administrator, ofAdministrator, "READ"),
      ADMIN: await token(administrator, ofAdministrator, "ADMIN"),
    },
  };
}

async function openSession(db: TestDatabase, userId: string): Promise<Credential> {
  const { secret, sha256 } = newSecretToken();
  await db.system.execute(sql`
    INSERT INTO sessions (id, user_id, token_sha256, idle_expires_at, expires_at)
    VALUES (${newId()}, ${userId}, ${sha256}, now() + interval '1 hour', now() + interval '1 hour')`);
  return bearer(secret);
}

async function makeDeadCredentials(db: TestDatabase, app: App, tenantId: string): Promise<Record<string, Credential>> {
  const [idle, old, revoked, holder] = await Promise.all(
    [0, 1, 2, 3].map(() => makePerson(db, app, { tenants: { [tenantId]: "owner" } })),
  );
  if (idle === undefined || old === undefined || revoked === undefined || holder === undefined)
    throw new Error("four people");
  const [expiredToken, revokedToken] = [
    await makeApiToken(app, holder, { scopes }),
    await makeApiToken(app, holder, { scopes }),
  ];
  await db.system.execute(
    sql`UPDATE sessions SET idle_expires_at = now() - interval '1 second' WHERE id = ${idle.sessionId}`,
  );
  await db.system.execute(
    sql`UPDATE sessions SET expires_at = now() - interval '1 second' WHERE id = ${old.sessionId}`,
  );
  await db.system.execute(sql`UPDATE sessions SET revoked_at = now() WHERE id = ${revoked.sessionId}`);
  await db.system.execute(
    sql`UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE id = ${expiredToken.id}`,
  );
  await db.system.execute(sql`UPDATE api_tokens SET revoked_at = now() WHERE id = ${revokedToken.id}`);
  return {
    "no credential": {},
    "an idle session": idle.headers,
    "an old session": old.headers,
    "a revoked session": revoked.headers,
    "an expired token": expiredToken.headers,
    "a revoked token": revokedToken.headers,
    "an invented session": bearer("0".repeat(64)),
    "an invented token": bearer(`cpt_${"0".repeat(64)}`),
    rubbish: bearer("rubbish"),
    "an expired session in the cookie": { cookie: `cloudpods_session=${idle.token}` },
  };
}

/** Every row that names the tenant, in every table that can, and the owner's own. */
async function stateOf(db: TestDatabase, tenantId: string, userId: string): Promise<string> {
  const tables = await db.system.query<{ name: string }>(sql`
    SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND a.attname = 'tenant_id' AND NOT a.attisdropped ORDER BY 1`);
  const hashes = await Promise.all(
    tables.map(({ name }) =>
      // The name comes from the catalogue and cannot be a parameter.
      db.system.query({
        text: `SELECT '${name}' AS name, md5(string_agg(t::text, '|' ORDER BY t::text)) FROM "${name}" t WHERE tenant_id = $1`,
        values: [tenantId],
      }),
    ),
  );
  const own = await db.system.query(sql`
    SELECT t::text FROM tenants t WHERE id = ${tenantId} UNION ALL SELECT u::text FROM users u WHERE id = ${userId}
    UNION ALL SELECT id || coalesce(revoked_at::text, '') FROM sessions WHERE user_id = ${userId}`);
  return JSON.stringify([hashes, own]);
}
