import type { CommandsQuestion, Query, QueryAnswer } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Containers } from "../containers/containers.ts";
import { endOfFailure } from "./execution-end.ts";

/** Answers a question with the command lines that the host would run; changes nothing. Never rejects. */
export async function answerQuery(
  query: Query,
  containers: Pick<Containers, "planCommands" | "planLines">,
  fleetEpoch: bigint,
): Promise<QueryAnswer> {
  const { queryId, question } = query;
  if (question === undefined) {
    const error = { code: "UNSUPPORTED", message: "This agent does not know the question.", retryable: false };
    return { queryId, commandLines: [], error, plans: [] };
  }
  if (question.$case === "commands") return answerCommands(queryId, question.value, containers, fleetEpoch);
  const { podId, vmid, generation, spec, power, absent, volumes } = question.value;
  try {
    const wish = {
      podId,
      vmid,
      fleetEpoch,
      generation,
      present: !absent,
      volumes,
      power,
      ...(spec === undefined ? {} : { spec }),
    };
    return { queryId, commandLines: await containers.planLines(wish), error: undefined, plans: [] };
  } catch (error) {
    return { queryId, commandLines: [], error: endOfFailure(error).error, plans: [] };
  }
}

async function answerCommands(
  queryId: string,
  { commands }: CommandsQuestion,
  containers: Pick<Containers, "planCommands">,
  fleetEpoch: bigint,
): Promise<QueryAnswer> {
  const asked = commands.map((command) => ({ ...command, fleetEpoch }));
  try {
    return { queryId, commandLines: [], error: undefined, plans: await containers.planCommands(asked) };
  } catch (error) {
    return { queryId, commandLines: [], error: endOfFailure(error).error, plans: [] };
  }
}
