import type { ConnectRequest } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { expect, test } from "vitest";
import type { AgentMessage } from "../commands/command-schedule.ts";
import { createOutgoing } from "./outgoing.ts";

function slowSink() {
  const written: AgentMessage[] = [];
  let onDrain: (() => void) | undefined;
  const sink = {
    write({ message }: ConnectRequest) {
      if (message !== undefined) written.push(message);
      return false;
    },
    once(_: "drain", listener: () => void) {
      onDrain = listener;
    },
  };
  return { sink, written, drain: () => onDrain?.() };
}

const accepted = (commandId: string): AgentMessage => ({ $case: "accepted", value: { commandId } });
const progress = (commandId: string): AgentMessage => ({
  $case: "progress",
  value: { commandId, step: "clone", percent: 1, detail: "" },
});

test("messages wait for the stream and keep their order; progress gives way when too many wait", () => {
  const { sink, written, drain } = slowSink();
  const outgoing = createOutgoing(sink, 2);
  expect(outgoing.send(accepted("1"))).toBe(true);
  expect(outgoing.send(progress("2"))).toBe(true);
  expect(outgoing.send(accepted("3"))).toBe(true);
  expect(outgoing.send(progress("4"))).toBe(false);
  expect(outgoing.send(accepted("5"))).toBe(true);
  expect(outgoing.send(accepted("6"))).toBe(false);
  drain();
  drain();
  expect(written).toEqual([accepted("1"), accepted("3"), accepted("5")]);
});
