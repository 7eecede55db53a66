import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { AgentError, codeOf, messageOf } from "./agent-error.ts";
import type { AgentConfig } from "./config.ts";
import type { HostFacts } from "./enrolment/join.ts";

/** What the host says about itself when it joins. @throws AgentError MACHINE_ID_UNREADABLE */
export function readHostFacts(config: AgentConfig): HostFacts {
  const pveName = readPveName(config.host.pveRoot);
  return {
    machineId: readMachineId(config.machineIdPath),
    hostname: pveName === "" ? hostname() : pveName,
    pveName,
  };
}

/** SHA-256 (hex) of the machine id, which itself should not leave the host (machine-id(5)). */
export function readMachineId(path: string): string {
  try {
    return createHash("sha256").update(readFileSync(path, "utf8").trim()).digest("hex");
  } catch (error) {
    throw new AgentError("MACHINE_ID_UNREADABLE", `${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** Version of this program, from its package. */
export function readAgentVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  const manifest: unknown = JSON.parse(text);
  const version =
    typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : undefined;
  return typeof version === "string" ? version : "unknown";
}

/** Name of the host inside Proxmox: where /etc/pve/local points. Empty on other hosts. */
export function readPveName(pveRoot: string): string {
  try {
    return basename(readlinkSync(join(pveRoot, "local")));
  } catch (error) {
    const isNoHypervisor = codeOf(error) === "ENOENT" || codeOf(error) === "EINVAL";
    if (isNoHypervisor) return "";
    throw error;
  }
}
