import { isOn } from "../call.ts";
import type { Call } from "../call.ts";
import { CONFIG_RULES } from "../option-schema.ts";
import { parseProperties, printNet, randomMac } from "../properties.ts";

/** The configuration keys among a call's options, as the file will hold them. */
export function configValues(call: Call): Record<string, string> {
  const values: Record<string, string> = {};
  for (const [key, value] of Object.entries(call.options)) {
    if (key in CONFIG_RULES) values[key] = stored(key, value);
  }
  return values;
}

/** A net value as it is written back: sorted, with a type, and a MAC of its own when it names none. */
function storedNet(value: string): string {
  const net = parseProperties(value, "name");
  const mac = net.get("hwaddr") ?? randomMac();
  net.set("hwaddr", mac.toUpperCase());
  if (!net.has("type")) net.set("type", "veth");
  return printNet(net);
}

/** Tags as they are written back: lower case, each once, sorted. */
function storedTags(value: string): string {
  const tags = value
    .toLowerCase()
    .split(/[,; ]/u)
    .filter((tag) => tag !== "");
  return [...new Set(tags)].toSorted().join(";");
}

/** What a new container gets beside the given keys. */
export function withDefaults(call: Call, vmid: number, given: Record<string, string>): Record<string, string> {
  const { rootfs: _, lock: __, ...keys } = given;
  return {
    arch: "amd64",
    hostname: `CT${vmid}`,
    memory: "512",
    swap: "512",
    ostype: "debian",
    ...keys,
    ...(isOn(call, "unprivileged") || call.options["unprivileged"] === undefined ? { unprivileged: "1" } : {}),
  };
}

function stored(key: string, value: string): string {
  if (/^net\d+$/u.test(key)) return storedNet(value);
  if (key === "tags") return storedTags(value);
  if (key === "description") return value.endsWith("\n") ? value : `${value}\n`;
  return value;
}
