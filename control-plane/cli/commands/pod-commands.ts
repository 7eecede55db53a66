import type { Command } from "commander";
import { podStatuses } from "@cloudpods/shared/pod-lifecycle";
import { Option } from "commander";
import {
  addWaitOptions,
  clientCommand,
  count,
  podReference,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { confirm } from "../confirm.ts";
import { finishWork, nameOf } from "../finish-work.ts";
import { listAll, type OpenedCli } from "../open-cli.ts";
import { renderPod, renderPods } from "../views/pod-views.ts";
import { addAdoptCommand } from "./finding-commands.ts";
import { addBackupCommands } from "./backup-commands.ts";
import { addMigrateCommand } from "./move-commands.ts";
import { addPodOrderCommands } from "./pod-order-commands.ts";
import { renderDryRun } from "../views/dry-run-view.ts";

/** Adds everything about pods. */
export function addPodCommands(program: Command): void {
  const pods = program.command("pods").description("order, watch and change pods");
  addReading(pods);
  addPodOrderCommands(pods);
  addPower(pods);
  addDestroy(pods);
  addBackupCommands(program, pods);
  addMigrateCommand(pods);
  addAdoptCommand(pods);
}

interface ListOptions extends ClientOptions {
  readonly all?: true;
  readonly status?: string;
  readonly plan?: string;
  readonly region?: string;
  readonly limit: number;
}

function addReading(pods: Command): void {
  clientCommand(pods, "ls", "pods of the tenant")
    .addOption(new Option("--all", "of all tenants, for operators").conflicts("tenant"))
    .addOption(new Option("--status <status>", "only those").choices(podStatuses))
    .option("--plan <code>", "only those of a plan")
    .option("--region <name>", "only those of a region")
    .option("--limit <number>", "show so many at most", count, 1_000)
    .action(async (options: ListOptions) => {
      await withCli(options, async (cli) => {
        const query = { status: options.status, planCode: options.plan, region: options.region };
        const answer = await listAll(cli, options.all === true ? "listAllPods" : "listPods", { query }, options.limit);
        const slugs = options.all === true && !cli.isJson ? await slugsById(cli) : undefined;
        cli.show(answer, ({ data }) => renderPods(data, slugs, Date.now()));
      });
    });
  clientCommand(pods, "show", "a pod and its health")
    .argument("<pod>", "hostname, VMID or id", podReference)
    .action(async (pod: string, options: ClientOptions) => {
      await withCli(options, async (cli) => {
        const answer = await cli.api.call("showPod", { pod });
        const health = cli.isJson ? undefined : (await cli.api.call("showHealth", { pod })).body;
        cli.show(answer, (body) => renderPod(body, Date.now(), health));
      });
    });
}

/** Tenants of which there are too many to be listed at once are shown by their ids. */
async function slugsById(cli: OpenedCli): Promise<ReadonlyMap<string, string>> {
  const { body } = await cli.api.call("listTenants", { query: { limit: 200 } });
  return new Map(body.data.map(({ id, slug }) => [id, slug]));
}

const powerVerbs = {
  start: "startPod",
  stop: "stopPod",
  restart: "restartPod",
  resume: "resumePod",
  suspend: "suspendPod",
} as const;

const descriptions: Readonly<Record<keyof typeof powerVerbs, string>> = {
  start: "start a pod",
  stop: "stop a pod",
  restart: "stop and start a pod",
  resume: "resume a pod that its owner suspended",
  suspend: "suspend a pod: stopped, and out of the quota",
};

function addPower(pods: Command): void {
  for (const [verb, endpoint] of Object.entries(powerVerbs)) {
    // Object.entries forgets that the keys are the names.
    const command = clientCommand(pods, verb, descriptions[verb as keyof typeof powerVerbs]);
    if (verb === "suspend") command.option("--reason <text>", "why");
    addWaitOptions(command)
      .argument("<pod>", "hostname, VMID or id", podReference)
      .action(async (pod: string, options: ClientOptions & WaitOptions & { readonly reason?: string }) => {
        await withCli(options, async (cli) => {
          const body = options.reason === undefined ? {} : { body: { reason: options.reason } };
          await finishWork(cli, await cli.api.call(endpoint, { pod, ...body }), options);
        });
      });
  }
}

interface DestroyOptions extends ClientOptions, WaitOptions {
  readonly dryRun?: true;
  readonly yes?: true;
  readonly finalBackup?: true;
  readonly removeVolumes?: true;
}

function addDestroy(pods: Command): void {
  addWaitOptions(clientCommand(pods, "destroy", "destroy a pod with its disk"))
    .option("--dry-run", "tell what would happen and change nothing")
    .option("--final-backup", "make a backup first, which stays for 30 days")
    .option("--remove-volumes", "also what somebody added to the pod's container by hand")
    .option("-y, --yes", "do not ask", false)
    .argument("<pod>", "hostname, VMID or id", podReference)
    .action(async (reference: string, options: DestroyOptions) => {
      await withCli(options, async (cli) => {
        const query = {
          finalBackup: options.finalBackup === true ? "true" : undefined,
          removeVolumes: options.removeVolumes === true ? "true" : undefined,
        };
        if (options.dryRun === true) {
          cli.show(await cli.api.call("previewDestroy", { pod: reference, query }), renderDryRun);
          return;
        }
        const pod = (await cli.api.call("showPod", { pod: reference })).body;
        await confirm(`This destroys ${nameOf(pod)} with its disk`, pod.hostname, options.yes === true);
        // By id: a VMID might name another pod by now.
        await finishWork(cli, await cli.api.call("destroyPod", { pod: pod.id, query }), options);
      });
    });
}
