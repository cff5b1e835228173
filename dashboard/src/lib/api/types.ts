/**
 * The messages of the gateway, as this dashboard reads them. What OpenAPI describes is generated;
 * what only the stream carries is written here.
 */
import type { components } from "./openapi";

type Schemas = components["schemas"];

export type SignalAnswer = Schemas["Signal"];
export type Action = SignalAnswer["action"];
/** Why an answer is not the model's own opinion. */
export type Reason = NonNullable<SignalAnswer["reason"]>;
export type ApiErrorBody = Schemas["ErrorAnswer"];
export type SymbolPage = Schemas["SymbolPage"];
export type SignalPage = Schemas["SignalPage"];
export type BarPage = Schemas["BarPage"];
/** Where every received message is; null where the stage that knows it does not answer. */
export type Ledger = Omit<Schemas["Ledger"], "balance" | "stages"> & {
  balance?: StageRow[];
  stages?: LedgerStages;
};
/** The lengths of a bar. */
export type BarWindow = Bar["window"];
export type IndicatorPage = Schemas["IndicatorPage"];
export type IndicatorRow = Schemas["IndicatorRow"];
export type StatsPage = Schemas["StatsPage"];
export type AnomalyPage = Schemas["AnomalyPage"];
export type GapPage = Schemas["GapPage"];
export type GapRow = Schemas["GapRow"];
/** An anomaly; a live one does not say when it was stored. */
export type Anomaly = Omit<Schemas["AnomalyRow"], "known_at">;

export type FillPage = Schemas["FillPage"];
/** A paper fill; a live one does not say when it was stored. */
export type Fill = Omit<Schemas["FillRow"], "known_at">;
/** A stage: received = stored + duplicates + quarantined + in flight + imbalance. */
export type StageRow = Schemas["StageRow"];
/** A fill as the stream tells it: the model in two parts, symbol and time beside it. */
export type LiveFill = Omit<Fill, "symbol" | "event_time" | "model"> & {
  model_id: string;
  model_version: string | number;
};
export type AlertPage = Schemas["AlertPage"];
export type Alert = Schemas["AlertRow"];

type Bar = Schemas["Bar"];
/** A bar; a live one says only what it must. */
export type ApiBar = Pick<Bar, "event_time" | "open" | "high" | "low" | "close" | "volume"> &
  Partial<Bar>;

export interface TradeData {
  price: number;
  size: number;
  exchange?: string | null;
  received_at?: string | null;
}

/** A price of 0 says that nobody bids, or offers. */
export interface QuoteData {
  bid: number;
  ask: number;
  bid_size: number;
  ask_size: number;
  received_at?: string | null;
}

/** What each stage counts; a stage that does not answer is null. */
export interface LedgerStages {
  producer?: StageNumbers | null;
  archive?: StageNumbers | null;
  signals?: StageNumbers | null;
}

/** Numbers of a stage, and what else it says of itself. */
export type StageNumbers = Record<string, unknown>;

export interface FeaturesData {
  values: Record<string, number | null>;
  fingerprint?: string;
  warm?: boolean;
  spread_assumed?: boolean;
  gap?: boolean;
  indicators?: Record<string, number | null> | null;
}

/** Features of the forming bar; the next one takes their place. */
export interface ProvisionalData {
  event_time: string;
  values: Record<string, number | null>;
}

/** Average over the last minutes. */
export interface Sliding {
  mean: number;
  vwap: number | null;
  volume: number;
  bars: number;
}

/** Running statistics of the session's prices. */
export interface StatsData {
  count: number;
  min: number | null;
  max: number | null;
  mean: number | null;
  std: number | null;
  buckets?: { base: number | null; width_bps: number; counts: Record<string, number> };
  sliding?: Record<string, Sliding>;
  own_bar?: { agrees: boolean | null };
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
  feed?: { streams?: Record<string, string> } | null;
  ledger?: Ledger | null;
  producer?: ProducerStats | null;
  streaming?: { state?: string | null; error?: string | null } | null;
  archive?: QueryStats | null;
  signals?: QueryStats | null;
  latency_ms?: { feed_p50?: number | null; feed_p99?: number | null } | null;
  links?: Record<string, string | null> | null;
}

interface Payloads {
  trades: TradeData;
  quotes: QuoteData;
  bars: ApiBar;
  rollups: ApiBar;
  features: FeaturesData;
  provisional: ProvisionalData;
  signals: SignalAnswer;
  stats: StatsData;
  anomalies: Omit<Anomaly, "symbol" | "event_time">;
  fills: LiveFill;
  alerts: Alert;
  system: SystemData;
}

export type Channel = keyof Payloads;

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
