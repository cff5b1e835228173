/** Latencies of the last seconds, bounded; all in milliseconds. */
export class LatencyWindow {
  private samples: { at: number; ms: number }[] = [];

  constructor(
    private readonly spanMs = 10_000,
    private readonly capacity = 512,
  ) {}

  push(ms: number, at: number): void {
    if (!Number.isFinite(ms)) return;
    // Clocks of two hosts differ a little: a tick cannot arrive before it was received.
    this.samples.push({ at, ms: Math.max(0, ms) });
    if (this.samples.length > this.capacity) this.samples.shift();
  }

  /** Median of the samples younger than the span; null when there are none. */
  p50(now: number): number | null {
    this.samples = this.samples.filter((sample) => now - sample.at <= this.spanMs);
    if (this.samples.length === 0) return null;
    const sorted = this.samples.map((sample) => sample.ms).sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) / 2)] ?? null;
  }
}
