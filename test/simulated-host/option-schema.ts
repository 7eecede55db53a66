import { parseProperties } from "./properties.ts";

/** A check of one value; the result is the tool's message, undefined when the value is fine. */
type ValueCheck = (value: string) => string | undefined;

/** What one option or positional word may hold. */
export interface OptionRule {
  type: "boolean" | "string";
  check?: ValueCheck;
}

/** The options of a command by name. */
export type OptionRules = Record<string, OptionRule>;

/** A switch. */
export const flag: OptionRule = { type: "boolean" };
/** Any text. */
export const text: OptionRule = { type: "string" };

/** A whole number in a range. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): OptionRule {
  return { type: "string", check: (value) => checkNumber(value, /^[+-]?\d+$/u, "integer", min, max) };
}

/** A decimal number in a range. */
export function decimal(min: number, max = Number.MAX_SAFE_INTEGER): OptionRule {
  const pattern = /^[+-]?\d+(?:\.\d+)?$/u;
  return { type: "string", check: (value) => checkNumber(value, pattern, "number", min, max) };
}

/** A text of a form; `complaint` is what the tool says about another. */
function format(pattern: RegExp, complaint: string, maxLength = 8192): OptionRule {
  return {
    type: "string",
    check: (value) => {
      if (value.length > maxLength) return `value may only be ${maxLength} characters long`;
      return pattern.test(value) ? undefined : `invalid format - ${complaint}`;
    },
  };
}

/** One of a few words. */
export function oneOf(...words: string[]): OptionRule {
  const complaint = (value: string): string =>
    `value '${value}' does not have a value in the enumeration '${words.join(", ")}'`;
  return {
    type: "string",
    check: (value) => (words.includes(value) ? undefined : complaint(value)),
  };
}

const NAME_PART = "([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)";
const DNS_NAME = new RegExp(`^${NAME_PART}(\\.${NAME_PART})*$`, "u");

export const vmid = format(/^[1-9][0-9]{2,8}$/u, "value does not look like a valid VM ID");
export const dnsName = format(DNS_NAME, "value does not look like a valid DNS name", 255);
export const nodeName = format(
  /^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$/u,
  "value does not look like a valid node name",
);
export const storageId: OptionRule = {
  type: "string",
  check: (value) =>
    /^[a-z][a-z0-9\-_.]*[a-z0-9]$/iu.test(value)
      ? undefined
      : `invalid format - storage ID '${value}' contains illegal characters`,
};
export const configId: OptionRule = {
  type: "string",
  check: (value) => {
    if (value.length > 40) return "value may only be 40 characters long";
    return /^[a-z][a-z0-9_-]+$/iu.test(value) ? undefined : `invalid format - invalid configuration ID '${value}'`;
  },
};
export const size = format(/^\+?\d+(\.\d+)?[KMGT]?$/u, "value does not match the regex pattern");

const tags: OptionRule = {
  type: "string",
  check: (value) => {
    const parts = value.split(/[,; ]/u).filter((tag) => tag !== "");
    const fine = parts.every((tag) => /^[a-z0-9_][a-z0-9_\-+.]*$/iu.test(tag));
    return fine ? undefined : "invalid format - invalid characters in tag";
  },
};

const NET_KEYS: Record<string, RegExp> = {
  name: /^[-_.\w\d]{2,15}$/u,
  bridge: /^[-_.\w\d]{2,20}$/u,
  hwaddr: /^[a-f0-9][02468ace](?::[a-f0-9]{2}){5}$/iu,
  ip: /^(dhcp|manual|\d{1,3}(\.\d{1,3}){3}\/\d{1,2})$/u,
  gw: /^\d{1,3}(\.\d{1,3}){3}$/u,
  ip6: /^(auto|dhcp|manual|[0-9a-f:.]+\/\d{1,3})$/iu,
  gw6: /^[0-9a-f:.]+$/iu,
  firewall: /^[01]$/u,
  tag: /^\d{1,4}$/u,
  trunks: /^\d+(;\d+)*$/u,
  rate: /^\d+(\.\d+)?$/u,
  mtu: /^\d{2,5}$/u,
  link_down: /^[01]$/u,
  "host-managed": /^[01]$/u,
  type: /^veth$/u,
};

const net: OptionRule = {
  type: "string",
  check: (value) => {
    const given = parseProperties(value, "name");
    const complaints: string[] = [];
    for (const [key, part] of given) {
      const pattern = NET_KEYS[key];
      if (pattern === undefined) {
        complaints.push(
          `${key}: property is not defined in schema and the schema does not allow additional properties`,
        );
      } else if (!pattern.test(part)) complaints.push(`${key}: invalid format - '${part}'`);
    }
    if (!given.has("name")) complaints.push("name: property is missing and it is not optional");
    return complaints.length === 0 ? undefined : `invalid format - format error\n${complaints.join("\n")}`;
  },
};

const mountPoint: OptionRule = {
  type: "string",
  check: (value) => {
    const given = parseProperties(value, "volume");
    if (given.has("volume") && given.get("volume") !== "") return undefined;
    return "invalid format - format error\nvolume: property is missing and it is not optional";
  },
};

/** The keys that a container's configuration may hold, as `pct set` and `pct create` take them. */
export const CONFIG_RULES: OptionRules = {
  arch: oneOf("amd64", "i386", "arm64", "armhf", "riscv32", "riscv64"),
  cmode: oneOf("shell", "console", "tty"),
  console: flag,
  cores: integer(1, 8192),
  cpulimit: decimal(0, 8192),
  cpuunits: integer(0, 500_000),
  debug: flag,
  description: { type: "string", check: (value) => tooLong(value, 8192) },
  features: text,
  hookscript: text,
  hostname: dnsName,
  lock: oneOf(
    "backup",
    "create",
    "destroyed",
    "disk",
    "fstrim",
    "migrate",
    "mounted",
    "rollback",
    "snapshot",
    "snapshot-delete",
  ),
  memory: integer(16),
  nameserver: text,
  onboot: flag,
  ostype: text,
  protection: flag,
  rootfs: mountPoint,
  searchdomain: text,
  startup: text,
  swap: integer(0),
  tags,
  template: flag,
  timezone: text,
  tty: integer(0, 6),
  unprivileged: flag,
  ...Object.fromEntries(Array.from({ length: 32 }, (_, index) => [`net${index}`, net])),
  ...Object.fromEntries(Array.from({ length: 256 }, (_, index) => [`mp${index}`, mountPoint])),
};

/** Reads a Proxmox boolean. @returns undefined when it is none */
export function parseBoolean(value: string): "0" | "1" | undefined {
  if (/^(1|on|yes|true|)$/iu.test(value)) return "1";
  return /^(0|off|no|false)$/iu.test(value) ? "0" : undefined;
}

/** The complaint about one value, undefined when it is fine. */
export function checkValue(rule: OptionRule, value: string): string | undefined {
  if (rule.type === "boolean") {
    return parseBoolean(value) === undefined ? `type check ('boolean') failed - got '${value}'` : undefined;
  }
  return rule.check?.(value);
}

function tooLong(value: string, most: number): string | undefined {
  return value.length > most ? `value may only be ${most} characters long` : undefined;
}

function checkNumber(value: string, pattern: RegExp, type: string, min: number, max: number): string | undefined {
  if (!pattern.test(value)) return `type check ('${type}') failed - got '${value}'`;
  if (Number(value) < min) return `value must have a minimum value of ${min}`;
  return Number(value) > max ? `value must have a maximum value of ${max}` : undefined;
}
