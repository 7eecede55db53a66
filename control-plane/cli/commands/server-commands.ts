import { InvalidArgumentError, Option, type Command } from "commander";
import { waitTimeoutOption, type WaitOptions } from "../client-command.ts";
import { UnreachableError } from "../errors.ts";
import { readSecretLine } from "../terminal/ask.ts";

interface RotateOptions extends WaitOptions {
  readonly status: boolean;
  readonly force: boolean;
  readonly brokerIsUpToDate: boolean;
}

/** Adds what runs on the control plane's own machine. Its code is loaded when such a command runs. */
export function addServerCommands(program: Command, usage: Command): void {
  program
    .command("serve")
    .description("run the control plane")
    .option("--roles <list>", "what this replica does, separated by commas; default: everything")
    .action(async (options: { roles?: string }) => (await import("../../src/serve-commands.ts")).serve(options));
  program
    .command("migrate")
    .description("bring the database's schema up to date")
    .action(async () => (await import("../../src/serve-commands.ts")).migrate());
  addAdminCommands(program);
  usage
    .command("export")
    .description("write a tenant's charges of a UTC month to the standard output, as CSV in FOCUS columns")
    .requiredOption("--tenant <slug or id>")
    .option("--month <YYYY-MM>", "UTC; default: this month", month)
    .action(async (options: { tenant: string; month?: string }) =>
      (await import("../../src/usage-commands.ts")).writeUsage(options),
    );
  program
    .command("metering")
    .description("what was measured")
    .command("verify")
    .description(
      "prove that samples, archives, hours, days, months and bills of a UTC month agree, and name what does not",
    )
    .option("--month <YYYY-MM>", "UTC; default: this month", month)
    .action(async (options: { month?: string }) => (await import("../../src/usage-commands.ts")).verifyMonth(options));
}

function addAdminCommands(program: Command): void {
  const admin = program.command("admin").description("things that need no running control plane");
  admin
    .command("create-user")
    .description("make a user; the password is read from the standard input")
    .requiredOption("--email <address>")
    .addOption(new Option("--platform-role <role>").choices(["ADMINISTRATOR", "OPERATOR", "USER"]).default("USER"))
    .option("--email-verified", "vouch that the address is the user's", false)
    .action(
      async (options: { email: string; platformRole: "ADMINISTRATOR" | "OPERATOR" | "USER"; emailVerified: boolean }) =>
        (await import("../../src/admin-commands.ts")).makeUser({
          ...options,
          password: await readSecretLine("password"),
        }),
    );
  admin
    .command("set-password")
    .description("give a user another password, read from the standard input, and end his sessions")
    .requiredOption("--email <address>")
    .action(async (options: { email: string }) =>
      (await import("../../src/admin-commands.ts")).changeUsersPassword({
        ...options,
        password: await readSecretLine("password"),
      }),
    );
  admin
    .command("broker-files")
    .description("write ca.pem, cert.pem, key.pem and crl.pem for an external broker")
    .requiredOption("--name <host...>", "names and addresses under which the broker is reached")
    .requiredOption("--out <directory>")
    .action(async (options: { name: string[]; out: string }) =>
      (await import("../../src/admin-commands.ts")).writeBrokerFiles(options),
    );
  admin
    .command("crl")
    .description("print the list of revoked host certificates, for an external broker; valid for a week")
    .action(async () => (await import("../../src/admin-commands.ts")).printRevocations());
  admin
    .command("rotate-ca")
    .description("take the next safe step to another certificate authority; again until it says that it is done")
    .option("--status", "only tell how far it is", false)
    .option("--force", "go on without hosts that are not ready", false)
    .option(
      "--broker-is-up-to-date",
      "the external broker has the present files of: cloudpods admin broker-files",
      false,
    )
    // Forced again and again it would go to its end in a moment.
    .addOption(
      new Option("--wait", "take each step when it is safe, until nothing is left but time").conflicts([
        "status",
        "force",
      ]),
    )
    .addOption(waitTimeoutOption())
    .action(async (options: RotateOptions) => {
      const isAtItsEnd = await (await import("../../src/admin-commands.ts")).rotateCa(options);
      if (isAtItsEnd) return;
      const message = `The rotation is not at its end after ${options.waitTimeout / 1_000} s; follow it again with: cloudpods admin rotate-ca --wait`;
      throw new UnreachableError(message);
    });
  admin
    .command("declare-restored")
    .description("say that the database was restored from a backup or lost commits in a failover")
    .requiredOption("--reason <text>")
    .action(async (options: { reason: string }) => (await import("../../src/admin-commands.ts")).restored(options));
}

function month(text: string): string {
  if (/^20\d\d-(0[1-9]|1[0-2])$/.test(text)) return text;
  throw new InvalidArgumentError("A month is written as 2026-01.");
}
