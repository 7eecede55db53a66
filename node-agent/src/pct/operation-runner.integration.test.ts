import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readOperationRecord, writeOperationRecord } from "./operation-record.ts";
import { createOperationRunner } from "./operation-runner.ts";
import type { OperationRunner } from "./operation-runner.ts";
import { systemdRunArguments } from "./operation-start.ts";
import { processStart } from "./process-start.ts";

const NEVER = new AbortController().signal;
const LIMITS = { signal: NEVER, deadlineMs: 60_000 };

let root: string;
let runner: OperationRunner;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cloudpods-operations-"));
  runner = createOperationRunner(root);
});

afterEach(() => rm(root, { recursive: true, force: true }));

/** Writes a program in JavaScript that stands for a long `pct`. */
async function program(name: string, source: string): Promise<string> {
  const path = join(root, name);
  await writeFile(path, `#!${process.execPath}\n${source}\n`);
  await chmod(path, 0o755);
  return path;
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error("the condition did not come true in time");
    await pause(20);
  }
}

const request = (operationId: string, argv: readonly string[]): Parameters<OperationRunner["start"]>[0] => ({
  operationId,
  commandId: "c",
  vmid: 100,
  argv,
});

describe("programs that outlive the agent", () => {
  it("tells the exit code and what was written", async () => {
    const path = await program("p.cjs", `console.log("out"); console.error("err"); process.exit(7);`);
    const operation = await runner.start(request("c-1", [path]));
    expect(await operation.wait(LIMITS)).toEqual({ kind: "exited", exitCode: 7 });
    expect(await operation.output()).toEqual({ stdout: "out\n", stderr: "err\n" });
    operation.forget();
    expect(runner.recorded(100)).toEqual([]);
  });

  it("gives a program a fixed environment and nothing of the agent's", async () => {
    process.env["CLOUDPODS_TEST_SECRET"] = "hidden";
    const path = await program("p.cjs", `console.log(JSON.stringify(process.env));`);
    const operation = await runner.start(request("c-1", [path]));
    await operation.wait(LIMITS);
    delete process.env["CLOUDPODS_TEST_SECRET"];
    expect(JSON.parse((await operation.output()).stdout)).toEqual({
      PATH: "/sbin:/bin:/usr/sbin:/usr/bin",
      LC_ALL: "C",
      CLOUDPODS_OPERATION: "c-1",
    });
  });

  it("reports lines while they come, and keeps only the end of a flood", async () => {
    const path = await program(
      "p.cjs",
      `console.log("first"); process.stdout.write("x\\n".repeat(100000)); console.log("last");`,
    );
    const operation = await runner.start(request("c-1", [path]));
    const lines: string[] = [];
    await operation.wait({ ...LIMITS, onLine: (line) => lines.push(line) });
    expect(lines[0]).toBe("first");
    const { stdout } = await operation.output();
    expect(stdout.length).toBe(16_384);
    expect(stdout.endsWith("last\n")).toBe(true);
  });

  it("a program that cannot be started is an error, and its record remains as evidence", async () => {
    await expect(runner.start(request("c-1", [join(root, "missing")]))).rejects.toThrow("cannot be started");
    const operation = await runner.attach("c-1");
    expect(await operation?.isAlive()).toBe(false);
  });

  it("never starts one operation twice", async () => {
    const path = await program("p.cjs", "");
    await (await runner.start(request("c-1", [path]))).wait(LIMITS);
    await expect(runner.start(request("c-1", [path]))).rejects.toThrow("started before");
  });

  it.each(["../x", "a/b", "-x", "", "a\nb"])("refuses the operation id %j", async (id) => {
    await expect(runner.start(request(id, ["/bin/true"]))).rejects.toThrow("not an operation id");
  });

  it("asks with one SIGTERM when cancelled and waits for the roll-back", async () => {
    const path = await program(
      "p.cjs",
      `let terms = 0;
       process.on("SIGTERM", () => { terms += 1; setTimeout(() => { console.log("rolled back " + terms); process.exit(255); }, 500); });
       setInterval(() => {}, 1000); console.log("ready");`,
    );
    const operation = await runner.start(request("c-1", [path]));
    await until(async () => (await operation.output()).stdout === "ready\n");
    const cancel = new AbortController();
    const waiting = operation.wait({ ...LIMITS, signal: cancel.signal });
    cancel.abort();
    expect(await waiting).toEqual({ kind: "terminated", reason: "cancelled", ended: true });
    expect((await operation.output()).stdout).toBe("ready\nrolled back 1\n");
  });

  it("leaves a program alone that does not listen: it is never killed", async () => {
    const path = await program(
      "p.cjs",
      `process.on("SIGTERM", () => {}); setInterval(() => {}, 1000); console.log("ready");`,
    );
    const operation = await runner.start(request("c-1", [path]));
    await until(async () => (await operation.output()).stdout === "ready\n");
    expect(await operation.terminate(300)).toBe(false);
    expect(await operation.isAlive()).toBe(true);
    process.kill(operation.record.process?.pid ?? 0, "SIGKILL");
    await until(async () => !(await operation.isAlive()));
  });
});

