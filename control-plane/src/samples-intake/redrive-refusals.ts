import { DomainError } from "@cloudpods/shared/errors";
import { isAboutContent } from "./store-patiently.ts";

/** There is nothing with this id that was put aside. */
export function letterNotFound(): DomainError {
  return new DomainError("not-found", "DEAD_LETTER_NOT_FOUND", "There is nothing with this id that was put aside.");
}

/** Somebody was quicker, or the answer to the first retry was lost. */
export function letterRetried(): DomainError {
  return new DomainError(
    "wrong-state",
    "DEAD_LETTER_RETRIED",
    "It was retried before, and what it holds has been stored.",
  );
}

/** It cannot be stored today either; nothing has changed. */
export function stillRefused(reason: string, detail = ""): DomainError {
  return new DomainError("conflict", "DEAD_LETTER_STILL_REFUSED", `It is still refused: ${reason}.`, {
    details: { reason, ...(detail === "" ? {} : { detail }) },
  });
}

/** Runs a transaction that stores a letter; what the database says against the content is a refusal like others. */
export async function refusing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isAboutContent(error)) throw stillRefused("REFUSED_BY_DATABASE", error instanceof Error ? error.message : "");
    throw error;
  }
}
