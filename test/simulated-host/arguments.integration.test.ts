import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { SimulatedHost } from "./host.ts";
import { aHost } from "./test-host.ts";
import type { TestHost } from "./test-host.ts";

async function running(): Promise<TestHost> {
  const made = await aHost();
  await made.fine("clone", "9000", "101");
  await made.fine("start", "101");
  return made;
}

function confOf(host: SimulatedHost): string {
  return readFileSync(join(host.paths.pveRoot, "lxc/101.conf"), "utf8");
}

test("each complaint about words has the real text and code", async () => {
  const { pct } = await aHost();
  const said = async (...argv: string[]): Promise<[number | null, string]> => {
    const { exitCode, stderr } = await pct(...argv);
    return [exitCode, stderr];
  };
  expect(await said("config", "999")).toEqual([2, "Configuration file 'nodes/pve1/lxc/999.conf' does not exist\n"]);
  expect(await said("start", "101", "--bogus")).toEqual([
    255,
    "Unknown option: bogus\n400 unable to parse option\npct start <vmid> [OPTIONS]\n",
  ]);
  expect(await said("clone", "9000")).toEqual([255, "400 not enough arguments\npct clone <vmid> <newid> [OPTIONS]\n"]);
  expect(await said("set", "9000", "--memory", "1", "--hostname", "a b")).toEqual([
    2,
    [
      "400 Parameter verification failed.",
      "hostname: invalid format - value does not look like a valid DNS name",
      "memory: value must have a minimum value of 16",
      "pct set <vmid> [OPTIONS]",
      "",
    ].join("\n"),
  ]);
  const [code, unknown] = await said("foo");
  expect([code, unknown.split("\n")[0]]).toEqual([255, "ERROR: unknown command 'pct foo'"]);
  expect(await said("stop", "999")).toEqual([255, "CT 999 not running\n"]);
  expect(await said("reboot", "999")).toEqual([255, "VM 999 not running\n"]);
  expect(await said("exec", "9000", "--", "true")).toEqual([255, "container '9000' not running!\n"]);
  expect(await said("unlock", "9000")).toEqual([255, "no lock found trying to remove any lock\n"]);
  expect(await said("start", "9000")).toEqual([255, "you can't start a CT if it's a template\n"]);
  expect(await said("set", "9000")).toEqual([255, "no options specified\n"]);
  expect((await said("set", "9000", "--delete", "nosuch"))[1]).toContain("\ndelete: unknown option 'nosuch'\n");
  expect((await said("set", "9000", "--delete", "memory"))[1]).toBe("unable to delete required option 'memory'\n");
  expect((await said("set", "9000", "--unprivileged", "0"))[1]).toBe(
    "unable to modify read-only option: 'unprivileged'\n",
  );
  expect((await said("set", "9000", "--tags", "a b!"))[1]).toContain(
    "tags: invalid format - invalid characters in tag\n",
  );
  expect((await said("clone", "9000", "101", "--storage", "local"))[1]).toBe(
    "parameter 'storage' not allowed for linked clones\n",
  );
  expect((await said("create", "101", "local:vztmpl/nope.tar.gz"))[1]).toBe(
    "unable to create CT 101 - volume 'local:vztmpl/nope.tar.gz' does not exist\n",
  );
  expect((await said("create", "101", "x:vztmpl/a", "--rootfs", "nostor:1"))[1]).toBe(
    "storage 'nostor' does not exist\n",
  );
});

test("a positional word that begins with a dash is taken for an option", async () => {
  const { host, pct, fine } = await running();
  // Whoever passes on a hostile word changes what the call means.
  expect((await pct("exec", "101", "ls", "-la")).stderr).toContain("Unknown option: la\n");
  expect((await pct("restore", "102", "--start")).stderr).toContain("400 not enough arguments\n");
  await fine("destroy", "101", "--fo");
  expect((await host.containers()).map(({ vmid }) => vmid)).toEqual([9000]);
  // A string option takes even a word with dashes for its value, here refused as a name.
  expect((await pct("clone", "9000", "102", "--hostname", "--full")).stderr).toContain("hostname: invalid format");
});

test("a stopped container takes every change at once, tags sorted and in lower case", async () => {
  const { host, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("set", "101", "--tags", "b;A;b", "--description", "x\ny", "--nameserver", "9.9.9.9");
  expect(confOf(host)).toMatch(/^#x\n#y\n/u);
  expect(confOf(host)).toContain("\ntags: a;b\n");
  expect(confOf(host)).toContain("\nnameserver: 9.9.9.9\n");
});

test("what cannot change live waits for the next start", async () => {
  const { host, fine } = await running();
  await fine("set", "101", "--nameserver", "9.9.9.9", "--cores", "4");
  expect(confOf(host)).toContain("\ncores: 4\n");
  expect(confOf(host)).toContain("\n\n[pve:pending]\nnameserver: 9.9.9.9\n");
  expect(await fine("pending", "101")).toContain("new nameserver: 9.9.9.9\n");
  expect(await fine("config", "101")).toContain("nameserver: 9.9.9.9\n");
  expect(await fine("config", "101", "--current", "1")).not.toContain("nameserver");
  await fine("reboot", "101");
  expect(confOf(host)).not.toContain("pve:pending");
  expect(await fine("config", "101", "--current", "1")).toContain("nameserver: 9.9.9.9\n");
});

test("one failing hotplug of several leaves the others live but unwritten", async () => {
  const { host, pct } = await running();
  const { exitCode, stderr } = await pct("set", "101", "--memory", "256", "--cpulimit", "0");
  expect(exitCode).not.toBe(0);
  expect(stderr).toContain(
    "cpulimit: unable to hotplug cpulimit: closing file '/sys/fs/cgroup/lxc/101/cpu.max' failed - Invalid argument\n",
  );
  const max = join(host.paths.cgroupRoot, "lxc/101/memory.max");
  expect(readFileSync(max, "utf8")).toBe(`${256 * 1024 * 1024}\n`);
  expect(confOf(host)).toContain("memory: 512\n");
});

test("a network change whose bridge is missing stays in pending", async () => {
  const { host, pct } = await running();
  const net = "name=eth0,bridge=vmbr7,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth";
  expect((await pct("set", "101", "--net0", net)).stderr).toContain("unable to hotplug net0");
  expect(confOf(host)).toContain("[pve:pending]\nnet0: name=eth0,bridge=vmbr7,");
});

test("a digest guards against a file that changed in between", async () => {
  const { pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  expect((await pct("set", "101", "--cores", "2", "--digest", "0".repeat(40))).stderr).toBe(
    "detected modified configuration - file changed by other user? Try again.\n",
  );
});

test("protection keeps a container, and its removal gives it up", async () => {
  const { pct, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("set", "101", "--protection", "1");
  expect((await pct("destroy", "101")).stderr).toBe("can't remove CT 101 - protection mode enabled\n");
  await fine("set", "101", "--delete", "protection");
  await fine("destroy", "101");
});
