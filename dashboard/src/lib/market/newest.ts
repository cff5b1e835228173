/** The newest of something, each once; newest first. */
export class Newest<T> {
  private list: readonly T[] = [];
  private known = new Map<string, T>();

  /**
   * @param idOf Names an item: another of the same name takes its place.
   * @param timeOf When it was, any unit; an item without a time is passed over.
   */
  constructor(
    private readonly idOf: (item: T) => string,
    private readonly timeOf: (item: T) => number,
    private readonly capacity: number,
  ) {}

  get all(): readonly T[] {
    return this.list;
  }

  /** Adds some in any order; says whether that changed anything. */
  add(items: readonly T[]): boolean {
    const list = [...this.list];
    let changed = false;
    for (const item of items) {
      const [id, time] = [this.idOf(item), this.timeOf(item)];
      const there = this.known.get(id);
      if (!Number.isFinite(time)) continue;
      if (there !== undefined && JSON.stringify(there) === JSON.stringify(item)) continue;
      if (there !== undefined) list.splice(list.indexOf(there), 1);
      const at = list.findIndex((other) => this.timeOf(other) <= time);
      list.splice(at < 0 ? list.length : at, 0, item);
      this.known.set(id, item);
      changed = true;
    }
    if (!changed) return false;
    for (const old of list.slice(this.capacity)) this.known.delete(this.idOf(old));
    this.list = list.slice(0, this.capacity);
    return true;
  }
}
