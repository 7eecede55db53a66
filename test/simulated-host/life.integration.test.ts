import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runTool } from "./run-tool.ts";
import { aHost, testFolder } from "./test-host.ts";

const ARCHIVE = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst";

test("a cloned container has the files, output and statuses of a real one", async () => {
  const { host, pct, fine } = await aHost();
  const clone = await fine("clone", "9000", "101", "--hostname=web", "--description=pod: 1\nä");
  expect(clone).toContain("creating a clone of container 9000 with ID 101\n");
  expect(clone).toContain("create linked clone of mount point rootfs (local-lvm:base-9000-disk-0)");
  const text = readFileSync(join(host.paths.pveRoot, "lxc/101.conf"), "utf8");
  expect(text).toMatch(
    new RegExp(
      [
        "^#pod%3A 1",
        "#%C3%A4",
        "arch: amd64",
        "cores: 1",
        "features: nesting=1",
        "hostname: web",
        "memory: 512",
        "net0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11(:[0-9A-F]{2}){3},ip=dhcp,type=veth",
        "ostype: debian",
        "rootfs: local-lvm:vm-101-disk-0,size=2G",
        "swap: 0",
        "unprivileged: 1",
        "$",
      ].join("\n"),
      "u",
    ),
  );
  expect(await fine("config", "101")).toContain("description: pod%3A 1%0A%C3%A4%0A\n");
  expect(await fine("start", "101")).toBe("");
  expect(await fine("status", "101")).toBe("status: running\n");
  expect(await fine("list")).toBe(
    [
      "VMID       Status     Lock         Name                ",
      "101        running                 web                 ",
      "9000       stopped                 pod-template        ",
      "",
    ].join("\n"),
  );
  expect(readFileSync(join(host.paths.procRoot, "net/unix"), "utf8")).toContain(" @/var/lib/lxc/101/command\n");
  expect(await pct("destroy", "101")).toMatchObject({
    exitCode: 255,
    stderr: "unable to destroy CT 101 - container is running\n",
  });
  await fine("stop", "101");
  expect(readFileSync(join(host.paths.procRoot, "net/unix"), "utf8")).not.toContain("/101/");
  expect(await fine("destroy", "101", "--purge", "1")).toContain("purging CT 101 from related configurations..\n");
  const ids = JSON.parse(readFileSync(join(host.paths.pveRoot, ".vmlist"), "utf8"));
  expect(Object.keys(ids.ids)).toEqual(["9000"]);
  const active = readFileSync(join(host.paths.taskLogRoot, "tasks/active"), "utf8");
  expect(active).toMatch(/^UPID:pve1(:[0-9A-F]{8}){3}:vzdestroy:101:root@pam: 1 [0-9A-F]{8} OK$/mu);
});

test("a list without containers prints nothing at all", async () => {
  const { host, fine } = await aHost();
  await fine("destroy", `${host.templateVmid}`);
  expect(await fine("list")).toBe("");
});

test("a container is created from an archive with defaults and reached by push and exec", async () => {
  const { pct, fine } = await aHost();
  const created = await fine(
    "create",
    "120",
    ARCHIVE,
    "--rootfs=local-lvm:3",
    "--net0=name=eth0,bridge=vmbr0,ip=10.9.8.7/24,gw=10.9.8.1",
    "--start",
  );
  expect(created).toContain("Detected container architecture: amd64\n");
  expect(await fine("exec", "120", "--", "ip", "-4", "-o", "addr", "show", "dev", "eth0")).toContain(
    "inet 10.9.8.7/24 ",
  );
  const file = join(testFolder(), "keys");
  writeFileSync(file, "ssh-ed25519 AAAA\n");
  await fine("exec", "120", "--", "mkdir", "-p", "/root/.ssh");
  await fine("push", "120", file, "/root/.ssh/authorized_keys", "--perms", "0600");
  expect(await fine("exec", "120", "--", "cat", "/root/.ssh/authorized_keys")).toBe("ssh-ed25519 AAAA\n");
  expect(await pct("exec", "120", "--", "false")).toMatchObject({ exitCode: 1 });
  expect(await pct("exec", "120", "--", "sh", "-c", "true")).toMatchObject({ exitCode: 127 });
  // The worker's failure does not reach the exit code.
  expect(await pct("push", "120", file, "/no/such/folder")).toMatchObject({
    exitCode: 0,
    stderr: "failed to create file /no/such/folder: No such file or directory\n",
  });
});

test("the address of a DHCP interface belongs to its MAC", async () => {
  const { fine } = await aHost();
  const net0 = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth";
  await fine("clone", "9000", "101");
  await fine("set", "101", "--net0", net0);
  const ask = async (): Promise<string> => {
    await fine("start", "101");
    const answer = await fine("exec", "101", "--", "ip", "-j", "addr");
    await fine("stop", "101");
    return JSON.parse(answer)[1].addr_info[0].local;
  };
  const first = await ask();
  expect(first).toMatch(/^10\.\d+\.\d+\.\d+$/u);
  expect(await ask()).toBe(first);
});

