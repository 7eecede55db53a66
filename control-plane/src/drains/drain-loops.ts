import type { Loop } from "../platform/loops.ts";
import { driveDrains, type DrainDriver } from "./drive-drains.ts";

/** Drives what is being emptied or evacuated. */
export function drainLoops(driver: DrainDriver): Loop[] {
  return [
    {
      name: "drive-drains",
      everyMs: 1_000,
      async run() {
        const done = await driveDrains(driver);
        return done === 0 ? undefined : { done };
      },
    },
  ];
}
