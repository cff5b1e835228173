"use client";

import { Skeleton } from "@/components/ui/skeleton";
import { dateNY, timeNY } from "@/lib/format";
import { useMarket } from "@/lib/market/context";
import { useNow, useSystem } from "@/lib/market/hooks";

/** The market's own time in New York, and whether it is in session. */
export function MarketClock() {
  const { store } = useMarket();
  const market = useSystem()?.market;
  const wall = useNow((market?.rate ?? 1) > 1 ? 100 : 250);
  const now = wall === null ? null : store.clock.now(wall);
  if (now === null) return <Skeleton className="h-4 w-56" />;
  return (
    <div className="flex items-center gap-2 whitespace-nowrap text-xs">
      <time dateTime={new Date(now).toISOString()} className="font-medium text-[13px]">
        {timeNY(now)}
      </time>
      <span className="text-muted">
        {dateNY(now)}
        <span className="max-sm:hidden">, New York</span>
      </span>
      {typeof market?.open === "boolean" && (
        <span className={market.open ? "text-up" : "text-muted"}>
          {market.open ? "Open" : "Closed"}
        </span>
      )}
    </div>
  );
}
