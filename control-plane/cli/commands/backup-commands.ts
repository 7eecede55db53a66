import { Option, type Command } from "commander";
import {
  addWaitOptions,
  clientCommand,
  count,
  idOf,
  podReference,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { confirm } from "../confirm.ts";
import { UsageError } from "../errors.ts";
import { finishWork, nameOf } from "../finish-work.ts";
import { listAll } from "../open-cli.ts";
import { describeRemoval, renderBackups, renderRestorePlan } from "../views/backup-views.ts";
import { requirePossible } from "../views/dry-run-view.ts";
import { addBackupPolicyCommands } from "./backup-policy-commands.ts";

const backupId = idOf("backup", "backups ls POD");

/** Adds the backups of pods: making one, going back to one, and what there is. */
export function addBackupCommands(program: Command, pods: Command): void {
  addMaking(pods);
  addRestore(pods);
  const backups = program
    .command("backups")
    .description("backups of pods, also of pods that are gone, and their rules");
  clientCommand(backups, "ls", "backups of a pod, newest first")
    .argument("<pod>", "hostname, VMID or id; of a pod that is gone its id", podReference)
    .option("--limit <number>", "show so many at most", count, 100)
    .action(async (pod: string, options: ClientOptions & { readonly limit: number }) =>
      withCli(options, async (cli) => {
        const answer = await listAll(cli, "listBackups", { pod }, options.limit);
        cli.show(answer, ({ data }) => renderBackups(data, Date.now()));
      }),
    );
  addBackupPolicyCommands(backups);
  clientCommand(backups, "rm", "delete a backup")
    .argument("<pod>", "hostname, VMID or id", podReference)
    .argument("<backup>", "id", backupId)
    .option("-y, --yes", "do not ask", false)
    .action(async (pod: string, id: string, options: ClientOptions & { readonly yes: boolean }) =>
      withCli(options, async (cli) => {
        await confirm(`This deletes the backup ${id}`, id.slice(0, 8), options.yes);
        cli.show(await cli.api.call("deleteBackup", { pod, id }), describeRemoval);
      }),
    );
}

interface BackupOptions extends ClientOptions, WaitOptions {
  readonly note?: string;
  readonly mode?: string;
}

function addMaking(pods: Command): void {
  addWaitOptions(clientCommand(pods, "backup", "back a pod up now"))
    .argument("<pod>", "hostname, VMID or id", podReference)
    .option("--note <text>", "what it is for")
    .addOption(
      new Option("--mode <mode>", "how the pod is held still; by default as little as can be").choices([
        "snapshot",
        "suspend",
        "stop",
      ]),
    )
    .action(async (pod: string, { note, mode, ...options }: BackupOptions) =>
      withCli(options, async (cli) =>
        finishWork(cli, await cli.api.call("backUpPod", { pod, body: { note, mode } }), options),
      ),
    );
}

interface RestoreOptions extends ClientOptions, WaitOptions {
  readonly asNew?: string;
  readonly plan?: string;
  readonly yes: boolean;
  readonly dryRun?: true;
}

function addRestore(pods: Command): void {
  addWaitOptions(clientCommand(pods, "restore", "go back to a backup; what was written since is lost"))
    .argument("<pod>", "hostname, VMID or id; of a pod that is gone its id", podReference)
    .argument("<backup>", "id, see: cloudpods backups ls", backupId)
    .option("--as-new <hostname>", "make a new pod of it and leave the other alone")
    .option("--plan <code>", "with --as-new; by default as the pod was")
    .option("--dry-run", "tell what would happen and change nothing")
    .option("-y, --yes", "do not ask", false)
    .action(async (reference: string, id: string, options: RestoreOptions) => {
      const { asNew, plan } = options;
      // Whoever names a plan means a new pod; without its name the pod itself would be overwritten.
      if (plan !== undefined && asNew === undefined)
        throw new UsageError("--plan is for a new pod: name it by --as-new.");
      await withCli(options, async (cli) => {
        const pod = (await cli.api.call("showPod", { pod: reference })).body;
        const body = asNew === undefined ? {} : { asNewPod: true, hostname: asNew, planCode: plan };
        if (options.dryRun === true) {
          const preview = await cli.api.call("previewRestore", { pod: pod.id, id, body });
          cli.show(preview, renderRestorePlan);
          if (preview.body.newPod !== null) requirePossible(preview.body.newPod);
          return;
        }
        if (asNew === undefined)
          await confirm(`This puts ${nameOf(pod)} back to a backup; newer data is lost`, pod.hostname, options.yes);
        await finishWork(cli, await cli.api.call("restoreBackup", { pod: pod.id, id, body }), options);
      });
    });
}
