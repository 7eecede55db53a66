import { DomainError } from "@cloudpods/shared/errors";
import { ApiRefusal } from "../errors.ts";
import { isPodId } from "../pod-reference.ts";
import type { Api } from "./client.ts";
import { endpoints } from "./endpoints.ts";

/**
 * The same way to the control plane, with pods also named by their hostname, which is looked up once.
 * @throws DomainError of `call`: not-found POD_NOT_FOUND, conflict HOSTNAME_AMBIGUOUS
 */
export function withNamedPods(api: Api): Api {
  const known = new Map<string, string>();
  return {
    ...api,
    async call(name, input) {
      const word = "pod" in input ? input.pod : undefined;
      if (typeof word !== "string" || isPodId(word) || !endpoints[name].path.includes(":pod"))
        return await api.call(name, input);
      const pod = known.get(word) ?? (await findByHostname(api, word));
      known.set(word, pod);
      return await api.call(name, { ...input, pod });
    },
  };
}

async function findByHostname(api: Api, hostname: string): Promise<string> {
  const query = { hostname, limit: 5 };
  const { body } = await api.call("listPods", { query }).catch((error: unknown) => {
    // Operators are in no tenant and mean any of them.
    if (error instanceof ApiRefusal && error.problem.error === "TENANT_REQUIRED")
      return api.call("listAllPods", { query });
    throw error;
  });
  const [first, ...others] = body.data;
  if (first === undefined)
    throw new DomainError("not-found", "POD_NOT_FOUND", `No pod has the hostname ${hostname} (see cloudpods pods ls).`);
  if (others.length > 0) {
    const vmids = body.data.map(({ vmid }) => vmid).join(", ");
    throw new DomainError(
      "conflict",
      "HOSTNAME_AMBIGUOUS",
      `Several pods have the hostname ${hostname}: name one by its VMID (${vmids}).`,
    );
  }
  return String(first.vmid);
}
