import { z } from "@hono/zod-openapi";

const label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";

/**
 * A host name inside a container: one DNS label, lower-case (RFC 1123, 63 octets). Proxmox refuses
 * anything else, and a name that a resolver could not carry would be of no use.
 */
export const hostname = z
  .string()
  .regex(new RegExp(`^${label}$`), "must be a DNS label: letters, digits and inner dashes, at most 63")
  .openapi({ example: "shop-1" });

/** A domain of the customer: at least two labels, at most 253 octets. */
export const domain = z
  .string()
  .max(253)
  .regex(new RegExp(`^(${label}\\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`), "must be a domain name such as example.org")
  .openapi({ example: "shop.example.org" });

/** One line of an OpenSSH authorized_keys file, without options: type, base64, comment. */
export const sshKey = z
  .string()
  .max(4_096)
  .regex(
    /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]{40,}={0,3}( [\x20-\x7e]{0,200})?$/,
    "must be one OpenSSH public key without options",
  );

/** Labels by which pods are grouped, selected and kept apart. */
export const labels = z
  .record(z.string().regex(/^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$/), z.string().max(63))
  .refine((all) => Object.keys(all).length <= 32, "at most 32 labels")
  .openapi({ type: "object", additionalProperties: { type: "string" }, example: { tier: "web" } });
