import { describe, expect, test } from "vitest";
import { readDockPrefs } from "@/components/dock/prefs";
import type { Ledger, StreamUpdate } from "@/lib/api/types";
import { worst } from "./anomalies";
import { DEFAULT_PREFS, readPrefs, toggled } from "./chartPrefs";
import { fillCost } from "./events";
import { changedCandles, chartCandles } from "./feed";
import { gapsOf, inGap } from "./gaps";
import { healthOf, standing } from "./health";
import { rangesOf } from "./ranges";
import { balanceOf, stagesOf } from "./stages";
import { MarketStore } from "./store";
import { narrowestWindow } from "./windows";

const LEDGER = {
  received: 10,
  stored: 6,
  quarantined: 1,
  in_flight: 3,
  imbalance: 0,
  lost: 0,
} as Ledger;

describe("ledger by stage", () => {
  test("the parts add up to what was received", () => {
    expect(balanceOf(LEDGER)).toMatchObject({ received: 10, balanced: true });
    expect(balanceOf({ ...LEDGER, stored: 12, in_flight: 0, imbalance: -3 })?.balanced).toBe(false);
    expect(balanceOf({ ...LEDGER, stored: null })).toBeNull();
  });

  test("a stage shows its balance and what it counted besides, a silent one neither", () => {
    const row = { stage: "producer", received: 10, stored: 9, in_flight: 1 } as never;
    const stages = { producer: { reconnects: 1, spilled: 1200, malformed: 0 }, archive: null };
    const [producer, stream] = stagesOf({ ...LEDGER, balance: [row], stages });
    expect(producer).toMatchObject({ row, more: ["1,200 wait on disk", "1 reconnect"] });
    expect(stream).toMatchObject({ row: null, more: [] });
  });
});

describe("health", () => {
  test("a part that says nothing is bad, one that begins is coming", () => {
    const parts = healthOf({
      producer: { state: "backing_off", error: "refused" },
      streaming: { state: null },
      feed: { streams: { "market-data": "streaming", "market-signals": "connecting" } },
    });
    expect(parts.map(({ state, level, detail }) => [state, level, detail])).toEqual([
      ["backing off", "bad", "refused"],
      ["no answer", "bad", null],
      ["streaming", "good", null],
      ["connecting", "coming", null],
    ]);
  });

  test("an alert stands until it is told again with its end", () => {
    const store = new MarketStore((flush) => flush());
    const alert = { id: "a1", name: "spilling", began_at: "2026-11-20T14:30:00Z", ended_at: null };
    const tell = (data: object) =>
      store.apply({
        channel: "alerts",
        symbol: "*",
        seq: 1,
        event_time: null,
        data,
      } as StreamUpdate);
    tell(alert);
    expect(standing(store.alerts()).now).toHaveLength(1);
    tell({ ...alert, ended_at: "2026-11-20T14:31:00Z" });
    expect(standing(store.alerts())).toMatchObject({ now: [], over: [{ id: "a1" }] });
  });
});

describe("gaps", () => {
  test("those of the symbol are kept, oldest first; one without a start begins at its end", () => {
    const row = { symbol: "SPY", from_ns: 60e9, to_ns: 120e9, reason: "lost", backfilled: false };
    const gaps = gapsOf(
      [row, { ...row, symbol: "KO" }, { ...row, from_ns: null, to_ns: 30e9 }],
      "SPY",
    );
    expect(gaps.map(({ from, to }) => [from, to])).toEqual([
      [30, 30],
      [60, 120],
    ]);
    expect(inGap(gaps, 60, 120)?.from).toBe(60);
    expect(inGap(gaps, 121, 180)).toBeUndefined();
  });
});

test("price ranges have no holes, and neighbours are put together where there are many", () => {
  const ranges = rangesOf({ base: 100, width_bps: 10, counts: { "-1": 2, "1": 3 } });
  expect(ranges.map(({ trades }) => trades)).toEqual([2, 0, 3]);
  expect(ranges[0]?.low).toBeCloseTo(99.9);
  const many = rangesOf({ base: 100, width_bps: 10, counts: { "-50": 1, "50": 2 } }, 40);
  expect(many.length).toBeLessThanOrEqual(40);
  expect(many.reduce((sum, { trades }) => sum + trades, 0)).toBe(3);
  expect(rangesOf({ base: null, width_bps: 10, counts: {} })).toEqual([]);
});

