/** What a page that is open for long keeps: as much as one that was opened now. */
import { describe, expect, test, vi } from "vitest";
import type { Anomaly, StreamUpdate } from "@/lib/api/types";
import { anomalyBook } from "./anomalies";
import { CandleSeries } from "./candles";
import { MarketStore } from "./store";
import { TimeMap } from "./timeMap";

const T0 = Date.parse("2026-11-20T14:30:00Z");
const at = (minute: number) => new Date(T0 + minute * 60_000).toISOString();
const HOURS_8 = 8 * 60;

function candle(minute: number, close = 10) {
  const same = { open: close, high: close, low: close, close };
  return { time: T0 / 1000 + minute * 60, ...same, volume: 1, vwap: null, forming: false };
}

function anomaly(minute: number, kind = "rsi"): Anomaly {
  const said = { severity: "info" as const, score: 1, value: 1, threshold: 1, reason: "" };
  return { symbol: "SPY", event_time: at(minute), kind, detector: "rule", ...said };
}

/** Everything that the stream says about one minute. */
function* minuteOf(minute: number): Generator<StreamUpdate> {
  const event_time = at(minute);
  const about = { symbol: "SPY", seq: minute, event_time };
  const prices = { open: 1, high: 1, low: 1, close: 1, volume: 1 };
  const { symbol: _, event_time: __, ...found } = anomaly(minute);
  yield { ...about, channel: "trades", data: { price: 1, size: 1, received_at: event_time } };
  yield { ...about, channel: "bars", data: { event_time, ...prices, forming: false } };
  yield { ...about, channel: "rollups", data: { event_time, ...prices, window: "5m" } };
  yield { ...about, channel: "features", data: { values: {}, indicators: { sma_5: 1 } } };
  yield { ...about, channel: "anomalies", data: found };
}

function system(minute: number): StreamUpdate {
  const market = { time: at(minute), rate: 10, simulated: true, open: true };
  return { channel: "system", symbol: "*", seq: minute, event_time: null, data: { market } };
}

function sizes(store: MarketStore): number[] {
  const size = (all: Iterable<unknown>) => [...all].length;
  return [
    size(store.bars("SPY").all),
    size(store.signals("SPY").all),
    size(store.indicators("SPY").keys()),
    size(store.rolled("SPY", "5m")),
    size(store.anomalies()),
  ];
}

describe("a tab that is open for eight hours", () => {
  test("at ten times the market's speed holds no more after eight hours than after six", () => {
    let wall = 0;
    const store = new MarketStore(
      (flush) => flush(),
      () => wall,
    );
    const run = (from: number, to: number) => {
      for (let minute = from; minute < to; minute++) {
        wall += 6000;
        store.apply(system(minute));
        for (const update of minuteOf(minute)) store.apply(update);
      }
      return sizes(store);
    };
    const before = run(0, 6 * 600);
    const after = run(6 * 600, HOURS_8 * 10);
    // Maps may be a tenth above their bound before the oldest go.
    after.forEach((size, i) => {
      expect(size).toBeLessThanOrEqual((before[i] as number) * 1.1);
    });
    expect(before.every((size) => size <= 1100)).toBe(true);
  });

  test("the chart keeps its newest candles only, and says when it has to be drawn again", () => {
    const series = new CandleSeries(100);
    const changes = Array.from({ length: HOURS_8 }, (_, i) => series.upsert(candle(i)));
    expect(series.all.length).toBeLessThanOrEqual(110);
    expect(series.last).toEqual(candle(HOURS_8 - 1));
    expect(changes.filter((change) => change === "all").length).toBeLessThan(HOURS_8 / 10);
  });
});

describe("CandleSeries", () => {
  test("an update of the newest, a correction, a missing minute and one too old are told apart", () => {
    const series = new CandleSeries();
    series.reset([candle(0), candle(2), candle(3)]);
    expect(series.upsert(candle(3, 11))).toBe("last");
    expect(series.upsert(candle(0, 12))).toBe("past");
    expect(series.upsert(candle(1))).toBe("all");
    expect(series.upsert(candle(-1))).toBe("none");
    expect(series.all).toEqual([candle(0, 12), candle(1), candle(2), candle(3, 11)]);
    expect(series.at(candle(2).time)).toEqual(candle(2));
    expect(series.at(candle(2).time + 1)).toBeUndefined();
    const at = [-1, 0, 0.5, 3.9].map((minute) => series.indexAt(candle(0).time + minute * 60));
    expect(at).toEqual([-1, 0, 0, 3]);
  });
});

test("a full TimeMap drops the earliest times, whatever the order they came in", () => {
  const map = new TimeMap<number>(10);
  for (const time of [5, 1, 9, 3, 7, 2, 8, 0, 6, 4, 10, 11, Number.NaN]) map.set(time, time);
  expect([...map.all.keys()].sort((a, b) => a - b)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

test("anomalies are newest first, each once, and the oldest go", () => {
  const book = anomalyBook(3);
  expect(book.add([anomaly(1), anomaly(3)])).toBe(true);
  expect(book.add([anomaly(3), { ...anomaly(0), event_time: "?" }])).toBe(false);
  expect(book.add([anomaly(2), anomaly(3, "outlier"), anomaly(0)])).toBe(true);
  expect(book.all.map((a) => [a.event_time, a.kind])).toEqual([
    [at(3), "outlier"],
    [at(3), "rsi"],
    [at(2), "rsi"],
  ]);
});

describe("a market whose time goes back", () => {
  test("is another run: what the first said is forgotten and its listeners hear of it", () => {
    const store = new MarketStore((flush) => flush());
    const heard = vi.fn();
    store.on("$run", heard);
    store.apply(system(60));
    for (const update of minuteOf(60)) store.apply(update);
    store.apply(system(59));
    expect(heard).not.toHaveBeenCalled();
    store.apply(system(5));
    expect(heard).toHaveBeenCalledTimes(1);
    expect([store.run(), ...sizes(store)]).toEqual([1, 0, 0, 0, 0, 0]);
    for (const update of minuteOf(5)) store.apply(update);
    expect(store.view("SPY").price).toBe(1);
    expect(store.bars("SPY").last?.time).toBe(candle(5).time);
  });
});
