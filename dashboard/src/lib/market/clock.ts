import type { MarketState } from "@/lib/api/types";

/** Runs the market's time on between two announcements. Times are milliseconds. */
export class ClockModel {
  private anchor: { market: number; wall: number; rate: number; runs: boolean } | null = null;

  /** Takes an announcement, heard at `wall` (any monotonic clock). */
  update(state: MarketState, wall: number): void {
    const market = state.time ? Date.parse(state.time) : Number.NaN;
    if (!Number.isFinite(market)) return;
    // A simulated market skips closed hours, so its clock stands only when it has finished.
    const runs = !state.simulated || state.open !== false;
    this.anchor = { market, wall, rate: state.rate > 0 ? state.rate : 1, runs };
  }

  /** The market time that was announced last; null before. */
  get heard(): number | null {
    return this.anchor?.market ?? null;
  }

  /** Market milliseconds that pass in one of the wall clock; 0 while the market stands. */
  get pace(): number {
    return this.anchor?.runs ? this.anchor.rate : 0;
  }

  now(wall: number): number | null {
    if (!this.anchor) return null;
    const { market, runs, rate } = this.anchor;
    // Two seconds of wall time without an announcement, and the clock would be a guess.
    const elapsed = Math.min(Math.max(0, wall - this.anchor.wall), 2000);
    return runs ? market + elapsed * rate : market;
  }
}
