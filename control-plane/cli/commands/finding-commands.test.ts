import { afterEach, expect, test, vi } from "vitest";
import { buildProgram } from "../program.ts";

afterEach(() => void vi.restoreAllMocks());

test.each([
  ["adopt", "cloudpods pods adopt <vmid> --node <node> --to <tenant>"],
  ["burn", "Allowed choices are accept, repair, remove, dismiss."],
])("who decides to %s is told what can be", async (action, says) => {
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  const words = ["nodes", "resolve", "01a2162d-180d-7059-8cdd-7f82994538d4", action, "--reason", "x"];
  await expect(buildProgram().parseAsync(words, { from: "user" })).rejects.toMatchObject({ exitCode: 1 });
  expect(written.mock.calls.map(([text]) => String(text)).join("")).toContain(says);
});