test("resizing grows only, and changes the size that the configuration names", async () => {
  const { pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("resize", "101", "rootfs", "+3G");
  expect(await fine("config", "101")).toContain("rootfs: local-lvm:vm-101-disk-0,size=5G\n");
  expect((await pct("resize", "101", "rootfs", "4G")).stderr).toBe("unable to shrink disk size\n");
  expect((await pct("resize", "101", "rootfs", "5G")).stderr).toBe("disk is already at specified size\n");
});

test("a backup restores content and configuration, and keeps the MAC unless told otherwise", async () => {
  const { host, pct, fine } = await aHost();
  await fine("clone", "9000", "101", "--description", "owner");
  await fine("start", "101");
  await fine("exec", "101", "--", "mkdir", "/srv");
  const dump = await runTool(host.paths.vzdump, "101", "--compress", "zstd", "--storage", "local");
  expect(dump.stdout.endsWith("INFO: Backup job finished successfully\n")).toBe(true);
  const path = /creating vzdump archive '(.*)'/u.exec(dump.stdout)?.[1] ?? "";
  expect(path).toMatch(/\/vzdump-lxc-101-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.tar\.zst$/u);
  const volid = `local:backup/${path.slice(path.lastIndexOf("/") + 1)}`;
  expect((await pct("restore", "101", volid)).stderr).toBe("CT 101 already exists on node 'pve1'\n");
  await fine("restore", "102", volid, "--storage", "local-lvm", "--start", "1");
  await fine("restore", "103", path, "--storage", "local-lvm", "--unique", "1");
  expect(await fine("exec", "102", "--", "ls", "/")).toContain("srv\n");
  const mac = async (vmid: string): Promise<string | undefined> =>
    /hwaddr=([^,]+)/u.exec(await fine("config", vmid))?.[1];
  expect(await mac("102")).toBe(await mac("101"));
  expect(await mac("103")).not.toBe(await mac("101"));
  expect(await fine("config", "103")).toContain("description: owner%0A\n");
});

test("a restore over a container gives that up before it unpacks, and with it the entry when it fails", async () => {
  const { host, pct, fine } = await aHost();
  await fine("clone", "9000", "101", "--description", "owner");
  const dump = await runTool(host.paths.vzdump, "101", "--compress", "zstd", "--storage", "local");
  const path = /creating vzdump archive '(.*)'/u.exec(dump.stdout)?.[1] ?? "";
  const disks = () =>
    readdirSync(join(host.paths.storageRoot, "local-lvm")).filter((name) => name.startsWith("vm-101-"));
  const over = () => pct("restore", "101", path, "--storage", "local-lvm", "--force", "1");
  await fine("set", "101", "--protection", "1");
  expect((await over()).stderr).toContain("protection mode enabled");
  await fine("set", "101", "--delete", "protection");
  expect(await fine("config", "101")).toContain("description: owner%0A\n");
  host.setFaults([
    { match: { command: "restore" }, effect: { kind: "die-at", point: "half-extracted", signal: "KILL" } },
  ]);
  await over();
  expect(await fine("config", "101")).toBe("lock: create\n");
  expect(disks()).toEqual(["vm-101-disk-1"]);
  await fine("unlock", "101");
  host.setFaults([
    { match: { command: "restore" }, effect: { kind: "die-at", point: "half-extracted", signal: "TERM" } },
  ]);
  expect((await over()).stderr).toContain("received interrupt");
  expect((await pct("config", "101")).stderr).toContain("does not exist");
  expect(disks()).toEqual(["vm-101-disk-1"]);
  host.clearFaults();
  await fine("restore", "101", path, "--storage", "local-lvm");
  host.setFaults([{ storageFull: "local-lvm" }]);
  expect((await over()).stderr).toContain("free space in thin pool");
  expect((await pct("config", "101")).stderr).toContain("does not exist");
  // What it named is still there, and nobody names it.
  expect(disks()).toEqual(["vm-101-disk-0", "vm-101-disk-1"]);
});

test("snapshots form a tree, on storages that have them", async () => {
  const { pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("snapshot", "101", "s1");
  expect((await pct("snapshot", "101", "s1")).stderr).toBe("snapshot name 's1' already used\n");
  expect(await fine("listsnapshot", "101")).toMatch(
    /^`-> s1 {26}\d{4}-\d\d-\d\d \d\d:\d\d:\d\d {5}no-description\n {2}`-> current {43,44}You are here!\n$/u,
  );
  await fine("set", "101", "--memory", "1024");
  await fine("rollback", "101", "s1");
  expect(await fine("config", "101")).toContain("memory: 512\n");
  await fine("clone", "9000", "102", "--full", "--storage", "local");
  expect((await pct("snapshot", "102", "s1")).stderr).toBe("snapshot feature is not available\n");
});
