import { expect, test } from "vitest";
import { buildProgram } from "../program.ts";
import { complete } from "./complete.ts";

const program = buildProgram();
const words = (...line: string[]): string[] => complete(program, line).completions.map(({ word }) => word);

test.each([
  [["po"], ["pods"]],
  [
    ["pods", "st"],
    ["start", "stop"],
  ],
  [["pods", "ls", "--sta"], ["--status"]],
  [["pods", "ls", "--status", "su"], ["suspended"]],
  [["nodes", "join-token", "--role", "hyper"], ["hypervisor"]],
  [
    ["nodes", "dra"],
    ["drain", "drains"],
  ],
  [["nodes", "drain", "pve1", "--on-deadline", "st"], ["stop-and-restore"]],
  [["nodes", "evacuate", "pve1", "--on-no-backup", "m"], ["mark-lost"]],
  [
    ["completion", ""],
    ["bash", "zsh", "fish"],
  ],
  [["pods", "ls", "--profile", ""], []],
  [["--prof"], ["--profile"]],
  [["--profile", "ops", "--json", "po"], ["pods"]],
  [["--tenant", "pods", "tas"], ["tasks"]],
  [
    ["backups", "policy", "shop-1", "--schedule", ""],
    ["on", "off"],
  ],
  [["nodes", "backup"], ["backup-storage"]],
  [["nodes", "ls", "--role", "h"], ["hypervisor"]],
  [["tasks", "ls", "--type", "cre"], ["create"]],
  [["nodes", "findings", "--kind", "unm"], ["unmanaged"]],
  [["pods", "show", "1"], []],
  [["nonsense", "x"], []],
])("%j continues with %j", (line, expected) => {
  expect(words(...line)).toEqual(expected);
});

test("everything that can be called is offered with a description, the hidden is not", () => {
  const first = complete(program, [""]).completions;
  expect(first.map(({ word }) => word)).toEqual(
    expect.arrayContaining(["login", "pods", "nodes", "serve", "completion"]),
  );
  expect(first.filter(({ word, description }) => word.startsWith("_") || description === "")).toEqual([]);
  expect(words("pods", "create", "--")).toEqual(expect.arrayContaining(["--plan", "--dry-run", "--json", "--wait"]));
});

test.each([
  [["--profile", ""], "profile"],
  [["profiles", "use", ""], "profile"],
  [["nodes", "drain", ""], "node"],
  [["nodes", "findings", "--node", ""], "node"],
  [["pods", "migrate", "shop-1", "--target", "p"], "node"],
  [["pods", "show", ""], "pod"],
  [["pods", "create", "shop-1", "--plan", ""], "plan"],
  [["why-not", ""], "plan"],
  [["pods", "create", "shop-1", "--ssh-key-file", ""], "file"],
  [["pods", "show", "--"], undefined],
  [["pods", "show", "shop-1", ""], undefined],
  [["pods", "create", ""], undefined],
])("%j waits for the name of a %s", (line, kind) => {
  expect(complete(program, line).names).toBe(kind);
});

test("names are asked for as whom the line says", () => {
  const line = ["--profile", "ops", "pods", "show", "--tenant", "acme", ""];
  expect(complete(program, line)).toMatchObject({ names: "pod", told: { profile: "ops", tenant: "acme" } });
});
