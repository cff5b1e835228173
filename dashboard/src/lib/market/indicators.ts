/**
 * Indicators over candles, oldest first: one value per candle, null before there are enough.
 *
 * The platform computes the same for closed minute bars (`pipelines/features/indicators.py`), and
 * the chart shows those where it has them; these are for the forming bar and for wider bars. A
 * fixture that Python checks as well holds the two equal.
 */
import { type Candle, typicalPrice } from "./bars";
import { midnightNY } from "./session";

export type Column = (number | null)[];

const empty = (n: number): Column => new Array<number | null>(n).fill(null);

/** Mean of the last `n` values. */
export function sma(values: readonly number[], n: number): Column {
  const out = empty(values.length);
  for (let i = n - 1; i < values.length; i++) {
    let sum = 0;
    for (let k = i - n + 1; k <= i; k++) sum += values[k] as number;
    out[i] = sum / n;
  }
  return out;
}

/** Exponential mean, seeded by the mean of `n` values that end at index `seed`. */
export function ema(values: readonly number[], n: number, seed = n - 1): Column {
  const out = empty(values.length);
  if (values.length <= seed) return out;
  let mean = 0;
  for (let i = seed - n + 1; i <= seed; i++) mean += (values[i] as number) / n;
  out[seed] = mean;
  for (let i = seed + 1; i < values.length; i++) {
    mean += (2 / (n + 1)) * ((values[i] as number) - mean);
    out[i] = mean;
  }
  return out;
}

/** Wilder's mean, seeded by the plain mean of `n` values from index 1. */
function wilder(values: readonly number[], n: number): Column {
  const out = empty(values.length);
  if (values.length <= n) return out;
  let mean = 0;
  for (let i = 1; i <= n; i++) mean += (values[i] as number) / n;
  out[n] = mean;
  for (let i = n + 1; i < values.length; i++) {
    mean = (mean * (n - 1) + (values[i] as number)) / n;
    out[i] = mean;
  }
  return out;
}

export function closes(candles: readonly Candle[]): number[] {
  return candles.map((candle) => candle.close);
}

/** Upper, middle and lower band: `n` bars, `k` deviations of the population. */
export function bollinger(values: readonly number[], n: number, k: number): Column[] {
  const middle = sma(values, n);
  const deviation = middle.map((mean, i) => {
    if (mean === null) return null;
    let sum = 0;
    for (let j = i - n + 1; j <= i; j++) sum += ((values[j] as number) - mean) ** 2;
    return Math.sqrt(sum / n);
  });
  const band = (sign: number) =>
    middle.map((mean, i) => (mean === null ? null : mean + sign * k * (deviation[i] as number)));
  return [band(1), middle, band(-1)];
}

/** Volume-weighted price of the session, which begins at midnight in New York. */
export function vwap(candles: readonly Candle[]): Column {
  let session = Number.NaN;
  let paid = 0;
  let volume = 0;
  return candles.map((candle) => {
    const day = midnightNY(candle.time);
    if (day !== session) [session, paid, volume] = [day, 0, 0];
    paid += typicalPrice(candle) * candle.volume;
    volume += candle.volume;
    return volume > 0 ? paid / volume : null;
  });
}

/** Wilder's RSI, 0 to 100; 50 while nothing moves. */
export function rsi(values: readonly number[], n: number): Column {
  const move = (sign: number) =>
    values.map((v, i) => (i ? Math.max(0, sign * (v - (values[i - 1] as number))) : 0));
  const gains = wilder(move(1), n);
  const losses = wilder(move(-1), n);
  return gains.map((gain, i) => {
    if (gain === null) return null;
    const sum = gain + (losses[i] as number);
    return sum > 0 ? (100 * gain) / sum : 50;
  });
}

/** Line, signal and histogram. Both means begin with the slow one, as TA-Lib has it. */
export function macd(values: readonly number[], fast: number, slow: number, n: number): Column[] {
  const slows = ema(values, slow);
  const fasts = ema(values, fast, slow - 1);
  const line = fasts.map((f, i) => (f === null ? null : f - (slows[i] as number)));
  const begun = line.slice(slow - 1) as number[];
  const lead = empty(Math.min(slow - 1, values.length));
  const signal = [...lead, ...ema(begun, n)];
  const shown = line.map((v, i) => (signal[i] === null ? null : v));
  const histogram = shown.map((v, i) => (v === null ? null : v - (signal[i] as number)));
  return [shown, signal, histogram];
}

/** Wilder's average true range. */
export function atr(candles: readonly Candle[], n: number): Column {
  const ranges = candles.map(({ high, low }, i) => {
    const before = candles[i - 1]?.close;
    return before === undefined ? 0 : Math.max(high, before) - Math.min(low, before);
  });
  return wilder(ranges, n);
}

/** Slow stochastic: %K and %D, 0 to 100; 0 while the range is flat. */
export function stochastic(candles: readonly Candle[], n: number, k: number, d: number): Column[] {
  const raw = candles.slice(n - 1).map((candle, at) => {
    const span = candles.slice(at, at + n);
    const low = Math.min(...span.map((c) => c.low));
    const high = Math.max(...span.map((c) => c.high));
    return high > low ? (100 * (candle.close - low)) / (high - low) : 0;
  });
  const slow = sma(raw, k);
  const signal = sma(slow.slice(k - 1) as number[], d);
  const lead = (by: number) => empty(Math.min(by, candles.length));
  const dLine = [...lead(n + k - 2), ...signal].slice(0, candles.length);
  const kLine = [...lead(n - 1), ...slow].slice(0, candles.length);
  return [kLine.map((v, i) => (dLine[i] === null ? null : v)), dLine];
}
