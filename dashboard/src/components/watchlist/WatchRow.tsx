"use client";

import { memo } from "react";
import { ActionChip } from "@/components/signal/ActionChip";
import { cn } from "@/lib/cn";
import { price, signedPercent } from "@/lib/format";
import { useSymbolView } from "@/lib/market/hooks";
import { nameOf } from "@/lib/market/names";
import { Sparkline } from "./Sparkline";
import { useFlash } from "./useFlash";

interface Props {
  symbol: string;
  selected: boolean;
  onSelect: (symbol: string) => void;
}

export const WatchRow = memo(function WatchRow({ symbol, selected, onSelect }: Props) {
  const view = useSymbolView(symbol);
  const flash = useFlash<HTMLSpanElement>(view.price);
  const change = view.price && view.sessionOpen ? view.price / view.sessionOpen - 1 : null;
  return (
    <div
      role="option"
      id={`watch-${symbol}`}
      data-testid={`watch-${symbol}`}
      aria-selected={selected}
      tabIndex={-1}
      onClick={() => onSelect(symbol)}
      onKeyDown={(event) => event.key === "Enter" && onSelect(symbol)}
      className={cn(
        "relative grid shrink-0 snap-start grid-cols-[1fr_auto] items-center gap-x-3 px-4 py-1.5 lg:h-[37px] lg:grid-cols-[1fr_56px_64px] lg:gap-x-2 lg:py-0",
        "hover:bg-raised/60 aria-selected:bg-raised",
        "max-lg:w-40 max-lg:rounded-lg max-lg:border max-lg:border-line max-lg:px-3",
      )}
    >
      {selected && (
        <span aria-hidden className="absolute inset-y-0 left-0 hidden w-0.5 bg-accent lg:block" />
      )}
      <div className="min-w-0 leading-[15px]">
        <div className="flex items-center gap-1.5">
          <span className="font-semibold">{symbol}</span>
          <ActionChip action={view.signal?.action ?? null} />
        </div>
        <div className="hidden truncate text-2xs text-muted leading-[15px] lg:block">
          {nameOf(symbol)}
        </div>
      </div>
      <div className="max-lg:hidden">
        <Sparkline values={view.spark} base={view.sessionOpen} />
      </div>
      <div className="col-span-full flex items-baseline justify-between text-right leading-[15px] lg:col-span-1 lg:block">
        <span ref={flash} className="block">
          {price(view.price)}
        </span>
        <span className={cn("block text-2xs leading-[15px]", tint(change))}>
          {signedPercent(change)}
        </span>
      </div>
    </div>
  );
});

export function tint(change: number | null): string {
  if (change === null || Math.abs(change) < 5e-5) return "text-muted";
  return change > 0 ? "text-up" : "text-down";
}
