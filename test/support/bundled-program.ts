import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildSync } from "esbuild";

const cache = join(import.meta.dirname, "../../node_modules/.cache/cloudpods-test-programs");

/**
 * A program of this folder as one file, for tests that start it again and again: finding its modules is two
 * thirds of a start.
 * @param name of its source, without `.ts`
 */
export function bundledProgram(name: string): string {
  const { outputFiles } = buildSync({
    entryPoints: [join(import.meta.dirname, `${name}.ts`)],
    bundle: true,
    minify: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    write: false,
    // Loaded only where somebody has installed it.
    external: ["pg-native"],
    logLevel: "warning",
  });
  const [{ contents } = { contents: new Uint8Array() }] = outputFiles;
  const path = join(cache, `${name}-${createHash("sha256").update(contents).digest("hex").slice(0, 24)}.cjs`);
  if (existsSync(path)) return path;
  mkdirSync(cache, { recursive: true });
  const half = `${path}.${process.pid}`;
  writeFileSync(half, contents);
  renameSync(half, path);
  return path;
}
