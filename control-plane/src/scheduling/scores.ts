/** Names of the scores. */
export const scoreNames = ["best-fit", "tenant-spread", "pressure"] as const;
export type ScoreName = (typeof scoreNames)[number];
