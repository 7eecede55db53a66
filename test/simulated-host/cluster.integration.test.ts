import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { aHost, testFolder } from "./test-host.ts";
import type { TestHost } from "./test-host.ts";

/** Two members of one cluster with a shared and a local storage. */
async function aCluster(): Promise<[TestHost, TestHost]> {
  const folder = testFolder();
  const clusterRoot = join(folder, "cluster");
  const member = (nodeName: string): Promise<TestHost> =>
    aHost({
      root: join(folder, nodeName),
      nodeName,
      clusterRoot,
      storages: [
        { id: "local", type: "dir", totalGb: 50 },
        { id: "local-lvm", type: "lvmthin", totalGb: 100 },
        { id: "shared", type: "dir", totalGb: 100, shared: true },
      ],
    });
  return [await member("pve1"), await member("pve2")];
}

test("members see one list of ids, and an id is taken on all of them", async () => {
  const [first, second] = await aCluster();
  expect([first.host.templateVmid, second.host.templateVmid]).toEqual([9000, 9001]);
  await first.fine("clone", "9000", "101");
  expect((await second.pct("clone", "9001", "101")).stderr).toBe("CT 101 already exists on node 'pve1'\n");
  expect((await second.pct("config", "101")).stderr).toBe(
    "Configuration file 'nodes/pve2/lxc/101.conf' does not exist\n",
  );
  const members = readFileSync(join(second.host.paths.pveRoot, ".members"), "utf8");
  expect(JSON.parse(members)).toMatchObject({
    nodename: "pve2",
    cluster: { quorate: 1, nodes: 2 },
    nodelist: { pve1: { online: 1 }, pve2: { ip: "10.99.0.2" } },
  });
  const ids = JSON.parse(readFileSync(join(second.host.paths.pveRoot, ".vmlist"), "utf8")).ids;
  expect(ids["101"]).toMatchObject({ node: "pve1", type: "lxc" });
});

test("a running container on shared storage moves with a restart", async () => {
  const [first, second] = await aCluster();
  await first.fine("clone", "9000", "201", "--full", "--storage", "shared");
  await first.fine("start", "201");
  expect((await first.pct("migrate", "201", "pve2")).stderr).toBe(
    "can't migrate running container without --online or --restart\n",
  );
  expect((await first.pct("migrate", "201", "pve2", "--online")).stderr).toContain("Unknown option: online\n");
  const log = await first.fine("migrate", "201", "pve2", "--restart", "--timeout", "30");
  expect(log.replaceAll(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d /gmu, "").split("\n")).toEqual([
    "shutdown CT 201",
    "starting migration of CT 201 to node 'pve2' (10.99.0.2)",
    "volume 'shared:201/vm-201-disk-0.raw' is on shared storage 'shared'",
    "start final cleanup",
    "start container on target node",
    expect.stringMatching(/^migration finished successfully \(duration 00:00:0\d\)$/u),
    "",
  ]);
  expect(await second.fine("status", "201")).toBe("status: running\n");
  expect(await first.pct("status", "201")).toMatchObject({ exitCode: 2 });
});

test("a local volume is copied, but not a linked clone", async () => {
  const [first, second] = await aCluster();
  await first.fine("clone", "9000", "202");
  const refused = await first.pct("migrate", "202", "pve2");
  expect(refused).toMatchObject({ exitCode: 255, stderr: "migration aborted\n" });
  expect(refused.stdout).toContain("clone of 'local-lvm:base-9000-disk-0'");
  expect(await first.fine("config", "202")).not.toContain("lock");
  await first.fine("clone", "9000", "203", "--full");
  await first.fine("migrate", "203", "pve2");
  await second.fine("start", "203");
});

test("a failure behind the rename leaves the container on the target", async () => {
  const [first, second] = await aCluster();
  await first.fine("clone", "9000", "204", "--full", "--storage", "shared");
  await first.fine("start", "204");
  first.host.setFaults([
    {
      match: { command: "migrate" },
      effect: { kind: "fail-at", point: "after-move", message: "ssh: connection lost" },
    },
  ]);
  const failed = await first.pct("migrate", "204", "pve2", "--restart");
  expect(failed).toMatchObject({ exitCode: 255, stderr: "migration problems\n" });
  expect(await second.fine("list")).toMatch(/^204 +stopped +migrate /mu);
  await second.fine("unlock", "204");
  await second.fine("start", "204");
});

test("a member without power runs nothing, and nothing moves there until it boots", async () => {
  const [first, second] = await aCluster();
  await first.fine("clone", "9000", "205", "--full", "--storage", "shared");
  await first.fine("start", "205");
  await second.fine("clone", "9001", "206", "--full");
  await second.fine("start", "206");
  const online = (): unknown =>
    JSON.parse(readFileSync(join(first.host.paths.pveRoot, ".members"), "utf8")).nodelist.pve2.online;
  await second.host.cutPower();
  expect(online()).toBe(0);
  expect((await second.host.containers()).map(({ running }) => running)).not.toContain(true);
  const refused = await first.pct("migrate", "205", "pve2", "--restart");
  expect(refused).toMatchObject({ exitCode: 255, stderr: "migration aborted\n" });
  expect(refused.stdout).toContain("Can't connect to destination address");
  expect(await first.fine("status", "205")).toBe("status: running\n");
  await second.host.boot();
  expect(online()).toBe(1);
  expect(await second.fine("status", "206")).toBe("status: stopped\n");
  await first.fine("migrate", "205", "pve2", "--restart");
  expect(await second.fine("status", "205")).toBe("status: running\n");
});

test("words that name a wrong node have the real texts", async () => {
  const [first] = await aCluster();
  const said = async (node: string): Promise<string> => (await first.pct("migrate", "9000", node)).stderr;
  expect(await said("pve9")).toBe("no such cluster node 'pve9'\n");
  expect(await said("pve1")).toContain("\ntarget: target is local node.\n");
});
