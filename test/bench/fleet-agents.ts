import { once } from "node:events";
import { getPriority, setPriority } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import tls, { type TLSSocket } from "node:tls";
import { openDatabase } from "../../control-plane/src/platform/database.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../support/enrolled-host.ts";
import { gateDials } from "./dial-gate.ts";
import type { CrewOrder, CrewReport } from "./fleet-crew.ts";
import { keepSecureContexts } from "./kept-contexts.ts";
import { createLightAgent, type LightAgent } from "./light-agent.ts";

/** A process of many light agents; it does what its parent orders, one order after the other. */
const hosts: EnrolledHost[] = [];
const held: TLSSocket[] = [];
let agents: LightAgent[] = [];
let beats = 0;
const faults = new Map<string, number>();

/** Highest value of a priority, which is the least of them. */
const lowestPriority = 19;

// Agents have machines of their own in life: here they give way to the control plane.
setPriority(Math.min(getPriority() + 5, lowestPriority));

const dials = gateDials();
keepSecureContexts();

/** Enrolments that wait for the database together. */
const lanes = 4;
/** Agents and connections that are on their way at once while the fleet is built up. */
const openingMax = 20;

async function enrol(order: CrewOrder & { kind: "enrol" }): Promise<void> {
  const db = openDatabase({ url: order.databaseUrl, applicationName: "bench crew", connectionsMax: lanes });
  try {
    const deps = await issuingDeps(db, Buffer.from(order.masterKey, "hex"));
    await inLanes(lanes, order.agents, async () => void hosts.push(await enrolHost(db, deps)));
  } finally {
    await db.close();
  }
  const counts = {
    onBeat: () => void beats++,
    onFault: (code: string) => void faults.set(code, (faults.get(code) ?? 0) + 1),
  };
  agents = hosts.map((host) => createLightAgent(host, order.addresses, counts));
}

/** Starts the agents, each as soon as few enough of the earlier ones are on their way. */
async function connect(): Promise<void> {
  dials.clear();
  const opening = new Set<LightAgent>();
  for (const agent of agents) {
    while (opening.size >= openingMax) {
      await sleep(20);
      for (const one of opening) if (one.hasSession() && one.hasBroker()) opening.delete(one);
    }
    agent.start();
    opening.add(agent);
  }
}

/** Ends the agents and holds bare connections with their certificates instead. */
async function hold({ port, connections }: CrewOrder & { kind: "hold" }): Promise<void> {
  await Promise.all(agents.map((agent) => agent.stop()));
  let next = 0;
  await inLanes(openingMax, connections, async () => {
    const host = hosts[next++ % hosts.length];
    if (host === undefined) throw new Error("the crew has no hosts");
    const { certificatePem: cert, keyPem: key, caPem: ca } = host;
    const socket = tls.connect({ host: "127.0.0.1", port, cert, key, ca });
    held.push(socket);
    // The server's byte: only with TLS 1.3's last flight read is its side of the handshake done.
    await once(socket, "data");
  });
}

async function inLanes(count: number, total: number, work: () => Promise<void>): Promise<void> {
  let begun = 0;
  const lane = async (): Promise<void> => {
    while (begun++ < total) await work();
  };
  await Promise.all(Array.from({ length: count }, lane));
}

function report(): CrewReport {
  return {
    sessions: agents.filter((agent) => agent.hasSession()).length,
    brokers: agents.filter((agent) => agent.hasBroker()).length,
    beats,
    dials: [...dials],
    faults: [...faults],
    nodeIds: hosts.map(({ nodeId }) => nodeId),
  };
}

async function obey(order: CrewOrder): Promise<void> {
  if (order.kind === "enrol") await enrol(order);
  else if (order.kind === "connect") await connect();
  else if (order.kind === "hold") await hold(order);
  process.send?.(report());
}

process.on("message", (order: CrewOrder) => {
  obey(order).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.on("disconnect", () => process.exit(0));
