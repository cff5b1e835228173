import type { BarWindow } from "@/lib/api/types";
import { midnightNY } from "./session";

/** The lengths of a bar that the chart offers, in seconds; a day begins at midnight in New York. */
export const WINDOW_S: Record<BarWindow, number> = {
  "1m": 60,
  "5m": 300,
  "15m": 900,
  "1h": 3600,
  "1d": 86_400,
};

export const WINDOWS = Object.keys(WINDOW_S) as BarWindow[];

export function isWindow(value: unknown): value is BarWindow {
  return typeof value === "string" && value in WINDOW_S;
}

/** Start of the span that holds a moment, both in seconds. */
export function bucketStart(timeS: number, spanS: number): number {
  return Math.floor(timeS / spanS) * spanS;
}

/** Start of the bar that a moment lies in, as the gateway begins it; both in seconds. */
export function windowStart(timeS: number, window: BarWindow): number {
  return window === "1d" ? midnightNY(timeS) : bucketStart(timeS, WINDOW_S[window]);
}

/** The window wished for, or the next wider one of whose bars so many reach back so far. */
export function narrowestWindow(ageS: number, bars: number, wished: BarWindow): BarWindow {
  const reaches = WINDOWS.slice(WINDOWS.indexOf(wished)).find((w) => WINDOW_S[w] * bars >= ageS);
  return reaches ?? "1d";
}
