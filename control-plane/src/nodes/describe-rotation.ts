import type { Rotation, RotationStep } from "./rotate-certificate-authority.ts";

/** Hosts that are named one by one. */
const namedMax = 20;

/** What a step did and what the next one waits for, line by line. */
export function describeRotation(rotation: RotationStep): string[] {
  return [...doneLine(rotation), ...nextLines(rotation)];
}

/** How many hosts are ready for the next step, and what else it waits for, in one line. */
export function describeProgress({ stage, hosts, hostsInAll, replicas, others }: Rotation): string {
  const what = stage === "published" ? "know the next authority" : "have a certificate of the new authority";
  const waits = [...replicas, ...others];
  return `${hostsInAll - hosts.length} of ${hostsInAll} hosts ${what}${waits.map((one) => `; ${one}`).join("")}`;
}

function doneLine({ done }: RotationStep): string[] {
  switch (done) {
    case "published":
      return ["The next certificate authority is made; hosts learn it with their next session."];
    case "activated":
      return ["The next certificate authority signs from now on; the former one is still believed."];
    case "retired":
      return ["The former certificate authority is retired: nothing that it signed counts any more."];
    case "nothing":
      return [];
  }
}

function nextLines(rotation: RotationStep): string[] {
  const { stage, hosts, told } = rotation;
  const others = [...rotation.replicas, ...rotation.others];
  if (stage === "none") return rotation.done === "retired" ? [] : ["No rotation is under way."];
  const next = stage === "published" ? "The next authority can sign" : "The former authority can be retired";
  if (hosts.length === 0 && others.length === 0) return [`${next} now: run this again.`];
  const named = hosts.slice(0, namedMax).map(({ name, state }) => `${name} (${state})`);
  const more = hosts.length > namedMax ? `, and ${hosts.length - namedMax} more` : "";
  const why =
    stage === "published" ? "hosts that do not know it yet" : "hosts whose certificate is still of the former one";
  return [
    `${next} once these are ready; run this again then, or with --force to go on without hosts:`,
    ...(hosts.length === 0 ? [] : [`  ${why}: ${named.join(", ")}${more}`]),
    ...others.map((other) => `  ${other}`),
    ...(told === 0 ? [] : [`Hosts told to fetch a certificate now: ${told}.`]),
  ];
}
