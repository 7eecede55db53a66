/** What a server of the fleet is for. Only hypervisors carry pods; the agent of the others tells how they are. */
export const nodeRoles = ["hypervisor", "web", "mail", "dns", "cloud", "db", "backup"] as const;
