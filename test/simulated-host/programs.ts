import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder, keepMade } from "./cached-folder.ts";

/** The programs behind a host's executables and its kernel, and where the compiler keeps what it made of them. */
interface Programs {
  readonly main: string;
  readonly kernel: string;
  /** What an agent preloads: the sizes of containers' file systems. */
  readonly guestDisks: string;
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
  const folder = cachedFolder(cache, sourceFiles());
  if (!existsSync(folder)) await bundle(folder);
  return {
    main: join(folder, "main.cjs"),
    kernel: join(folder, "kernel.cjs"),
    guestDisks: join(folder, "guest-disks.cjs"),
    compileCache: join(folder, "compile-cache"),
  };
}

async function bundle(folder: string): Promise<void> {
  const { buildSync } = await import("esbuild");
  const half = `${folder}.${process.pid}`;
  mkdirSync(half, { recursive: true });
  buildSync({
    entryPoints: ["main", "kernel", "guest-disks"].map((name) => join(sources, `${name}.ts`)),
    outdir: half,
    outExtension: { ".js": ".cjs" },
    bundle: true,
    minify: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "warning",
  });
  keepMade(half, folder);
}

function sourceFiles(): string[] {
  return readdirSync(sources, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name) => join(sources, name));
}
