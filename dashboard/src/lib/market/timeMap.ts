/** Values by time (seconds); the newest are kept. */
export class TimeMap<V> {
  private map = new Map<number, V>();

  constructor(private readonly capacity: number) {}

  get all(): ReadonlyMap<number, V> {
    return this.map;
  }

  set(timeS: number, value: V): void {
    if (!Number.isFinite(timeS)) return;
    this.map.set(timeS, value);
    // A tenth above the bound, so that sorting for the oldest is rare.
    if (this.map.size <= this.capacity * 1.1) return;
    const oldest = [...this.map.keys()].sort((a, b) => a - b);
    for (const old of oldest.slice(0, this.map.size - this.capacity)) this.map.delete(old);
  }
}
