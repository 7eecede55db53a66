/** Whether a word is a UUID, by which the API's paths name what has no name of its own. */
export function isId(word: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(word);
}

/** Whether a word is what the API's paths name a pod by: a VMID or a UUID. */
export function isPodId(word: string): boolean {
  return /^\d{1,9}$/.test(word) || isId(word);
}

/** Whether a word can name a pod: as `isPodId`, or by its hostname. */
export function canNamePod(word: string): boolean {
  return isPodId(word) || /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(word);
}
