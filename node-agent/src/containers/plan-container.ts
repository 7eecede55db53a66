import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { checkedText } from "../pct/argument-values.ts";
import {
  pctClone,
  pctCreate,
  pctDestroy,
  pctExec,
  pctPush,
  pctSet,
  pctShutdown,
  pctStart,
  pctStop,
  pctUnlock,
  umountRecursively,
} from "../pct/pct-arguments.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import { parseProperties, parseRootDisk } from "../pct/parse-pct-config.ts";
import type { ContainerConfig } from "../pct/parse-pct-config.ts";
import { ContainerFailure } from "./container-failure.ts";
import type { ContainerFailureCode } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import { parseMarker, replaceMarker } from "./marker.ts";
import type { Marker } from "./marker.ts";
import { extraVolumes, isNamelessHalf, lockOf } from "./observed-container.ts";
import type { ContainerHere, ObservedContainer } from "./observed-container.ts";
import { configSteps, newContainerOptions, refuseImpossible } from "./plan-config.ts";
import { step } from "./plan-step.ts";
import type { Step } from "./plan-step.ts";

/** What the plan must know of the host besides the container itself. */
export interface PlanHost {
  /** The clone source; undefined unless the wish names one. */
  readonly template: ObservedContainer | undefined;
  /** Storages that can make linked clones. */
  readonly linkableStorages: ReadonlySet<string>;
  /** The keys that the container shall hold; undefined when nobody said. */
  readonly keys: WantedKeys | undefined;
  /** A program of ours made or unmade this container, so a nameless half of one is ours. */
  readonly ownHalf: boolean;
  /** Mount points of containers lie below: `<lxcRoot>/<vmid>/rootfs`. */
  readonly lxcRoot: string;
}

/** SSH keys on their way into a container. */
export interface WantedKeys {
  readonly digest: string;
  /** The keys in authorized_keys format, for `pct create`. */
  readonly keysFile: string;
  /** Where the merged file for `pct push` is prepared. */
  readonly pushFile: string;
}

const DEFAULT_SHUTDOWN_SECONDS = 60;
const KEYS_PATH = "/root/.ssh/authorized_keys";

/**
 * The steps from what is seen to what is wished, each with its exact words; empty when nothing is
 * left to do. All are planned as if every step succeeds (that is the dry run); whoever executes
 * them looks again after each.
 * @throws ContainerFailure when the wish is impossible, not allowed or has to wait
 */
export function planContainer(wish: ContainerWish, observed: ObservedContainer, host: PlanHost): Step[] {
  if (observed.where === "elsewhere") throw elsewhere(wish, observed);
  if (observed.where === "nowhere") return wish.present ? planNew(wish, host) : [];
  if (isLeftover(wish, observed, host.ownHalf)) {
    if (!observed.lockIsStale) throw locked(wish.vmid, lockOf(observed.config));
    return [cleanUp(wish.vmid, host), ...(wish.present ? planNew(wish, host) : [])];
  }
  const marker = requireOwnership(wish, observed);
  if (!wish.present) refuseMoreThanAPod(wish, observed);
  const unlock = unlockSteps(wish, observed);
  const steps = wish.present
    ? planPresent(wish, observed.config, observed.running, marker, host)
    : [...(observed.running ? [step("stop", pctStop(wish.vmid))] : []), step("destroy", pctDestroy(wish.vmid))];
  if (steps.length > 0 && unlock === "wait") throw locked(wish.vmid, lockOf(observed.config));
  return unlock === "wait" ? [] : [...unlock, ...steps];
}

/**
 * What a killed create, clone or destroy of ours left: nameless and known to be ours, or marked and
 * still locked by its making.
 */
export function isLeftover(
  wish: Pick<ContainerWish, "podId" | "fleetEpoch" | "generation">,
  observed: ObservedContainer,
  ownHalf: boolean,
): boolean {
  if (observed.where !== "here" || observed.running) return false;
  if (isNamelessHalf(observed.config)) return ownHalf;
  if (lockOf(observed.config) !== "create") return false;
  const marker = parseMarker(observed.config.description);
  return marker?.podId === wish.podId && marker.stage === "new" && !isNewer(marker, wish);
}

/** Takes away a half-made container with its mount, its lock and the volumes that nobody names. */
export function cleanUp(vmid: number, host: Pick<PlanHost, "lxcRoot">): Step {
  return step("clean-up", umountRecursively(`${host.lxcRoot}/${vmid}/rootfs`), pctUnlock(vmid), pctDestroy(vmid));
}

