import { anomaly, balance, stages, stats } from "./derived.mjs";

/** A small moving market for working on the dashboard without the platform. */
const SYMBOLS =
  "AAPL TSLA NVDA MSFT GOOGL AMZN META AMD NFLX INTC JPM BAC XOM JNJ KO DIS BA SPY QQQ IWM".split(
    " ",
  );
const PRICES = [
  228.4, 342.1, 141.9, 415.5, 171.2, 204.6, 561.3, 138.2, 897.5, 24.4, 245.1, 46.3, 119.8, 155.3,
  63.1, 114.6, 143.4, 591.2, 505.8, 237.9,
];
const FEATURES =
  "log_return_1 momentum_10 volatility_20 volume_ratio_20 rsi_14 macd_hist_12_26_9 bollinger_position_20_2 sma_ratio_5 sma_ratio_15 sma_ratio_60 spread_bps".split(
    " ",
  );
const ACTIONS = ["HOLD", "BUY", "SELL"];
const OPEN_MS = Date.UTC(2026, 10, 20, 14, 30);
const MINUTE = 60_000;

let state = 7;
const random = () => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};
const gauss = () => random() + random() + random() - 1.5;
const stamp = (ms) => new Date(ms).toISOString();
const round = (value) => Math.round(value * 100) / 100;

export class Market {
  symbols = SYMBOLS;
  rate = 10;
  bars = new Map();
  signals = new Map();
  features = new Map();
  anomalies = [];
  stored = 0;
  received = 0;

  constructor({ history = 300, wall = Date.now() } = {}) {
    this.origin = wall - (history * MINUTE) / this.rate;
    SYMBOLS.forEach((symbol, i) => {
      this.bars.set(symbol, []);
      this.signals.set(symbol, []);
      let price = PRICES[i];
      const drift = gauss() * 0.00004;
      for (let m = 0; m < history; m++) {
        const bar = this.newBar(OPEN_MS + m * MINUTE, price);
        for (let k = 0; k < 12; k++) this.move(bar, drift);
        price = bar.close;
        this.bars.get(symbol).push({ ...bar, forming: false, source: "vendor" });
        this.decide(symbol, bar);
        if (random() < 0.012) this.anomalies.unshift(anomaly(symbol, bar.event_time, random));
      }
      this.bars.get(symbol).push(this.newBar(OPEN_MS + history * MINUTE, price));
    });
    this.anomalies.sort((a, b) => b.event_time.localeCompare(a.event_time));
    this.received = 1_284_311;
    this.stored = 1_271_902;
  }

  now(wall = Date.now()) {
    return OPEN_MS + (wall - this.origin) * this.rate;
  }

  newBar(time, price) {
    const same = { open: price, high: price, low: price, close: price };
    return {
      event_time: stamp(time),
      ...same,
      volume: 0,
      trade_count: 0,
      vwap: price,
      source: "trades",
      forming: true,
      window: "1m",
    };
  }

  move(bar, drift = 0) {
    bar.close = round(bar.close * (1 + drift + gauss() * 0.0006));
    bar.high = Math.max(bar.high, bar.close);
    bar.low = Math.min(bar.low, bar.close);
    bar.volume += Math.ceil(random() * 900);
    bar.trade_count += 1;
    return bar.close;
  }

  decide(symbol, bar) {
    const values = FEATURES.map((_, k) =>
      k === 4 ? 50 + gauss() * 25 : k === 10 ? 1 + random() : gauss() * 0.01,
    );
    this.features.set(symbol, {
      values: Object.fromEntries(FEATURES.map((name, k) => [name, values[k]])),
      fingerprint: "3f9a61c2d07be481",
      warm: true,
      spread_assumed: false,
      gap: false,
    });
    const trend = gauss() * 1.6;
    const weights = [Math.exp(1.1), Math.exp(trend), Math.exp(-trend)];
    const sum = weights.reduce((a, b) => a + b);
    const probabilities = weights.map((w) => w / sum);
    const id = probabilities.indexOf(Math.max(...probabilities));
    const last = this.signals.get(symbol).at(-1);
    const position = last ? [last.position_fraction, 1, 0][last.action_id] : 0;
    const signal = {
      symbol,
      action: ACTIONS[id],
      action_id: id,
      confidence: probabilities[id],
      probabilities,
      value: gauss() * 0.04,
      q_values: null,
      position_fraction: position,
      cash_fraction: 1 - position,
      model: { id: "ppo", version: "3", fingerprint: "3f9a61c2d07be481" },
      event_time: bar.event_time,
      decided_at: stamp(Date.now()),
      data_age_ms: 900,
      reason: process.env.MOCK_REASON ?? null,
    };
    this.signals.get(symbol).push(signal);
    return signal;
  }

