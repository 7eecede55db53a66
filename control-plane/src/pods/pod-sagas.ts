import { backUpPod } from "../backups/back-up-pod.saga.ts";
import { restorePod } from "../backups/restore-pod.saga.ts";
import { movePod } from "../moves/move-pod.saga.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import type { Saga } from "../tasks/saga.ts";
import { adoptPodSaga } from "./adopt-pod.saga.ts";
import { powerSagas } from "./change-power.saga.ts";
import { changeSize } from "./change-size.saga.ts";
import { destroyPod } from "./destroy-pod.saga.ts";
import { provisionPod } from "./provision-pod.saga.ts";
import { setRate } from "./set-rate.saga.ts";

/** Everything that is done to pods over time. */
export function podSagas(fleet: FleetView): Saga[] {
  return [
    provisionPod(fleet),
    changeSize,
    destroyPod,
    setRate,
    movePod,
    backUpPod,
    restorePod,
    adoptPodSaga,
    ...powerSagas,
  ];
}
