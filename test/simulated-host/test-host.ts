import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { createSimulatedHost } from "./host.ts";
import type { SimulatedHost, SimulatedHostOptions } from "./host.ts";
import { runTool } from "./run-tool.ts";
import type { ToolResult } from "./run-tool.ts";

/** A host for one test, with its `pct` as a function. */
export interface TestHost {
  host: SimulatedHost;
  pct: (...argv: string[]) => Promise<ToolResult>;
  /** Runs `pct` and expects it to succeed. @returns its stdout */
  fine: (...argv: string[]) => Promise<string>;
}

/** Makes a folder that goes with the test. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "simulated-host-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** Makes a host that never waits on purpose, unless the options say otherwise. */
export async function aHost(options: Partial<SimulatedHostOptions> = {}): Promise<TestHost> {
  const root = options.root ?? testFolder();
  const host = await createSimulatedHost({ nodeName: "pve1", speed: 0, ...options, root });
  const pct = (...argv: string[]): Promise<ToolResult> => runTool(host.paths.pct, ...argv);
  const fine = async (...argv: string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await pct(...argv);
    if (exitCode !== 0) throw new Error(`pct ${argv.join(" ")}: ${exitCode} ${stderr}`);
    return stdout;
  };
  return { host, pct, fine };
}
