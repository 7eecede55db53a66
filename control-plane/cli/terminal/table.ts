import { charactersOf } from "./format.ts";

/** A column of a table. */
export interface Column<Row> {
  readonly name: string;
  readonly value: (row: Row) => string | number | null | undefined;
}

/** Rows in columns that are as wide as they must be; numbers stand at the right. Without rows only the names. */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const values = rows.map((row) => columns.map(({ value }) => value(row) ?? "-"));
  const isNumeric = columns.map((_, at) => values.length > 0 && values.every((row) => typeof row[at] === "number"));
  const texts = [columns.map(({ name }) => name.toUpperCase()), ...values.map((row) => row.map(oneLine))];
  const widths = columns.map((_, at) => Math.max(...texts.map((row) => widthOf(row[at] ?? ""))));
  return texts
    .map((row) =>
      row
        .map((text, at) => padded(text, widths[at] ?? 0, isNumeric[at] === true))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Names and values under each other; what is undefined has no line. */
export function renderFields(fields: Readonly<Record<string, string | number | null | undefined>>): string {
  const shown = Object.entries(fields).filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...shown.map(([name]) => widthOf(name)));
  return shown.map(([name, value]) => `${padded(`${name}:`, width + 1, false)}  ${oneLine(value ?? "-")}`).join("\n");
}

function padded(text: string, width: number, atTheRight: boolean): string {
  const space = " ".repeat(Math.max(0, width - widthOf(text)));
  return atTheRight ? space + text : text + space;
}

function widthOf(text: string): number {
  return charactersOf(text).length;
}

function oneLine(value: string | number): string {
  return value === "" ? "-" : String(value).replaceAll(/\s+/g, " ");
}
