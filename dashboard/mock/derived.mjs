/** What the streaming job would add: anomalies, statistics, the ledger's stages. All made up. */
const stamp = (ms) => new Date(ms).toISOString();

const KINDS = [
  ["price_spike", (v) => `close ${v.toFixed(1)} % from the median of the last 20 closes`, 5],
  ["volume_spike", (v) => `volume ${v.toFixed(1)} times the average of the last 19 bars`, 3],
  ["rsi", (v) => `RSI 14 at ${(65 + v).toFixed(1)}, above 70`, 70],
  ["spread_blowout", (v) => `spread ${v.toFixed(1)} times the median of the last 20`, 5],
  [
    "outlier",
    (v) => `move, volume and range are strange together (score ${(0.88 + v / 90).toFixed(2)})`,
    0.9,
  ],
];

export function anomaly(symbol, event_time, random) {
  const [kind, reason, threshold] = KINDS[Math.floor(random() * KINDS.length)];
  const score = 1 + random() * random() * 4;
  const severity = score > 3 ? "critical" : score > 1.7 ? "warning" : "info";
  const value = 5 + score * 2;
  const said = { kind, severity, score, value, threshold, reason: reason(value) };
  return { symbol, event_time, ...said, detector: kind === "outlier" ? "trees" : "rule" };
}

export function stats(bars) {
  const closes = bars.map((bar) => bar.close);
  const mean = closes.reduce((a, b) => a + b, 0) / closes.length;
  const variance = closes.reduce((a, b) => a + (b - mean) ** 2, 0) / closes.length;
  const base = closes[0];
  const counts = {};
  for (const close of closes) {
    const key = Math.floor(((close / base - 1) * 1e4) / 10);
    counts[key] = (counts[key] ?? 0) + 12;
  }
  const over = (n) => {
    const last = bars.slice(-n);
    const volume = last.reduce((a, b) => a + b.volume, 0);
    const sum = last.reduce((a, b) => a + b.close, 0);
    return { mean: sum / last.length, vwap: sum / last.length, volume, bars: last.length };
  };
  return {
    event_time: bars.at(-1).event_time,
    count: closes.length * 12,
    min: Math.min(...closes),
    max: Math.max(...closes),
    mean,
    variance,
    std: Math.sqrt(variance),
    buckets: { base, width_bps: 10, counts },
    sliding: { "5m": over(5), "15m": over(15), "1h": over(60) },
    own_bar: { agrees: true, tolerance: 0.001 },
  };
}

export function stages({ received, stored, duplicates, quarantined, in_flight }) {
  return {
    producer: {
      state: "streaming",
      received,
      acked: received - Math.min(in_flight, 120),
      queued: Math.min(in_flight, 120),
      spilled: 0,
      backfilled: 412,
      malformed: 0,
      reconnects: 1,
      gaps: 1,
    },
    archive: { stored, duplicates, quarantined, holes: 0, gaps: 1, dirty: 0, last_batch_ms: 640 },
    signals: {
      bars: 4820,
      signals: 4820,
      unavailable: 0,
      rollups: 1288,
      anomalies: 61,
      late_trades: 3,
      stand_ins: 0,
      mismatches: 0,
    },
  };
}

export function gaps(symbols, from, to) {
  const rows = symbols.map((symbol) => ({
    symbol,
    from_ns: from * 1e6,
    to_ns: to * 1e6,
    reason: "connection lost",
    backfilled: true,
  }));
  return { items: rows, next: null };
}

export const known = (row) => ({ ...row, known_at: stamp(Date.now()) });

export function alerts() {
  const at = (ago) => stamp(Date.now() - ago * 1000);
  const over = {
    id: "journal-1",
    name: "hot_symbol",
    severity: "warning",
    source: "producer",
    symbol: "NVDA",
    detail: "NVDA alone makes 61 % of its bucket: a shard of its own would help",
    began_at: at(3800),
    ended_at: at(3650),
    market_time: null,
  };
  const now = {
    ...over,
    id: "spilling-2",
    name: "spilling",
    severity: "critical",
    symbol: "*",
    detail: "1,204 messages wait on disk for the stream",
    began_at: at(84),
    ended_at: null,
  };
  return { items: process.env.MOCK_ALARM === "1" ? [now, over] : [over], next: null };
}

export function fills(signals) {
  const rows = [];
  for (const [symbol, list] of signals) {
    for (const signal of list) {
      const buys = signal.action === "BUY" && signal.position_fraction === 0;
      const sells = signal.action === "SELL" && signal.position_fraction === 1;
      if (!buys && !sells) continue;
      const price = 100 + (symbol.charCodeAt(0) % 9) * 31.4;
      rows.push({
        event_time: signal.event_time,
        symbol,
        model: "ppo:3",
        side: signal.action,
        shares: Math.floor(100_000 / price),
        price,
        notional: Math.floor(100_000 / price) * price,
        commission: 1,
        spread_cost: 2.4,
        slippage_cost: 4.9,
      });
    }
  }
  rows.sort((a, b) => b.event_time.localeCompare(a.event_time));
  return { items: rows.slice(0, 200), next: null };
}

export function balance({ received, stored, duplicates, quarantined, in_flight }) {
  const waiting = Math.min(in_flight, 120);
  const none = { duplicates: 0, quarantined: 0, in_flight: 0, imbalance: 0, holes: 0, gaps: 0 };
  const sent = received - waiting;
  return [
    { ...none, stage: "producer", received, stored: sent, in_flight: waiting, gaps: 1 },
    {
      ...none,
      stage: "stream",
      received: sent,
      stored,
      quarantined,
      in_flight: in_flight - waiting,
    },
    {
      ...none,
      stage: "archive",
      received: stored + duplicates + quarantined,
      stored,
      duplicates,
      quarantined,
      gaps: 1,
    },
    { ...none, stage: "signals", received: 4820, stored: 4820 },
  ];
}
