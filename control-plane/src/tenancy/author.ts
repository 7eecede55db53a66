import { systemActor, type Actor } from "../security/actor.ts";

/** Who makes users and tenants. */
export interface Author {
  readonly actor: Actor;
  readonly requestId: string | undefined;
}

/** The person at the machine itself, before there is anyone who could sign in. */
export const commandLine: Author = { actor: systemActor("command-line"), requestId: undefined };
