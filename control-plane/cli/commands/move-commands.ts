import type { Command } from "commander";
import {
  addWaitOptions,
  clientCommand,
  podReference,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { finishWork } from "../finish-work.ts";
import { renderPlannedMove, requireTarget } from "../views/move-views.ts";

interface MigrateOptions extends ClientOptions, WaitOptions {
  readonly target?: string;
  readonly reason: string;
  readonly dryRun?: true;
}

/** Adds the move of one pod. */
export function addMigrateCommand(pods: Command): void {
  addWaitOptions(clientCommand(pods, "migrate", "move a pod to another host, for operators"))
    .argument("<pod>", "hostname, VMID or id", podReference)
    .option("--target <node>", "name or id of the host; by default the best one")
    .option("--reason <text>", "why; it is in the audit log", "by the command line")
    .option("--dry-run", "tell what would happen and change nothing")
    .action(async (pod: string, options: MigrateOptions) => {
      const { target, reason } = options;
      const body = { target, reason };
      await withCli(options, async (cli) => {
        if (options.dryRun === true) {
          const planned = await cli.api.call("previewMigrate", { pod, body });
          cli.show(planned, (move) => renderPlannedMove(move, target));
          requireTarget(planned.body);
          return;
        }
        const accepted = await cli.api.call("migratePod", { pod, body });
        // The pod and its task are looked at in its tenant.
        const inTenant = { ...options, tenant: accepted.body.pod.tenantId };
        await withCli(inTenant, (cliInTenant) => finishWork(cliInTenant, accepted, options));
      });
    });
}
