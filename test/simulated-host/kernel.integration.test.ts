import { spawn } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { GuestLoad, SimulatedHost } from "./host.ts";
import { until } from "./run-tool.ts";
import { aHost } from "./test-host.ts";

const BUSY: GuestLoad = {
  cpuFraction: 0.5,
  memoryMb: 200,
  netInBps: 1_000_000,
  netOutBps: 400_000,
  ioReadBps: 50_000,
  ioWriteBps: 70_000,
};
const SILENT: GuestLoad = {
  cpuFraction: 0,
  memoryMb: 30,
  netInBps: 0,
  netOutBps: 0,
  ioReadBps: 0,
  ioWriteBps: 0,
};

function cgroupFile(host: SimulatedHost, vmid: number, name: string): string {
  return readFileSync(join(host.paths.cgroupRoot, "lxc", `${vmid}`, name), "utf8");
}

function usageUsec(host: SimulatedHost, vmid: number): bigint {
  return BigInt(/^usage_usec (\d+)$/mu.exec(cgroupFile(host, vmid, "cpu.stat"))?.[1] ?? "-1");
}

/** Bytes that the host's half of the first interface received and sent. */
function veth(host: SimulatedHost, vmid: number): { received: bigint; sent: bigint } {
  const text = readFileSync(join(host.paths.procRoot, "net/dev"), "utf8");
  const line = text.split("\n").find((row) => row.trim().startsWith(`veth${vmid}i0:`));
  const fields = line?.split(":")[1]?.trim().split(/\s+/u) ?? [];
  return { received: BigInt(fields[0] ?? "-1"), sent: BigInt(fields[8] ?? "-1") };
}

function ifindex(host: SimulatedHost, vmid: number): string {
  return readFileSync(join(host.paths.netClassRoot, `veth${vmid}i0`, "ifindex"), "utf8");
}

