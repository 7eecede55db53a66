import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../agent-error.ts";
import { writeDurableFile } from "../durable-file.ts";
import { checkedText } from "../pct/argument-values.ts";
import { keysDigest, keysText } from "./authorized-keys.ts";
import type { WantedKeys } from "./plan-container.ts";

/**
 * The keys that each container shall hold, as files: a wish names them when the container is made, and
 * they can only be written into it once a later wish lets it run.
 */
export interface KeysFiles {
  /** Where the keys of a specification would be kept. @throws AgentError INVALID_ARGUMENT */
  preview(vmid: number, podId: string, keys: readonly string[]): WantedKeys;
  /** Keeps the keys of a specification. @throws AgentError INVALID_ARGUMENT */
  keep(vmid: number, podId: string, keys: readonly string[]): WantedKeys;
  /** What was kept for a pod; undefined when nothing was. */
  find(vmid: number, podId: string): WantedKeys | undefined;
  remove(vmid: number, podId: string): void;
}

/** Keeps keys below `directory`. */
export function createKeysFiles(directory: string): KeysFiles {
  const pathOf = (vmid: number, podId: string): string =>
    join(directory, `${vmid}-${checkedText("uuid", podId, "pod_id")}.keys`);
  const wanted = (path: string, keys: readonly string[]): WantedKeys => ({
    digest: keysDigest(keys),
    keysFile: path,
    pushFile: `${path}.merged`,
  });
  return {
    preview: (vmid, podId, keys) => wanted(pathOf(vmid, podId), keys),
    keep: (vmid, podId, keys) => {
      const path = pathOf(vmid, podId);
      const text = keysText(keys);
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      if (!existsSync(path) || readFileSync(path, "utf8") !== text) writeDurableFile(path, text, 0o600);
      return wanted(path, keys);
    },
    find: (vmid, podId) => {
      const path = pathOf(vmid, podId);
      try {
        const lines = readFileSync(path, "utf8").split("\n");
        return wanted(
          path,
          lines.filter((line) => line !== ""),
        );
      } catch (error) {
        if (codeOf(error) === "ENOENT") return undefined;
        throw error;
      }
    },
    remove: (vmid, podId) => {
      const path = pathOf(vmid, podId);
      for (const file of [`${path}.merged`, path]) rmSync(file, { force: true });
    },
  };
}
