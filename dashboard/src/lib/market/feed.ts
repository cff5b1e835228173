import type { BarWindow } from "@/lib/api/types";
import { type Candle, extended } from "./bars";
import type { MarketStore } from "./store";
import { windowStart } from "./windows";

/**
 * What the chart shows: the history of a window, with the minutes that the store knows laid over
 * it, and over those the bars that the platform closed itself. A wider candle is rebuilt only
 * where the store holds all of its minutes.
 */
export function chartCandles(
  store: MarketStore,
  symbol: string,
  window: BarWindow,
  history: readonly Candle[],
): Candle[] {
  const minutes = store.bars(symbol).all;
  const byTime = new Map(history.map((candle) => [candle.time, candle]));
  const there = (start: number) => byTime.get(start);
  for (const candle of changedCandles(store, symbol, window, minutes, there))
    byTime.set(candle.time, candle);
  for (const candle of store.rolled(symbol, window)) byTime.set(candle.time, candle);
  return [...byTime.values()].sort((a, b) => a.time - b.time);
}

/**
 * The candles of a window that changed with these minutes, ascending. `there` gives the candle
 * that is shown at a start: one whose minutes are not all known is moved on, not made anew.
 */
export function changedCandles(
  store: MarketStore,
  symbol: string,
  window: BarWindow,
  minutes: readonly Candle[],
  there: (start: number) => Candle | undefined = () => undefined,
): Candle[] {
  if (window === "1m") return [...minutes];
  const book = store.bars(symbol);
  const starts = new Set(minutes.map((minute) => windowStart(minute.time, window)));
  return [...starts]
    .sort((a, b) => a - b)
    .map((start) => {
      if (book.reaches(start)) return book.rollUp(start, window);
      const shown = there(start);
      // A day that closed is the history's to tell; the one that runs goes on from what it told.
      return shown?.forming ? extended(shown, book.since(start, window)) : (shown ?? null);
    })
    .filter((candle) => candle !== null);
}
