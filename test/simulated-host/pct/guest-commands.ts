import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { join, normalize } from "node:path";
import { errorCode } from "../failure.ts";
import type { RunningContainer } from "../running-record.ts";

/** What a command in a guest left behind. */
interface GuestResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

type GuestCommand = (container: RunningContainer, words: string[]) => GuestResult;

const FINE: GuestResult = { exitCode: 0, stdout: "", stderr: "" };

/** The commands that the guests of this host know. There is no shell among them. */
const COMMANDS: Record<string, GuestCommand> = {
  true: () => FINE,
  false: () => ({ ...FINE, exitCode: 1 }),
  hostname: ({ hostname }) => said(`${hostname}\n`),
  cat: ({ rootfs }, words) => said(words.map((path) => readFileSync(inGuest(rootfs, path), "utf8")).join("")),
  ls: ({ rootfs }, words) => said(list(rootfs, words)),
  mkdir: ({ rootfs }, words) => {
    const recursive = words.includes("-p");
    for (const path of plain(words)) mkdirSync(inGuest(rootfs, path), { recursive });
    return FINE;
  },
  chmod: ({ rootfs }, [mode = "", ...paths]) => {
    if (!/^[0-7]{3,4}$/u.test(mode)) return failed("chmod", `invalid mode: '${mode}'`);
    for (const path of paths) chmodSync(inGuest(rootfs, path), Number.parseInt(mode, 8));
    return FINE;
  },
  chown: ({ rootfs }, words) => {
    // Owners inside a guest are mapped ids, which the files below a simulated root do not have.
    for (const path of plain(words).slice(1)) statSync(inGuest(rootfs, path));
    return FINE;
  },
  test: ({ rootfs }, [operator = "", path = ""]) => ({
    ...FINE,
    exitCode: test(operator, inGuest(rootfs, path)) ? 0 : 1,
  }),
  ip: (container, words) => said(address(container, words)),
};

/** Runs a command as root in a guest. Exit code 127 for one that it does not have, as lxc-attach. */
export function runInGuest(container: RunningContainer, [name = "", ...words]: string[]): GuestResult {
  const command = COMMANDS[name.slice(name.lastIndexOf("/") + 1)];
  if (command === undefined) {
    const place = `lxc-attach: ${container.vmid}: ../src/lxc/attach.c: lxc_attach_run_command: 1841`;
    const stderr = `${place} No such file or directory - Failed to exec "${name}"\n`;
    return { exitCode: 127, stdout: "", stderr };
  }
  try {
    return command(container, words);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT") return failed(name, "No such file or directory");
    if (code === "EISDIR") return failed(name, "Is a directory");
    if (code === "EEXIST") return failed(name, "File exists");
    throw error;
  }
}

/** The place of a guest's path below the folder that stands for its root. */
export function inGuest(rootfs: string, path: string): string {
  return join(rootfs, normalize(join("/", path)));
}

function list(rootfs: string, words: string[]): string {
  const [path = "/"] = plain(words);
  const full = inGuest(rootfs, path);
  const names = statSync(full).isDirectory() ? readdirSync(full).toSorted() : [path];
  return names.map((name) => `${name}\n`).join("");
}

function test(operator: string, path: string): boolean {
  if (!existsSync(path)) return false;
  if (operator === "-f") return statSync(path).isFile();
  if (operator === "-d") return statSync(path).isDirectory();
  return operator === "-s" ? statSync(path).size > 0 : operator === "-e";
}

/** `ip [-4] [-o] [-j] addr [show [dev IF]]`: every interface that has its address by now. */
function address({ nics }: RunningContainer, words: string[]): string {
  const device = words.includes("dev") ? words[words.indexOf("dev") + 1] : undefined;
  const nowNs = process.hrtime.bigint();
  const loopback = { name: "lo", mac: "00:00:00:00:00:00", ip: "127.0.0.1/8" as string | undefined };
  const shown = [loopback, ...nics.map((nic) => ({ ...nic, ip: nowNs < nic.addressFromNs ? undefined : nic.ip }))]
    .map((nic, index) => ({ ...nic, index: index + 1 }))
    .filter(({ name }) => device === undefined || name === device);
  if (words.includes("-j")) {
    const all = shown.map(({ index, name, mac, ip }) => {
      const [local = "", prefix = ""] = ip?.split("/") ?? [];
      const info = ip === undefined ? [] : [{ family: "inet", local, prefixlen: Number(prefix), scope: scope(name) }];
      return { ifindex: index, ifname: name, operstate: "UP", address: mac.toLowerCase(), addr_info: info };
    });
    return `${JSON.stringify(all)}\n`;
  }
  const lines = shown.flatMap(({ index, name, mac, ip }) => {
    const where = `scope ${scope(name)} ${name}`;
    if (words.some((word) => /^-.*o/u.test(word))) {
      return ip === undefined
        ? []
        : [`${index}: ${name}    inet ${ip} ${where}\\       valid_lft forever preferred_lft forever`];
    }
    const head = `${index}: ${name}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default qlen 1000`;
    const link = words.includes("-4") ? [] : [`    link/ether ${mac.toLowerCase()} brd ff:ff:ff:ff:ff:ff`];
    const inet = ip === undefined ? [] : [`    inet ${ip} ${where}`, "       valid_lft forever preferred_lft forever"];
    return words.includes("-4") && ip === undefined ? [] : [head, ...link, ...inet];
  });
  return lines.map((line) => `${line}\n`).join("");
}

function scope(name: string): string {
  return name === "lo" ? "host" : "global";
}

function plain(words: string[]): string[] {
  return words.filter((word) => !word.startsWith("-"));
}

function said(stdout: string): GuestResult {
  return { ...FINE, stdout };
}

function failed(name: string, reason: string): GuestResult {
  return { exitCode: 1, stdout: "", stderr: `${name}: ${reason}\n` };
}
