import type { OfferedBatch, Spool } from "../../node-agent/src/spool/spool.ts";
import type { Random } from "./usage-truth/random.ts";

type Offering = Pick<Spool, "takeOffers" | "retryNow" | "acknowledge">;

/** What a bad network makes of what an agent sends. */
export interface Meddling {
  readonly spool: Offering;
  /** How many messages were sent twice, sent again long after, and held back. */
  readonly counts: { twice: number; again: number; heldBack: number; merged: number };
}

/** Old messages that may come again. */
const rememberedMax = 500;

/** A spool whose messages travel badly: in any order, twice, much later, and again after days. */
export function meddleWith(inner: Offering, random: Random): Meddling {
  const counts = { twice: 0, again: 0, heldBack: 0, merged: 0 };
  const remembered: OfferedBatch[] = [];
  let held: OfferedBatch[] = [];
  return {
    counts,
    spool: {
      retryNow: () => inner.retryNow(),
      acknowledge: (acks) => inner.acknowledge(acks),
      takeOffers() {
        const fresh = inner.takeOffers();
        const sent = [...held];
        held = [];
        for (const batch of fresh) {
          if (batch.seqTo > batch.seqFrom) counts.merged += 1;
          if (random.chance(0.03)) {
            counts.heldBack += 1;
            held.push(batch);
            continue;
          }
          sent.push(batch);
          if (random.chance(0.05)) {
            counts.twice += 1;
            sent.push(batch);
          }
          if (remembered.length < rememberedMax) remembered.push(batch);
          else remembered[random.whole(0, rememberedMax - 1)] = batch;
        }
        if (sent.length > 0 && remembered.length > 0 && random.chance(0.02)) {
          counts.again += 1;
          sent.push(random.pick(remembered));
        }
        return sent
          .map((batch) => ({ batch, order: random.next() }))
          .toSorted((a, b) => a.order - b.order)
          .map(({ batch }) => batch);
      },
    },
  };
}
