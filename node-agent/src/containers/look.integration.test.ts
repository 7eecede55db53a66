import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createOperationRunner } from "../pct/operation-runner.ts";
import { look } from "./look.ts";

let root: string;
let records: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "look-"));
  records = join(root, "operations");
});

afterEach(() => rmSync(root, { recursive: true }));

const never = new AbortController().signal;

function program(name: string, work: string): string[] {
  const path = join(root, name);
  writeFileSync(path, `#!/bin/sh\n${work}\n`, { mode: 0o755 });
  return [path];
}

test("what a former agent asked and nobody waits for is not asked again while it runs", async () => {
  const [pvesm, other] = [program("pvesm", "exec sleep 600"), program("other", "echo fine")];
  const former = createOperationRunner(records);
  const hung = await former.start({ operationId: "look-1", commandId: "look-1", vmid: 0, argv: pvesm });
  const runner = createOperationRunner(records);
  for (let ask = 0; ask < 3; ask += 1) expect(await look(runner, pvesm, never, 60_000)).toBeUndefined();
  expect(runner.recorded(0).map(({ operationId }) => operationId)).toEqual(["look-1"]);
  expect(await look(runner, other, never, 60_000)).toMatchObject({ stdout: "fine\n" });
  expect(await hung.terminate()).toBe(true);
  writeFileSync(pvesm[0] ?? "", "#!/bin/sh\necho sizes\n");
  expect(await look(runner, pvesm, never, 60_000)).toMatchObject({ stdout: "sizes\n" });
  expect(readdirSync(records)).toEqual([]);
});

test("a program that is not there tells nothing, and leaves nothing", async () => {
  const runner = createOperationRunner(records);
  expect(await look(runner, [join(root, "missing")], never, 60_000)).toBeUndefined();
  expect(await look(runner, program("quick", "echo done"), never, 60_000)).toMatchObject({ stdout: "done\n" });
  expect(readdirSync(records)).toEqual([]);
});

test("looks that ended unobserved leave nothing behind, and commands' records are not touched", async () => {
  const argv = program("quick", "echo done");
  const runner = createOperationRunner(records);
  for (const operationId of ["look-1", "look-2", "command-1"]) {
    const operation = await runner.start({ operationId, commandId: operationId, vmid: 0, argv });
    await operation.wait({ signal: never, deadlineMs: 60_000 });
  }
  // Several at a time do not take each other's output.
  const outputs = await Promise.all(Array.from({ length: 8 }, () => look(runner, argv, never, 60_000)));
  expect(outputs).toEqual(Array.from({ length: 8 }, () => ({ stdout: "done\n", stderr: "" })));
  expect(runner.recorded(0).map(({ operationId }) => operationId)).toEqual(["command-1"]);
});
