/** A plan as it is first offered; administrators change the rows afterwards. */
export interface PlanSeed {
  readonly code: string;
  readonly name: string;
  readonly family: "shared" | "managed";
  readonly description: string;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
  /** Per month; null: unmetered. */
  readonly bandwidthGb: number | null;
  /** What happens beyond the bandwidth. */
  readonly overagePolicy: "throttle" | "charge" | "none";
  /** Null: not limited. */
  readonly websitesMax: number | null;
  readonly emailsMax: number | null;
  readonly maxPerTenant: number | null;
  readonly requiresVerifiedEmail: boolean;
  readonly features: readonly string[];
  /** USD per month. */
  readonly monthlyUsd: string;
  readonly backups: PlanBackups;
}

/** How often pods of a plan are backed up, and how many backups stay; see `backups/backups-to-prune.ts`. */
export interface PlanBackups {
  readonly everyHours: number;
  readonly keepLast: number;
  readonly keepDaily: number;
  readonly keepWeekly: number;
}

/** Free of charge: one to go back to. */
const weekly: PlanBackups = { everyHours: 168, keepLast: 1, keepDaily: 0, keepWeekly: 0 };
const twoDays: PlanBackups = { everyHours: 24, keepLast: 2, keepDaily: 0, keepWeekly: 0 };
const oneWeek: PlanBackups = { everyHours: 24, keepLast: 1, keepDaily: 7, keepWeekly: 0 };
const oneMonth: PlanBackups = { everyHours: 24, keepLast: 1, keepDaily: 7, keepWeekly: 4 };
/** Twice a day. */
const closely: PlanBackups = { everyHours: 12, keepLast: 3, keepDaily: 14, keepWeekly: 8 };

const shared = {
  family: "shared",
  bandwidthGb: null,
  overagePolicy: "none",
  websitesMax: null,
  emailsMax: null,
  maxPerTenant: null,
  requiresVerifiedEmail: false,
  features: ["NVMe storage"],
} as const satisfies Partial<PlanSeed>;

const managed = { ...shared, family: "managed", features: [] } as const satisfies Partial<PlanSeed>;

/** Both families, in the order in which they are shown. */
export const planCatalogue: readonly PlanSeed[] = [
  {
    ...shared,
    code: "CLOUD_POD_STUDENT",
    name: "Student",
    description: "A small pod to learn with, free of charge.",
    cores: 1,
    memoryMb: 1_024,
    diskGb: 2,
    bandwidthGb: 50,
    overagePolicy: "throttle",
    maxPerTenant: 1,
    requiresVerifiedEmail: true,
    features: ["SSD storage"],
    monthlyUsd: "0.00",
    backups: weekly,
  },
  {
    ...shared,
    code: "CLOUD_POD_STARTER",
    name: "Starter",
    description: "One site with room to grow.",
    cores: 1,
    memoryMb: 1_024,
    diskGb: 30,
    monthlyUsd: "1.49",
    backups: twoDays,
  },
  {
    ...shared,
    code: "CLOUD_POD_PREMIUM",
    name: "Premium",
    description: "Two cores for busier sites.",
    cores: 2,
    memoryMb: 2_048,
    diskGb: 75,
    monthlyUsd: "2.49",
    backups: oneWeek,
  },
  {
    ...shared,
    code: "CLOUD_POD_BUSINESS",
    name: "Business",
    description: "Three cores and 4 GB for shops and applications.",
    cores: 3,
    memoryMb: 4_096,
    diskGb: 100,
    monthlyUsd: "3.99",
    backups: oneMonth,
  },
  {
    ...managed,
    code: "MINI",
    name: "Mini",
    description: "Managed hosting for up to 5 websites.",
    cores: 1,
    memoryMb: 1_024,
    diskGb: 20,
    websitesMax: 5,
    emailsMax: 10,
    monthlyUsd: "9.99",
    backups: oneWeek,
  },
  {
    ...managed,
    code: "PRO",
    name: "Pro",
    description: "Managed hosting for up to 20 websites.",
    cores: 2,
    memoryMb: 2_048,
    diskGb: 50,
    websitesMax: 20,
    emailsMax: 50,
    monthlyUsd: "19.99",
    backups: oneMonth,
  },
  {
    ...managed,
    code: "BUSINESS",
    name: "Business (managed)",
    description: "Managed hosting for up to 50 websites.",
    cores: 4,
    memoryMb: 4_096,
    diskGb: 100,
    websitesMax: 50,
    emailsMax: 100,
    monthlyUsd: "39.99",
    backups: oneMonth,
  },
  {
    ...managed,
    code: "ENTERPRISE",
    name: "Enterprise",
    description: "Managed hosting without a limit of websites or mailboxes.",
    cores: 8,
    memoryMb: 8_192,
    diskGb: 200,
    monthlyUsd: "79.99",
    backups: closely,
  },
];
