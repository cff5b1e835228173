import type { Anomaly, BarWindow } from "@/lib/api/types";
import { dayNY, minuteNY, price } from "@/lib/format";
import type { Candle } from "@/lib/market/bars";
import type { Study } from "@/lib/market/studies";
import type { Reading } from "./usePriceChart";

/** A bar in words, for who hears the chart. */
export function describe(
  { candle, values }: Reading,
  window: BarWindow,
  studies: readonly Study[],
  found: readonly Anomaly[],
): string {
  const parts = [
    timeOf(candle, window),
    `open ${price(candle.open)}, high ${price(candle.high)}, low ${price(candle.low)}, close ${price(candle.close)}`,
    candle.forming ? "still forming" : "",
    ...studies.map((study) => `${study.label} ${texts(study, values[study.id]).join(", ")}`),
    ...found.map((anomaly) => anomaly.reason),
  ];
  return parts.filter(Boolean).join("; ");
}

/** When a bar began; a day has no hour. */
export function timeOf({ time }: Candle, window: BarWindow): string {
  const ms = time * 1000;
  return window === "1d" ? dayNY(ms) : `${dayNY(ms)}, ${minuteNY(ms)}`;
}

/** The values of a study's lines as text. */
export function texts(study: Study, values: readonly (number | null)[] | undefined): string[] {
  return study.lines.map(({ label }, at) => {
    const value = values?.[at];
    const text = typeof value === "number" ? value.toFixed(study.digits).replace("-", "−") : "–";
    return label ? `${label} ${text}` : text;
  });
}
