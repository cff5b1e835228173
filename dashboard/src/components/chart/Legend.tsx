"use client";

import { cn } from "@/lib/cn";
import { compact, dayNY, minuteNY, percent, price, signedPercent } from "@/lib/format";
import type { Candle } from "@/lib/market/bars";
import type { Marker } from "@/lib/market/markers";

interface Props {
  candle: Candle;
  mark: Marker | undefined;
}

/** Open, high, low, close and volume of the bar under the crosshair, and its signal. */
export function Legend({ candle, mark }: Props) {
  const time = candle.time * 1000;
  const change = candle.open ? candle.close / candle.open - 1 : null;
  const tone = candle.close >= candle.open ? "text-up" : "text-down";
  const values = { O: candle.open, H: candle.high, L: candle.low, C: candle.close };
  return (
    <div className="pointer-events-none absolute top-2 right-[72px] left-4 z-10 flex flex-wrap gap-x-3 text-2xs">
      <span className="text-muted max-sm:hidden">
        {dayNY(time)}, {minuteNY(time)}
      </span>
      {Object.entries(values).map(([name, value]) => (
        <span key={name}>
          <span className="text-muted">{name} </span>
          <span className={tone}>{price(value)}</span>
        </span>
      ))}
      <span className={tone}>{signedPercent(change)}</span>
      <span>
        <span className="text-muted">Vol </span>
        {compact(candle.volume)}
      </span>
      {mark && (
        <span className={cn("font-medium", mark.side === "BUY" ? "text-up" : "text-down")}>
          {mark.side} {percent(mark.confidence, 0)}
        </span>
      )}
    </div>
  );
}
