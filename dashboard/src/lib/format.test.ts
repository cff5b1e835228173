import { describe, expect, test } from "vitest";
import {
  age,
  compact,
  count,
  millis,
  minuteOf,
  percent,
  price,
  signed,
  signedPercent,
  timeNY,
} from "./format";
import { ToastStore } from "./toasts";

describe("format", () => {
  test("what is missing or no number is a dash everywhere", () => {
    for (const format of [price, count, compact, percent, millis, age, signed, signedPercent]) {
      expect(format(null)).toBe("–");
      expect(format(Number.NaN)).toBe("–");
    }
    expect(minuteOf("soon")).toBe("–");
  });

  test("signs are real and zero has none", () => {
    expect([signed(1.2), signed(-0.35), signed(-0.001), signedPercent(0.0123)]).toEqual([
      "+1.20",
      "−0.35",
      "0.00",
      "+1.23%",
    ]);
  });

  test("durations take the unit that fits", () => {
    expect([millis(8.44), millis(240.4), millis(1250)]).toEqual(["8.4 ms", "240 ms", "1.25 s"]);
    expect([age(-5), age(4999), age(80_000), age(7_500_000), age(3 * 86_400_000)]).toEqual([
      "0 s",
      "4 s",
      "1 m 20 s",
      "2 h 05 m",
      "3 d",
    ]);
  });

  test("times are New York's", () => {
    expect(minuteOf("2026-11-20T14:30:00Z")).toBe("09:30");
    expect(timeNY(Date.parse("2026-07-01T04:00:09Z"))).toBe("00:00:09");
  });
});

test("a toast of one key is shown once, and at most three at a time", () => {
  const store = new ToastStore();
  for (const key of ["a", "a", "b", "c", "d"]) store.show(key, key, "");
  expect(store.list().map((toast) => toast.key)).toEqual(["b", "c", "d"]);
  store.dismiss("c");
  expect(store.list()).toHaveLength(2);
});
