import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { FleetAddresses } from "./light-agent.ts";

/** What the parent of a process of agents orders. */
export type CrewOrder =
  | {
      readonly kind: "enrol";
      readonly agents: number;
      readonly databaseUrl: string;
      /** Hex. */
      readonly masterKey: string;
      readonly addresses: FleetAddresses;
    }
  | { readonly kind: "connect" }
  | { readonly kind: "report" }
  | { readonly kind: "hold"; readonly port: number; readonly connections: number };

/** What a process of agents answers to every order. */
export interface CrewReport {
  readonly sessions: number;
  /** Agents that are connected to the broker. */
  readonly brokers: number;
  /** Heartbeats that were made and sent since the start. */
  readonly beats: number;
  /** Attempts to connect, by second since 1970. */
  readonly dials: readonly (readonly [second: number, count: number])[];
  /** Sessions that ended or did not come about since the start, by code. */
  readonly faults: readonly (readonly [code: string, count: number])[];
  readonly nodeIds: readonly string[];
}

/** A process of many agents. */
export interface Crew {
  readonly agents: number;
  enrol(order: Omit<CrewOrder & { kind: "enrol" }, "kind" | "agents">): Promise<CrewReport>;
  /** Starts its agents, a few at a time; fulfilled when the last one has started to dial. */
  connect(): Promise<CrewReport>;
  report(): Promise<CrewReport>;
  /** Ends the agents and opens so many bare connections to a server instead. */
  hold(port: number, connections: number): Promise<CrewReport>;
  /** kill -9: all its agents vanish at once. */
  kill(): Promise<void>;
}

/** Starts a process of agents. */
export function startCrew(agents: number): Crew {
  const child = fork(new URL("./fleet-agents.ts", import.meta.url), {
    execArgv: process.env["PROF"] ? ["--cpu-prof", `--cpu-prof-dir=${process.env["PROF"]}/crew`] : [],
  });
  const ask = (order: CrewOrder): Promise<CrewReport> =>
    new Promise((resolve, reject) => {
      const gone = (): void => reject(new Error(`a process of agents ended during "${order.kind}"`));
      child.once("exit", gone);
      child.once("message", (report: CrewReport) => {
        child.off("exit", gone);
        resolve(report);
      });
      child.send(order);
    });
  return {
    agents,
    enrol: (order) => ask({ ...order, kind: "enrol", agents }),
    connect: () => ask({ kind: "connect" }),
    report: () => ask({ kind: "report" }),
    hold: (port, connections) => ask({ kind: "hold", port, connections }),
    kill: () => end(child),
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}
