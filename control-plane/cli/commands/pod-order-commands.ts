import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import {
  addWaitOptions,
  clientCommand,
  count,
  diskSize,
  label,
  memorySize,
  podReference,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { UsageError } from "../errors.ts";
import { finishWork } from "../finish-work.ts";
import { renderDryRun, requirePossible } from "../views/dry-run-view.ts";

interface SizeOptions {
  readonly plan?: string;
  readonly cores?: number;
  /** MB */
  readonly memory?: number;
  /** GB */
  readonly disk?: number;
}

type Labels = Readonly<Record<string, string>>;

interface CreateOptions extends ClientOptions, WaitOptions, SizeOptions {
  /** MB */
  readonly swap?: number;
  readonly name?: string;
  readonly domain?: string;
  readonly region?: string;
  readonly template?: string;
  readonly sshKeyFile?: readonly string[];
  readonly label?: Labels;
  readonly nodeLabel?: Labels;
  readonly keepFrom?: Labels;
  readonly dryRun?: true;
  readonly idempotencyKey?: string;
}

/** Adds what decides how large a pod is: ordering and scaling. */
export function addPodOrderCommands(pods: Command): void {
  addCreate(pods);
  addScale(pods);
}

function addSizeOptions(command: Command): Command {
  return command
    .option("--plan <code>", "a plan, also in short: STARTER")
    .option("--cores <number>", "instead of a plan", count)
    .option("--memory <size>", "instead of a plan: 2G, 512M, or MB", memorySize)
    .option("--disk <size>", "instead of a plan: 20G, or GB", diskSize);
}

function addCreate(pods: Command): void {
  addWaitOptions(addSizeOptions(clientCommand(pods, "create", "order a pod")))
    .option("--swap <size>", "with --memory", memorySize)
    .option("--name <text>", "for people; default: the host name")
    .option("--domain <name>", "domain that it serves")
    .option("--region <name>", "where it is to be")
    .option("--template <name>", "what it is made from")
    .option("--ssh-key-file <path...>", "public keys that may log in as root")
    .option("--label <name=value>", "label of the pod; several times", label)
    .option("--node-label <name=value>", "only on hosts with this label; several times", label)
    .option("--keep-from <name=value>", "not beside one's pods with this label; several times", label)
    .option("--dry-run", "tell what would happen and change nothing")
    .option("--idempotency-key <key>", "the same key orders once, however often the command is run")
    .argument("<hostname>")
    .action(async (hostname: string, options: CreateOptions) => {
      const body = await orderOf(hostname, options);
      await withCli(options, async (cli) => {
        if (options.dryRun === true) {
          const preview = await cli.api.call("previewCreate", { body });
          cli.show(preview, renderDryRun);
          requirePossible(preview.body);
          return;
        }
        const { idempotencyKey } = options;
        await finishWork(cli, await cli.api.call("createPod", { body, idempotencyKey }), options);
      });
    });
}

function addScale(pods: Command): void {
  addWaitOptions(addSizeOptions(clientCommand(pods, "scale", "change the plan or the resources of a pod")))
    .option("--dry-run", "tell what would happen and change nothing")
    .argument("<pod>", "hostname, VMID or id", podReference)
    .action(async (pod: string, options: ClientOptions & WaitOptions & SizeOptions & { readonly dryRun?: true }) => {
      const body = sizeOf(options);
      await withCli(options, async (cli) => {
        if (options.dryRun === true) {
          const preview = await cli.api.call("previewScale", { pod, body });
          cli.show(preview, renderDryRun);
          requirePossible(preview.body);
          return;
        }
        await finishWork(cli, await cli.api.call("scalePod", { pod, body }), options);
      });
    });
}

async function orderOf(hostname: string, options: CreateOptions): Promise<object> {
  const size = sizeOf(options);
  if ("resources" in size && Object.keys(size.resources).length < 3)
    throw new UsageError("Without --plan all of --cores, --memory and --disk are needed.");
  const { name, domain, region, template, label: labels, nodeLabel: nodeLabels, keepFrom: antiAffinity } = options;
  const sshKeys = options.sshKeyFile === undefined ? undefined : await readKeys(options.sshKeyFile);
  const placement = nodeLabels === undefined && antiAffinity === undefined ? undefined : { nodeLabels, antiAffinity };
  if (options.swap !== undefined && !("resources" in size)) throw new UsageError("A plan has its own --swap.");
  const sized = "resources" in size ? { resources: { ...size.resources, swapMb: options.swap } } : size;
  // What is undefined is not sent.
  return { ...sized, hostname, name, domain, region, template, sshKeys, labels, placement };
}

function sizeOf({ plan, cores, memory, disk }: SizeOptions) {
  const resources = {
    ...(cores === undefined ? {} : { cores }),
    ...(memory === undefined ? {} : { memoryMb: memory }),
    ...(disk === undefined ? {} : { diskGb: disk }),
  };
  const hasResources = Object.keys(resources).length > 0;
  if ((plan === undefined) !== hasResources)
    throw new UsageError("Name either --plan or resources (--cores, --memory, --disk).");
  return plan === undefined ? { resources } : { planCode: plan };
}

/** Public keys of files, a line each. */
async function readKeys(paths: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(
    paths.map((path) =>
      readFile(path, "utf8").catch((error: Error) => {
        throw new UsageError(`${path} cannot be read: ${error.message}`);
      }),
    ),
  );
  return texts
    .flatMap((text) => text.split("\n").map((line) => line.trim()))
    .filter((line) => line !== "" && !line.startsWith("#"));
}
