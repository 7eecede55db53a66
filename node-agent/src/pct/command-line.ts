import type { HostPaths } from "./host-paths.ts";
import type { Invocation } from "./pct-arguments.ts";

/** The argument vector of an invocation on this host, beginning with the program's path. */
export function argumentVector(paths: HostPaths, invocation: Invocation): string[] {
  const programs = {
    pct: paths.pctPath,
    pvesm: paths.pvesmPath,
    pveversion: paths.pveversionPath,
    umount: paths.umountPath,
    vzdump: paths.vzdumpPath,
    zstd: paths.zstdPath,
    "lxc-stop": paths.lxcStopPath,
  };
  return [programs[invocation.program], ...invocation.args];
}

/** An argument vector for people to read: words that a shell would split or change are quoted. */
export function readableCommandLine(argv: readonly string[]): string {
  return argv.map((word) => (/^[A-Za-z0-9_@%+=:,./-]+$/u.test(word) ? word : quoted(word))).join(" ");
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`).replaceAll("\n", "\\n")}'`;
}

const MINUTE_MS = 60_000;

/**
 * How long an invocation may take before it is asked to end. Copies depend on size; `resize` of an
 * ext4 image waits 22 s for its multi-mount protection and `start` after a host crash 45 s.
 */
export function invocationDeadlineMs(invocation: Invocation): number {
  const [subcommand] = invocation.args;
  switch (invocation.program === "pct" ? subcommand : invocation.program) {
    case "clone":
    case "create":
      return 60 * MINUTE_MS;
    // Whole disks over a network; the command's own deadline is usually shorter.
    case "restore":
    case "migrate":
    case "vzdump":
    case "zstd":
      return 12 * 60 * MINUTE_MS;
    case "resize":
    case "destroy":
      return 15 * MINUTE_MS;
    case "start":
      return 5 * MINUTE_MS;
    case "shutdown":
    case "reboot":
      return guestTimeoutMs(invocation) + (subcommand === "reboot" ? 5 : 2) * MINUTE_MS;
    case "pvesm":
      return subcommand === "free" ? 15 * MINUTE_MS : 30_000;
    default:
      return 2 * MINUTE_MS;
  }
}

function guestTimeoutMs(invocation: Invocation): number {
  const option = invocation.args.find((word) => word.startsWith("--timeout="));
  return Number(option?.slice("--timeout=".length) ?? 60) * 1000;
}
