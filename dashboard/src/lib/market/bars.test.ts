import { describe, expect, test } from "vitest";
import type { ApiBar } from "@/lib/api/types";
import { BarBook, type Candle, candleOf, extended } from "./bars";
import { bucketStart, windowStart } from "./windows";

function candle(time: number, close: number, forming = false): Candle {
  return {
    time,
    open: 10,
    high: Math.max(10, close),
    low: Math.min(10, close),
    close,
    volume: 100,
    vwap: null,
    forming,
  };
}

describe("bucketStart", () => {
  test("a moment inside a window gives the window's start", () => {
    expect(bucketStart(3_725, 300)).toBe(3_600);
    expect(bucketStart(3_600, 300)).toBe(3_600);
  });
});

test.each([
  // The same moments stand in the gateway's test_bars.py: both bucket alike.
  ["2024-07-05T13:37:59Z", "5m", "2024-07-05T13:35:00Z"],
  ["2024-07-05T13:37:59Z", "15m", "2024-07-05T13:30:00Z"],
  ["2024-07-05T13:37:59Z", "1h", "2024-07-05T13:00:00Z"],
  ["2024-07-05T00:00:00Z", "1h", "2024-07-05T00:00:00Z"],
  ["2024-07-05T13:37:00Z", "1d", "2024-07-05T04:00:00Z"],
  ["2024-07-06T03:59:59Z", "1d", "2024-07-05T04:00:00Z"],
  ["2024-01-05T13:37:00Z", "1d", "2024-01-05T05:00:00Z"],
  ["2024-11-03T12:00:00Z", "1d", "2024-11-03T04:00:00Z"],
  ["2024-03-10T12:00:00Z", "1d", "2024-03-10T05:00:00Z"],
] as const)("the window of %s by %s starts where the gateway begins it", (at, window, start) => {
  expect(windowStart(Date.parse(at) / 1000, window)).toBe(Date.parse(start) / 1000);
});

describe("candleOf", () => {
  const bar: ApiBar = {
    event_time: "1970-01-01T00:02:00.000000000Z",
    open: 1,
    high: 2,
    low: 1,
    close: 2,
    volume: 5,
  };

  test("a bar becomes a candle at its start in seconds", () => {
    expect(candleOf(bar)).toEqual({
      time: 120,
      open: 1,
      high: 2,
      low: 1,
      close: 2,
      volume: 5,
      vwap: null,
      forming: false,
    });
  });

  test("a bar without a time or a price is none", () => {
    expect(candleOf({ ...bar, event_time: "?" })).toBeNull();
    expect(candleOf({ ...bar, close: Number.NaN })).toBeNull();
  });
});

describe("BarBook", () => {
  test("candles in any order are kept ascending and without repeats", () => {
    const book = new BarBook();
    for (const time of [120, 0, 60, 120]) book.upsert(candle(time, 11));
    expect(book.all.map((c) => c.time)).toEqual([0, 60, 120]);
  });

  test("a closed bar replaces a forming one and is not replaced by one", () => {
    const book = new BarBook();
    book.upsert(candle(60, 11, true));
    expect(book.upsert(candle(60, 12))).toBe(true);
    expect(book.upsert(candle(60, 13, true))).toBe(false);
    expect(book.last?.close).toBe(12);
  });

  test("a full book drops the oldest and takes nothing older", () => {
    const book = new BarBook(2);
    for (const time of [60, 120, 180]) book.upsert(candle(time, 11));
    expect(book.upsert(candle(0, 11))).toBe(false);
    expect(book.all.map((c) => c.time)).toEqual([120, 180]);
  });

  test("a trade moves the forming bar and begins the next minute", () => {
    const book = new BarBook();
    book.upsert(candle(60, 11, true));
    expect(book.trade(12, 119)).toMatchObject({ time: 60, high: 12, close: 12 });
    expect(book.trade(9, 121)).toMatchObject({
      time: 120,
      open: 9,
      close: 9,
      volume: 0,
      vwap: null,
      forming: true,
    });
  });

  test("a late trade changes no closed bar", () => {
    const book = new BarBook();
    book.upsert(candle(60, 11));
    expect(book.trade(99, 61)).toBeNull();
    expect(book.trade(99, 10)).toBeNull();
    expect(book.all).toEqual([candle(60, 11)]);
  });

  test("a roll-up holds the extremes and the sum of its minutes only", () => {
    const book = new BarBook();
    for (const [i, close] of [12, 8, 11, 15].entries())
      book.upsert(candle(i * 60 + 120, close, i === 3));
    expect(book.rollUp(299, "5m")).toEqual({
      time: 0,
      open: 10,
      high: 12,
      low: 8,
      close: 11,
      volume: 300,
      vwap: 31 / 3,
      forming: false,
    });
    expect(book.rollUp(300, "5m")?.forming).toBe(true);
    expect(book.reaches(0)).toBe(false);
    expect(book.reaches(120)).toBe(true);
  });
});

test("a candle whose minutes are not all known is moved on by those that are", () => {
  const day = { ...candle(0, 11), volume: 5_000 };
  expect(extended(day, [candle(600, 14), candle(660, 9)])).toEqual({
    ...day,
    high: 14,
    low: 9,
    close: 9,
    forming: true,
  });
  expect(extended(day, [])).toBe(day);
});
