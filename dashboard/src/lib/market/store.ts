import type { StreamStatus } from "@/lib/api/stream";
import type {
  ApiBar,
  FeaturesData,
  Ledger,
  QuoteData,
  SignalAnswer,
  StreamUpdate,
  SystemData,
  TradeData,
} from "@/lib/api/types";
import { BarBook, type Candle, candleOf } from "./bars";
import { ClockModel } from "./clock";
import { LatencyWindow } from "./latency";
import { SignalBook } from "./markers";
import { sessionOpen } from "./session";

/** What the screen shows of one symbol; replaced, never changed. */
export interface SymbolView {
  symbol: string;
  price: number | null;
  sessionOpen: number | null;
  spark: readonly number[];
  trade: (TradeData & { event_time: string | null }) | null;
  quote: QuoteData | null;
  features: FeaturesData | null;
  signal: SignalAnswer | null;
}

interface Entry {
  view: SymbolView;
  bars: BarBook;
  signals: SignalBook;
  tradeAt: number;
}

export type CandleListener = (candles: readonly Candle[]) => void;

const SPARK_POINTS = 60;

/**
 * Everything that ticks, outside React. Updates change it at once; listeners hear of it together,
 * once per `flush`, which the owner schedules. Memory is bounded per symbol.
 */
export class MarketStore {
  readonly clock = new ClockModel();
  readonly latency = new LatencyWindow();
  private symbols = new Map<string, Entry>();
  private systemView: SystemData | null = null;
  private streamView: StreamStatus = { state: "connecting", reconnects: 0 };
  private listeners = new Map<string, Set<() => void>>();
  private candleListeners = new Map<string, Set<CandleListener>>();
  private dirty = new Set<string>();
  private dirtyCandles = new Map<string, Map<number, Candle>>();

  constructor(
    private readonly schedule: (flush: () => void) => void,
    private readonly wallMs: () => number = Date.now,
  ) {}

  view = (symbol: string): SymbolView => this.of(symbol).view;
  system = (): SystemData | null => this.systemView;
  stream = (): StreamStatus => this.streamView;
  bars = (symbol: string): BarBook => this.of(symbol).bars;
  signals = (symbol: string): SignalBook => this.of(symbol).signals;

  /** Hears of changes under a key: a symbol, `$system`, `$stream`, or `signals:SYMBOL`. */
  on(key: string, listener: () => void): () => void {
    return register(this.listeners, key, listener);
  }

  /** Hears of the 1-minute candles of a symbol that changed since the last flush. */
  onCandles(symbol: string, listener: CandleListener): () => void {
    return register(this.candleListeners, symbol, listener);
  }

  apply(update: StreamUpdate, snapshot = false): void {
    if (update.channel === "system") this.applySystem(update.data);
    if (update.channel === "system" || !update.symbol) return;
    const entry = this.of(update.symbol);
    if (update.channel === "trades") this.applyTrade(entry, update.data, update.event_time);
    if (update.channel === "quotes") this.patch(entry, { quote: update.data });
    if (update.channel === "features") this.patch(entry, { features: update.data });
    if (update.channel === "signals") this.addSignals(update.symbol, [update.data]);
    if (update.channel === "bars" && (update.data.window ?? "1m") === "1m") {
      const time = update.data.event_time ?? update.event_time;
      if (time) this.addBars(update.symbol, [{ ...update.data, event_time: time }]);
    }
    if (!snapshot && (update.channel === "trades" || update.channel === "quotes")) {
      const now = this.wallMs();
      if (update.data.received_at)
        this.latency.push(now - Date.parse(update.data.received_at), now);
    }
  }

