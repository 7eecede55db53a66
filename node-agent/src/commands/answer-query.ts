import type { Query, QueryAnswer } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Containers } from "../containers/containers.ts";
import { endOfFailure } from "./execution-end.ts";

/** Answers a question with the command lines that the host would run; changes nothing. Never rejects. */
export async function answerQuery(
  query: Query,
  containers: Pick<Containers, "planLines">,
  fleetEpoch: bigint,
): Promise<QueryAnswer> {
  const { queryId, question } = query;
  if (question === undefined) {
    const error = { code: "UNSUPPORTED", message: "This agent does not know the question.", retryable: false };
    return { queryId, commandLines: [], error };
  }
  const { podId, vmid, generation, spec, power, absent } = question.value;
  try {
    const wish = {
      podId,
      vmid,
      fleetEpoch,
      generation,
      present: !absent,
      power,
      ...(spec === undefined ? {} : { spec }),
    };
    return { queryId, commandLines: await containers.planLines(wish), error: undefined };
  } catch (error) {
    return { queryId, commandLines: [], error: endOfFailure(error).error };
  }
}
