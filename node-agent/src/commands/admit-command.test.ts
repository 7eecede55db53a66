import { Command, CommandOutcome, ContainerSpec, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Fence } from "../journal/journal.ts";
import { type Admission, type AdmissionFacts, admitCommand, isStillWanted } from "./admit-command.ts";
import { capabilitiesOf } from "./operations.ts";

const podId = "0190a0a0-0000-7000-8000-000000000001";
const spec = ContainerSpec.fromPartial({ hostname: "web", cores: 2, memoryMb: 512, diskGb: 8 });
const capabilities = capabilitiesOf(true);
const idOf = (index: number): string => `0190a0a0-0000-7000-8000-${String(index).padStart(12, "0")}`;

const blank: AdmissionFacts = {
  recorded: undefined,
  fence: undefined,
  markerGeneration: undefined,
  fleetEpoch: 0n,
  capabilities,
};

function wish(index: number, change: Partial<Command> = {}): Command {
  return Command.fromPartial({
    commandId: idOf(index),
    podId,
    vmid: 100_001,
    fleetEpoch: 1n,
    generation: 1n,
    revision: BigInt(index),
    op: { $case: "ensurePower", value: { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 30 } },
    ...change,
  });
}

/** The part of the journal that matters for admission, and everything that was let through. */
function deliver(commands: readonly Command[], admit: typeof admitCommand) {
  const seen = new Set<string>();
  const accepted: Command[] = [];
  let fence: Fence | undefined;
  let fleetEpoch = 0n;
  for (const command of commands) {
    const recorded = seen.has(command.commandId) ? { state: "accepted" as const, result: undefined } : undefined;
    const admission = admit(command, { ...blank, recorded, fence, fleetEpoch });
    if (admission.decision === "accept") {
      accepted.push(command);
      fence = admission.fence ?? fence;
      if (command.fleetEpoch > fleetEpoch) fleetEpoch = command.fleetEpoch;
    }
    if (admission.decision === "accept" || (admission.decision === "refuse" && admission.record)) {
      seen.add(command.commandId);
    }
  }
  return { accepted, fence };
}

const order = (a: Command, b: Command): number =>
  Number(a.fleetEpoch - b.fleetEpoch || a.generation - b.generation || a.revision - b.revision);

const anyOp = fc.constantFrom<NonNullable<Command["op"]>>(
  { $case: "ensurePower", value: { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 1 } },
  { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 1 } },
  { $case: "ensureContainer", value: { spec } },
  { $case: "ensureAbsent", value: { volumes: [] } },
);

/** Wishes as a control plane writes them: each newer than the one before. */
const history = fc
  .array(fc.record({ op: anyOp, step: fc.constantFrom("revision", "generation", "epoch") }), { maxLength: 12 })
  .map((steps) => {
    let [epoch, generation, revision] = [1n, 1n, 0n];
    return steps.map(({ op, step }, index) => {
      revision += 1n;
      if (step === "generation") generation += 1n;
      if (step === "epoch") [epoch, generation, revision] = [epoch + 1n, 1n, 1n];
      return wish(index + 1, { fleetEpoch: epoch, generation, revision, op });
    });
  });

/** Any deliveries of a history: some never, some often, in any order. */
const deliveries = history.chain((wishes) =>
  wishes.length === 0 ? fc.constant<Command[]>([]) : fc.array(fc.constantFrom(...wishes), { maxLength: 40 }),
);

function checkOrder(admit: typeof admitCommand): void {
  fc.assert(
    fc.property(deliveries, (commands) => {
      const { accepted, fence } = deliver(commands, admit);
      expect(new Set(accepted.map(({ commandId }) => commandId)).size).toBe(accepted.length);
      expect(accepted.toSorted(order)).toEqual(accepted);
      const newest = commands.toSorted(order).at(-1);
      expect(accepted.at(-1)?.commandId).toBe(newest?.commandId);
      expect(fence?.revision).toBe(newest?.revision);
      expect(fence?.generation).toBe(newest?.generation);
    }),
    { numRuns: 300 },
  );
}

describe("deliveries that are repeated, reordered or late", () => {
  test("let each wish through at most once, never an older after a newer, and always the newest", () => {
    expect(() => checkOrder(admitCommand)).not.toThrow();
  });

  test("negative control: without the fence the property fails", () => {
    expect(() => checkOrder((command, facts) => admitCommand(command, { ...facts, fence: undefined }))).toThrow(
      "Property failed",
    );
  });

  test("negative control: without the journal a repeated deed runs twice", () => {
    const reboot = wish(1, { op: { $case: "reboot", value: { shutdownTimeoutSeconds: 1 } } });
    expect(deliver([reboot, reboot], admitCommand).accepted).toHaveLength(1);
    const forgetful: typeof admitCommand = (command, facts) => admitCommand(command, { ...facts, recorded: undefined });
    expect(deliver([reboot, reboot], forgetful).accepted).toHaveLength(2);
  });
});

test("a truncated command is never let through and never recorded", () => {
  fc.assert(
    fc.property(history, fc.nat(), (wishes, cut) => {
      for (const command of wishes) {
        const bytes = Command.encode(command).finish();
        const part = bytes.subarray(0, cut % bytes.length);
        let decoded: Command;
        try {
          decoded = Command.decode(part);
        } catch {
          continue;
        }
        expect(admitCommand(decoded, blank)).toMatchObject({ decision: "refuse", record: false });
      }
    }),
  );
});