test("of several anomalies of a bar the worst is drawn", () => {
  const said = (severity: string) => ({ severity }) as never;
  expect(worst([said("info"), said("critical"), said("warning")])).toEqual(said("critical"));
  expect(worst([])).toBeUndefined();
});

describe("what a browser remembers", () => {
  test("is read with care: what is unknown is left out, what is missing is the default", () => {
    expect(readPrefs(undefined)).toEqual(DEFAULT_PREFS);
    expect(readPrefs({ window: "2m", studies: ["rsi", "?", 3] })).toEqual({
      window: "1m",
      studies: ["rsi"],
    });
    expect(readDockPrefs({ tab: "?", open: false, onlySymbol: 1 })).toEqual({
      tab: "anomalies",
      open: false,
      onlySymbol: false,
    });
  });

  test("a study that is switched twice is as before, in the order of the menu", () => {
    expect(toggled(["rsi"], "vwap")).toEqual(["vwap", "rsi"]);
    expect(toggled(toggled(["rsi"], "vwap"), "vwap")).toEqual(["rsi"]);
  });
});

test("a moment is shown in the window wished for, or the narrowest that reaches it", () => {
  expect(narrowestWindow(60, 100, "5m")).toBe("5m");
  expect(narrowestWindow(100 * 60 + 1, 100, "1m")).toBe("5m");
  expect(narrowestWindow(1e12, 100, "1m")).toBe("1d");
});

describe("bars of longer windows", () => {
  const T0 = Date.parse("2026-11-20T14:30:00Z") / 1000;
  const at = (s: number) => new Date((T0 + s) * 1000).toISOString();
  const prices = { open: 5, high: 9, low: 1, close: 5, volume: 7 };

  function bar(s: number, channel: "bars" | "rollups", extra = {}): StreamUpdate {
    const data = { event_time: at(s), ...prices, ...extra };
    return { channel, symbol: "SPY", seq: s, event_time: at(s), data };
  }

  test("a bar that the platform closed stands in place of our own", () => {
    const store = new MarketStore((flush) => flush());
    for (const s of [0, 60, 120, 180, 240]) store.apply(bar(s, "bars"));
    expect(chartCandles(store, "SPY", "5m", [])).toMatchObject([{ time: T0, volume: 35 }]);
    store.apply(bar(0, "rollups", { window: "5m", volume: 36 }));
    expect(chartCandles(store, "SPY", "5m", [])).toMatchObject([{ time: T0, volume: 36 }]);
  });

  test("a day of which not all minutes are known is moved on from what the history says", () => {
    const store = new MarketStore((flush) => flush());
    store.apply(bar(0, "bars", { high: 20, close: 19 }));
    const start = Date.parse("2026-11-20T05:00:00Z") / 1000;
    const day = { time: start, ...prices, volume: 900, vwap: null, forming: true };
    const minutes = store.bars("SPY").all;
    const [moved] = changedCandles(store, "SPY", "1d", minutes, () => day);
    expect(moved).toMatchObject({ time: start, high: 20, close: 19, volume: 900, forming: true });
    const [kept] = changedCandles(store, "SPY", "1d", minutes, () => ({ ...day, forming: false }));
    expect(kept).toMatchObject({ high: 9, close: 5 });
  });
});

test("a live fill is listed under its symbol and costs what it paid beside the price", () => {
  const store = new MarketStore((flush) => flush());
  const data = {
    model_id: "ppo",
    model_version: "1",
    side: "BUY",
    commission: 1,
    spread_cost: 0.5,
    slippage_cost: 0.25,
  };
  const event_time = "2026-11-20T14:30:00Z";
  const update = { channel: "fills", symbol: "SPY", seq: 1, event_time, data };
  store.apply(update as unknown as StreamUpdate);
  store.apply(update as unknown as StreamUpdate);
  expect(store.fills()).toMatchObject([{ symbol: "SPY", event_time, model: "ppo:1" }]);
  expect(fillCost(store.fills()[0] as never)).toBe(1.75);
});
