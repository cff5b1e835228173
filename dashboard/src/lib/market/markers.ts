import type { SignalAnswer } from "@/lib/api/types";
import { bucketStart } from "./bars";

export interface Marker {
  time: number;
  side: "BUY" | "SELL";
  confidence: number | null;
  /** Whether it turns the side; a repeat of the last one is drawn small and without text. */
  turns: boolean;
}

/** Signals kept per symbol, one per bar. */
const KEPT = 600;

/** Markers of signals (any order), one per window, ascending. HOLD and refusals leave none. */
export function markersOf(signals: Iterable<SignalAnswer>, windowS: number): Marker[] {
  const byTime = new Map<number, { at: number; signal: SignalAnswer }>();
  for (const signal of signals) {
    if (signal.action === "HOLD" || !signal.event_time) continue;
    const at = Date.parse(signal.event_time) / 1000;
    if (!Number.isFinite(at)) continue;
    const time = bucketStart(at, windowS);
    const there = byTime.get(time);
    if (!there || at >= there.at) byTime.set(time, { at, signal });
  }
  let side: string | null = null;
  return [...byTime.entries()]
    .sort(([a], [b]) => a - b)
    .map(([time, { signal }]) => {
      const turns = signal.action !== side;
      side = signal.action;
      return { time, side: signal.action as Marker["side"], confidence: signal.confidence, turns };
    });
}

/** The signals of one symbol, one per bar, the newest kept. */
export class SignalBook {
  private byBar = new Map<string, SignalAnswer>();

  get all(): Iterable<SignalAnswer> {
    return this.byBar.values();
  }

  at(eventTime: string): SignalAnswer | undefined {
    return this.byBar.get(eventTime);
  }

  /** Adds one; false when it has no bar or is known already. */
  add(signal: SignalAnswer): boolean {
    const bar = signal.event_time;
    if (!bar) return false;
    const there = this.byBar.get(bar);
    if (there?.action === signal.action && there.confidence === signal.confidence) return false;
    this.byBar.set(bar, signal);
    if (this.byBar.size > KEPT) {
      const oldest = [...this.byBar.keys()].sort()[0];
      if (oldest !== undefined) this.byBar.delete(oldest);
    }
    return true;
  }
}