test("counters follow the load, stop with it, and equal the truth", async () => {
  const { host, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("start", "101");
  const kernel = await host.startKernel();
  await host.setLoad(101, BUSY);
  // It used something before as well, the more the longer the kernel took to start.
  const idle = await host.truth(101);
  const start = usageUsec(host, 101);
  await until("a tenth of a second of CPU was used", () => usageUsec(host, 101) - start > 100_000n);
  await host.setLoad(101, SILENT);
  const truth = await host.truth(101);
  await until("the host's files are up to date", () => veth(host, 101).sent === truth.netInBytes);
  expect(usageUsec(host, 101)).toBe(truth.cpuUsec);
  expect(veth(host, 101)).toEqual({ received: truth.netOutBytes, sent: truth.netInBytes });
  expect(await host.truth(101)).toEqual(truth);
  // Half a core and a megabyte per second, over the same time.
  const ratio = Number(truth.netInBytes - idle.netInBytes) / Number(truth.cpuUsec - idle.cpuUsec);
  expect(ratio).toBeGreaterThan(1.9);
  expect(ratio).toBeLessThan(2.1);
  await kernel.stop();
});

test("io.stat counts the same bytes on every device of the stack, the root's among them", async () => {
  const { host, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("start", "101");
  await host.setLoad(101, { ...SILENT, ioWriteBps: 10_000_000 });
  const [view] = await host.containers();
  const { dev } = statSync(join(host.paths.procRoot, `${view?.initPid}`, "root"), { bigint: true });
  const number = `${(dev >> 8n) & 0xfffn}:${(dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)}`;
  const lines = cgroupFile(host, 101, "io.stat").trim().split("\n");
  expect(lines.map((line) => line.split(" ")[0])).toContain(number);
  expect(new Set(lines.map((line) => line.slice(line.indexOf(" ")))).size).toBe(1);
  expect(lines).toHaveLength(4);
});

test("each start begins at zero with a new init and interface, and the truth goes on", async () => {
  const { host, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("start", "101");
  await host.setLoad(101, { ...BUSY, netInBps: 50_000_000 });
  await until("something was used", async () => (await host.truth(101)).netInBytes > 1_000_000n);
  await host.setLoad(101, SILENT);
  const before = { used: usageUsec(host, 101), index: ifindex(host, 101), view: (await host.containers())[0] };
  await fine("reboot", "101");
  const [view] = await host.containers();
  expect(view?.initPid).not.toBe(before.view?.initPid);
  expect(ifindex(host, 101)).not.toBe(before.index);
  expect(usageUsec(host, 101)).toBe(0n);
  expect(veth(host, 101)).toEqual({ received: 0n, sent: 0n });
  expect(await host.truth(101)).toMatchObject({ cpuUsec: before.used, incarnations: 2 });
  const stat = readFileSync(join(host.paths.procRoot, `${view?.initPid}`, "stat"), "utf8");
  const startTicks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  const uptime = Number(readFileSync(join(host.paths.procRoot, "uptime"), "utf8").split(" ")[0]);
  expect(startTicks / 100).toBeLessThanOrEqual(uptime + 0.01);
  expect(cgroupFile(host, 101, "ns/init.scope/cgroup.procs")).toBe(`${view?.initPid}\n`);
});

test("net0 without its MAC becomes a new interface that counts from zero", async () => {
  const { host, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("start", "101");
  await host.setLoad(101, { ...BUSY, netInBps: 50_000_000 });
  await until("something was received", async () => (await host.truth(101)).netInBytes > 1_000_000n);
  await host.setLoad(101, SILENT);
  const mac = async (): Promise<string> => /hwaddr=([^,]+)/u.exec(await fine("config", "101"))?.[1] ?? "";
  const before = { mac: await mac(), index: ifindex(host, 101), truth: await host.truth(101) };
  await fine("set", "101", "--net0", `name=eth0,bridge=vmbr0,hwaddr=${before.mac},ip=dhcp,rate=5`);
  expect(ifindex(host, 101)).toBe(before.index);
  expect(veth(host, 101).sent).toBe(before.truth.netInBytes);
  await fine("set", "101", "--net0", "name=eth0,bridge=vmbr0,ip=dhcp");
  expect(await mac()).not.toBe(before.mac);
  expect(ifindex(host, 101)).not.toBe(before.index);
  expect(veth(host, 101)).toEqual({ received: 0n, sent: 0n });
  expect(await host.truth(101)).toEqual(before.truth);
});

test("limits are written as Proxmox writes them, and the load is cut by them", async () => {
  const { host, fine } = await aHost();
  await fine("clone", "9000", "101");
  await fine("set", "101", "--memory", "128", "--swap", "0", "--cpulimit", "0.5", "--cores", "2");
  await fine("start", "101");
  expect(cgroupFile(host, 101, "memory.max")).toBe("134217728\n");
  expect(cgroupFile(host, 101, "memory.high")).toBe("133169152\n");
  expect(cgroupFile(host, 101, "cpu.max")).toBe("50000 100000\n");
  await host.setLoad(101, { ...BUSY, cpuFraction: 2, memoryMb: 999 });
  expect(cgroupFile(host, 101, "memory.current")).toBe("134217728\n");
  const from = await host.truth(101);
  await until("CPU was used", async () => (await host.truth(101)).cpuUsec - from.cpuUsec > 20_000n);
  const { cpuUsec, throttledUsec } = await host.truth(101);
  const ratio = Number(throttledUsec - from.throttledUsec) / Number(cpuUsec - from.cpuUsec);
  expect(ratio).toBeGreaterThan(2.9);
  expect(ratio).toBeLessThan(3.1);
});

test("the kernel ends with the process that started it", async () => {
  const { host } = await aHost();
  const code = `
    const { createSimulatedHost } = await import(${JSON.stringify(join(import.meta.dirname, "host.ts"))});
    await (await createSimulatedHost(${JSON.stringify({ root: host.root, nodeName: host.nodeName })})).startKernel();
    console.log("ready");
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", code]);
  await new Promise((resolve) => parent.stdout.once("data", resolve));
  const uptime = (): string => readFileSync(join(host.paths.procRoot, "uptime"), "utf8");
  const first = uptime();
  await until("the kernel ticks", () => uptime() !== first);
  parent.kill("SIGKILL");
  const other = await host.startKernel();
  // Only one kernel of a host can run: that this one ticks shows that the first has ended.
  const later = uptime();
  await until("the other kernel ticks", () => uptime() !== later);
  await other.stop();
  const last = uptime();
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect(uptime()).toBe(last);
});
