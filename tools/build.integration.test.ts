import { execFile } from "node:child_process";
import { readdir, readFile, stat } from "node:fs/promises";
import { isBuiltin } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { builtPrograms } from "../test/support/built-programs.ts";

const program = builtPrograms().controlPlane;
const folder = dirname(program);

test("the built control plane is a package that npm can install: its program is there, and what it needs is named", async () => {
  const manifest = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const bin = join(folder, manifest.bin.cloudpods);
  expect(bin).toBe(program);
  expect((await stat(bin)).mode & 0o111).not.toBe(0);
  const bundle = join(folder, "src/bundle");
  const files = (await readdir(bundle)).filter((name) => name.endsWith(".mjs"));
  const texts = await Promise.all(files.map((name) => readFile(join(bundle, name), "utf8")));
  const imported = texts
    .flatMap((text) => [...text.matchAll(/^(?:import|export) (?:[^"']*? from )?"([^"]+)";$|\bimport\("([^"]+)"\)/gm)])
    .map(([, statically, dynamically]) => statically ?? dynamically ?? "")
    .filter((name) => !name.startsWith(".") && !isBuiltin(name));
  expect(imported).toContain("node-pg-migrate");
  for (const name of imported) expect(Object.keys(manifest.dependencies)).toContain(packageOf(name));
  // Nothing that only this repository has, and nothing that differs from day to day.
  for (const [name, version] of Object.entries(manifest.dependencies)) {
    expect(name).not.toMatch(/^@cloudpods\//);
    expect(version).toMatch(/^\d+\.\d+\.\d+/);
  }
});

test("an older Node.js is told to whoever starts the program with it", async () => {
  const pretend = `Object.defineProperty(process.versions, "node", { value: "20.20.2" }); await import(${JSON.stringify(program)});`;
  const ended = promisify(execFile)(process.execPath, ["--input-type=module", "--eval", pretend, "--", "--version"]);
  await expect(ended).rejects.toMatchObject({
    code: 1,
    stdout: "",
    stderr: expect.stringMatching(/^cloudpods: Node\.js 24\.7 or newer is needed; .* is 20\.20\.2\n$/),
  });
});

function packageOf(name: string): string {
  return name
    .split("/")
    .slice(0, name.startsWith("@") ? 2 : 1)
    .join("/");
}
