import { lockPodById } from "../pods/pod.ts";
import type { Step } from "../tasks/saga.ts";
import { backupWish, readPolicy, rulesOfPlan, withWish, writePolicy } from "./backup-policy.ts";

/** A new pod gets the rules that its order chose, else those of its plan; one that has rules keeps them. */
export const backupPolicyStep: Step = {
  name: "backup-policy",
  percent: 90,
  attemptsMax: 5,
  async begin({ tx, task, now }) {
    const pod = await lockPodById(tx, task.podId);
    if ((await readPolicy(tx, pod, true)).version > 0) return { kind: "done", message: "Has its rules for backups" };
    const plan = await rulesOfPlan(tx, pod.planCode);
    const wish = backupWish.optional().parse(task.input["backup"]);
    const rules = wish === undefined ? plan : withWish(plan, wish);
    await writePolicy(tx, pod, rules, wish === undefined ? "plan" : "tenant", now);
    const message = rules.enabled ? `Is backed up every ${rules.everyHours} hours` : "Is not backed up";
    return { kind: "done", message };
  },
};
