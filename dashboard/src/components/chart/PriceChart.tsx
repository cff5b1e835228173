"use client";

import { type KeyboardEvent, useCallback, useMemo, useRef, useState } from "react";
import { Skeleton } from "@/components/ui/skeleton";
import type { Anomaly, BarWindow } from "@/lib/api/types";
import { gapsOf, inGap } from "@/lib/market/gaps";
import {
  HISTORY,
  useBarHistory,
  useGaps,
  useIndicatorHistory,
  useSignalHistory,
} from "@/lib/market/hooks";
import { WINDOW_S } from "@/lib/market/windows";
import { Legend } from "./Legend";
import { describe } from "./reading";
import { PaneLegends } from "./StudyLegend";
import { type Focus, usePriceChart } from "./usePriceChart";

interface Props {
  symbol: string;
  window: BarWindow;
  studies: readonly string[];
  anomalies: readonly Anomaly[];
  focus: Focus | null;
  onPick: (anomalyId: string) => void;
}

export function PriceChart({ symbol, window, studies, anomalies, focus, onPick }: Props) {
  const container = useRef<HTMLElement>(null);
  const [deepFor, setDeepFor] = useState("");
  const shownKey = `${symbol} ${window}`;
  const deep = deepFor === shownKey;
  const history = useBarHistory(symbol, window, deep);
  useSignalHistory(symbol);
  useIndicatorHistory(symbol);
  const allGaps = useGaps();
  const gaps = useMemo(() => gapsOf(allGaps, symbol), [allGaps, symbol]);
  const more = !deep && (history.data?.length ?? 0) >= HISTORY;
  const onStart = useCallback(() => {
    if (more) setDeepFor(shownKey);
    return more;
  }, [more, shownKey]);
  const chart = usePriceChart(container, {
    symbol,
    window,
    studies,
    history: history.data,
    anomalies,
    gaps,
    focus,
    onPick,
    onStart,
  });
  const [spoken, setSpoken] = useState(false);
  const { reading, markers } = chart;
  const candle = reading?.candle;
  const mark = markers.find(({ time }) => time === candle?.time);
  const found = candle ? (chart.found.get(candle.time) ?? []) : [];
  const gap = candle && inGap(gaps, candle.time, candle.time + WINDOW_S[window]);

  const onKeyDown = (event: KeyboardEvent) => {
    const act = {
      ArrowLeft: () => chart.step(event.shiftKey ? -10 : -1),
      ArrowRight: () => chart.step(event.shiftKey ? 10 : 1),
      "+": () => chart.zoom(0.8),
      "-": () => chart.zoom(1.25),
      End: chart.toEnd,
      Escape: () => chart.point(null),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    setSpoken(true);
    act();
  };

  return (
    <div className="@container relative min-h-0 flex-1" data-testid="chart">
      <figure
        ref={container}
        role="application"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: its keys are its way to be read
        tabIndex={0}
        onKeyDown={onKeyDown}
        onBlur={() => setSpoken(false)}
        aria-label={`Candlestick chart of ${symbol}, ${window} bars. Left and right arrows read bar by bar, plus and minus zoom, End shows the newest.`}
        className="absolute inset-0"
      />
      {reading && (
        <>
          <Legend
            reading={reading}
            window={window}
            mark={mark}
            found={found}
            gap={gap}
            studies={chart.studies}
          />
          <PaneLegends reading={reading} studies={chart.studies} tops={chart.tops} />
        </>
      )}
      {!candle && history.isPending && <Skeleton className="absolute inset-4 rounded-lg" />}
      {!candle && !history.isPending && (
        <p className="absolute inset-0 grid place-items-center px-6 text-center text-muted">
          {history.isError
            ? `The bars of ${symbol} could not be loaded.`
            : `No bars of ${symbol} yet. The first appears when its minute begins.`}
        </p>
      )}
      <a
        href="https://www.tradingview.com/"
        target="_blank"
        rel="noreferrer"
        title="Charts by TradingView"
        className="absolute right-2 bottom-1.5 z-10 rounded text-[10px] text-muted leading-4 hover:text-text"
      >
        TradingView
      </a>
      <p className="sr-only" aria-live="polite">
        {spoken && reading && describe(reading, window, chart.studies, found)}
      </p>
      <span className="sr-only" aria-hidden data-testid="signal-markers-count">
        {markers.length}
      </span>
    </div>
  );
}
