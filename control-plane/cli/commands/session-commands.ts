import type { Command } from "commander";
import { addClientOptions, clientCommand, withCli, type ClientOptions } from "../client-command.ts";

/** Adds sign-in, sign-out and who one is. */
export function addSessionCommands(program: Command): void {
  addClientOptions(program.command("login"))
    .description("sign in and keep it as a profile, by password or API token")
    .option("--url <address>", "of the control plane (CLOUDPODS_API_URL)")
    .option("--email <address>", "who signs in")
    .option("--password-stdin", "the password is the first line of the standard input")
    .option("--token-stdin", "an API token is the first line of the standard input")
    .action(async (options: LoginOptions) => {
      await (await import("../profiles/sign-in.ts")).signIn(options);
    });
  addClientOptions(program.command("logout"))
    .description("end the session and forget the profile")
    .action(async (options: ClientOptions) => {
      await (await import("../profiles/sign-in.ts")).signOut(options);
    });
  clientCommand(program, "whoami", "who is signed in, and where").action(async (options: ClientOptions) => {
    await withCli(options, async (cli) => (await import("../profiles/sign-in.ts")).showWho(cli));
  });
}

/** What `login` can be told. */
export interface LoginOptions extends ClientOptions {
  readonly url?: string;
  readonly email?: string;
  readonly passwordStdin?: true;
  readonly tokenStdin?: true;
}
