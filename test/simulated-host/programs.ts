import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

/** The programs behind a host's executables and its kernel, and where the compiler keeps what it made of them. */
interface Programs {
  readonly main: string;
  readonly kernel: string;
  readonly compileCache: string;
}

const sources = import.meta.dirname;
const cache = join(sources, "../../node_modules/.cache/cloudpods-simulated-host");

let made: Promise<Programs> | undefined;

/**
 * The programs, each bundled into one file: a host starts hundreds of short processes, and finding and
 * reading fifty sources was most of what one costs. Made once for each state of the sources.
 */
export function simulatedPrograms(): Promise<Programs> {
  made ??= makePrograms();
  return made;
}

async function makePrograms(): Promise<Programs> {
  const folder = join(cache, hashOfSources());
  if (!existsSync(folder)) await bundle(folder);
  return {
    main: join(folder, "main.cjs"),
    kernel: join(folder, "kernel.cjs"),
    compileCache: join(folder, "compile-cache"),
  };
}

/** Of two processes that make the same bundles at once, the one that ends last uses the other's. */
async function bundle(folder: string): Promise<void> {
  const { buildSync } = await import("esbuild");
  const half = `${folder}.${process.pid}`;
  mkdirSync(half, { recursive: true });
  buildSync({
    entryPoints: ["main", "kernel"].map((name) => join(sources, `${name}.ts`)),
    outdir: half,
    outExtension: { ".js": ".cjs" },
    bundle: true,
    minify: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "warning",
  });
  try {
    renameSync(half, folder);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
}

function hashOfSources(): string {
  const hash = createHash("sha256").update(process.version);
  const names = readdirSync(sources, { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
  );
  for (const name of names.toSorted()) hash.update(`${name}\0`).update(readFileSync(join(sources, name)));
  return hash.digest("hex").slice(0, 24);
}
