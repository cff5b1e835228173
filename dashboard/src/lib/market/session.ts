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

/** Midnights by hour, both in seconds; an hour lies in one date. */
const midnights = new Map<number, number>();
const HOURS_KEPT = 5000;

/** The midnight in New York that a moment's date began with, in seconds. */
export function midnightNY(timeS: number): number {
  const hour = Math.floor(timeS / 3600);
  const known = midnights.get(hour);
  if (known !== undefined) return known;
  if (midnights.size >= HOURS_KEPT) midnights.clear();
  // The clock is changed at 02:00 on a Sunday: the second guess stands on that date's own offset.
  const back = (at: number) => (Math.floor(at / 60) - newYork(at).minute) * 60;
  const guess = back(hour * 3600);
  const off = newYork(guess).minute;
  const found = off === 0 ? guess : guess - (off < 720 ? off : off - 1440) * 60;
  midnights.set(hour, found);
  return found;
}

/**
 * Price at which the session of the newest candle opened: the first bar from 09:30 New York of
 * that date, else its first bar. Null without candles.
 */
export function sessionOpen(candles: readonly Candle[]): number | null {
  const last = candles.at(-1);
  if (!last) return null;
  const midnight = midnightNY(last.time);
  const open = midnight + OPEN_MINUTE * 60;
  const from = last.time >= open ? open : midnight;
  return candles.find((candle) => candle.time >= from)?.open ?? null;
}
