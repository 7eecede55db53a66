import type { Fact, StuckArchive } from "./finding.ts";

/** What is told of archives that nobody could look after: one finding for each pod, with all of them. */
export function judgeArchives(archives: readonly StuckArchive[]): Fact[] {
  const byPod = Map.groupBy(archives, ({ podId, vmid }) => `${podId} ${vmid}`);
  return [...byPod.values()].flatMap((ofPod): Fact[] => {
    const [first] = ofPod;
    if (first === undefined) return [];
    const { podId, vmid } = first;
    const shown = ofPod.map(({ volumeId, madeFor, errand, tries, error }) => ({
      volumeId,
      madeFor,
      errand,
      tries,
      error,
    }));
    const subject = shown
      .map(({ volumeId }) => volumeId)
      .toSorted()
      .join(", ");
    return [
      { vmid, podId, kind: "left-archive", subject, evidence: { archives: shown }, offered: ["repair", "dismiss"] },
    ];
  });
}
