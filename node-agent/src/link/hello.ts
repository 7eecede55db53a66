import type { Hello } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { CommandRunner } from "../commands/command-runner.ts";
import type { Ownership } from "../commands/ownership.ts";
import { readCertificate } from "../enrolment/check-certificate.ts";
import type { Identity } from "../enrolment/identity-files.ts";
import type { Containers } from "../containers/containers.ts";
import type { Journal } from "../journal/journal.ts";
import type { Spool } from "../spool/spool.ts";

/** Version of the protocol that this agent speaks. */
const protocolVersion = 1;

/** Where the parts of a Hello come from. */
export interface HelloOptions {
  readonly bootId: string;
  readonly machineId: string;
  readonly agentVersion: string;
  readonly capabilities: readonly string[];
  readonly containers: Pick<Containers, "pveIdentity" | "hostCapacity" | "inventory">;
  readonly journal: Pick<Journal, "fleetEpoch">;
  readonly runner: Pick<CommandRunner, "unfinishedIds">;
  readonly ownership: Pick<Ownership, "isAwaiting">;
  readonly spool: Pick<Spool, "spoolId" | "nextSeq" | "ackedSeq">;
  readonly loadIdentity: () => Identity;
}

/** What the agent is and holds now. */
export async function buildHello(options: HelloOptions): Promise<Hello> {
  const { containers, journal, spool } = options;
  const [pve, capacity, inventory] = await Promise.all([
    containers.pveIdentity(),
    containers.hostCapacity(),
    containers.inventory("recent"),
  ]);
  return {
    protocolVersion,
    bootId: options.bootId,
    machineId: options.machineId,
    agentVersion: options.agentVersion,
    pveVersion: pve.version,
    pveName: pve.name,
    clusterName: pve.clusterName,
    capabilities: [...options.capabilities],
    capacity,
    inventory,
    runningCommandIds: options.runner.unfinishedIds(),
    fleetEpoch: journal.fleetEpoch(),
    spoolId: spool.spoolId(),
    spoolNextSeq: spool.nextSeq(),
    spoolAckedSeq: spool.ackedSeq(),
    certificateSerial: readCertificate(options.loadIdentity().certificatePem).serial,
    awaitingOwnership: options.ownership.isAwaiting(),
  };
}
