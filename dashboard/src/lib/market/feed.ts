import type { BarWindow } from "@/lib/api/types";
import { bucketStart, type Candle, WINDOW_S } from "./bars";
import type { MarketStore } from "./store";

/**
 * What the chart shows: the history of a window, with the minutes that the store knows laid over
 * it. A wider candle is rebuilt only where the store holds all of its minutes.
 */
export function chartCandles(
  store: MarketStore,
  symbol: string,
  window: BarWindow,
  history: readonly Candle[],
): Candle[] {
  const book = store.bars(symbol);
  const byTime = new Map(history.map((candle) => [candle.time, candle]));
  if (window === "1m") {
    for (const candle of book.all) byTime.set(candle.time, candle);
  } else {
    const starts = new Set(book.all.map((candle) => bucketStart(candle.time, WINDOW_S[window])));
    for (const start of starts) {
      const candle = book.reaches(start) ? book.rollUp(start, WINDOW_S[window]) : null;
      if (candle) byTime.set(start, candle);
    }
  }
  return [...byTime.values()].sort((a, b) => a.time - b.time);
}

/** The candles of a window that changed with these minutes, ascending. */
export function changedCandles(
  store: MarketStore,
  symbol: string,
  window: BarWindow,
  minutes: readonly Candle[],
): Candle[] {
  if (window === "1m") return [...minutes];
  const book = store.bars(symbol);
  const starts = new Set(minutes.map((minute) => bucketStart(minute.time, WINDOW_S[window])));
  return [...starts]
    .sort((a, b) => a - b)
    .map((start) => book.rollUp(start, WINDOW_S[window]))
    .filter((candle) => candle !== null);
}
