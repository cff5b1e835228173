import type { BarWindow } from "@/lib/api/types";
import { STUDY_IDS, VOLUME } from "./studies";
import { isWindow } from "./windows";

/** What the viewer chose to see on the chart. */
export interface ChartPrefs {
  window: BarWindow;
  studies: readonly string[];
}

export const DEFAULT_PREFS: ChartPrefs = {
  window: "1m",
  studies: [VOLUME, "vwap", "sma_20", "rsi"],
};

/** Reads what a browser remembered; whatever is not known any more is left out. */
export function readPrefs(value: unknown): ChartPrefs {
  const { window, studies } = (value ?? {}) as Record<string, unknown>;
  return {
    window: isWindow(window) ? window : DEFAULT_PREFS.window,
    studies: Array.isArray(studies)
      ? STUDY_IDS.filter((id) => studies.includes(id))
      : DEFAULT_PREFS.studies,
  };
}

export function toggled(studies: readonly string[], id: string): string[] {
  return STUDY_IDS.filter((known) => studies.includes(known) !== (known === id));
}
