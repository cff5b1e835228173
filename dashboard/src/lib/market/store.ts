import type { StreamStatus } from "@/lib/api/stream";
import type {
  Alert,
  Anomaly,
  ApiBar,
  BarWindow,
  FeaturesData,
  Fill,
  IndicatorRow,
  Ledger,
  ProvisionalData,
  QuoteData,
  SignalAnswer,
  StatsData,
  StreamUpdate,
  SystemData,
  TradeData,
} from "@/lib/api/types";
import { BarBook, type Candle, candleOf, MINUTES_KEPT } from "./bars";
import { ClockModel } from "./clock";
import { type EventBooks, type EventKind, eventBooks, fillOf } from "./events";
import { LatencyWindow } from "./latency";
import { SignalBook } from "./markers";
import { sessionOpen } from "./session";
import { TimeMap } from "./timeMap";

/** What the screen shows of one symbol; replaced, never changed. */
export interface SymbolView {
  symbol: string;
  price: number | null;
  sessionOpen: number | null;
  spark: readonly number[];
  trade: (TradeData & { event_time: string | null }) | null;
  quote: QuoteData | null;
  features: FeaturesData | null;
  /** Features of the bar that still forms; null once it has closed. */
  forming: ProvisionalData | null;
  stats: StatsData | null;
  signal: SignalAnswer | null;
}

interface Entry {
  view: SymbolView;
  bars: BarBook;
  signals: SignalBook;
  /** Indicators at closed minute bars. */
  indicators: TimeMap<IndicatorRow>;
  /** Bars of longer windows that the platform closed. */
  rolled: Map<BarWindow, TimeMap<Candle>>;
  tradeAt: number;
}

export type CandleListener = (candles: readonly Candle[]) => void;