describe("an agent that is killed", () => {
  const AGENT = (directory: string, argv: string[]): string => `
    import { createOperationRunner } from ${JSON.stringify(join(import.meta.dirname, "operation-runner.ts"))};
    const runner = createOperationRunner(${JSON.stringify(directory)});
    await runner.start({ operationId: "c-1", commandId: "c", vmid: 100, argv: ${JSON.stringify(argv)} });
    process.send("started");
    setInterval(() => {}, 1000);`;

  it("does not take its programs along, nor their output; the next agent waits for them", async () => {
    const end = join(root, "end");
    const path = await program(
      "p.cjs",
      `const timer = setInterval(() => {
         console.log("working");
         if (!require("node:fs").existsSync(${JSON.stringify(end)})) return;
         clearInterval(timer);
         console.log("done");
       }, 20);`,
    );
    const main = join(root, "agent.ts");
    await writeFile(main, AGENT(root, [path]));
    const agent = spawn(process.execPath, [main], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    await once(agent, "message");
    agent.kill("SIGKILL");
    await once(agent, "exit");
    const operation = await runner.attach("c-1");
    expect(await operation?.isAlive()).toBe(true);
    await writeFile(end, "");
    expect(await operation?.wait(LIMITS)).toEqual({ kind: "unobserved" });
    expect((await operation?.output())?.stdout).toMatch(/^(?:working\n)+done\n$/u);
  });

  it("between the start and the note of the pid: the program is found by its environment", async () => {
    const path = await program("p.cjs", `setInterval(() => {}, 1000);`);
    const operation = await runner.start(request("c-1", [path]));
    const { process: identity, ...unfinished } = operation.record;
    writeOperationRecord(root, unfinished);
    const found = await createOperationRunner(root).attach("c-1");
    expect(found?.record.process).toEqual(identity);
    expect(await found?.terminate()).toBe(true);
  });

  it("a pid that another process has now is not the program", async () => {
    const start = await processStart("/proc", process.pid);
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const record = { operationId: "c-1", commandId: "c", vmid: 100, argv: ["pct"], bootId: boot };
    writeOperationRecord(root, { ...record, process: { pid: process.pid, start: String((start ?? 0n) + 1n) } });
    expect(await (await runner.attach("c-1"))?.isAlive()).toBe(false);
    expect(await (await runner.attach("c-1"))?.terminate()).toBe(true);
    writeOperationRecord(root, { ...record, bootId: "another", process: { pid: process.pid, start: String(start) } });
    expect(await (await runner.attach("c-1"))?.isAlive()).toBe(false);
  });

  it("half a record is no record", async () => {
    await writeFile(join(root, "c-1.json"), '{"operationId":"c-1","comm');
    expect(readOperationRecord(root, "c-1")).toBeUndefined();
    expect(await runner.attach("c-1")).toBeUndefined();
    expect(existsSync(join(root, "c-1.json"))).toBe(true);
  });
});

describe("with systemd", () => {
  it("a unit of its own keeps the program, its output and its dollar signs", () => {
    const record = {
      operationId: "c-1",
      commandId: "c",
      vmid: 100,
      argv: ["/usr/sbin/pct", "set", "100", "--description=$HOME"],
      bootId: "b",
    };
    const files = { record: "/o/c-1.json", stdout: "/o/c-1.stdout", stderr: "/o/c-1.stderr" };
    expect(systemdRunArguments(record, files, "cloudpods-op-c-1")).toEqual([
      "--unit=cloudpods-op-c-1",
      "--collect",
      "--quiet",
      "--wait",
      "--service-type=exec",
      "--property=StandardOutput=append:/o/c-1.stdout",
      "--property=StandardError=append:/o/c-1.stderr",
      "--property=KillMode=process",
      "--property=SendSIGKILL=no",
      "--property=TimeoutStopSec=300",
      "--setenv=PATH=/sbin:/bin:/usr/sbin:/usr/bin",
      "--setenv=LC_ALL=C",
      "--setenv=CLOUDPODS_OPERATION=c-1",
      "--",
      "/usr/sbin/pct",
      "set",
      "100",
      "--description=$$HOME",
    ]);
  });
});
