import type { GapRow } from "@/lib/api/types";

/** An interruption of a symbol, seconds of market time. */
export interface Gap {
  from: number;
  to: number;
  reason: string;
  backfilled: boolean;
}

/** The gaps of one symbol, oldest first; `from` is `to` where nobody knows when it began. */
export function gapsOf(rows: readonly GapRow[], symbol: string): Gap[] {
  return rows
    .filter((row) => row.symbol === symbol || row.symbol === "*")
    .map(({ from_ns, to_ns, reason, backfilled }) => ({
      from: (from_ns ?? to_ns) / 1e9,
      to: to_ns / 1e9,
      reason,
      backfilled,
    }))
    .sort((a, b) => a.to - b.to);
}

/** Whether a gap touches a bar. */
export function inGap(gaps: readonly Gap[], startS: number, endS: number): Gap | undefined {
  return gaps.find((gap) => gap.from < endS && gap.to >= startS);
}