test("a finished command is answered from the journal whatever it says now", () => {
  const result = Uint8Array.of(1, 2, 3);
  const facts = { ...blank, recorded: { state: "finished" as const, result } };
  expect(admitCommand(wish(1, { generation: 0n }), facts)).toEqual({ decision: "repeat", result });
});

const fenceAt = (generation: bigint, revision: bigint, change: Partial<Fence> = {}): Fence => ({
  podId,
  vmid: 100_001,
  fleetEpoch: 1n,
  generation,
  revision,
  present: true,
  spec: undefined,
  power: Power.POWER_UNSPECIFIED,
  shutdownTimeoutSeconds: 0,
  ...change,
});

test.each<[string, Partial<Command>, Partial<AdmissionFacts>, string]>([
  ["a lower generation", { generation: 2n }, { fence: fenceAt(3n, 1n) }, "STALE_GENERATION"],
  ["a lower epoch", {}, { fleetEpoch: 2n }, "STALE_GENERATION"],
  ["a generation below the marker after the loss of the journal", {}, { markerGeneration: 2n }, "STALE_GENERATION"],
  ["the same revision", { revision: 4n }, { fence: fenceAt(1n, 4n) }, "SUPERSEDED"],
  ["no operation", { op: undefined }, {}, "UNSUPPORTED"],
  [
    "an operation of a later version",
    { op: { $case: "snapshot", value: { name: "a", remove: false } } },
    {},
    "UNSUPPORTED",
  ],
  ["an operation that the role forbids", {}, { capabilities: capabilitiesOf(false) }, "UNSUPPORTED"],
  ["no pod", { podId: "" }, {}, "INVALID_COMMAND"],
  ["a VMID that Proxmox reserves", { vmid: 99 }, {}, "INVALID_COMMAND"],
  ["no generation", { generation: 0n }, {}, "INVALID_COMMAND"],
  ["no revision", { revision: 0n }, {}, "INVALID_COMMAND"],
  [
    "no power",
    { op: { $case: "ensurePower", value: { power: 7 as Power, shutdownTimeoutSeconds: 0 } } },
    {},
    "INVALID_COMMAND",
  ],
  ["no specification", { op: { $case: "ensureContainer", value: { spec: undefined } } }, {}, "INVALID_COMMAND"],
  ["a negative time to live", { ttlMs: -1n }, {}, "INVALID_COMMAND"],
])("a wish with %s is refused", (_, change, facts, code) => {
  expect(admitCommand(wish(1, change), { ...blank, ...facts })).toMatchObject({ decision: "refuse", code });
});

test("a restored control plane with a higher epoch may start again from lower generations", () => {
  const admission = admitCommand(wish(9, { fleetEpoch: 2n, generation: 1n, revision: 1n }), {
    ...blank,
    fleetEpoch: 2n,
    fence: fenceAt(7n, 30n),
    markerGeneration: 7n,
  });
  expect(admission).toMatchObject({ decision: "accept", fence: { fleetEpoch: 2n, generation: 1n } });
});

describe("the fence", () => {
  const fenceAfter = (command: Command, fence: Fence | undefined): Fence | undefined => {
    const admission: Admission = admitCommand(command, { ...blank, fence });
    return admission.decision === "accept" ? admission.fence : undefined;
  };
  const container = wish(5, { op: { $case: "ensureContainer", value: { spec } } });

  test("keeps the power when the container is wished anew, and the specification when the power is", () => {
    const powered = fenceAfter(wish(1), undefined);
    const specified = fenceAfter(container, powered);
    expect(specified).toMatchObject({ power: Power.POWER_RUNNING, spec, revision: 5n });
    expect(fenceAfter(wish(6), specified)).toMatchObject({ spec, revision: 6n });
  });

  test("forgets both with a new placement and after the container was wished away", () => {
    const before = fenceAt(1n, 1n, { spec, power: Power.POWER_RUNNING });
    expect(fenceAfter(wish(2, { generation: 2n }), before)?.spec).toBeUndefined();
    const absent = fenceAfter(wish(2, { op: { $case: "ensureAbsent", value: { volumes: [] } } }), before);
    expect(absent).toMatchObject({ present: false, spec: undefined, power: Power.POWER_UNSPECIFIED });
    expect(fenceAfter(container, absent)).toMatchObject({ present: true, power: Power.POWER_UNSPECIFIED });
  });

  test("is not moved by deeds and looks", () => {
    const reboot = wish(9, { generation: 3n, op: { $case: "reboot", value: { shutdownTimeoutSeconds: 1 } } });
    expect(admitCommand(reboot, { ...blank, fence: fenceAt(2n, 1n) })).toMatchObject({ fence: undefined });
  });
});

test("a wish that was overtaken while it waited is no longer wanted", () => {
  const stop = wish(1, {
    op: { $case: "ensurePower", value: { power: Power.POWER_STOPPED, shutdownTimeoutSeconds: 1 } },
  });
  const start = wish(2);
  const { fence } = deliver([stop, start], admitCommand);
  expect(isStillWanted(stop, fence)).toBe(false);
  expect(isStillWanted(start, fence)).toBe(true);
  expect(isStillWanted(wish(1, { generation: 0n }), fence)).toBe(false);
});

test("a refusal that could be wrong tomorrow is not recorded", () => {
  const unknown = admitCommand(wish(1, { op: undefined }), blank);
  expect(unknown).toMatchObject({ outcome: CommandOutcome.COMMAND_OUTCOME_UNSUPPORTED, record: false });
});
