import type { Alert, Anomaly, Fill, LiveFill } from "@/lib/api/types";
import { anomalyBook } from "./anomalies";
import { Newest } from "./newest";

/** Fills and alerts kept, of all symbols together. */
const KEPT = 200;

/** A fill of the stream as the API lists it. */
export function fillOf(live: LiveFill, symbol: string, event_time: string): Fill {
  const { model_id, model_version, ...fill } = live;
  return { ...fill, symbol, event_time, model: `${model_id}:${model_version}` };
}

export function fillId({ symbol, event_time, model }: Fill): string {
  return `${symbol} ${event_time} ${model}`;
}

export function fillTime({ event_time }: Fill): number {
  return Date.parse(event_time) / 1000;
}

/** What a fill cost beside its price, US dollars. */
export function fillCost({ commission, spread_cost, slippage_cost }: Fill): number {
  return commission + spread_cost + slippage_cost;
}

/** What happened that is looked at as a list. */
export interface EventBooks {
  anomalies: Newest<Anomaly>;
  fills: Newest<Fill>;
  alerts: Newest<Alert>;
}

export type EventKind = keyof EventBooks;

export function eventBooks(): EventBooks {
  return {
    anomalies: anomalyBook(),
    fills: new Newest(fillId, fillTime, KEPT),
    alerts: new Newest<Alert>(
      ({ id }) => id,
      ({ began_at }) => Date.parse(began_at),
      KEPT,
    ),
  };
}