/** @throws ContainerFailure unless the container carries this pod's marker and no newer placement */
export function requireOwnership(
  wish: Pick<ContainerWish, "podId" | "vmid" | "fleetEpoch" | "generation">,
  observed: Pick<ContainerHere, "config">,
): Marker {
  const marker = parseMarker(observed.config.description);
  if (marker?.podId !== wish.podId) {
    const owner = marker === undefined ? "carries no marker" : `belongs to pod ${marker.podId}`;
    throw refused("VMID_CONFLICT", `container ${wish.vmid} ${owner}`);
  }
  if (isNewer(marker, wish)) {
    const message = `container ${wish.vmid} carries generation ${marker.generation} of epoch ${marker.fleetEpoch}`;
    throw refused("STALE_GENERATION", message);
  }
  return marker;
}

/** pct destroy removes every volume of a container, also what somebody has added by hand since it was decided. */
function refuseMoreThanAPod({ vmid, volumes = [] }: ContainerWish, { config }: ContainerHere): void {
  const others = extraVolumes(config).filter((key) => !volumes.includes(key));
  if (others.length === 0) return;
  const message = `container ${vmid} has ${others.join(", ")}, which no pod has and which would be removed with it`;
  throw refused("MORE_THAN_A_POD", message);
}

function isNewer(marker: Marker, wish: Pick<ContainerWish, "fleetEpoch" | "generation">): boolean {
  if (marker.fleetEpoch !== wish.fleetEpoch) return marker.fleetEpoch > wish.fleetEpoch;
  return marker.generation > wish.generation;
}

/** Breaks a stale lock; "wait" while it has a holder. @throws ContainerFailure when breaking it would hide damage */
function unlockSteps(wish: ContainerWish, observed: ContainerHere): Step[] | "wait" {
  const lock = lockOf(observed.config);
  if (lock === "") return [];
  if (!observed.lockIsStale) return "wait";
  if (wish.present && lock === "destroyed") {
    throw refused("HALF_DESTROYED", `container ${wish.vmid} was being destroyed`);
  }
  if (wish.present && lock === "rollback") {
    // A rollback that stopped half-way has left a disk of two states.
    throw refused("LOCKED", `container ${wish.vmid} stopped in the middle of a rollback`);
  }
  return [step("unlock", pctUnlock(wish.vmid))];
}

function planNew(wish: ContainerWish, host: PlanHost): Step[] {
  const { spec, vmid } = wish;
  if (spec === undefined) throw refused("CONTAINER_MISSING", `container ${vmid} does not exist`);
  switch (spec.source?.$case) {
    case "clone":
      return planClone(wish, spec, spec.source.value.templateVmid, spec.source.value.full, host);
    case "archive":
      return planCreate(wish, spec, spec.source.value.volumeId, host);
    default:
      throw refused("SOURCE_MISSING", "a new container needs a template to clone or an archive");
  }
}

function planCreate(wish: ContainerWish, spec: ContainerSpec, volumeId: string, host: PlanHost): Step[] {
  if (!spec.unprivileged) {
    throw refused("UNPRIVILEGED_MISMATCH", "privileged containers are not made");
  }
  const marker: Marker = { ...newMarker(wish), stage: "ready", keys: host.keys?.digest ?? "none" };
  const create = pctCreate({
    vmid: wish.vmid,
    volumeId,
    storage: spec.storage,
    diskGb: spec.diskGb,
    options: newContainerOptions(spec, marker),
    pool: spec.pool,
    keysFile: marker.keys === "none" ? undefined : host.keys?.keysFile,
  });
  const start = wish.power === Power.POWER_RUNNING ? [step("start", pctStart(wish.vmid))] : [];
  return [step("create", create), ...start];
}

function planClone(
  wish: ContainerWish,
  spec: ContainerSpec,
  templateVmid: number,
  wantsFull: boolean,
  host: PlanHost,
): Step[] {
  const template = cloneSource(templateVmid, host);
  refuseImpossible(template.config, spec);
  const unlock = unlockTemplate(templateVmid, template);
  const marker = newMarker(wish);
  const description = replaceMarker("", marker);
  const storage = parseRootDisk(template.config.options.get("rootfs") ?? "")?.storage ?? "";
  // Linked clones live on their template's storage and need one that can make them.
  const otherStorage = spec.storage !== "" && spec.storage !== storage;
  const full = wantsFull || otherStorage || !host.linkableStorages.has(storage);
  const clone = pctClone({
    templateVmid,
    vmid: wish.vmid,
    hostname: spec.hostname,
    description,
    full,
    storage: spec.storage,
    pool: spec.pool,
  });
  const predicted = cloneConfig(template.config, spec.hostname, description);
  return [...unlock, step("clone", clone), ...planPresent(wish, predicted, false, marker, host)];
}

