import { describe, expect, test } from "vitest";
import type { Candle } from "./bars";
import { macd, stochastic } from "./indicators";
import fixture from "./indicators.fixture.json";
import { activeStudies, columnsOf, STUDIES } from "./studies";

const T0 = Date.parse(fixture.start) / 1000;
const CANDLES: Candle[] = fixture.bars.map(([high, low, close, volume, vwap], i) => ({
  time: T0 + i * 60,
  open: close as number,
  high: high as number,
  low: low as number,
  close: close as number,
  volume: volume as number,
  vwap: vwap as number,
  forming: false,
}));
const ROWS = Object.entries(fixture.rows) as [string, Record<string, number | null>][];

describe("studies", () => {
  test.each(STUDIES.map((study) => [study.id, study] as const))(
    "%s says what the platform says at every bar of the fixture",
    (_, study) => {
      const columns = study.columns(CANDLES);
      study.lines.forEach(({ name }, at) => {
        for (const [index, row] of ROWS) {
          const [ours, theirs] = [columns[at]?.[Number(index)], row[name]];
          if (theirs == null) expect(ours, `${name} at ${index}`).toBeNull();
          else expect(ours, `${name} at ${index}`).toBeCloseTo(theirs, 9);
        }
      });
    },
  );

  test.each([0, 1, 13, 25, 34])("of %d candles every column is as long as they are", (n) => {
    for (const study of STUDIES)
      for (const column of study.columns(CANDLES.slice(0, n))) expect(column).toHaveLength(n);
    for (const column of macd([], 12, 26, 9)) expect(column).toEqual([]);
    for (const column of stochastic([], 14, 3, 3)) expect(column).toEqual([]);
  });

  test("what the platform says of a closed bar is shown, of the forming bar it says nothing", () => {
    const study = STUDIES.find(({ id }) => id === "sma_5");
    const candles = CANDLES.slice(0, 6).map((c, i) => ({ ...c, forming: i === 5 }));
    const said = (time: number) => [time, { event_time: "", sma_5: 1 }] as const;
    const known = new Map([said(T0 + 4 * 60), said(T0 + 5 * 60)]);
    const [column] = columnsOf(study as never, candles, known);
    expect(column?.[4]).toBe(1);
    expect(column?.[5]).not.toBe(1);
  });

  test("unknown names are passed over, and VWAP where a bar is a day", () => {
    expect(activeStudies(["vwap", "rsi", "?"], "1m").map((s) => s.id)).toEqual(["vwap", "rsi"]);
    expect(activeStudies(["vwap", "rsi"], "1d").map((s) => s.id)).toEqual(["rsi"]);
  });
});
