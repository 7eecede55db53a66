/** Answer of one file system. */
export type FilesystemAnswer =
  | {
      readonly kind: "measured";
      readonly totalBytes: bigint;
      /** Free, the part reserved for root included. */
      readonly freeBytes: bigint;
      /** Free for everyone. */
      readonly availableBytes: bigint;
      /** `major:minor` of the device that it is mounted from. */
      readonly device: string;
    }
  /** The path is not there or must not be read. */
  | { readonly kind: "failed"; readonly code: string }
  /** No answer within the deadline, or an earlier question to the same group is still unanswered. */
  | { readonly kind: "unresponsive" };

/** Asks file systems for their size without ever waiting for a dead one twice. */
export interface FilesystemProbe {
  /**
   * @param group what dies together, e.g. the Proxmox storage below the path
   */
  measure(group: string, path: string, deadlineMs: number): Promise<FilesystemAnswer>;
}

/** Makes the one probe of the agent; the sampler and the heartbeat share it. */
export declare function createFilesystemProbe(): FilesystemProbe;
