import { describe, expect, test } from "vitest";
import { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { heartbeatBuffer } from "./heartbeat-buffer.ts";

const beat = (nodeId: string, receivedAtMs: number) => ({
  nodeId,
  receivedAtMs,
  heartbeat: Heartbeat.decode(new Uint8Array()),
});

/** A buffer whose writes fail as `failures` says or leave out the busy ones, and what was written. */
function bufferWith(failures: Error[] = [], busy: ReadonlySet<string>[] = []) {
  const written: string[][] = [];
  const buffer = heartbeatBuffer(
    async (beats, presences) => {
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      const leftOut = busy.shift() ?? new Set<string>();
      written.push([
        ...beats.flatMap((b) => (leftOut.has(b.nodeId) ? [] : [`${b.nodeId}@${b.receivedAtMs}`])),
        ...presences.flatMap((p) => (leftOut.has(p.nodeId) ? [] : [`${p.nodeId} ${p.online ? "on" : "off"}`])),
      ]);
      return { busy: leftOut };
    },
    () => {},
  );
  return { buffer, written };
}

describe("heartbeatBuffer", () => {
  test("writes the newest of each node, once", async () => {
    const { buffer, written } = bufferWith();
    for (const at of [1, 2, 3]) buffer.addHeartbeat(beat("a", at));
    buffer.addHeartbeat(beat("b", 2));
    await buffer.flush();
    await buffer.flush();
    expect(written).toEqual([["a@3", "b@2"]]);
  });

  test("keeps what could not be written, unless something newer came", async () => {
    const { buffer, written } = bufferWith([new Error("away")]);
    buffer.addHeartbeat(beat("a", 1));
    buffer.addHeartbeat(beat("b", 1));
    const flushing = buffer.flush();
    buffer.addHeartbeat(beat("a", 2));
    await flushing;
    await buffer.flush();
    expect(written).toEqual([["a@2", "b@1"]]);
  });

  test("a heartbeat ends an absence that was not written yet, a will after it does not", async () => {
    const { buffer, written } = bufferWith();
    buffer.addPresence({ nodeId: "a", online: false });
    buffer.addHeartbeat(beat("a", 1));
    buffer.addHeartbeat(beat("b", 1));
    buffer.addPresence({ nodeId: "b", online: false });
    await buffer.flush();
    expect(written).toEqual([["a@1", "b@1", "b off"]]);
  });

  test("keeps what is of a host that is busy, and only that, unless something newer came", async () => {
    const { buffer, written } = bufferWith([], [new Set(["a", "b", "c"])]);
    for (const nodeId of ["a", "b", "d"]) buffer.addHeartbeat(beat(nodeId, 1));
    for (const nodeId of ["b", "c"]) buffer.addPresence({ nodeId, online: false });
    const flushing = buffer.flush();
    buffer.addHeartbeat(beat("a", 2));
    buffer.addHeartbeat(beat("c", 2));
    await flushing;
    await buffer.flush();
    await buffer.flush();
    expect(written).toEqual([["d@1"], ["a@2", "b@1", "c@2", "b off"]]);
  });

  test("what the database refuses is not offered to it for ever", async () => {
    const { buffer, written } = bufferWith([Object.assign(new Error("refused"), { code: "22003" })]);
    buffer.addHeartbeat(beat("a", 1));
    await buffer.flush();
    buffer.addHeartbeat(beat("b", 1));
    await buffer.flush();
    expect(written).toEqual([["b@1"]]);
  });
});
