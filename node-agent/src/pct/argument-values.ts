import { AgentError } from "../agent-error.ts";

/**
 * Checks of every value that reaches a Proxmox program. Options are always written `--name=value` and
 * positional values must begin with a letter, a digit or "/", so that no value is taken for an option;
 * control characters are refused everywhere, so that no value adds a line to a configuration file.
 * The patterns are those that Proxmox itself applies (PVE::JSONSchema).
 */
const PATTERNS = {
  hostname:
    /^(?=.{1,253}$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$/u,
  tag: /^[a-z0-9_][a-z0-9_\-+.]{0,123}$/u,
  storage: /^[a-zA-Z](?:[a-zA-Z0-9\-_.]{0,98}[a-zA-Z0-9])$/u,
  pool: /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,60})(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,60}){0,2}$/u,
  volume: /^[a-zA-Z][a-zA-Z0-9\-_.]{0,98}[a-zA-Z0-9]:(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._+@/-]{0,254}$/u,
  // An archive of a container, as vzdump names it.
  archive:
    /^[a-zA-Z][a-zA-Z0-9\-_.]{0,98}[a-zA-Z0-9]:backup\/vzdump-lxc-[1-9]\d{2,8}-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.tar(?:\.(?:zst|gz|lzo))?$/u,
  node: /^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/u,
  dumpMode: /^(?:snapshot|suspend|stop)$/u,
  sha1: /^[0-9a-f]{40}$/u,
  bridge: /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$/u,
  // The second digit is even: a unicast address. Upper case, as Proxmox writes it.
  mac: /^[0-9A-F][02468ACE](?::[0-9A-F]{2}){5}$/u,
  path: /^\/(?!.*\/\.\.?(?:\/|$))[A-Za-z0-9._+@/-]{1,4000}$/u,
  features: /^[a-z_]+=[A-Za-z0-9;_]+(?:,[a-z_]+=[A-Za-z0-9;_]+)*$/u,
  // Properties of an interface that this agent does not set but keeps, e.g. mtu, ip6, trunks.
  property: /^[A-Za-z0-9.:;/_-]{1,200}$/u,
  uuid: /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u,
  propertyName: /^[a-z][a-z0-9-]{0,30}$/u,
} as const;

/** The kinds of text that an argument may hold. */
export type TextKind = keyof typeof PATTERNS;

const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`, "u");
const CIDR = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}/(?:[1-9]|[12]\\d|3[0-2])$`, "u");
const IPV6 = /^[0-9a-fA-F:]{2,39}$/u;
const SSH_KEY =
  /^(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/]{32,8192}={0,3}(?: [^\p{Cc}]{1,255})?$/u;

/** Refuses a value with the name of its field; the value is shown escaped and shortened. */
export function refuse(field: string, value: string): never {
  const shown = JSON.stringify(value.slice(0, 80));
  throw new AgentError("INVALID_ARGUMENT", `${field} is not acceptable: ${shown}`);
}

/** @throws AgentError INVALID_ARGUMENT unless `value` is of that kind. */
export function checkedText(kind: TextKind, value: string, field: string = kind): string {
  return PATTERNS[kind].test(value) ? value : refuse(field, value);
}

/** @throws AgentError INVALID_ARGUMENT unless `value` is a whole number within the bounds. */
export function checkedInteger(value: number, least: number, most: number, field: string): string {
  const fits = Number.isSafeInteger(value) && value >= least && value <= most;
  return fits ? String(value) : refuse(field, String(value));
}

/** VMIDs have three to nine digits in Proxmox. */
export function checkedVmid(vmid: number): string {
  return checkedInteger(vmid, 100, 999_999_999, "vmid");
}

/** An IPv4 address with prefix length, or "dhcp". */
export function checkedInterfaceAddress(value: string): string {
  return value === "dhcp" || CIDR.test(value) ? value : refuse("network.ip", value);
}

/** An IPv4 address. */
export function checkedGateway(value: string): string {
  return IPV4.test(value) ? value : refuse("network.gateway", value);
}

/** Resolver addresses separated by single spaces. */
export function checkedNameservers(value: string): string {
  const valid = value.split(" ").every((part) => IPV4.test(part) || (IPV6.test(part) && part.includes(":")));
  return valid ? value : refuse("nameserver", value);
}

/** Text of several lines without control characters, at most 8 KiB as Proxmox allows. */
export function checkedDescription(value: string): string {
  const clean = !/[^\P{Cc}\n]/u.test(value) && Buffer.byteLength(value) <= 8192;
  return clean ? value : refuse("description", value);
}

/** One line of authorized_keys without options: type, key and an optional comment. */
export function checkedSshKey(value: string): string {
  return SSH_KEY.test(value) ? value : refuse("ssh_authorized_keys", value);
}

/** A word of a command that runs inside a container; anything but an empty or NUL-holding one. */
export function checkedWord(value: string): string {
  return value !== "" && !value.includes("\0") ? value : refuse("command", value);
}
