import { expect, test, vi } from "vitest";
import { whenToldToEnd } from "./when-told-to-end.ts";

test("what is told twice at once is told once, and who is told again later ends at once", () => {
  let nowMs = 0;
  const end = vi.fn<() => void>();
  const kill = vi.spyOn(process, "kill").mockReturnValue(true);
  const before = process.listeners("SIGTERM");
  whenToldToEnd(end, () => nowMs);
  const tell = (): void => {
    for (const listener of process.listeners("SIGTERM")) if (!before.includes(listener)) listener("SIGTERM");
  };
  tell();
  nowMs = 900;
  tell();
  expect(end).toHaveBeenCalledOnce();
  expect(kill).not.toHaveBeenCalled();
  // Had nobody listened to the second word, it would have ended the program.
  expect(process.listenerCount("SIGTERM")).toBe(before.length + 1);
  nowMs = 1_000;
  tell();
  expect(kill).toHaveBeenCalledExactlyOnceWith(process.pid, "SIGTERM");
  expect(process.listeners("SIGTERM")).toEqual(before);
  kill.mockRestore();
});
