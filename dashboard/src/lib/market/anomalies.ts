import type { Anomaly } from "@/lib/api/types";
import { sentence } from "@/lib/format";

/** Anomalies kept of all symbols together. */
const KEPT = 400;

const RANK: Record<Anomaly["severity"], number> = { info: 0, warning: 1, critical: 2 };

const TITLES: Record<string, string> = {
  price_spike: "Price spike",
  volume_spike: "Volume spike",
  rsi: "RSI extreme",
  spread_blowout: "Spread blow-out",
  feed_latency: "Feed latency",
  outlier: "Outlier",
};

export function anomalyTitle(kind: string): string {
  return TITLES[kind] ?? sentence(kind);
}

export function anomalyId({ symbol, event_time, kind }: Anomaly): string {
  return `${symbol} ${event_time} ${kind}`;
}

export function anomalyTime({ event_time }: Anomaly): number {
  return Date.parse(event_time) / 1000;
}

/** The worst of some, the newest among equals. */
export function worst(anomalies: readonly Anomaly[]): Anomaly | undefined {
  return anomalies.reduce<Anomaly | undefined>(
    (a, b) => (a && RANK[a.severity] >= RANK[b.severity] ? a : b),
    undefined,
  );
}

/** What was unusual, newest first, each once, the newest kept. */
export class AnomalyBook {
  private list: readonly Anomaly[] = [];
  private ids = new Set<string>();

  constructor(private readonly capacity = KEPT) {}

  get all(): readonly Anomaly[] {
    return this.list;
  }

  /** Adds some in any order; says whether one of them was new. */
  add(anomalies: readonly Anomaly[]): boolean {
    const fresh = anomalies.filter((anomaly) => {
      const id = anomalyId(anomaly);
      if (this.ids.has(id) || !Number.isFinite(anomalyTime(anomaly))) return false;
      this.ids.add(id);
      return true;
    });
    if (fresh.length === 0) return false;
    const all = [...fresh, ...this.list].sort((a, b) => anomalyTime(b) - anomalyTime(a));
    for (const old of all.slice(this.capacity)) this.ids.delete(anomalyId(old));
    this.list = all.slice(0, this.capacity);
    return true;
  }
}
