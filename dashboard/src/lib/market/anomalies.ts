import type { Anomaly } from "@/lib/api/types";
import { sentence } from "@/lib/format";
import { Newest } from "./newest";

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

export function anomalyBook(capacity = KEPT): Newest<Anomaly> {
  return new Newest(anomalyId, anomalyTime, capacity);
}
