import { describe, expect, test, vi } from "vitest";
import type { SignalAnswer, StreamUpdate } from "@/lib/api/types";
import { changedCandles, chartCandles } from "./feed";
import { MarketStore } from "./store";

const T0 = Date.parse("2026-11-20T14:30:00Z");
const at = (s: number) => new Date(T0 + s * 1000).toISOString();

function make() {
  let pending: (() => void) | null = null;
  const store = new MarketStore(
    (flush) => {
      pending = flush;
    },
    () => T0 + 100,
  );
  return { store, flush: () => pending?.() };
}

function trade(price: number, s: number, seq = 1): StreamUpdate {
  const data = { price, size: 1, received_at: new Date(T0 + 60).toISOString() };
  return { channel: "trades", symbol: "SPY", seq, event_time: at(s), data };
}

function bar(s: number, close: number, forming: boolean): StreamUpdate {
  const data = { event_time: at(s), open: 10, high: 20, low: 5, close, volume: 7, forming };
  return { channel: "bars", symbol: "SPY", seq: 1, event_time: at(s), data };
}

function signal(s: number, action: SignalAnswer["action"]): SignalAnswer {
  return { symbol: "SPY", action, confidence: 0.6, event_time: at(s) } as SignalAnswer;
}

describe("MarketStore", () => {
  test("many updates between two flushes are heard of once", () => {
    const { store, flush } = make();
    const heard = vi.fn();
    store.on("SPY", heard);
    for (let i = 0; i < 50; i++) store.apply(trade(10 + i, i));
    expect(heard).not.toHaveBeenCalled();
    flush();
    expect(heard).toHaveBeenCalledTimes(1);
    expect(store.view("SPY").price).toBe(59);
  });

  test("a trade older than the last one is not the price", () => {
    const { store } = make();
    store.apply(trade(12, 30));
    store.apply(trade(99, 10));
    expect(store.view("SPY").price).toBe(12);
  });

  test("a view is a new object after a change and the same without one", () => {
    const { store } = make();
    const before = store.view("SPY");
    expect(store.view("SPY")).toBe(before);
    store.apply(trade(12, 1));
    expect(store.view("SPY")).not.toBe(before);
  });

  test("candles that changed reach the chart ascending, the newest of each minute", () => {
    const { store, flush } = make();
    const heard = vi.fn();
    store.onCandles("SPY", heard);
    store.apply(trade(10, 61));
    store.apply(trade(11, 62));
    store.apply(bar(0, 9, false));
    flush();
    const [candles] = heard.mock.calls[0] ?? [];
    expect(candles.map((c: { close: number }) => c.close)).toEqual([9, 11]);
  });

  test("the session's open and the sparkline come from closed bars", () => {
    const { store } = make();
    store.apply(bar(0, 12, false));
    store.apply(bar(60, 13, false));
    expect(store.view("SPY")).toMatchObject({ sessionOpen: 10, spark: [12, 13], price: 13 });
  });

  test("latency counts live ticks and leaves a snapshot out", () => {
    const { store } = make();
    store.apply(trade(10, 1), true);
    expect(store.latency.p50(T0 + 100)).toBeNull();
    store.apply(trade(10, 2));
    expect(store.latency.p50(T0 + 100)).toBe(40);
  });

  test("the newest signal is shown whatever the order of arrival, and repeats are silent", () => {
    const { store, flush } = make();
    const heard = vi.fn();
    store.on("signals:SPY", heard);
    store.addSignals("SPY", [signal(60, "BUY"), signal(0, "SELL")]);
    flush();
    store.addSignals("SPY", [signal(60, "BUY")]);
    flush();
    expect(store.view("SPY").signal?.action).toBe("BUY");
    expect(heard).toHaveBeenCalledTimes(1);
  });

  test("parts of the system state that an update leaves out stay", () => {
    const { store } = make();
    store.apply({
      channel: "system",
      symbol: "*",
      seq: 1,
      event_time: null,
      data: { producer: { queued: 3 } },
    });
    store.apply({
      channel: "system",
      symbol: "*",
      seq: 2,
      event_time: null,
      data: { signals: { bars: 1 } },
    });
    expect(store.system()).toMatchObject({ producer: { queued: 3 }, signals: { bars: 1 } });
  });
});

describe("chart feed", () => {
  test("live minutes lie over the history, wide candles only where all minutes are known", () => {
    const { store } = make();
    for (const s of [120, 180, 240, 300]) store.apply(bar(s, 12, false));
    const t = T0 / 1000;
    const old = {
      time: t,
      open: 1,
      high: 2,
      low: 1,
      close: 2,
      volume: 1,
      vwap: null,
      forming: false,
    };
    expect(chartCandles(store, "SPY", "1m", [old]).map((c) => c.time - t)).toEqual([
      0, 120, 180, 240, 300,
    ]);
    const wide = chartCandles(store, "SPY", "5m", [old]);
    expect(wide.map((c) => [c.time - t, c.volume])).toEqual([
      [0, 1],
      [300, 7],
    ]);
    const changed = changedCandles(store, "SPY", "5m", store.bars("SPY").all.slice(-1));
    expect(changed).toMatchObject([{ time: t + 300, volume: 7 }]);
  });
});
