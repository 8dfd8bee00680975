// Identifiers that sort by the time at which they were made. crypto.randomUUID is missing on plain-HTTP addresses.

let last = 0;

export function newId() {
  last = Math.max(Date.now(), last + 1);
  const noise = crypto.getRandomValues(new Uint32Array(2));
  return last.toString(36).padStart(9, "0") + [...noise].map((n) => n.toString(36).padStart(7, "0")).join("");
}
