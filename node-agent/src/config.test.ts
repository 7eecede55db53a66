import { expect, test } from "vitest";
import { AgentError } from "./agent-error.ts";
import { readConfig } from "./config.ts";
import { PROXMOX_PATHS } from "./pct/host-paths.ts";

test("an empty environment means a real Proxmox host", () => {
  const config = readConfig({ PATH: "/usr/bin" });
  expect(config.stateDir).toBe("/var/lib/cloudpods-agent");
  expect(config.role).toBe("hypervisor");
  expect(config.host).toEqual(PROXMOX_PATHS);
});

test("every path of the host can be moved", () => {
  const config = readConfig({ CLOUDPODS_AGENT_PVE_ROOT: "/srv/pve", CLOUDPODS_AGENT_ROLE: "mail" });
  expect(config.host.pveRoot).toBe("/srv/pve");
  expect(config.role).toBe("mail");
});

test("all faults are listed at once with the names of their variables", () => {
  const read = () =>
    readConfig({
      CLOUDPODS_AGENT_ROLE: "toaster",
      CLOUDPODS_AGENT_PCT_PATH: "bin/pct",
      CLOUDPODS_AGENT_SPOOL_LIMIT_MB: "much",
      CLOUDPODS_AGENT_STATEDIR: "/x",
    });
  expect(read).toThrow(AgentError);
  for (const name of ["_ROLE", "_PCT_PATH", "_SPOOL_LIMIT_MB", "_STATEDIR"]) {
    expect(read).toThrow(`CLOUDPODS_AGENT${name}: `);
  }
});
