import { readdir, truncate } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Accepted, type PodAnswer, ask, look, order, succeeded, untilPlaced } from "../support/customer.ts";
import { pctByHand } from "../support/pct-by-hand.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: ["pve1"] });
});
afterAll(async () => {
  await stack.finish();
  await database.close();
});

/** A backup as the API shows it. */
interface BackupAnswer {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly sizeBytes: string | null;
  readonly expiresAt: string | null;
}

async function pct(...argv: string[]): Promise<string> {
  return await pctByHand(stack.host("pve1"), ...argv);
}

async function foldersIn(pod: PodAnswer): Promise<string[]> {
  return (await pct("exec", String(pod.vmid), "--", "ls", "/")).split("\n");
}

async function backupsOf(pod: { readonly id: string }): Promise<BackupAnswer[]> {
  const answer = await stack.customer().request<{ data: BackupAnswer[] }>("GET", `/api/cloud-pods/${pod.id}/backups`);
  return answer.data;
}

/** Archives of a pod in the folder of its host's storage. */
async function archivesOf(pod: PodAnswer): Promise<string[]> {
  const folder = join(stack.host("pve1").simulated.paths.storageRoot, "local/dump");
  const names = await readdir(folder).catch(() => []);
  return names
    .filter((name) => name.startsWith(`vzdump-lxc-${pod.vmid}-`) && name.endsWith(".tar.zst"))
    .map((name) => join(folder, name));
}

async function restoreAs(pod: PodAnswer, backup: BackupAnswer, wish: object): Promise<PodAnswer> {
  const api = stack.customer();
  const path = `/api/cloud-pods/${pod.id}/backups/${backup.id}/restore`;
  return await succeeded(api, await untilPlaced(path, () => api.request<Accepted>("POST", path, wish)));
}

test("a pod is backed up, restored where it is, made anew, and outlived by its last backup", async () => {
  const api = stack.customer();
  const pod = await succeeded(api, await order(api, "kept-1"));
  await pct("exec", String(pod.vmid), "--", "mkdir", "/kept");
  await succeeded(api, await ask(api, pod, "backup", { note: "before the upgrade" }));
  const [backup] = await backupsOf(pod);
  if (backup === undefined) throw new Error("no backup");
  expect(backup).toMatchObject({ kind: "manual", state: "available" });
  expect(Number(backup.sizeBytes)).toBeGreaterThan(0);
  expect(await archivesOf(pod)).toHaveLength(1);

  await pct("exec", String(pod.vmid), "--", "mkdir", "/harm");
  const restored = await restoreAs(pod, backup, {});
  expect(restored).toMatchObject({ vmid: pod.vmid, mac: pod.mac, status: "active", power: "running" });
  expect(await foldersIn(pod)).toContain("kept");
  expect(await foldersIn(pod)).not.toContain("harm");

  const copy = await restoreAs(pod, backup, { asNewPod: true, hostname: "copy-1" });
  expect(copy).toMatchObject({ status: "active", power: "running", planCode: pod.planCode });
  expect([copy.vmid === pod.vmid, copy.mac === pod.mac, copy.ip === pod.ip]).toEqual([false, false, false]);
  expect(await foldersIn(copy)).toContain("kept");

  await succeeded(api, await ask(api, pod, "destroy?finalBackup=true"));
  expect((await look(api, pod)).status).toBe("deleted");
  const last = (await backupsOf(pod)).find(({ kind }) => kind === "final");
  expect(last).toMatchObject({ state: "available", expiresAt: expect.any(String) });
  if (last === undefined) throw new Error("no last backup");
  const back = await restoreAs(pod, last, { asNewPod: true, hostname: "back-1" });
  expect(await foldersIn(back)).toContain("kept");

  await api.request("DELETE", `/api/cloud-pods/${pod.id}/backups/${backup.id}`);
  await until("the archive is gone", async () => (await archivesOf(pod)).length === 1, 90_000);
  await until("the backup is pruned", async () =>
    (await backupsOf(pod)).some(({ id, state }) => id === backup.id && state === "pruned"),
  );
  for (const one of [copy, back]) await succeeded(api, await ask(api, one, "destroy"));
}, 240_000);

test("a damaged archive stops no pod", async () => {
  const api = stack.customer();
  const pod = await succeeded(api, await order(api, "kept-2"));
  await succeeded(api, await ask(api, pod, "backup"));
  const [backup] = await backupsOf(pod);
  const [archive] = await archivesOf(pod);
  if (backup === undefined || archive === undefined) throw new Error("no backup");
  await truncate(archive, 100);
  await expect(restoreAs(pod, backup, {})).rejects.toThrow("ARCHIVE_UNREADABLE");
  expect(await look(api, pod)).toMatchObject({ status: "active", power: "running" });
  await succeeded(api, await ask(api, pod, "destroy"));
}, 120_000);