  /** Moves one symbol on; yields what the stream would say. */
  *tick(symbol) {
    const now = this.now();
    const received_at = stamp(Date.now() - 40 - random() * 60);
    const bars = this.bars.get(symbol);
    let bar = bars.at(-1);
    const start = Math.floor(now / MINUTE) * MINUTE;
    if (start > Date.parse(bar.event_time)) {
      const closed = { ...bar, forming: false, source: "vendor" };
      bars[bars.length - 1] = closed;
      bar = this.newBar(start, bar.close);
      bars.push(bar);
      yield { channel: "bars", event_time: closed.event_time, data: closed };
      const signal = this.decide(symbol, closed);
      yield { channel: "features", event_time: closed.event_time, data: this.features.get(symbol) };
      yield { channel: "stats", event_time: closed.event_time, data: stats(bars.slice(0, -1)) };
      if (random() < 0.03) {
        const found = anomaly(symbol, closed.event_time, random);
        this.anomalies.unshift(found);
        yield { channel: "anomalies", event_time: closed.event_time, data: found };
      }
      yield { channel: "signals", event_time: closed.event_time, data: signal };
    }
    const price = this.move(bar);
    const values = Object.fromEntries(
      Object.entries(this.features.get(symbol).values).map(([k, v]) => [k, v * (1 + gauss() / 9)]),
    );
    const forming = { provisional: true, event_time: bar.event_time, values };
    yield { channel: "provisional", event_time: bar.event_time, data: forming };
    const half = Math.max(0.01, round(price * 0.00005));
    const event_time = stamp(now);
    const size = Math.ceil(random() * 400);
    this.received += Math.ceil(random() * 30);
    yield { channel: "trades", event_time, data: { price, size, exchange: "V", received_at } };
    yield { channel: "bars", event_time: bar.event_time, data: { ...bar } };
    const sizes = {
      bid_size: Math.ceil(random() * 9) * 100,
      ask_size: Math.ceil(random() * 9) * 100,
    };
    yield {
      channel: "quotes",
      event_time,
      data: { bid: round(price - half), ask: round(price + half), ...sizes, received_at },
    };
  }

  ledger() {
    if (this.received - this.stored > 14_000) this.stored = this.received - 2000 - 31;
    const numbers = {
      received: this.received,
      stored: this.stored,
      duplicates: 24,
      quarantined: 7,
      in_flight: this.received - this.stored - 7,
      imbalance: 0,
      lost: 0,
      holes: 0,
      gaps: 1,
      as_of: stamp(Date.now()),
    };
    return { ...numbers, balance: balance(numbers), stages: stages(numbers) };
  }

  system() {
    return {
      market: {
        time: stamp(this.now()),
        rate: this.rate,
        simulated: true,
        mode: "synthetic",
        open: true,
      },
      ledger: this.ledger(),
      producer: {
        state: "streaming",
        messages_per_s: 2380 + random() * 90,
        put_ms_p50: 7.8 + random(),
      },
      streaming: { state: "running", error: null },
      feed: { streams: { "market-data": "streaming", "market-signals": "streaming" } },
      archive: { last_batch_ms: 640 + random() * 80 },
      signals: { last_batch_ms: 310 + random() * 40 },
      latency_ms: { feed_p50: 61 + random() * 9, feed_p99: 180 },
    };
  }
}
