"use client";

import { useRef } from "react";
import { Skeleton } from "@/components/ui/skeleton";
import type { BarWindow } from "@/lib/api/types";
import { useBarHistory, useSignalHistory } from "@/lib/market/hooks";
import { Legend } from "./Legend";
import { usePriceChart } from "./usePriceChart";

interface Props {
  symbol: string;
  window: BarWindow;
}

export function PriceChart({ symbol, window }: Props) {
  const container = useRef<HTMLElement>(null);
  const history = useBarHistory(symbol, window);
  useSignalHistory(symbol);
  const { candle, markers } = usePriceChart(container, symbol, window, history.data);
  const empty = !candle && !history.isPending;
  return (
    <div className="relative min-h-0 flex-1" data-testid="chart">
      <figure
        ref={container}
        aria-label={`Candlestick chart of ${symbol}, ${window} bars, with signal markers`}
        className="absolute inset-0"
      />
      {candle && (
        <Legend candle={candle} mark={markers.find((mark) => mark.time === candle.time)} />
      )}
      {!candle && history.isPending && <Skeleton className="absolute inset-4 rounded-lg" />}
      {empty && (
        <p className="absolute inset-0 grid place-items-center px-6 text-center text-muted">
          No bars of {symbol} yet. The first appears when its minute begins.
        </p>
      )}
      <span className="sr-only" data-testid="signal-markers-count">
        {markers.length}
      </span>
    </div>
  );
}
