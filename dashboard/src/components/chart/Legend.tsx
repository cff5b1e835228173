"use client";

import { SeverityDot } from "@/components/dock/severity";
import type { Anomaly, BarWindow } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { compact, percent, price, signedPercent } from "@/lib/format";
import type { Gap } from "@/lib/market/gaps";
import type { Marker } from "@/lib/market/markers";
import type { Study } from "@/lib/market/studies";
import { timeOf } from "./reading";
import { OverlayLegend } from "./StudyLegend";
import type { Reading } from "./usePriceChart";

interface Props {
  reading: Reading;
  window: BarWindow;
  mark: Marker | undefined;
  found: readonly Anomaly[];
  gap: Gap | undefined;
  studies: readonly Study[];
}

/** What is under the crosshair: the bar, its overlays, its signal, and what was odd about it. */
export function Legend({ reading, window, mark, found, gap, studies }: Props) {
  const { candle } = reading;
  const change = candle.open ? candle.close / candle.open - 1 : null;
  const tone = candle.close >= candle.open ? "text-up" : "text-down";
  const values = { O: candle.open, H: candle.high, L: candle.low, C: candle.close };
  return (
    <div
      data-testid="legend"
      className="pointer-events-none absolute top-1 right-[76px] left-2.5 z-10 flex flex-col items-start gap-px text-2xs *:rounded *:bg-surface/75 *:px-1.5"
    >
      <div className="flex flex-wrap gap-x-3">
        <span className="text-muted @max-xl:hidden">{timeOf(candle, window)}</span>
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
        {candle.forming && <span className="text-muted">forming</span>}
        {mark && (
          <span className={cn("font-medium", mark.side === "BUY" ? "text-up" : "text-down")}>
            {mark.side} {percent(mark.confidence, 0)}
          </span>
        )}
      </div>
      <OverlayLegend reading={reading} studies={studies} />
      {found.map((anomaly) => (
        <span key={anomaly.kind} className="flex items-center gap-1.5">
          <SeverityDot severity={anomaly.severity} />
          {anomaly.reason}
        </span>
      ))}
      {gap && (
        <span className="text-warn">
          Gap: {gap.reason}
          {gap.backfilled ? ", filled in since" : ""}
        </span>
      )}
    </div>
  );
}
