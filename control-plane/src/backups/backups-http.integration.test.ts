import { ContainerObservation, Inventory } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { makeApiToken } from "../../../test/support/people.ts";
import { PodsOverHttp } from "../../../test/support/pods-over-http.ts";
import { keepInventory } from "../nodes/latest-inventory.ts";
import { sql } from "../platform/sql.ts";
import type { Scope } from "../security/scopes.ts";
import { followPlans } from "./plan-backup-rules.ts";

const bench = new PodsOverHttp();

const code = (sent: { json: unknown }) => (sent.json as { error?: string }).error;

describe("the rules of a pod's backups", () => {
  test("are shown, changed by version within the plan, and given back to the plan", async () => {
    const pod = await bench.running();
    const path = `/${pod.id}/backup-policy`;
    const shown = await bench.ask(bench.customer, "GET", path);
    expect(shown.json).toMatchObject({ enabled: true, everyHours: 24, keepLast: 2, source: "plan", version: 1 });
    expect(shown.json).toMatchObject({ nextAt: expect.any(String) });
    expect(shown.headers.get("etag")).toBe('"1"');
    const put = (body: object, version: number) =>
      bench.ask(bench.customer, "PUT", path, body, { "if-match": `"${version}"` });
    expect((await put({ everyHours: 48 }, 7)).status).toBe(412);
    const changed = await put({ everyHours: 48, keepLast: 1 }, 1);
    expect(changed.json).toMatchObject({
      everyHours: 48,
      keepLast: 1,
      source: "tenant",
      version: 2,
      lastSuccessAt: null,
    });
    const beyond = await put({ everyHours: 6 }, 2);
    expect([beyond.status, code(beyond)]).toEqual([422, "BACKUP_POLICY_BEYOND_PLAN"]);
    expect(beyond.json).toMatchObject({ errors: [{ pointer: "/everyHours" }] });
    expect((await put({}, 2)).json).toMatchObject({ everyHours: 24, keepLast: 2, source: "plan", version: 3 });
  });

  test("which let archives go, need the scope that deleting one needs", async () => {
    const pod = await bench.running();
    const put = async (scopes: readonly Scope[]) => {
      const { headers } = await makeApiToken(bench.app, bench.customer, { scopes });
      const answer = await bench.ask({ ...bench.customer, headers }, "PUT", `/${pod.id}/backup-policy`, {
        keepLast: 1,
      });
      return [answer.status, code(answer)];
    };
    expect(await put(["READ", "WRITE"])).toEqual([403, "SCOPE_MISSING"]);
    expect(await put(["READ", "PROVISIONING"])).toEqual([200, undefined]);
  });

  test("can be chosen with the order, or not at all", async () => {
    const pod = await bench.running({ backup: { enabled: false } });
    const shown = await bench.ask(bench.customer, "GET", `/${pod.id}/backup-policy`);
    expect(shown.json).toMatchObject({ enabled: false, source: "tenant", nextAt: null });
    const order = { planCode: "STARTER", hostname: "shop", backup: { keepWeekly: 50 } };
    const refused = await bench.ask(bench.customer, "POST", "/order", order);
    expect([refused.status, code(refused)]).toEqual([422, "BACKUP_POLICY_BEYOND_PLAN"]);
  });

  test("follow those of the plan, which administrators change by version", async () => {
    const pod = await bench.running();
    const own = await bench.running();
    const admin = await bench.person({ platformRole: "ADMINISTRATOR" });
    const plan = "/plans/CLOUD_POD_STARTER/backup-policy";
    const before = await bench.ask(bench.customer, "GET", plan);
    expect(before.json).toMatchObject({ planCode: "CLOUD_POD_STARTER", enabled: true, everyHours: 24, keepLast: 2 });
    const put = (who: typeof admin, body: object, etag = before.headers.get("etag") ?? "") =>
      bench.ask(who, "PUT", plan, body, { "if-match": etag });
    expect((await put(bench.operator, { enabled: false })).status).toBe(403);
    expect((await put(admin, {})).status).toBe(422);
    expect((await put(admin, { enabled: false }, '"77"')).status).toBe(412);
    expect((await bench.ask(admin, "PUT", "/plans/NONE/backup-policy", { enabled: true })).status).toBe(404);
    const inShort = await bench.ask(admin, "PUT", "/plans/student/backup-policy", { keepLast: 3 });
    expect(inShort.json).toMatchObject({ planCode: "CLOUD_POD_STUDENT", keepLast: 3 });
    const policyOf = async ({ id }: { id: string }) =>
      (await bench.ask(bench.customer, "GET", `/${id}/backup-policy`)).json;
    try {
      await bench.ask(bench.customer, "PUT", `/${own.id}/backup-policy`, { keepLast: 1 });
      expect((await put(admin, { enabled: false })).json).toMatchObject({ enabled: false, version: 2 });
      expect(await followPlans({ db: bench.db.system, log: pino({ level: "silent" }) })).toBeGreaterThan(1);
      expect(await policyOf(pod)).toMatchObject({ enabled: false, source: "plan" });
      expect(await policyOf(own)).toMatchObject({ enabled: false, source: "plan" });
      const wish = await bench.ask(bench.customer, "PUT", `/${pod.id}/backup-policy`, { enabled: true });
      expect([wish.status, code(wish)]).toEqual([422, "PLAN_WITHOUT_BACKUPS"]);
      const order = { planCode: "STARTER", hostname: "shop", backup: { enabled: true } };
      expect(code(await bench.ask(bench.customer, "POST", "/order", order))).toBe("PLAN_WITHOUT_BACKUPS");
    } finally {
      await put(admin, { enabled: true }, "*");
    }
    const [entry] = await bench.db.system.query(sql`
      SELECT detail FROM audit_log WHERE action = 'plan.backup-policy' AND target_id = 'CLOUD_POD_STARTER' ORDER BY id LIMIT 1`);
    expect(entry).toEqual({ detail: { enabled: false } });
  });

  test("that are not kept are seen in the pod's health", async () => {
    const pod = await bench.running();
    const conditions = async () =>
      ((await bench.ask(bench.customer, "GET", `/${pod.id}/health`)).json as { conditions: { kind: string }[] })
        .conditions;
    expect(await conditions()).not.toContainEqual(expect.objectContaining({ kind: "BackupOverdue" }));
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_backup_policies SET created_at = now() - interval '49 hours' WHERE pod_id = ${pod.id}`,
    );
    expect(await conditions()).toContainEqual(expect.objectContaining({ kind: "BackupOverdue" }));
  });
});

test("a pod is not restored over a snapshot that its host has told of; what costs no data is no reason", async () => {
  const pod = await bench.running();
  const { nodeId, vmid } = await bench.podNow(pod.id);
  const backup = newId();
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at)
    SELECT ${backup}, p.tenant_id, p.id, p.node_id, s.id, s.name, 'manual', 'stop', 'available', s.name || ':backup/x', p.generation, p.vmid,
      json_build_object('diskGb', p.disk_gb), now()
    FROM cloud_pods p JOIN node_storages v ON v.node_id = p.node_id JOIN storages s ON s.id = v.storage_id WHERE p.id = ${pod.id} LIMIT 1`);
  await bench.db.system.execute(
    sql`UPDATE node_status SET capabilities = capabilities || ARRAY['restore'] WHERE node_id = ${nodeId}`,
  );
  const restoreOver = async (...partsOfNoPod: string[]) => {
    const containers = [ContainerObservation.fromPartial({ vmid, podId: pod.id, partsOfNoPod })];
    const inventory = Inventory.fromPartial({ quorate: true, observedAtMs: BigInt(Date.now()), containers });
    await bench.db.system.transaction((tx) => keepInventory(tx, nodeId ?? "", inventory));
    const path = `/${vmid}/backups/${backup}/restore`;
    const dry = await bench.ask(bench.customer, "POST", `${path}?dryRun=true`, {});
    return [dry, await bench.ask(bench.customer, "POST", path, {})] as const;
  };
  const advice = /has snapshot:before-upgrade \(seen at \S+\), .* or restore the backup as a new pod/u;
  for (const refused of await restoreOver("net1", "snapshot:before-upgrade"))
    expect(refused).toMatchObject({
      status: 409,
      json: { error: "MORE_THAN_A_POD", message: expect.stringMatching(advice) },
    });
  const asNew = { asNewPod: true, hostname: "copy", planCode: "STARTER" };
  const [[dry, asked], fresh] = await Promise.all([
    restoreOver("net1"),
    bench.ask(bench.customer, "POST", `/${vmid}/backups/${backup}/restore?dryRun=true`, asNew),
  ]);
  expect(dry).toMatchObject({
    status: 200,
    json: { dryRun: true, podId: pod.id, vmid, backup: { id: backup }, newerBackups: 0, newPod: null, runs: true },
  });
  expect(fresh, "a snapshot is no reason against a new pod").toMatchObject({
    status: 200,
    json: {
      podId: pod.id,
      backup: { id: backup },
      newPod: {
        hostname: "copy",
        planCode: "CLOUD_POD_STARTER",
        diskGb: 30,
        quota: { allowed: true },
        placement: { node: expect.any(String), hosts: null },
        price: { amount: "1.49" },
      },
      runs: true,
    },
  });
  const silent = { lines: null, reason: expect.stringContaining("did not answer") };
  expect(dry.json["commands"]).toContainEqual({ node: expect.any(String), command: "restore", ...silent });
  expect(fresh.json["commands"]).toContainEqual({ node: expect.any(String), command: "restore", ...silent });
  expect(asked.status).toBe(202);
});

test("what cannot be is refused and changes nothing", async () => {
  const pod = await bench.running();
  const backup = newId();
  const asNew = { asNewPod: true, hostname: "other" };
  for (const [method, path, body, status, error] of [
    ["POST", `/${pod.id}/backup`, { note: "x" }, 409, "NO_BACKUP_STORAGE"],
    ["POST", `/${pod.id}/backup`, { mode: "live" }, 422, "VALIDATION_FAILED"],
    ["POST", `/${pod.id}/destroy?finalBackup=true`, undefined, 409, "NO_BACKUP_STORAGE"],
    ["POST", `/${pod.id}/destroy?finalBackup=true&dryRun=true`, undefined, 409, "NO_BACKUP_STORAGE"],
    ["DELETE", `/${pod.id}?finalBackup=yes`, undefined, 422, "VALIDATION_FAILED"],
    ["POST", `/${pod.id}/backups/${backup}/restore`, {}, 404, "BACKUP_NOT_FOUND"],
    ["POST", `/${pod.id}/backups/${backup}/restore?dryRun=true`, {}, 404, "BACKUP_NOT_FOUND"],
    ["POST", `/${pod.id}/backups/${backup}/restore?dryRun=true`, asNew, 404, "BACKUP_NOT_FOUND"],
    ["POST", `/${pod.id}/backups/${backup}/restore`, asNew, 404, "BACKUP_NOT_FOUND"],
    ["POST", `/${pod.id}/backups/${backup}/restore`, { asNewPod: true }, 422, "VALIDATION_FAILED"],
    ["POST", `/${pod.id}/backups/${backup}/restore`, { hostname: "other" }, 422, "VALIDATION_FAILED"],
    ["DELETE", `/${pod.id}/backups/${backup}`, undefined, 404, "BACKUP_NOT_FOUND"],
  ] as const) {
    const sent = await bench.ask(bench.customer, method, path, body);
    expect([method, path, sent.status, code(sent)]).toEqual([method, path, status, error]);
  }
  expect((await bench.ask(bench.customer, "GET", `/${pod.id}/backups`)).json).toEqual({ data: [], nextCursor: null });
  const shown = await bench.ask(bench.customer, "GET", `/${pod.id}`);
  expect(shown.json).toMatchObject({ status: "active", power: "running", lastError: null });
});
