"use client";

import { memo, useEffect, useRef } from "react";
import { walkRows } from "@/components/ui/rows";
import { Skeleton } from "@/components/ui/skeleton";
import type { Anomaly } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { dayNY, minuteNY } from "@/lib/format";
import { anomalyId, anomalyTime, anomalyTitle } from "@/lib/market/anomalies";
import { Severity } from "./severity";

interface Props {
  /** Newest first; null while they are loaded. */
  anomalies: readonly Anomaly[] | null;
  /** The one that the chart points at. */
  picked: string | null;
  onPick: (anomaly: Anomaly) => void;
}

/** Rows that are drawn: what is older is looked up over the API. */
const SHOWN = 100;

const COLUMNS =
  "grid w-full grid-cols-[44px_minmax(0,1fr)_48px] items-center gap-x-3 px-4 @2xl:grid-cols-[92px_52px_84px_112px_minmax(0,1fr)_52px]";

/** What was unusual, newest first; a press takes the chart there. */
export function AnomalyList({ anomalies, picked, onPick }: Props) {
  const list = useRef<HTMLUListElement>(null);
  useEffect(() => {
    const row = picked && list.current?.querySelector(`[data-anomaly="${CSS.escape(picked)}"]`);
    if (row) row.scrollIntoView({ block: "nearest" });
  }, [picked]);
  if (!anomalies) return <Loading />;
  if (anomalies.length === 0)
    return (
      <p className="px-4 py-3 text-muted text-xs">
        Nothing unusual yet. Price and volume spikes, RSI extremes, wide spreads, slow feeds and
        outliers appear here as their minute closes.
      </p>
    );
  return (
    <>
      <div
        aria-hidden
        className={cn(
          COLUMNS,
          "sticky top-0 z-10 bg-surface pb-0.5 text-2xs text-muted @max-2xl:hidden",
        )}
      >
        <span>Minute</span>
        <span>Symbol</span>
        <span>Severity</span>
        <span>Kind</span>
        <span>Reason</span>
        <span className="text-right">Score</span>
      </div>
      <ul ref={list} data-testid="anomalies" onKeyDown={walkRows}>
        {anomalies.slice(0, SHOWN).map((anomaly, at) => {
          const id = anomalyId(anomaly);
          return (
            <AnomalyRow
              key={id}
              anomaly={anomaly}
              first={at === 0}
              picked={id === picked}
              onPick={onPick}
            />
          );
        })}
      </ul>
    </>
  );
}

interface RowProps {
  anomaly: Anomaly;
  first: boolean;
  picked: boolean;
  onPick: (anomaly: Anomaly) => void;
}

const AnomalyRow = memo(function AnomalyRow({ anomaly, first, picked, onPick }: RowProps) {
  const ms = anomalyTime(anomaly) * 1000;
  return (
    <li data-anomaly={anomalyId(anomaly)}>
      <button
        type="button"
        data-row
        tabIndex={first ? 0 : -1}
        aria-pressed={picked}
        aria-label={`Show on the chart: ${anomaly.symbol}, ${anomalyTitle(anomaly.kind)}, ${anomaly.severity}, ${anomaly.reason}`}
        onClick={() => onPick(anomaly)}
        className={cn(
          COLUMNS,
          "py-1 text-left text-xs hover:bg-raised/60 aria-pressed:bg-raised max-lg:py-2",
        )}
      >
        <span className="whitespace-nowrap text-muted">
          <span className="@max-2xl:hidden">{dayNY(ms)}, </span>
          {minuteNY(ms)}
        </span>
        <span className="font-semibold @max-2xl:hidden">{anomaly.symbol}</span>
        <span className="@max-2xl:hidden">
          <Severity severity={anomaly.severity} />
        </span>
        <span className="@max-2xl:hidden">{anomalyTitle(anomaly.kind)}</span>
        <span className="min-w-0">
          <span className="flex items-center gap-2 font-medium @2xl:hidden">
            {anomaly.symbol}
            <Severity severity={anomaly.severity} />
          </span>
          <span
            className="block truncate text-muted @max-2xl:whitespace-normal"
            title={anomaly.reason}
          >
            {anomaly.reason}
          </span>
        </span>
        <span className="text-right" title={`Score, by ${anomaly.detector}`}>
          {anomaly.score.toFixed(2)}
        </span>
      </button>
    </li>
  );
});

const PLACES = [0, 1, 2, 3];

function Loading() {
  return (
    <div className="flex flex-col gap-2 px-4 py-2">
      {PLACES.map((place) => (
        <Skeleton key={place} className="h-4 w-full" />
      ))}
    </div>
  );
}
