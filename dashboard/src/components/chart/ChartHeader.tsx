"use client";

import { Skeleton } from "@/components/ui/skeleton";
import { tint } from "@/components/watchlist/WatchRow";
import { cn } from "@/lib/cn";
import { price, signed, signedPercent } from "@/lib/format";
import type { ChartPrefs } from "@/lib/market/chartPrefs";
import { useSymbolView } from "@/lib/market/hooks";
import { nameOf } from "@/lib/market/names";
import { StudyMenu } from "./StudyMenu";
import { WindowPicker } from "./WindowPicker";

interface Props {
  symbol: string;
  prefs: ChartPrefs;
  onPrefs: (prefs: ChartPrefs) => void;
}

export function ChartHeader({ symbol, prefs, onPrefs }: Props) {
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
      <div className="flex items-center gap-2">
        <StudyMenu
          studies={prefs.studies}
          onStudies={(studies) => onPrefs({ ...prefs, studies })}
        />
        <WindowPicker value={prefs.window} onChange={(window) => onPrefs({ ...prefs, window })} />
      </div>
    </div>
  );
}
