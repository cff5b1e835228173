import type { Ledger } from "@/lib/api/types";

export type Verdict = "accounted" | "lost" | "surplus" | "unknown";

/**
 * Whether every message received has a known place. What is in flight is on its way from the
 * producer to the lake and is known; holes in the numbering of records are losses, and so are
 * messages that were on the stream a minute ago and are in no table.
 * `surplus`: the lake holds more than was received, so that somebody counts wrong.
 * `unknown`: a stage does not answer.
 */
export function verdictOf(ledger: Ledger): Verdict {
  if ((ledger.lost ?? 0) > 0 || (ledger.holes ?? 0) > 0) return "lost";
  if ((ledger.imbalance ?? 0) > 0) return "lost";
  if ((ledger.imbalance ?? 0) < 0) return "surplus";
  const stages = [ledger.received, ledger.stored, ledger.lost];
  return stages.includes(null) ? "unknown" : "accounted";
}

/** The share of what was received that is stored, 0 to 1; null before the first message. */
export function storedShare(ledger: Ledger): number | null {
  const { received, stored } = ledger;
  return received && stored !== null ? Math.min(1, stored / received) : null;
}