  /** Takes 1-minute bars, live or of history, in any order. */
  addBars(symbol: string, bars: readonly ApiBar[]): void {
    const entry = this.of(symbol);
    let closed = false;
    for (const bar of bars) {
      const candle = candleOf(bar);
      if (!candle || !entry.bars.upsert(candle)) continue;
      this.touchCandle(symbol, candle);
      closed ||= !candle.forming;
    }
    const last = entry.bars.last;
    if (!last) return;
    // A trade of this minute or a later one says the price; a bar does where no trade has come.
    const price = entry.tradeAt >= last.time ? entry.view.price : last.close;
    if (closed) this.patch(entry, { price, ...this.shape(entry.bars) });
    else this.patch(entry, { price });
  }

  addSignals(symbol: string, signals: readonly SignalAnswer[]): void {
    const entry = this.of(symbol);
    let newest = entry.view.signal;
    let added = false;
    for (const signal of signals) {
      added = entry.signals.add(signal) || added;
      if (!newest || (signal.event_time ?? "") >= (newest.event_time ?? "")) newest = signal;
    }
    if (!added) return;
    this.patch(entry, { signal: newest });
    this.touch(`signals:${symbol}`);
  }

  setStream(status: StreamStatus): void {
    this.streamView = status;
    this.touch("$stream");
  }

  /** The ledger, when it was asked for over REST because the stream is silent. */
  setLedger(ledger: Ledger): void {
    this.applySystem({ ledger });
  }

  flush = (): void => {
    const keys = this.dirty;
    const candles = this.dirtyCandles;
    this.dirty = new Set();
    this.dirtyCandles = new Map();
    for (const [symbol, changed] of candles) {
      const sorted = [...changed.values()].sort((a, b) => a.time - b.time);
      for (const listener of this.candleListeners.get(symbol) ?? []) listener(sorted);
    }
    for (const key of keys) for (const listener of this.listeners.get(key) ?? []) listener();
  };

  private applySystem(data: SystemData): void {
    if (data.market) this.clock.update(data.market, this.wallMs());
    this.systemView = { ...this.systemView, ...data };
    this.touch("$system");
  }

  private applyTrade(entry: Entry, trade: TradeData, eventTime: string | null): void {
    const at = eventTime ? Date.parse(eventTime) / 1000 : Number.NaN;
    if (!Number.isFinite(trade.price) || at < entry.tradeAt) return;
    if (Number.isFinite(at)) {
      entry.tradeAt = at;
      const candle = entry.bars.trade(trade.price, at);
      if (candle) this.touchCandle(entry.view.symbol, candle);
    }
    this.patch(entry, { price: trade.price, trade: { ...trade, event_time: eventTime } });
  }

  private shape(bars: BarBook): Pick<SymbolView, "spark" | "sessionOpen"> {
    const spark = bars.all.slice(-SPARK_POINTS).map((candle) => candle.close);
    return { spark, sessionOpen: sessionOpen(bars.all) };
  }

  private of(symbol: string): Entry {
    let entry = this.symbols.get(symbol);
    if (!entry) {
      const view = { ...EMPTY, symbol };
      entry = { view, bars: new BarBook(), signals: new SignalBook(), tradeAt: 0 };
      this.symbols.set(symbol, entry);
    }
    return entry;
  }

  private patch(entry: Entry, change: Partial<SymbolView>): void {
    entry.view = { ...entry.view, ...change };
    this.touch(entry.view.symbol);
  }

  private touchCandle(symbol: string, candle: Candle): void {
    if (!this.candleListeners.get(symbol)?.size) return;
    const changed = this.dirtyCandles.get(symbol) ?? new Map<number, Candle>();
    changed.set(candle.time, candle);
    this.dirtyCandles.set(symbol, changed);
  }

  private touch(key: string): void {
    const idle = this.dirty.size === 0;
    this.dirty.add(key);
    if (idle) this.schedule(this.flush);
  }
}

const EMPTY: Omit<SymbolView, "symbol"> = {
  price: null,
  sessionOpen: null,
  spark: [],
  trade: null,
  quote: null,
  features: null,
  signal: null,
};

function register<L>(map: Map<string, Set<L>>, key: string, listener: L): () => void {
  const set = map.get(key) ?? new Set<L>();
  map.set(key, set.add(listener));
  return () => set.delete(listener);
}
