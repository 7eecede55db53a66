import { status } from "@grpc/grpc-js";
import { SessionEnd } from "./session-end.ts";

/** Limits how many sessions begin at once, so that a returning fleet does not starve those that are connected. */
export interface Admission {
  /**
   * Takes a place; the returned function gives it back.
   * @throws SessionEnd GATEWAY_BUSY with a random wait, so that the refused do not come back together.
   */
  enter(): () => void;
}

const retryMinMs = 500;
const retrySpreadMs = 4_500;

/** Admission of `openingMax` beginnings at a time. */
export function createAdmission(openingMax: number, random: () => number): Admission {
  let opening = 0;
  return {
    enter() {
      if (opening >= openingMax) {
        const waitMs = retryMinMs + random() * retrySpreadMs;
        throw new SessionEnd(
          status.RESOURCE_EXHAUSTED,
          "GATEWAY_BUSY",
          "too many agents connect at the moment",
          waitMs,
        );
      }
      opening++;
      let inside = true;
      return () => {
        if (inside) opening--;
        inside = false;
      };
    },
  };
}
