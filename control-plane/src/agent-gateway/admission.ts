import { status } from "@grpc/grpc-js";
import { SessionEnd } from "./session-end.ts";

/** Limits how many sessions begin at once, so that a returning fleet does not starve those that are connected. */
export interface Admission {
  /**
   * Waits for a place; the returned function gives it back. Who waits has a connection already: to send him away would
   * cost both sides another handshake.
   * @throws SessionEnd GATEWAY_BUSY, when too many wait or for too long, with a random time to stay away, so that the
   * refused do not come back together.
   */
  enter(): Promise<() => void>;
  /** Whether so many wait already that nobody else should go to the expense of a handshake. */
  isCrowded(): boolean;
}

/** Bounds of an admission. */
export interface AdmissionLimits {
  /** Beginnings at a time. */
  readonly openingMax: number;
  /** Agents that may wait for their turn. */
  readonly waitingMax: number;
  /** How long; agents themselves give up after 20 s. */
  readonly waitMs: number;
}

/** The part of the places to wait at which it is crowded: those whose handshake is under way need the others. */
const crowdedShare = 0.25;
const retryMinMs = 500;
const retrySpreadMs = 4_500;

/** Makes an admission; those who wait have their turn in the order in which they came. */
export function createAdmission(limits: AdmissionLimits, random: () => number): Admission {
  const waiting = new Set<() => void>();
  let opening = 0;

  const busy = (): SessionEnd =>
    new SessionEnd(
      status.RESOURCE_EXHAUSTED,
      "GATEWAY_BUSY",
      "too many agents connect at the moment",
      retryMinMs + random() * retrySpreadMs,
    );
  const turn = (): Promise<void> =>
    new Promise((resolve, reject) => {
      if (waiting.size >= limits.waitingMax) return reject(busy());
      const timer = setTimeout(() => {
        waiting.delete(begin);
        reject(busy());
      }, limits.waitMs);
      const begin = (): void => {
        clearTimeout(timer);
        resolve();
      };
      waiting.add(begin);
    });
  const leave = (): void => {
    const [next] = waiting;
    // Whoever is next takes over the place.
    if (next === undefined) opening--;
    else {
      waiting.delete(next);
      next();
    }
  };
  return {
    isCrowded: () => waiting.size > crowdedShare * limits.waitingMax,
    async enter() {
      if (opening < limits.openingMax) opening++;
      else await turn();
      let inside = true;
      return () => {
        if (inside) leave();
        inside = false;
      };
    },
  };
}
