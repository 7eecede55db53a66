import { Power, type ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Fact, Remedy } from "./finding.ts";
import type { KnownPod } from "./known-pod.ts";

/** What of a pod's own container, on the pod's own host, is not as it should be. The pod is settled and shall exist. */
export function judgeHome(pod: KnownPod, seen: ContainerObservation): Fact[] {
  return [...judgePower(pod, seen), ...judgeSize(pod, seen), ...judgeRest(pod, seen), ...judgeLock(pod, seen)];
}

/** A container that is nowhere on its host. What was in it is gone: a restore is offered, an empty one is never made. */
export function missing(pod: KnownPod, inItsPlace: ContainerObservation | undefined): Fact {
  const other = inItsPlace === undefined ? null : { podId: inItsPlace.podId || null, hostname: inItsPlace.hostname };
  return {
    vmid: pod.vmid,
    podId: pod.id,
    kind: "missing",
    subject: `generation ${pod.generation}`,
    evidence: { wanted: sizeOf(pod), underItsId: other, newestBackup: pod.newestBackup, seenOn: pod.seenOn },
    offered: [...(pod.newestBackup === null ? [] : (["repair"] as const)), "remove", "dismiss"],
  };
}

function judgePower(pod: KnownPod, seen: ContainerObservation): Fact[] {
  const power = seen.power === Power.POWER_RUNNING ? "running" : "stopped";
  if (seen.power === Power.POWER_UNSPECIFIED || power === pod.power) return [];
  const evidence = { seen: power, wanted: pod.power };
  return [{ ...about(pod), kind: "power", subject: power, evidence, offered: ["dismiss"] }];
}

function judgeSize(pod: KnownPod, seen: ContainerObservation): Fact[] {
  const [has, wanted] = [sizeOf(seen), sizeOf(pod)];
  const keys = (["cores", "memoryMb", "swapMb", "diskGb"] as const).filter((key) => has[key] !== wanted[key]);
  if (keys.length === 0) return [];
  // A disk only grows, and a container without a limit of cores is no size that could be sold.
  const canBeAccepted = pod.status === "active" && has.cores > 0 && has.memoryMb >= 16 && has.diskGb >= wanted.diskGb;
  const offered: Remedy[] = [
    ...(canBeAccepted ? (["accept"] as const) : []),
    ...(has.diskGb > wanted.diskGb ? [] : (["repair"] as const)),
    "dismiss",
  ];
  const subject = keys.map((key) => `${key} ${has[key]}`).join(", ");
  return [{ ...about(pod), kind: "resized", subject, evidence: { seen: has, wanted, differs: keys }, offered }];
}

function judgeRest(pod: KnownPod, seen: ContainerObservation): Fact[] {
  const pairs: Readonly<Record<string, readonly [string, string]>> = {
    hostname: [seen.hostname, pod.hostname],
    mac: [seen.mac.toUpperCase(), pod.mac.toUpperCase()],
    rateLimitKibPerSecond: [String(seen.rateLimitKibPerSecond), String(pod.rateLimitKibPerSecond)],
    storage: [seen.storage, pod.storage ?? ""],
    generation: [String(seen.generation), String(pod.generation)],
    partsOfNoPod: [seen.partsOfNoPod.join(" "), ""],
  };
  const differs = Object.entries(pairs).filter(([, [has, wanted]]) => has !== wanted);
  if (differs.length === 0) return [];
  // A disk on another storage cannot be put back, nobody takes away what somebody added, and a mark above ours says that
  // our books are behind.
  const canBeRepaired =
    differs.every(([key]) => key !== "storage" && key !== "partsOfNoPod") && seen.generation <= pod.generation;
  return [
    {
      ...about(pod),
      kind: "drift",
      subject: differs.map(([key, [has]]) => `${key} ${has}`).join(", "),
      evidence: Object.fromEntries(differs.map(([key, [has, wanted]]) => [key, { seen: has, wanted }])),
      offered: canBeRepaired ? ["repair", "dismiss"] : ["dismiss"],
    },
  ];
}

function judgeLock(pod: KnownPod, seen: ContainerObservation): Fact[] {
  if (seen.lock === "") return [];
  const evidence = { lock: seen.lock };
  return [{ ...about(pod), kind: "lock", subject: seen.lock, evidence, offered: ["repair", "dismiss"] }];
}

function about(pod: KnownPod): Pick<Fact, "vmid" | "podId"> {
  return { vmid: pod.vmid, podId: pod.id };
}

function sizeOf({ cores, memoryMb, swapMb, diskGb }: Pick<KnownPod, "cores" | "memoryMb" | "swapMb" | "diskGb">) {
  return { cores, memoryMb, swapMb, diskGb };
}
