import type { ApiBar, BarWindow } from "@/lib/api/types";
import { bucketStart, windowStart } from "./windows";

/** A bar for the chart; `time` is its start, seconds since the epoch. */
export interface Candle {
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  /** Volume-weighted price; null where nobody said it. */
  vwap: number | null;
  forming: boolean;
}

export function candleOf(bar: ApiBar): Candle | null {
  const time = Math.floor(Date.parse(bar.event_time) / 1000);
  const numbers = [time, bar.open, bar.high, bar.low, bar.close];
  if (!numbers.every(Number.isFinite)) return null;
  const { open, high, low, close } = bar;
  const { volume = 0, vwap = null, forming = false } = bar;
  return { time, open, high, low, close, volume, vwap, forming };
}

/** One candle from those of a window, oldest first; null of none. */
export function merge(candles: readonly Candle[], time: number): Candle | null {
  const first = candles[0];
  const last = candles.at(-1);
  if (!first || !last) return null;
  return {
    time,
    open: first.open,
    high: Math.max(...candles.map((c) => c.high)),
    low: Math.min(...candles.map((c) => c.low)),
    close: last.close,
    volume: candles.reduce((sum, c) => sum + c.volume, 0),
    vwap: vwapOf(candles),
    forming: last.forming,
  };
}

/** A price that stands for all of a bar's trades. */
export function typicalPrice({ high, low, close, vwap }: Candle): number {
  return vwap ?? (high + low + close) / 3;
}

/** As the gateway has it: a minute that says no such price stands at its close. */
function vwapOf(candles: readonly Candle[]): number | null {
  let volume = 0;
  let paid = 0;
  for (const candle of candles) {
    volume += candle.volume;
    paid += (candle.vwap ?? candle.close) * candle.volume;
  }
  return volume > 0 ? paid / volume : null;
}

/** A candle moved on by minutes of which those before are in it already; its volume stays. */
export function extended(candle: Candle, minutes: readonly Candle[]): Candle {
  const last = minutes.at(-1);
  if (!last) return candle;
  return {
    ...candle,
    high: Math.max(candle.high, ...minutes.map((c) => c.high)),
    low: Math.min(candle.low, ...minutes.map((c) => c.low)),
    close: last.close,
    forming: true,
  };
}

/** Minutes kept per symbol: a day of trading with its extended hours. */
export const MINUTES_KEPT = 960;

/** The newest 1-minute candles of one symbol, ascending and without repeats. */
export class BarBook {
  private candles: Candle[] = [];

  constructor(private readonly capacity = MINUTES_KEPT) {}

  get all(): readonly Candle[] {
    return this.candles;
  }

  get last(): Candle | undefined {
    return this.candles.at(-1);
  }

  /** Inserts or replaces; a closed bar is never overwritten by a forming one. Says whether it changed. */
  upsert(candle: Candle): boolean {
    let i = this.candles.length;
    while (i > 0 && (this.candles[i - 1] as Candle).time > candle.time) i--;
    const there = this.candles[i - 1];
    if (there?.time === candle.time) {
      if (candle.forming && !there.forming) return false;
      this.candles[i - 1] = candle;
      return true;
    }
    if (i === 0 && this.candles.length >= this.capacity) return false;
    this.candles.splice(i, 0, candle);
    if (this.candles.length > this.capacity) this.candles.shift();
    return true;
  }

  /** Lets a trade move the forming bar, or begin the next. Volume stays the server's to count. */
  trade(price: number, timeS: number): Candle | null {
    const time = bucketStart(timeS, 60);
    const last = this.last;
    if (last && (time < last.time || (time === last.time && !last.forming))) return null;
    const next: Candle =
      last?.time === time
        ? {
            ...last,
            high: Math.max(last.high, price),
            low: Math.min(last.low, price),
            close: price,
          }
        : {
            time,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 0,
            vwap: null,
            forming: true,
          };
    this.upsert(next);
    return next;
  }

  /** The candle of a wider window that a moment lies in, from the minutes held. */
  rollUp(timeS: number, window: BarWindow): Candle | null {
    const start = windowStart(timeS, window);
    return merge(this.since(start, window), start);
  }

  /** The minutes held of the wider window that begins at a moment. */
  since(start: number, window: BarWindow): Candle[] {
    return this.candles.filter((c) => c.time >= start && windowStart(c.time, window) === start);
  }

  /** Whether the minutes held reach back to a moment, so that a roll-up from it is whole. */
  reaches(timeS: number): boolean {
    const first = this.candles[0];
    return first !== undefined && first.time <= timeS;
  }
}
