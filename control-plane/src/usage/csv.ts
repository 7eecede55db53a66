/** A number of any size or precision, written in plain decimal digits. */
export interface CsvNumber {
  readonly digits: string;
}

/** One field: text, a number, or nothing. */
export type CsvCell = string | CsvNumber | null;

const plainNumber = /^-?\d+(?:\.\d+)?$/;

/**
 * A cell that spreadsheets are to read as a number.
 * @throws Error for anything but plain decimal digits: what is not a number must go through the guard for texts.
 */
export function csvNumber(value: string | bigint): CsvNumber {
  const digits = String(value);
  if (!plainNumber.test(digits)) throw new Error(`${JSON.stringify(digits)} is not a plain decimal number`);
  return { digits };
}

/**
 * One record, with its line break, in the form of RFC 4180. A text that a spreadsheet would take for a formula gets an
 * apostrophe before it (OWASP, "CSV Injection"): names and labels are the tenant's own, the reader is somebody else.
 */
export function csvRecord(cells: readonly CsvCell[]): string {
  return `${cells.map(field).join(",")}\r\n`;
}

function field(cell: CsvCell): string {
  if (cell === null) return "";
  if (typeof cell !== "string") return cell.digits;
  // Spreadsheets skip leading blanks before they look for a formula, and know the full-width signs too.
  const guarded = /^\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n;\t']/.test(guarded) || guarded !== guarded.trim() ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}
