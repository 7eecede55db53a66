import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Fails when shared/gen is not what `npm run proto` would write now. */
const root = join(import.meta.dirname, "..");
const fresh = mkdtempSync(join(tmpdir(), "cloudpods-gen-"));
try {
  execFileSync("buf", ["generate", "--output", fresh], { cwd: root, stdio: "inherit", timeout: 60_000 });
  const made = contents(join(fresh, "shared/gen"));
  const committed = contents(join(root, "shared/gen"));
  const stale = [...new Set([...made.keys(), ...committed.keys()])].filter(
    (name) => made.get(name) !== committed.get(name),
  );
  if (stale.length > 0) {
    console.error(`Generated code is not current, run npm run proto: ${stale.join(", ")}`);
    process.exitCode = 1;
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}

function contents(directory: string): Map<string, string> {
  const names = readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
  return new Map(names.map((name) => [name, readFileSync(join(directory, name), "utf8")]));
}
