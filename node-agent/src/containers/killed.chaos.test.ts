import { fork, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  POD_ID,
  QUICK,
  SSH_KEY,
  VMID,
  bounds,
  cloneSpec,
  createFixture,
  lockOf,
  runningWish,
  volumesOf,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import type { FaultRule } from "../../../test/simulated-host/host.ts";
import { until } from "../../../test/support/until.ts";
import { readOperationRecord } from "../pct/operation-record.ts";
import type { ContainerWish } from "./container-wish.ts";

let fixture: Fixture;

beforeEach(async () => {
  fixture = await createFixture();
});

afterEach(() => fixture.dispose());

const archive = {
  $case: "archive",
  value: { volumeId: "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst" },
} as const;

async function vmids(): Promise<number[]> {
  return (await fixture.host.containers()).map(({ vmid }) => vmid);
}

/** Exactly one container with one volume and no locks, or nothing at all. */
async function expectWhole(isThere: boolean): Promise<void> {
  expect(await vmids()).toEqual(isThere ? [9000, VMID] : [9000]);
  expect(volumesOf(fixture, VMID)).toHaveLength(isThere ? 1 : 0);
  expect(lockOf(fixture, 9000)).toBeUndefined();
  expect(lockOf(fixture, VMID)).toBeUndefined();
}

const CLONE_POINTS = ["after-reserve", "half-extracted", "before-config", "after-config", "before-exit"];
const CREATE_POINTS = ["after-reserve", "half-extracted", "before-config", "before-exit"];

describe("a program that is killed", () => {
  it.each([
    ...CLONE_POINTS.map((point) => ["clone", point] as const),
    ["set", "after-config"],
    ["set", "before-exit"],
    ["resize", "before-resize"],
    ["resize", "after-config"],
    ["resize", "before-exit"],
    ["start", "before-life"],
    ["start", "before-exit"],
    ["push", "before-exit"],
  ] as const)("%s at %s: the container is made all the same, once", async (command, point) => {
    fixture.host.setFaults([{ match: { command }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 }]);
    const wish = runningWish(cloneSpec(fixture.host, { sshAuthorizedKeys: [SSH_KEY] }));
    const outcome = await fixture.containers.converge(wish, bounds());
    expect(outcome.observation).toMatchObject({ podId: POD_ID, power: Power.POWER_RUNNING, diskGb: 4 });
    await expectWhole(true);
    expect((await fixture.containers.converge(wish, bounds())).commandLines).toEqual([]);
  });

  it.each(CREATE_POINTS)("create at %s: the half is taken away and the container made anew", async (point) => {
    fixture.host.setFaults([
      { match: { command: "create" }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 },
    ]);
    const wish = runningWish(cloneSpec(fixture.host, { source: archive }));
    const outcome = await fixture.containers.converge(wish, bounds());
    expect(outcome.observation?.power).toBe(Power.POWER_RUNNING);
    await expectWhole(true);
  });

  it.each(["after-reserve", "before-config", "before-exit"])("destroy at %s: it is gone in the end", async (point) => {
    await fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
    fixture.host.setFaults([
      { match: { command: "destroy" }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 },
    ]);
    await fixture.containers.converge(wishFor({ present: false }), bounds());
    await expectWhole(false);
  });

  it.each(CLONE_POINTS.slice(0, 3))("clone at %s every time: an error and nothing left", async (point) => {
    fixture.host.setFaults([{ match: { command: "clone" }, effect: { kind: "die-at", point, signal: "KILL" } }]);
    const wish = runningWish(cloneSpec(fixture.host));
    await expect(fixture.containers.converge(wish, bounds())).rejects.toMatchObject({
      code: "INTERRUPTED",
      retryable: true,
    });
    await expectWhole(false);
  });

  it("a half container that nobody proves to be ours is left alone", async () => {
    fixture.host.setFaults([
      { match: { command: "create" }, effect: { kind: "die-at", point: "half-extracted", signal: "KILL" } },
    ]);
    const theirs = spawn(
      fixture.paths.pctPath,
      ["create", String(VMID), archive.value.volumeId, "--rootfs", "local-lvm:4"],
      { stdio: "ignore" },
    );
    await once(theirs, "exit");
    expect(lockOf(fixture, VMID)).toBe("create");
    for (const wish of [runningWish(cloneSpec(fixture.host)), wishFor({ present: false })]) {
      await expect(fixture.containers.converge(wish, bounds())).rejects.toMatchObject({ code: "VMID_CONFLICT" });
    }
    expect(volumesOf(fixture, VMID)).toHaveLength(1);
    // The journal's memory that the id was free before our create is such a proof.
    fixture.host.clearFaults();
    await fixture.containers.converge(wishFor({ present: false }), bounds({ absentBefore: true }));
    await expectWhole(false);
  });

  it("cancelled in the middle of a clone: the program rolls back and nothing is left", async () => {
    await fixture.dispose();
    fixture = await createFixture({ speed: 1 });
    const cancel = new AbortController();
    const spec = cloneSpec(fixture.host, { source: { $case: "clone", value: { templateVmid: 9000, full: true } } });
    const converging = fixture.containers.converge(runningWish(spec), bounds({ signal: cancel.signal }));
    const active = join(fixture.paths.taskLogRoot, "active");
    await until("the clone's task", () => /:vzclone:9000:\S+ 0$/mu.test(readFileSync(active, "utf8")));
    cancel.abort();
    await expect(converging).rejects.toMatchObject({ code: "CANCELLED", retryable: false });
    await expectWhole(false);
  });

  it("out of time in the middle of a clone: the same, and worth another try", async () => {
    fixture.host.setFaults([{ match: { command: "clone" }, effect: { kind: "delay", ms: 3_000 } }]);
    await expect(
      fixture.containers.converge(runningWish(cloneSpec(fixture.host)), bounds({ deadlineMs: 1_000 })),
    ).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED", retryable: true });
    await expectWhole(false);
  });
});

describe("a reader that goes away", () => {
  it("ruins a clone that writes to a pipe; ours writes to a file and outlives its reader", async () => {
    const naive = spawn(fixture.paths.pctPath, ["clone", "9000", "555", "--full", "1"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    naive.stdout.destroy();
    await once(naive, "exit");
    expect([lockOf(fixture, 9000), lockOf(fixture, 555)]).toEqual(["disk", "create"]);

    stretch("clone");
    const agent = await startAgent(runningWish(cloneSpec(fixture.host)), "clone");
    await kill(agent);
    const { observation } = await fixture.containers.recover(VMID, bounds());
    expect(observation).toMatchObject({ podId: POD_ID, lock: "" });
  });
});

/** Subcommands of the programs that records show as started. */
function startedPrograms(): string[] {
  if (!existsSync(fixture.operationsDir)) return [];
  const names = readdirSync(fixture.operationsDir).filter((name) => name.endsWith(".json"));
  return names.flatMap((name) => {
    const record = readOperationRecord(fixture.operationsDir, name.slice(0, -".json".length));
    return record?.process === undefined ? [] : (record.argv[1] ?? []);
  });
}

/** Runs `converge` in a process of its own; resolves when it has started a program of that name. */
async function startAgent(wish: ContainerWish, program: string): Promise<ChildProcess> {
  const main = join(fixture.operationsDir, "..", `agent-${program}.ts`);
  const support = join(import.meta.dirname, "../../../test/support/container-fixture.ts");
  const journal = join(fixture.operationsDir, "..", "absent");
  await writeFile(
    main,
    `import { existsSync, writeFileSync } from "node:fs";
     import { flushCompileCache } from "node:module";
     import { pino } from ${JSON.stringify(join(import.meta.dirname, "../../../node_modules/pino/pino.js"))};
     import { createContainers } from ${JSON.stringify(join(import.meta.dirname, "create-containers.ts"))};
     import { bounds } from ${JSON.stringify(support)};
     flushCompileCache();
     const containers = createContainers({
       paths: ${JSON.stringify(fixture.paths)}, operationsDir: ${JSON.stringify(fixture.operationsDir)},
       clock: { epochMs: Date.now, monotonicMs: () => performance.now() }, log: pino({ level: "silent" }), ...${JSON.stringify(QUICK)},
     });
     const wish = JSON.parse(process.argv[2], (_, value) => typeof value === "string" && /^\\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value);
     await containers.converge(wish, bounds({
       commandId: "0193a5b0-2222-7abc-8def-000000000001",
       absentBefore: existsSync(${JSON.stringify(journal)}),
       recordAbsent: () => writeFileSync(${JSON.stringify(journal)}, ""),
     }));
     process.disconnect();`,
  );
  const text = JSON.stringify(wish, (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value));
  const agent = fork(main, [text], { stdio: ["ignore", "ignore", "inherit", "ipc"], execArgv: [] });
  await until(`the program ${program}`, () => {
    if (agent.exitCode !== null) throw new Error(`the agent ended before it started ${program}`);
    return startedPrograms().includes(program);
  });
  return agent;
}

/** Lets a program run until its agent is killed, before anything else befalls it. */
function stretch(command: string, ...faults: FaultRule[]): void {
  fixture.host.setFaults([{ match: { command }, effect: { kind: "hold", until: release() }, times: 1 }, ...faults]);
}

const release = (): string => join(fixture.host.root, "released");

async function kill(agent: ChildProcess): Promise<void> {
  const gone = once(agent, "exit");
  agent.kill("SIGKILL");
  await gone;
  await writeFile(release(), "");
}

describe("an agent that is killed", () => {
  const wish = (): ContainerWish => runningWish(cloneSpec(fixture.host, { sshAuthorizedKeys: [SSH_KEY] }));

  it.each(["clone", "set", "resize", "start", "exec", "push"])(
    "at %s: the next one finds what runs and finishes it",
    async (step) => {
      stretch(step);
      await kill(await startAgent(wish(), step));
      const command = { commandId: "0193a5b0-2222-7abc-8def-000000000001" };
      const { ran } = await fixture.containers.recover(VMID, bounds(command));
      expect(ran).toBe(true);
      const outcome = await fixture.containers.converge(wish(), bounds({ ...command, absentBefore: true }));
      expect(outcome.observation).toMatchObject({ podId: POD_ID, power: Power.POWER_RUNNING });
      await expectWhole(true);
      expect(readdirSync(fixture.operationsDir).filter((name) => name.endsWith(".json"))).toEqual([]);
    },
  );

  it("at the create from an archive: the next one finds what runs and finishes it", async () => {
    const fromArchive = runningWish(cloneSpec(fixture.host, { source: archive }));
    stretch("create");
    await kill(await startAgent(fromArchive, "create"));
    const outcome = await fixture.containers.converge(fromArchive, bounds({ absentBefore: true }));
    expect(outcome.observation).toMatchObject({ podId: POD_ID, power: Power.POWER_RUNNING });
    await expectWhole(true);
    const creates = (await fixture.host.invocations()).filter(({ argv }) => argv.includes("create"));
    expect(creates).toHaveLength(1);
  });

  it.each(["clone", "set", "start"])("at %s, and the pod is not wanted any more: nothing is left", async (step) => {
    stretch(step);
    await kill(await startAgent(wish(), step));
    await fixture.containers.converge(wishFor({ present: false }), bounds());
    await expectWhole(false);
  });

  it.each(["after-reserve", "half-extracted"])(
    "together with its clone at %s: the records prove whose half it is",
    async (point) => {
      stretch("clone", { match: { command: "clone" }, effect: { kind: "die-at", point, signal: "KILL" }, times: 1 });
      await kill(await startAgent(wish(), "clone"));
      await until("the killed clone", () => lockOf(fixture, VMID) === "create");
      await fixture.containers.converge(wish(), bounds());
      await expectWhole(true);
    },
  );

  it("together with its destroy: the next one ends it", async () => {
    await fixture.containers.converge(wish(), bounds());
    const effect = { kind: "die-at", point: "before-config", signal: "KILL" } as const;
    stretch("destroy", { match: { command: "destroy" }, effect, times: 1 });
    await kill(await startAgent(wishFor({ present: false }), "destroy"));
    await until("the killed destroy", () => volumesOf(fixture, VMID).length === 0);
    await fixture.containers.converge(wishFor({ present: false }), bounds());
    await expectWhole(false);
  });
});
