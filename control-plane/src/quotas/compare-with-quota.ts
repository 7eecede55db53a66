import type { QuotaCheck, QuotaDetails, RequestedResources, TenantQuota, TenantUsage } from "./quota.ts";

const resources = [
  { of: "pods", max: "max_pods", name: "pods", unit: "" },
  { of: "cpuCores", max: "max_cpu_cores", name: "CPU cores", unit: "" },
  { of: "memoryMb", max: "max_memory_mb", name: "memory", unit: " MB" },
  { of: "diskGb", max: "max_disk_gb", name: "disk", unit: " GB" },
] as const;

/** Whether `requested` fits beside `usage`. What does not increase is always allowed, even above a lowered limit. */
export function compareWithQuota(limits: TenantQuota, usage: TenantUsage, requested: RequestedResources): QuotaCheck {
  const exceeded = resources.filter(({ of, max }) => requested[of] > 0 && usage[of] + requested[of] > limits[max]);
  if (exceeded.length === 0) return { allowed: true };
  const sentences = exceeded.map(
    ({ of, max, name, unit }) =>
      `${name}: ${usage[of]} of ${limits[max]}${unit} in use, ${requested[of]}${unit} more asked`,
  );
  return {
    allowed: false,
    message: `The quota would be exceeded (${sentences.join("; ")}).`,
    details: detailsOf(limits, usage, requested),
  };
}

function detailsOf(limits: TenantQuota, usage: TenantUsage, requested: RequestedResources): QuotaDetails {
  return {
    max_pods: limits.max_pods,
    current_pods: usage.pods,
    requested_pods: requested.pods,
    max_cpu_cores: limits.max_cpu_cores,
    current_cpu_cores: usage.cpuCores,
    requested_cpu_cores: requested.cpuCores,
    max_memory_mb: limits.max_memory_mb,
    current_memory_mb: usage.memoryMb,
    requested_memory_mb: requested.memoryMb,
    max_disk_gb: limits.max_disk_gb,
    current_disk_gb: usage.diskGb,
    requested_disk_gb: requested.diskGb,
  };
}
