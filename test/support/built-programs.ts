import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder, keepMade } from "../simulated-host/cached-folder.ts";

/** The programs as they are shipped. */
interface BuiltPrograms {
  readonly controlPlane: string;
  readonly agent: string;
}

const root = join(import.meta.dirname, "../..");
const cache = join(root, "node_modules/.cache/cloudpods-built");
const sources = [
  "control-plane/src",
  "control-plane/cli",
  "control-plane/migrations",
  "node-agent/src",
  "shared",
  "proto",
];
const files = ["package-lock.json", "tools/build.ts", "control-plane/package.json", "node-agent/package.json"];

let built: BuiltPrograms | undefined;

/**
 * The programs as `npm run build` makes them, made once for each state of the sources. Tests start them
 * hundreds of times, and finding their modules is more than half of a start from the sources.
 */
export function builtPrograms(): BuiltPrograms {
  built ??= makePrograms();
  return built;
}

function makePrograms(): BuiltPrograms {
  const folder = cachedFolder(cache, sourceFiles());
  if (!existsSync(folder)) build(folder);
  return {
    controlPlane: join(folder, "control-plane/cloudpods.mjs"),
    agent: join(folder, "agent/cloudpods-agent.mjs"),
  };
}

function build(folder: string): void {
  const half = `${folder}.${process.pid}`;
  mkdirSync(cache, { recursive: true });
  execFileSync(process.execPath, [join(root, "tools/build.ts"), half], { stdio: "inherit", timeout: 300_000 });
  keepMade(half, folder);
}

function sourceFiles(): string[] {
  const found = sources.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter(
        (entry) => entry.isFile() && !entry.name.endsWith(".test.ts") && !entry.parentPath.includes("node_modules"),
      )
      .map((entry) => join(entry.parentPath, entry.name)),
  );
  return [...found, ...files.map((name) => join(root, name))];
}
