import { Writable } from "node:stream";
import { expect, test } from "vitest";
import { createLiveLines } from "./live-lines.ts";
import { createProgress } from "./progress.ts";

function screen(as: { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number }) {
  let text = "";
  const stream = new Writable({
    write(chunk: Buffer, _, done) {
      text += chunk.toString();
      done();
    },
  });
  return { stream: Object.assign(stream, as), text: () => text };
}

test("on a terminal the lines are drawn over those before, in the room that there is", () => {
  const { stream, text } = screen({ isTTY: true, columns: 5, rows: 3 });
  const show = createLiveLines(stream);
  show(["all", "one is long", "no room"]);
  show(["all", "one is longer", "no room"]); // looks the same
  show(["all", "\u001b[2Jtwo"]);
  expect(text()).toBe("\r\u001b[Jall\none \n" + "\u001b[2A\r\u001b[Jall\n\ufffd[2J\n");
});

test("elsewhere a line is written when it is new", () => {
  const { stream, text } = screen({});
  const show = createLiveLines(stream);
  show(["all 0 %", "one"]);
  show(["all 5 %", "one", "two"]);
  show(["all 5 %", "one", "two"]);
  expect(text()).toBe("all 0 %\none\nall 5 %\ntwo\n");
});

test("a terminal that says it has no columns and no rows still shows whole lines", () => {
  const { stream, text } = screen({ isTTY: true, columns: 0, rows: 0 });
  createLiveLines(stream)(["all of it", "one"]);
  createProgress(stream, "shop").show({ percent: 100, step: "start", message: "" });
  expect(text()).toContain("all of it\none\n");
  expect(text()).toMatch(/ 100 % start$/);
});