const SPARK_POINTS = 60;
const ROLLED_KEPT = 300;
/** A market clock that falls back further than this is another run of the market. */
const BACKWARDS_MS = 60_000;

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
  private books = eventBooks();
  private runs = 0;
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
  indicators = (symbol: string): ReadonlyMap<number, IndicatorRow> =>
    this.of(symbol).indicators.all;
  anomalies = (): readonly Anomaly[] => this.books.anomalies.all;
  fills = (): readonly Fill[] => this.books.fills.all;
  alerts = (): readonly Alert[] => this.books.alerts.all;
  /** How often the market's time went back: what was loaded before belongs to another run. */
  run = (): number => this.runs;

  /** Closed bars of a longer window, as the platform published them. */
  rolled(symbol: string, window: BarWindow): Iterable<Candle> {
    return this.of(symbol).rolled.get(window)?.all.values() ?? [];
  }

  /**
   * Hears of changes under a key: a symbol, `$system`, `$stream`, `$run`, `$anomalies`, `$fills`, `$alerts`,
   * `signals:SYMBOL`, `indicators:SYMBOL` or `rolled:SYMBOL`.
   */
  on(key: string, listener: () => void): () => void {
    return register(this.listeners, key, listener);
  }

  /** Hears of the 1-minute candles of a symbol that changed since the last flush. */
  onCandles(symbol: string, listener: CandleListener): () => void {
    return register(this.candleListeners, symbol, listener);
  }

  apply(update: StreamUpdate, snapshot = false): void {
    if (update.channel === "system") this.applySystem(update.data);
    if (update.channel === "alerts") this.addEvents("alerts", [update.data]);
    if (update.channel === "system" || update.channel === "alerts" || !update.symbol) return;
    const entry = this.of(update.symbol);
    this.applyTo(entry, update);
    if (!snapshot && (update.channel === "trades" || update.channel === "quotes")) {
      const now = this.wallMs();
      if (update.data.received_at)
        this.latency.push(now - Date.parse(update.data.received_at), now);
    }
  }

  private applyTo(entry: Entry, update: StreamUpdate): void {
    const time = update.event_time;
    const { symbol } = entry.view;
    switch (update.channel) {
      case "trades":
        this.applyTrade(entry, update.data, time);
        break;
      case "quotes":
        this.patch(entry, { quote: update.data });
        break;
      case "features":
        this.patch(entry, { features: update.data, forming: null });
        if (update.data.indicators && time)
          this.addIndicators(symbol, [{ ...update.data.indicators, event_time: time }]);
        break;
      case "provisional":
        this.patch(entry, { forming: update.data });
        break;
      case "signals":
        this.addSignals(symbol, [update.data]);
        break;
      case "stats":
        this.patch(entry, { stats: update.data });
        break;
      case "anomalies":
        if (time) this.addEvents("anomalies", [{ ...update.data, symbol, event_time: time }]);
        break;
      case "fills":
        if (time) this.addEvents("fills", [fillOf(update.data, symbol, time)]);
        break;
      case "rollups":
        this.addRolled(entry, update.data);
        break;
      case "bars":
        this.applyBar(symbol, update.data, update.data.event_time ?? time);
    }
  }

  private applyBar(symbol: string, bar: ApiBar, time: string | null): void {
    if ((bar.window ?? "1m") === "1m" && time) this.addBars(symbol, [{ ...bar, event_time: time }]);
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

  /** Takes indicators at closed minute bars, live or of history. */
  addIndicators(symbol: string, rows: readonly IndicatorRow[]): void {
    const { indicators } = this.of(symbol);
    for (const row of rows) indicators.set(Date.parse(row.event_time) / 1000, row);
    if (rows.length) this.touch(`indicators:${symbol}`);
  }

  setStats(symbol: string, stats: StatsData): void {
    const entry = this.of(symbol);
    if (!entry.view.stats || entry.view.stats.count < stats.count) this.patch(entry, { stats });
  }

  /** Takes events of a kind, live or of history, in any order. */
  addEvents<K extends EventKind>(kind: K, events: ReturnType<EventBooks[K]["all"]["slice"]>): void {
    if (this.books[kind].add(events as never)) this.touch(`$${kind}`);
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
    if (data.market) {
      const before = this.clock.heard;
      this.clock.update(data.market, this.wallMs());
      const now = this.clock.heard;
      if (before !== null && now !== null && now < before - BACKWARDS_MS) this.restart();
    }
    this.systemView = { ...this.systemView, ...data };
    this.touch("$system");
  }

  /** Forgets what another run of the market said; who shows it has to load it again. */
  private restart(): void {
    this.runs += 1;
    // Alerts are of the wall clock, which goes on.
    this.books = { ...eventBooks(), alerts: this.books.alerts };
    for (const [symbol, { view }] of this.symbols) {
      this.symbols.set(symbol, fresh({ ...EMPTY, symbol: view.symbol }));
      for (const key of [symbol, `signals:${symbol}`, `indicators:${symbol}`]) this.touch(key);
    }
    this.dirtyCandles.clear();
    this.touch("$anomalies");
    this.touch("$fills");
    this.touch("$run");
  }

  private addRolled(entry: Entry, bar: ApiBar): void {
    const candle = candleOf({ ...bar, forming: false });
    if (!candle || !bar.window) return;
    const rolled = entry.rolled.get(bar.window) ?? new TimeMap<Candle>(ROLLED_KEPT);
    rolled.set(candle.time, candle);
    entry.rolled.set(bar.window, rolled);
    this.touch(`rolled:${entry.view.symbol}`);
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
      entry = fresh({ ...EMPTY, symbol });
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
  forming: null,
  stats: null,
  signal: null,
};

function fresh(view: SymbolView): Entry {
  return {
    view,
    bars: new BarBook(),
    signals: new SignalBook(),
    indicators: new TimeMap(MINUTES_KEPT),
    rolled: new Map(),
    tradeAt: 0,
  };
}

function register<L>(map: Map<string, Set<L>>, key: string, listener: L): () => void {
  const set = map.get(key) ?? new Set<L>();
  map.set(key, set.add(listener));
  return () => set.delete(listener);
}
