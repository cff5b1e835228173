/**
 * The messages of the gateway, as this dashboard reads them.
 * Every time is RFC 3339 text; every other number is a plain JSON number.
 */

export type Action = "HOLD" | "BUY" | "SELL";

/** Why an answer is not the model's own opinion. */
export type Reason = "stale" | "gap" | "warming_up" | "no_model" | "unavailable";

export type BarWindow = "1m" | "5m" | "15m" | "1h";

export interface ModelRef {
  id: string;
  version: string | number;
  fingerprint?: string | null;
}

export interface SignalAnswer {
  symbol: string;
  action: Action;
  action_id: 0 | 1 | 2;
  confidence: number | null;
  /** In the order HOLD, BUY, SELL. */
  probabilities: number[] | null;
  value: number | null;
  q_values?: number[] | null;
  position_fraction: number | null;
  cash_fraction: number | null;
  model: ModelRef | null;
  event_time: string | null;
  decided_at: string | null;
  data_age_ms: number | null;
  reason: Reason | null;
}

export interface ApiBar {
  event_time: string;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  trade_count?: number | null;
  vwap?: number | null;
  source?: "vendor" | "trades" | null;
  forming?: boolean;
  window?: BarWindow;
}

export interface TradeData {
  price: number;
  size: number;
  exchange?: string | null;
  received_at?: string | null;
}

export interface QuoteData {
  bid: number;
  ask: number;
  bid_size: number;
  ask_size: number;
  received_at?: string | null;
}

export interface FeaturesData {
  values: Record<string, number | null>;
  fingerprint?: string;
  warm?: boolean;
  spread_assumed?: boolean;
  gap?: boolean;
}

/** Where every received message is; null where the stage that knows it does not answer. */
export interface Ledger {
  received: number | null;
  stored: number | null;
  duplicates: number | null;
  quarantined: number | null;
  in_flight: number | null;
  lost: number | null;
  holes?: number | null;
  gaps?: number | null;
  as_of?: string | null;
}

export interface MarketState {
  time: string | null;
  rate: number;
  simulated: boolean;
  mode?: string | null;
  open?: boolean | null;
}

export interface ProducerStats {
  state?: string;
  error?: string | null;
  messages_per_s?: number | null;
  put_ms_p50?: number | null;
  reconnects?: number;
  queued?: number;
}

export interface QueryStats {
  last_batch_ms?: number | null;
  last_commit_wall_ns?: number | null;
  batches?: number;
  bars?: number;
  signals?: number;
}

export interface SystemData {
  market?: MarketState | null;
  ledger?: Ledger | null;
  producer?: ProducerStats | null;
  archive?: QueryStats | null;
  signals?: QueryStats | null;
  latency_ms?: { feed_p50?: number | null; feed_p99?: number | null } | null;
  links?: Record<string, string | null> | null;
}

export type Channel = "trades" | "quotes" | "bars" | "features" | "signals" | "system";

interface Payloads {
  trades: TradeData;
  quotes: QuoteData;
  bars: ApiBar;
  features: FeaturesData;
  signals: SignalAnswer;
  system: SystemData;
}

/** One update of the stream, told apart by its channel. */
export type StreamUpdate = {
  [C in Channel]: {
    channel: C;
    symbol: string | null;
    seq: number;
    event_time: string | null;
    sent_at?: string | null;
    data: Payloads[C];
  };
}[Channel];

export interface ApiErrorBody {
  error: { code: string; message: string; detail?: unknown };
}
