import type { Logger } from "pino";
import type { HostPaths } from "../pct/host-paths.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import type { HostView } from "./host-view.ts";
import type { KeysFiles } from "./keys-files.ts";
import type { PatienceLimits } from "./patience.ts";
import type { KeyedTurns, Turns } from "./turns.ts";

/** What fulfilling wishes needs; made once by `createContainers`. */
export interface ConvergeDoors {
  readonly paths: HostPaths;
  readonly runner: OperationRunner;
  readonly view: HostView;
  readonly keys: KeysFiles;
  readonly log: Logger;
  readonly patience: PatienceLimits;
  readonly containerTurns: KeyedTurns;
  /** A clone locks its template for the whole copy: a second one would fail at once. */
  readonly templateTurns: KeyedTurns;
  readonly heavyTurns: Turns;
  /**
   * Archives are read to their ends one at a time; it takes long, so it takes no turn from what customers wait for. What a
   * container stands still for waits for nobody.
   */
  readonly readTurns: Turns;
  /** KiB that restores under way may still fill, by storage. */
  readonly promisedRoom: Map<string, bigint>;
  /** Disciplined time, ms since 1970 UTC. */
  readonly nowMs: () => number;
}
