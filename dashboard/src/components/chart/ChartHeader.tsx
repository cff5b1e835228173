"use client";

import { Skeleton } from "@/components/ui/skeleton";
import { tint } from "@/components/watchlist/WatchRow";
import type { BarWindow } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { price, signed, signedPercent } from "@/lib/format";
import { useSymbolView } from "@/lib/market/hooks";
import { nameOf } from "@/lib/market/names";
import { WindowPicker } from "./WindowPicker";

interface Props {
  symbol: string;
  window: BarWindow;
  onWindow: (window: BarWindow) => void;
}

export function ChartHeader({ symbol, window, onWindow }: Props) {
  const { price: last, sessionOpen } = useSymbolView(symbol);
  const change = last !== null && sessionOpen ? last - sessionOpen : null;
  const fraction = change !== null && sessionOpen ? change / sessionOpen : null;
  return (
    <div className="flex flex-wrap items-center justify-between gap-x-6 gap-y-2 px-4 pt-3 pb-2">
      <div className="flex flex-wrap items-baseline gap-x-3">
        <h2 className="font-semibold text-lg tracking-tight">{symbol}</h2>
        <span className="max-sm:hidden text-muted">{nameOf(symbol)}</span>
        <span className="sr-only">Last price</span>
        {last === null ? (
          <Skeleton className="h-6 w-24 self-center" />
        ) : (
          <span data-testid="last-price" className="font-semibold text-2xl tracking-tight">
            {price(last)}
          </span>
        )}
        <span className={cn("font-medium", tint(fraction))} title="Since the session's open">
          {change !== null && `${signed(change)} (${signedPercent(fraction)})`}
        </span>
      </div>
      <WindowPicker value={window} onChange={onWindow} />
    </div>
  );
}
