import type { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { ContainerReader, HostSnapshot, RootUsage } from "./read-container.ts";
import { type MeteredPod, cutLongInterval, sampleInterval } from "./sample-interval.ts";
import { type KnownContainer, type SamplerMemory, afterReading, beforeOf } from "./sampler-memory.ts";

/** What a look at some containers gave. */
export interface Look {
  readonly samples: Sample[];
  /** Why each of these could not be read; their usage is in a later sample. */
  readonly unreadable: Map<number, string>;
  /** What is known from now on about those that run or could not be read. */
  readonly containers: Map<number, KnownContainer>;
  readonly running: number;
}

/** What a look is made with. */
export interface LookContext {
  readonly memory: SamplerMemory;
  readonly host: HostSnapshot;
  readonly reader: Pick<ContainerReader, "read">;
  readonly rootOf: (vmid: number) => RootUsage | undefined;
}

/** Reads containers and turns each reading into the sample since the last one. Waits for nothing. */
export function lookAt(pods: Iterable<MeteredPod>, context: LookContext): Look {
  const look: Look & { running: number } = {
    samples: [],
    unreadable: new Map(),
    containers: new Map(),
    running: 0,
  };
  for (const pod of pods) {
    const kernel = context.reader.read(pod.vmid, context.host);
    if (kernel.kind === "stopped") continue;
    look.running += 1;
    const root = context.rootOf(pod.vmid);
    const reading = kernel.kind === "running" && root !== undefined ? kernel.read(root) : undefined;
    const before = beforeOf(context.memory, pod.vmid, pod.podId, context.host.atMs);
    if (reading === undefined) {
      const reason = kernel.kind === "unreadable" ? kernel.reason : "the root file system does not answer";
      look.unreadable.set(pod.vmid, reason);
      look.containers.set(pod.vmid, { ...before, podId: pod.podId });
      continue;
    }
    const sample = sampleInterval(pod, before, reading, context.memory.bootId);
    if (typeof sample === "object") look.samples.push(...cutLongInterval(sample));
    const isCounted = sample !== "early";
    look.containers.set(pod.vmid, isCounted ? afterReading(pod.podId, reading) : { ...before, podId: pod.podId });
  }
  return look;
}
