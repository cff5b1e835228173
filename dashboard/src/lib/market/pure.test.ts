import { describe, expect, test } from "vitest";
import type { Ledger, SignalAnswer } from "@/lib/api/types";
import type { Candle } from "./bars";
import { ClockModel } from "./clock";
import { LatencyWindow } from "./latency";
import { storedShare, verdictOf } from "./ledger";
import { markersOf, SignalBook } from "./markers";
import { newYork, sessionOpen } from "./session";

function signal(
  minute: number,
  action: SignalAnswer["action"],
  position_fraction = 0,
): SignalAnswer {
  return {
    action,
    confidence: 0.5,
    position_fraction,
    event_time: new Date(minute * 60_000).toISOString(),
  } as SignalAnswer;
}

describe("markersOf", () => {
  test("holds leave no marker and only what changes the position moves", () => {
    const marks = markersOf(
      [
        signal(3, "SELL", 1),
        signal(0, "BUY", 0),
        signal(1, "HOLD", 1),
        signal(2, "BUY", 1),
        signal(4, "SELL", 0),
        signal(5, "SELL", 0),
      ],
      "1m",
    );
    expect(marks.map((m) => [m.time, m.side, m.moves])).toEqual([
      [0, "BUY", true],
      [120, "BUY", false],
      [180, "SELL", true],
      [240, "SELL", false],
      [300, "SELL", false],
    ]);
  });

  test("a wider window shows its last move, else its last signal", () => {
    expect(markersOf([signal(4, "SELL"), signal(1, "BUY")], "5m")).toMatchObject([
      { time: 0, side: "BUY", moves: true },
    ]);
    expect(markersOf([signal(4, "SELL", 1), signal(1, "BUY")], "5m")).toMatchObject([
      { time: 0, side: "SELL", moves: true },
    ]);
    expect(markersOf([signal(1, "SELL"), signal(4, "BUY", 1)], "5m")).toMatchObject([
      { time: 0, side: "BUY", moves: false },
    ]);
  });
});

test("a full SignalBook drops the oldest bar", () => {
  const book = new SignalBook();
  for (let i = 0; i < 700; i++) book.add(signal(i, "BUY"));
  expect([...book.all]).toHaveLength(600);
  expect(book.add(signal(650, "BUY"))).toBe(false);
});

describe("ClockModel", () => {
  const state = { time: "1970-01-01T00:00:10Z", rate: 10, simulated: true, open: true };

  test("between announcements the market runs at its rate, for two seconds at most", () => {
    const clock = new ClockModel();
    expect(clock.now(0)).toBeNull();
    clock.update(state, 500);
    expect(clock.now(1000)).toBe(15_000);
    expect(clock.now(60_000)).toBe(30_000);
  });

  test("a finished simulated market stands still and a live one does not", () => {
    const clock = new ClockModel();
    clock.update({ ...state, open: false }, 0);
    expect([clock.now(1000), clock.pace]).toEqual([10_000, 0]);
    clock.update({ ...state, rate: 1, simulated: false, open: false }, 0);
    expect([clock.now(1000), clock.pace]).toEqual([11_000, 1]);
  });
});

test("latency is the median of the recent samples and never negative", () => {
  const window = new LatencyWindow(1000);
  window.push(9000, 0);
  for (const ms of [-5, 10, 30]) window.push(ms, 2000);
  expect(window.p50(2500)).toBe(10);
  expect(window.p50(9000)).toBeNull();
});

describe("sessionOpen", () => {
  const bar = (iso: string, open: number) => ({ time: Date.parse(iso) / 1000, open }) as Candle;

  test("the first bar from 09:30 New York of the newest date is it, in summer and in winter", () => {
    const winter = [
      "2026-11-19T20:59Z",
      "2026-11-20T14:29Z",
      "2026-11-20T14:30Z",
      "2026-11-20T14:31Z",
    ];
    expect(sessionOpen(winter.map(bar))).toBe(2);
    expect(newYork(Date.parse("2026-07-01T13:30Z") / 1000)).toEqual({
      date: "2026-07-01",
      minute: 570,
    });
  });

  test("before the open it is the first bar of the date, without bars there is none", () => {
    expect(sessionOpen(["2026-11-20T13:00Z", "2026-11-20T13:01Z"].map(bar))).toBe(0);
    expect(sessionOpen([])).toBeNull();
  });
});

describe("ledger", () => {
  const fine: Ledger = {
    received: 10,
    stored: 8,
    duplicates: 0,
    quarantined: 0,
    in_flight: 2,
    imbalance: 0,
    lost: 0,
    holes: 0,
    gaps: 0,
    as_of: null,
  };

  test("holes are losses, a silent stage is unknown, the rest is accounted for", () => {
    expect(verdictOf(fine)).toBe("accounted");
    expect(verdictOf({ ...fine, lost: 1 })).toBe("lost");
    expect(verdictOf({ ...fine, in_flight: 0, imbalance: -1 })).toBe("surplus");
    expect(verdictOf({ ...fine, stored: null })).toBe("unknown");
    expect(storedShare(fine)).toBe(0.8);
    expect(storedShare({ ...fine, received: 0 })).toBeNull();
  });
});
