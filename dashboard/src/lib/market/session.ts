import type { Candle } from "./bars";

const OPEN_MINUTE = 9 * 60 + 30;

const NEW_YORK = new Intl.DateTimeFormat("en-US", {
  timeZone: "America/New_York",
  year: "numeric",
  month: "2-digit",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});

/** Trading date and minute of the day in New York. */
export function newYork(timeS: number): { date: string; minute: number } {
  const part: Record<string, string> = {};
  for (const { type, value } of NEW_YORK.formatToParts(timeS * 1000)) part[type] = value;
  return {
    date: `${part.year}-${part.month}-${part.day}`,
    minute: Number(part.hour) * 60 + Number(part.minute),
  };
}

/**
 * Price at which the session of the newest candle opened: the first bar from 09:30 New York of
 * that date, else its first bar. Null without candles.
 */
export function sessionOpen(candles: readonly Candle[]): number | null {
  const last = candles.at(-1);
  if (!last) return null;
  // New York changes its offset on Sunday nights: within a trading date minutes can be counted.
  const { minute } = newYork(last.time);
  const midnight = (Math.floor(last.time / 60) - minute) * 60;
  const open = midnight + OPEN_MINUTE * 60;
  const from = last.time >= open ? open : midnight;
  return candles.find((candle) => candle.time >= from)?.open ?? null;
}
