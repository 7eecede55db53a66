import type { Command } from "commander";
import { afterEach, expect, test, vi } from "vitest";
import { UsageError } from "./errors.ts";
import { buildProgram } from "./program.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** What a command is given, when the program is called with these words. */
async function given(path: readonly string[], words: readonly string[]): Promise<Record<string, unknown>> {
  const program = buildProgram();
  let command: Command | undefined = program;
  for (const name of path) command = command?.commands.find((one) => one.name() === name);
  if (command === undefined) throw new Error("there is no such command");
  let options: Record<string, unknown> = {};
  command.action((...args: unknown[]) => {
    options = args.at(-2) as Record<string, unknown>;
  });
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
  await program.parseAsync(words, { from: "user" });
  return options;
}

test.each([
  ["before", ["--profile", "x", "--json", "--timeout", "5s", "pods", "ls"]],
  ["after", ["pods", "ls", "--profile", "x", "--json", "--timeout", "5s"]],
  ["on both sides of", ["--json", "--timeout", "9s", "pods", "ls", "--profile", "x", "--timeout", "5s"]],
])("options that all commands have stand %s the command", async (_, words) => {
  expect(await given(["pods", "ls"], words)).toMatchObject({ profile: "x", json: true, timeout: 5_000 });
});

test("a command that was told nothing has its defaults", async () => {
  const options = await given(["pods", "ls"], ["pods", "ls"]);
  expect(options).toMatchObject({ timeout: 60_000 });
  expect(options).not.toHaveProperty("json");
});

test.each([
  [["backups", "policy"], ["--json", "backups", "policy", "shop", "--every", "12h", "--keep-last", "2"], {}],
  [["usage", "show"], ["--tenant", "acme", "usage"], { tenant: "acme" }],
])("%j takes them too", async (path, words, expected) => {
  expect(await given(path, words)).toMatchObject(expected);
});

test("who mistakes a command sees how that one is written", async () => {
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  const words = ["pods", "create", "STARTER", "shop"];
  await expect(buildProgram().parseAsync(words, { from: "user" })).rejects.toMatchObject({ exitCode: 1 });
  const text = written.mock.calls.map(([chunk]) => chunk).join("");
  expect(text).toContain("\nUsage: cloudpods pods create [options] <hostname>\n");
});

test.each([
  [["nope", "--help"], /unknown command 'nope'\nUsage: cloudpods .*\nCommands: login, .*, help\n/],
  [["pods", "nope", "--help"], /unknown command 'nope'\nUsage: cloudpods pods .*\nCommands: ls, show, .*, help\n/],
  [["pods", "nope"], /unknown command 'nope'\nUsage: cloudpods pods .*\nCommands: ls, show, /],
  [["help", "pods", "nope"], /unknown command 'nope'\nUsage: cloudpods pods .*\nCommands: ls, show, /],
  [["pods", "help", "nope"], /unknown command 'nope'\nUsage: cloudpods pods .*\nCommands: ls, show, /],
])("%j is no command: nobody is shown another one's help, but what there is", async (words, says) => {
  const shown = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  await expect(buildProgram().parseAsync(words, { from: "user" })).rejects.toMatchObject({ exitCode: 1 });
  expect(written.mock.calls.map(([chunk]) => chunk).join("")).toMatch(says);
  expect(shown).not.toHaveBeenCalled();
});

test.each([
  [["--help"], ""],
  [["help"], ""],
  [["help", "pods", "ls"], " pods ls"],
  [["pods", "help"], " pods"],
  [["pods", "help", "ls"], " pods ls"],
  [["pods", "ls", "--help"], " pods ls"],
  [["usage", "shop-1", "--help"], " usage"],
])("%j is answered with the help of%s", async (words, path) => {
  const shown = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const ended = buildProgram().parseAsync(words, { from: "user" });
  // Commander leaves by an error; our own command returns.
  await ended.catch((error: unknown) => expect(error).toMatchObject({ exitCode: 0 }));
  expect(shown.mock.calls.map(([chunk]) => chunk).join("")).toContain(`Usage: cloudpods${path} [options]`);
});

test.each([
  [["--profile", "x", "migrate"], "option '--profile <name>' means nothing to migrate"],
  [["--tenant", "acme", "pods", "ls", "--all"], "option '--all' cannot be used with option '--tenant"],
  [["--nonsense", "pods", "ls"], "unknown option '--nonsense'"],
  [["--timeout", "soon", "pods", "ls"], "A duration is written as"],
  [["backups", "policy", "shop", "--every", "90m"], "Whole hours are needed"],
  [["tasks", "watch", "xyz"], "A task is named by its id (see cloudpods tasks ls)"],
  [["pods", "restore", "shop", "nonsense"], "A backup is named by its id"],
  [["backups", "rm", "shop", "../other"], "A backup is named by its id"],
  [["nodes", "resolve", "7", "accept", "--reason", "x"], "A finding is named by its id"],
  [["nodes", "drain", "pve1", "--cancel", "--reason", "wrong host"], "cannot be used with option"],
  [["backups", "policy", "shop", "--as-plan", "--keep-last", "2"], "cannot be used with option"],
])("%j is refused", async (words, message) => {
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  await expect(buildProgram().parseAsync(words, { from: "user" })).rejects.toMatchObject({ exitCode: 1 });
  expect(written.mock.calls.map(([text]) => String(text)).join("")).toContain(message);
});

test.each([
  [["pods", "restore", "shop", "01a2162d-180d-7059-8cdd-7f82994538d4", "--plan", "STARTER", "--yes"], "--as-new"],
  [["usage", "--days", "7"], "--days is for a pod"],
])("%j cannot be meant, and nothing is asked of a control plane", async (words, says) => {
  const asked = vi.spyOn(globalThis, "fetch").mockRejectedValue(new Error("asked"));
  vi.stubEnv("CLOUDPODS_TOKEN", "0".repeat(64));
  const refusal: unknown = await buildProgram()
    .parseAsync(words, { from: "user" })
    .catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(UsageError);
  expect(String(refusal)).toContain(says);
  expect(asked).not.toHaveBeenCalled();
});

test("a dry run of a removal asks about the last backup too", async () => {
  const asked = vi.spyOn(globalThis, "fetch").mockRejectedValue(new Error("asked"));
  vi.stubEnv("CLOUDPODS_TOKEN", "0".repeat(64));
  vi.stubEnv("CLOUDPODS_API_URL", "http://127.0.0.1:1");
  await expect(
    buildProgram().parseAsync(["pods", "destroy", "100000", "--final-backup", "--dry-run"], { from: "user" }),
  ).rejects.toThrow("cannot be reached");
  const [url] = asked.mock.calls.at(0) ?? [];
  expect(url instanceof URL ? url.href : url).toMatch(/\/100000\/destroy\?finalBackup=true&dryRun=true$/);
});
