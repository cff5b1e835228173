import type { Candle } from "./bars";

/** How an update changed the series: `all` of it has to be drawn again, or one candle only. */
export type Change = "all" | "last" | "past" | "none";

/**
 * The candles on the chart, ascending, without repeats, and bounded: a page that is open all day
 * draws no more than one that was opened now.
 */
export class CandleSeries {
  private list: Candle[] = [];

  constructor(private readonly capacity = 4000) {}

  get all(): readonly Candle[] {
    return this.list;
  }

  get last(): Candle | undefined {
    return this.list.at(-1);
  }

  reset(candles: readonly Candle[]): void {
    this.list = candles.slice(-this.capacity);
  }

  upsert(candle: Candle): Change {
    const last = this.last;
    if (!last || candle.time > last.time) {
      this.list.push(candle);
      // A tenth above the bound, so that dropping the oldest is rare.
      if (this.list.length <= this.capacity * 1.1) return "last";
      this.list = this.list.slice(-this.capacity);
      return "all";
    }
    const at = this.indexOf(candle.time);
    if (this.list[at]?.time === candle.time) {
      this.list[at] = candle;
      return at === this.list.length - 1 ? "last" : "past";
    }
    if (at === 0) return "none";
    this.list.splice(at, 0, candle);
    return "all";
  }

  at(timeS: number): Candle | undefined {
    const found = this.list[this.indexOf(timeS)];
    return found?.time === timeS ? found : undefined;
  }

  /** Index of the candle that a moment lies in, or of the last before it; -1 before the first. */
  indexAt(timeS: number): number {
    const next = this.indexOf(timeS);
    return this.list[next]?.time === timeS ? next : next - 1;
  }

  /** Index of the first candle that begins at a time or after it. */
  indexOf(timeS: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.list[middle] as Candle).time < timeS) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
