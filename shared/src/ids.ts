import { v7, validate } from "uuid";

/** A new UUIDv7: sortable by time of making. */
export function newId(): string {
  return v7();
}

/** Whether the text is a UUID of any version. */
export function isUuid(text: string): boolean {
  return validate(text);
}
