import type { StatsData } from "@/lib/api/types";

type Buckets = NonNullable<StatsData["buckets"]>;

/** One range of prices and how many trades lie in it. */
export interface Range {
  low: number;
  high: number;
  trades: number;
}

/** The ranges from the lowest to the highest price traded, those without trades included. */
export function rangesOf({ base, width_bps, counts }: Buckets, most = 40): Range[] {
  const keys = Object.keys(counts).map(Number).filter(Number.isFinite);
  if (base === null || keys.length === 0) return [];
  const [first, last] = [Math.min(...keys), Math.max(...keys)];
  // Where there are more than can be drawn, neighbours are put together.
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  const edge = (k: number) => base * (1 + (k * width_bps) / 10_000);
  const ranges: Range[] = [];
  for (let k = first; k <= last; k += step) {
    let trades = 0;
    for (let i = k; i < k + step; i++) trades += counts[String(i)] ?? 0;
    ranges.push({ low: edge(k), high: edge(k + step), trades });
  }
  return ranges;
}
