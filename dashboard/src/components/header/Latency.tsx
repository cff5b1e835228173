"use client";

import { millis } from "@/lib/format";
import { useMarket } from "@/lib/market/context";
import { useNow } from "@/lib/market/hooks";

/** Median time from the producer's receipt of a tick to its arrival here, over ten seconds. */
export function Latency() {
  const { store } = useMarket();
  const now = useNow(1000);
  const p50 = now === null ? null : store.latency.p50(now);
  return (
    <div
      className="flex items-baseline gap-1.5 whitespace-nowrap text-xs"
      title="Tick latency: from receipt off the wire to this page, median of the last 10 s"
    >
      <span className="text-muted">
        <span className="max-sm:hidden">Tick latency</span>
        <span className="sm:hidden">Latency</span>
      </span>
      <span
        data-testid="latency"
        data-ms={p50 ?? undefined}
        className="min-w-12 text-right font-medium"
      >
        {millis(p50)}
      </span>
    </div>
  );
}
