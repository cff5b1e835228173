import type { BarWindow, SignalAnswer } from "@/lib/api/types";
import { windowStart } from "./windows";

export interface Marker {
  time: number;
  side: "BUY" | "SELL";
  confidence: number | null;
  /** Whether it moves the paper account; any other is drawn as a small dot without text. */
  moves: boolean;
}

/** Signals kept per symbol, one per bar. */
const KEPT = 600;

/** Whether a signal changes the position: BUY puts all cash in, SELL takes all of it out. */
function moves({ action, position_fraction }: SignalAnswer): boolean {
  return action === "BUY" ? position_fraction < 0.5 : position_fraction >= 0.5;
}

/**
 * Markers of signals (any order), one per window, ascending: of a window the last signal that
 * moves the account, else the last. HOLD and refusals leave none.
 */
export function markersOf(signals: Iterable<SignalAnswer>, window: BarWindow): Marker[] {
  const byTime = new Map<number, { at: number; signal: SignalAnswer }>();
  for (const signal of signals) {
    if (signal.action === "HOLD" || !signal.event_time) continue;
    const at = Date.parse(signal.event_time) / 1000;
    if (!Number.isFinite(at)) continue;
    const time = windowStart(at, window);
    const there = byTime.get(time);
    const more = there ? Number(moves(signal)) - Number(moves(there.signal)) : 0;
    if (!there || more > 0 || (more === 0 && at >= there.at)) byTime.set(time, { at, signal });
  }
  return [...byTime.entries()]
    .sort(([a], [b]) => a - b)
    .map(([time, { signal }]) => ({
      time,
      side: signal.action as Marker["side"],
      confidence: signal.confidence,
      moves: moves(signal),
    }));
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
