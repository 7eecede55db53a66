/** What one tenant may have at once. */
export interface TenantQuota {
  readonly max_pods: number;
  readonly max_cpu_cores: number;
  readonly max_memory_mb: number;
  readonly max_disk_gb: number;
}

/** What counts against a quota: pods that are provisioning or active. */
export interface TenantUsage {
  readonly pods: number;
  readonly cpuCores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** More of something; negative members give back. */
export type RequestedResources = TenantUsage;

/** `default`: nobody set limits for the tenant, those of the constant hold. */
export type QuotaSource = "default" | "tenant";

/** Figures of a refused request, as API clients read them. */
export interface QuotaDetails {
  readonly max_pods: number;
  readonly current_pods: number;
  readonly requested_pods: number;
  readonly max_cpu_cores: number;
  readonly current_cpu_cores: number;
  readonly requested_cpu_cores: number;
  readonly max_memory_mb: number;
  readonly current_memory_mb: number;
  readonly requested_memory_mb: number;
  readonly max_disk_gb: number;
  readonly current_disk_gb: number;
  readonly requested_disk_gb: number;
}

/** Whether a request fits; a sentence and the figures when it does not. */
export interface QuotaCheck {
  readonly allowed: boolean;
  readonly message?: string;
  readonly details?: QuotaDetails;
}

/** Limits of tenants for whom nobody set others. */
export const DEFAULT_TENANT_QUOTA: TenantQuota = {
  max_pods: 2,
  max_cpu_cores: 4,
  max_memory_mb: 8192,
  max_disk_gb: 200,
};