function cloneSource(templateVmid: number, host: PlanHost): ContainerHere {
  const { template } = host;
  if (template?.where !== "here") {
    throw refused("TEMPLATE_MISSING", `template ${templateVmid} is not on this host`);
  }
  if (template.config.options.get("template") !== "1") {
    throw refused("NOT_A_TEMPLATE", `container ${templateVmid} is not a template`);
  }
  return template;
}

/** A killed clone leaves its template locked for ever. Only that lock is broken, and only on templates. */
function unlockTemplate(templateVmid: number, template: ContainerHere): Step[] {
  const lock = lockOf(template.config);
  if (lock === "") return [];
  if (lock !== "disk" || !template.lockIsStale) throw locked(templateVmid, lock);
  return [step("unlock-template", pctUnlock(templateVmid))];
}

/** What a clone's configuration will be: the template's with a new name, marker and unknown MACs. */
function cloneConfig(template: ContainerConfig, hostname: string, description: string): ContainerConfig {
  const options = new Map(template.options);
  for (const key of ["template", "lock", "parent"]) options.delete(key);
  for (const [key, value] of options) {
    if (!/^net\d+$/u.test(key)) continue;
    const network = parseProperties(value, "name");
    network.delete("hwaddr");
    options.set(key, [...network].map(([name, part]) => `${name}=${part}`).join(","));
  }
  options.set("hostname", hostname);
  return { ...template, description, options, pending: { options: new Map(), deletes: [] }, snapshots: [] };
}

function planPresent(
  wish: ContainerWish,
  config: ContainerConfig,
  running: boolean,
  marker: Marker,
  host: PlanHost,
): Step[] {
  const { vmid, spec, power } = wish;
  // Without a specification a half-configured clone stays one.
  const stage = spec === undefined ? marker.stage : "ready";
  const wanted: Marker = { ...newMarker(wish), stage, keys: marker.keys };
  const steps = configSteps(vmid, config, running, wanted, spec);
  if (running && power === Power.POWER_STOPPED) return [...steps, haltStep(wish)];
  if (!running && power === Power.POWER_RUNNING) steps.push(step("start", pctStart(vmid)));
  const willRun = running || power === Power.POWER_RUNNING;
  const { keys } = host;
  if (willRun && keys !== undefined && keys.digest !== marker.keys) {
    const marked = replaceMarker(config.description, { ...wanted, keys: keys.digest });
    steps.push(pushKeys(vmid, keys, marked));
  }
  return steps;
}

function haltStep(wish: ContainerWish): Step {
  const seconds = wish.shutdownTimeoutSeconds ?? DEFAULT_SHUTDOWN_SECONDS;
  return seconds === 0 ? step("stop", pctStop(wish.vmid)) : step("shutdown", pctShutdown(wish.vmid, seconds));
}

/**
 * Reads what root has, writes it back with our block replaced, and reads again, because `push` always
 * says success; then the marker remembers which keys are there.
 */
function pushKeys(vmid: number, keys: WantedKeys, description: string): Step {
  return step(
    "push-keys",
    pctExec(vmid, ["mkdir", "-p", "-m700", "/root/.ssh"]),
    readKeys(vmid),
    pctPush(vmid, keys.pushFile, KEYS_PATH),
    readKeys(vmid),
    pctSet(vmid, { options: { description } }),
  );
}

/** Prints root's authorized_keys; fails when there is none yet. */
function readKeys(vmid: number): Invocation {
  return pctExec(vmid, ["cat", KEYS_PATH]);
}

function newMarker(wish: ContainerWish): Marker {
  const { fleetEpoch, generation } = wish;
  const podId = checkedText("uuid", wish.podId, "pod_id");
  return { podId, fleetEpoch, generation, stage: "new", keys: "none" };
}

function elsewhere(
  wish: ContainerWish,
  observed: Extract<ObservedContainer, { where: "elsewhere" }>,
): ContainerFailure {
  if (observed.type === "qemu") {
    return refused("VMID_CONFLICT", `VMID ${wish.vmid} is a virtual machine of node ${observed.node}`);
  }
  return refused("ON_OTHER_NODE", `container ${wish.vmid} is on node ${observed.node}`);
}

function locked(vmid: number, lock: string): ContainerFailure {
  return new ContainerFailure("LOCKED", `CT ${vmid} is locked (${lock})`, { retryable: true });
}

function refused(code: ContainerFailureCode, message: string): ContainerFailure {
  return new ContainerFailure(code, message, { retryable: false });
}
