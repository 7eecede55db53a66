// Completes package-lock.json with the packages of other platforms. A registry that carries only some of
// them makes npm leave the rest out of the lock file, and then `npm ci` refuses to run anywhere. An entry of
// another platform is never fetched; name, version and platform are all that it needs.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const path = join(import.meta.dirname, "../package-lock.json");
const lock = JSON.parse(readFileSync(path, "utf8"));
const systems = ["linux", "darwin", "win32", "freebsd", "netbsd", "openbsd", "sunos", "aix", "android", "openharmony"];
const processors = [
  "x64",
  "arm64",
  "aarch64",
  "arm",
  "armv7",
  "ia32",
  "ppc64",
  "riscv64",
  "s390x",
  "loong64",
  "mips64el",
  "wasm32",
];

for (const entry of Object.values({ ...lock.packages })) {
  for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`;
    if (lock.packages[key] !== undefined || Object.keys(lock.packages).some((other) => other.endsWith(`/${key}`)))
      continue;
    const words = name.split(/[/-]/);
    const os = systems.find((system) => words.includes(system)) ?? (name === "fsevents" ? "darwin" : undefined);
    const cpu = processors.find((processor) => words.includes(processor));
    lock.packages[key] = {
      version: String(range).replace(/^[^0-9]*/, ""),
      ...(cpu === undefined ? {} : { cpu: [cpu === "aarch64" ? "arm64" : cpu === "armv7" ? "arm" : cpu] }),
      ...(entry.dev === true ? { dev: true } : {}),
      optional: true,
      ...(os === undefined ? {} : { os: [os] }),
    };
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
