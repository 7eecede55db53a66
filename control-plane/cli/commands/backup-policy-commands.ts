import { InvalidArgumentError, Option, type Command } from "commander";
import { clientCommand, duration, podReference, withCli, type ClientOptions } from "../client-command.ts";
import { UsageError } from "../errors.ts";
import { renderPlanPolicy, renderPodPolicy } from "../views/backup-views.ts";

/** Adds the rules for backups: of a pod, and those that come with a plan. */
export function addBackupPolicyCommands(backups: Command): void {
  addRules(clientCommand(backups, "policy", "when a pod is backed up and which backups stay; with rules, change them"))
    .addOption(
      new Option("--as-plan", "the plan's rules again").conflicts([
        "schedule",
        "every",
        "keepLast",
        "keepDaily",
        "keepWeekly",
      ]),
    )
    .addHelpText("after", "\nWhat is left out of new rules is as in the plan. Fewer to keep is archives deleted.")
    .argument("<pod>", "hostname, VMID or id", podReference)
    .action(async (pod: string, options: PodPolicyOptions) =>
      withCli(options, async (cli) => {
        const body = rulesOf(options);
        const isChange = options.asPlan === true || hasRules(body);
        const policy = await (isChange
          ? cli.api.call("changePodBackups", { pod, body })
          : cli.api.call("showPodBackups", { pod }));
        cli.show(policy, renderPodPolicy);
      }),
    );
  addRules(clientCommand(backups, "plan-policy", "the backups that come with a plan; with rules, change them"))
    .addHelpText("after", "\nWhat is left out of new rules stays. Pods with the plan's rules follow within minutes.")
    .argument("<plan>", "its code, also in short: STARTER")
    .action(async (code: string, options: RuleOptions) =>
      withCli({ ...options, isPublic: !hasRules(rulesOf(options)) }, async (cli) => {
        const body = rulesOf(options);
        const policy = await (hasRules(body)
          ? cli.api.call("changePlanBackups", { code, body })
          : cli.api.call("showPlanBackups", { code }));
        cli.show(policy, renderPlanPolicy);
      }),
    );
}

interface BackupStorageOptions extends ClientOptions {
  readonly auto?: true;
}

/** Adds where the backups of a host's pods go. */
export function addBackupStorageCommand(nodes: Command): void {
  clientCommand(nodes, "backup-storage", "choose where the backups of a host's pods go")
    .argument("<node>", "name or id")
    .argument("[storage]", "one of the host that holds backups, see: cloudpods nodes show")
    .option("--auto", "choose none: the host's own choice")
    .action(async (node: string, storage: string | undefined, { auto, ...options }: BackupStorageOptions) => {
      if ((storage === undefined) !== (auto === true)) throw new UsageError("Name either a storage or --auto.");
      await withCli(options, async (cli) => {
        const answer = await cli.api.call("changeNode", { node, body: { backupStorage: storage ?? null } });
        cli.show(answer, ({ name, backupStorage }) =>
          backupStorage === null
            ? `${name}: no storage is chosen for backups.`
            : `${name}: backups of its pods go to ${backupStorage}.`,
        );
      });
    });
}

interface RuleOptions extends ClientOptions {
  readonly schedule?: "on" | "off";
  /** Hours. */
  readonly every?: number;
  readonly keepLast?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
}

interface PodPolicyOptions extends RuleOptions {
  readonly asPlan?: true;
}

function addRules(command: Command): Command {
  return command
    .addOption(new Option("--schedule <on|off>", "whether backups are made by themselves").choices(["on", "off"]))
    .option("--every <duration>", "in whole hours", hours)
    .option("--keep-last <number>", "keep the newest ones", number)
    .option("--keep-daily <number>", "keep the newest of each of so many days (UTC)", number)
    .option("--keep-weekly <number>", "keep the newest of each of so many weeks (UTC)", number);
}

function rulesOf({ schedule, every: everyHours, keepLast, keepDaily, keepWeekly }: Partial<RuleOptions>) {
  const enabled = schedule === undefined ? undefined : schedule === "on";
  return { enabled, everyHours, keepLast, keepDaily, keepWeekly };
}

function hasRules(rules: ReturnType<typeof rulesOf>): boolean {
  return Object.values(rules).some((value) => value !== undefined);
}

function hours(text: string): number {
  const value = duration(text) / 3_600_000;
  if (Number.isInteger(value)) return value;
  throw new InvalidArgumentError("Whole hours are needed, as 24h or 7d.");
}

function number(text: string): number {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("A whole number is needed.");
}
