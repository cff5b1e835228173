"use client";

import { Row } from "@/components/ui/panel";
import { Skeleton } from "@/components/ui/skeleton";
import { compact, count, price } from "@/lib/format";
import { useStatsHistory, useSymbolView } from "@/lib/market/hooks";
import { PriceRanges } from "./PriceRanges";

const SPANS: Record<string, string> = {
  "5m": "Mean, 5 min",
  "15m": "Mean, 15 min",
  "1h": "Mean, 1 h",
};

/** Running statistics of the session's trades, as the platform counts them. */
export function StatsPanel({ symbol }: { symbol: string }) {
  const { isPending } = useStatsHistory(symbol);
  const { stats, price: last } = useSymbolView(symbol);
  if (!stats)
    return isPending ? (
      <Skeleton className="h-40" />
    ) : (
      <p className="text-muted text-xs">Come with the next closed bar.</p>
    );
  const spans = Object.entries(SPANS).filter(([key]) => stats.sliding?.[key]);
  return (
    <div data-testid="stats">
      {stats.buckets && <PriceRanges buckets={stats.buckets} last={last} />}
      <dl>
        <Row label="Trades" title="That make a price, since the session began">
          {count(stats.count)}
        </Row>
        <Row label="Low / high">
          {price(stats.min)} / {price(stats.max)}
        </Row>
        <Row label="Mean ± deviation" title="Of the trades' prices">
          {price(stats.mean)} ± {price(stats.std)}
        </Row>
        {spans.map(([key, label]) => (
          <Row
            key={key}
            label={label}
            title="Mean of closes over the last minutes, and their volume"
          >
            {price(stats.sliding?.[key]?.mean)}{" "}
            <span className="text-muted">vol {compact(stats.sliding?.[key]?.volume)}</span>
          </Row>
        ))}
        {typeof stats.own_bar?.agrees === "boolean" && (
          <Row label="Vendor's bar" title="Whether our own bar from trades says the same">
            <span className={stats.own_bar.agrees ? undefined : "text-warn"}>
              {stats.own_bar.agrees ? "agrees with ours" : "differs from ours"}
            </span>
          </Row>
        )}
      </dl>
    </div>
  );
}
