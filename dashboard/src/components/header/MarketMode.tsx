"use client";

import { Badge } from "@/components/ui/badge";
import { Skeleton } from "@/components/ui/skeleton";
import type { MarketState } from "@/lib/api/types";
import { useSystem } from "@/lib/market/hooks";

/** `LIVE`, or `SIMULATED ×10`, or `REPLAY ×600`: nobody may take one for the other. */
export function modeOf(market: MarketState): string {
  if (!market.simulated) return "LIVE";
  const name = market.mode === "replay" ? "REPLAY" : "SIMULATED";
  return `${name} ×${Number(market.rate.toFixed(2))}`;
}

export function MarketMode() {
  const market = useSystem()?.market;
  if (!market) return <Skeleton className="h-5 w-24" />;
  return (
    <Badge
      tone={market.simulated ? "warn" : "up"}
      className="font-semibold tracking-wide"
      data-testid="market-mode"
      title={
        market.simulated ? `One second here is ${market.rate} seconds of this market` : undefined
      }
    >
      {modeOf(market)}
    </Badge>
  );
}
