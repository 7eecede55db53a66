import { spawnSync } from "node:child_process";
import { accessSync, constants, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";

/** A program of the system that tests run against. */
interface TestSystem {
  readonly program: string;
  /** Debian's package of it. */
  readonly debianPackage: string;
  readonly why: string;
}

const systems: readonly TestSystem[] = [
  {
    program: "mosquitto",
    debianPackage: "mosquitto",
    why: "ingest is tested against the external broker that we recommend",
  },
];

/** Where Debian puts servers, which is not on everybody's PATH. */
const serverDirectories = ["/usr/sbin", "/usr/local/sbin"];

function isInstalled(program: string): boolean {
  const directories = [...(process.env["PATH"] ?? "").split(delimiter), ...serverDirectories];
  return directories.some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function isDebian(): boolean {
  try {
    return /^ID(_LIKE)?=.*debian/m.test(readFileSync("/etc/os-release", "utf8"));
  } catch {
    return false;
  }
}

function aptGet(...args: string[]): void {
  // Installing must not start a service on a port that a test or the machine uses.
  const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const { status, error } = spawnSync("apt-get", args, {
    stdio: ["ignore", "ignore", "inherit"],
    env: environment,
    timeout: 300_000,
  });
  if (status !== 0) throw new Error(`apt-get ${args.join(" ")} failed`, { cause: error });
}

function main(): void {
  const missing = systems.filter(({ program }) => !isInstalled(program));
  if (missing.length === 0) return;
  const packages = missing.map((system) => system.debianPackage);
  if (process.getuid?.() !== 0 || !isDebian()) {
    for (const { program, debianPackage, why } of missing)
      console.error(`missing: ${program} (Debian: ${debianPackage}): ${why}`);
    console.error(`Install them, e.g. with: sudo apt-get install --no-install-recommends ${packages.join(" ")}`);
    process.exitCode = 1;
    return;
  }
  console.error(`installing ${packages.join(", ")}`);
  aptGet("update", "-qq");
  aptGet("install", "-y", "-qq", "--no-install-recommends", ...packages);
}

main();
