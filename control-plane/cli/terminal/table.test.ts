import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { createProgress, progressBar } from "./progress.ts";
import { renderFields, renderTable } from "./table.ts";

const columns = [
  { name: "name", value: ({ name }: Row) => name },
  { name: "pods", value: ({ pods }: Row) => pods },
  { name: "note", value: ({ note }: Row) => note },
];

interface Row {
  readonly name: string;
  readonly pods: number;
  readonly note: string | null;
}

test("columns are as wide as they must be, numbers at the right, and a row stays a line", () => {
  const rows = [
    { name: "pve1", pods: 7, note: null },
    { name: "pve-long-2", pods: 120, note: "two\nlines" },
  ];
  expect(renderTable(columns, rows)).toBe(
    ["NAME        PODS  NOTE", "pve1           7  -", "pve-long-2   120  two lines"].join("\n"),
  );
  expect(renderTable(columns, [])).toBe("NAME  PODS  NOTE");
});

test("fields stand under each other, what is not there has no line", () => {
  expect(renderFields({ node: "pve1", note: undefined, "last seen": null, pods: 0 })).toBe(
    ["node:       pve1", "last seen:  -", "pods:       0"].join("\n"),
  );
});

test.each([
  [0, "[....]"],
  [50, "[##..]"],
  [99, "[###.]"],
  [100, "[####]"],
  [140, "[####]"],
])("%d %% is %s", (percent, bar) => {
  expect(progressBar(percent, 4)).toBe(bar);
});

test("without a terminal every change is a line, once; on one a line changes and never wraps", () => {
  const line = { percent: 45, step: "configure", message: "The container exists" };
  const said = (stream: PassThrough & { isTTY?: boolean; columns?: number }): string => {
    const progress = createProgress(stream, "shop-1 create");
    progress.show(line);
    progress.show(line);
    progress.show({ percent: 100, step: "activate", message: "" });
    progress.end();
    return String(stream.read());
  };
  expect(said(new PassThrough())).toBe(
    "shop-1 create 45 % configure: The container exists\nshop-1 create 100 % activate\n",
  );
  const onTerminal = said(Object.assign(new PassThrough(), { isTTY: true, columns: 50 }));
  expect(onTerminal.split("\r\u001b[2K").map((text) => text.trimEnd())).toEqual([
    "",
    "shop-1 create [##########..............]  45 % co",
    "shop-1 create [########################] 100 % ac",
  ]);
});
