import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { pctExec, pctPush, pctSet, pctStart, pctUnlock } from "../pct/pct-arguments.ts";
import type { Execution } from "./execution.ts";
import type { HostView } from "./host-view.ts";
import { type Step, step } from "./plan-step.ts";
import { type StepDoors, runStep } from "./run-step.ts";

const VMID = 100_001;
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "run-step-"));
  writeFileSync(join(folder, "keys"), "ssh-ed25519 AAAA alice\n");
});

afterEach(() => rmSync(folder, { recursive: true }));

/** Runs a step on a cluster that has quorum only so many times that it is asked. */
async function run(taken: Step, quorateTimes: number): Promise<{ ran: string[]; error: unknown }> {
  const ran: string[] = [];
  let asked = 0;
  let pushed = "";
  const cluster = async () => {
    asked += 1;
    return await Promise.resolve({
      nodeName: "pve1",
      clusterName: "c",
      quorate: asked <= quorateTimes,
      owners: new Map(),
    });
  };
  const keys = { digest: "d", keysFile: join(folder, "keys"), pushFile: join(folder, "push/keys") };
  const execution: Pick<Execution, "report" | "run"> = {
    report: () => undefined,
    run: async (_, { args }) => {
      ran.push(args[0] === "exec" ? `exec ${args.slice(-1)[0] ?? ""}` : String(args[0]));
      if (args[0] === "push") pushed = readFileSync(keys.pushFile, "utf8");
      const stdout = args.includes("cat") ? pushed : "";
      return await Promise.resolve({ end: { kind: "exited", exitCode: 0 }, output: { stdout, stderr: "" } });
    },
  };
  // Of the view only the question for quorum is asked, of the paths nothing is read, and of the execution
  // nothing else is called.
  const doors = { view: { cluster } as unknown as HostView, paths: {} as StepDoors["paths"], keys };
  const error = await runStep(taken, VMID, execution as Execution, doors).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return { ran, error };
}

const path = "/root/.ssh/authorized_keys";
const pushKeys = step(
  "push-keys",
  pctExec(VMID, ["mkdir", "-p", "/root/.ssh"]),
  pctExec(VMID, ["cat", path]),
  pctPush(VMID, "/keys", path),
  pctExec(VMID, ["cat", path]),
  pctSet(VMID, { options: { description: "d" } }),
);
const cases: [string, Step, number, string[]][] = [
  ["push-keys, from the start", pushKeys, 0, []],
  ["push-keys, after the directory", pushKeys, 1, ["exec /root/.ssh", `exec ${path}`]],
  ["push-keys, after the push", pushKeys, 2, ["exec /root/.ssh", `exec ${path}`, "push", `exec ${path}`]],
  ["a step of two programs, after the first", step("set", pctUnlock(VMID), pctStart(VMID)), 1, ["unlock"]],
];
test.each(cases)("without quorum nothing is changed any more: %s", async (_, taken, quorateTimes, expected) => {
  const { ran, error } = await run(taken, quorateTimes);
  expect(ran).toEqual(expected);
  expect(error).toMatchObject({ code: "NO_QUORUM", retryable: true });
});

test("with quorum every program of push-keys runs", async () => {
  const { ran, error } = await run(pushKeys, 3);
  expect(error).toBeUndefined();
  expect(ran).toEqual(["exec /root/.ssh", `exec ${path}`, "push", `exec ${path}`, "set"]);
});
