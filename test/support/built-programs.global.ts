import { simulatedPrograms } from "../simulated-host/programs.ts";
import { builtPrograms } from "./built-programs.ts";

/** Builds what every file of a project starts, before several of them build it at once. */
export default async function buildPrograms(): Promise<void> {
  builtPrograms();
  await simulatedPrograms();
}
