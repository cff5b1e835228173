const EM_DASH = "–";

function finite(value: number | null | undefined): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

const PRICE = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export function price(value: number | null | undefined): string {
  return finite(value) ? PRICE.format(value) : EM_DASH;
}

export function count(value: number | null | undefined): string {
  return finite(value) ? COUNT.format(value) : EM_DASH;
}

export function compact(value: number | null | undefined): string {
  return finite(value) ? COMPACT.format(value) : EM_DASH;
}

/** A signed number with a real minus sign: `+1.20`, `−0.35`, `0.00`. */
export function signed(value: number | null | undefined, digits = 2): string {
  if (!finite(value)) return EM_DASH;
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? "−" : "+"}${text}`;
}

/** A fraction as per cent: `0.614` → `61.4%`. */
export function percent(fraction: number | null | undefined, digits = 1): string {
  return finite(fraction) ? `${(fraction * 100).toFixed(digits)}%` : EM_DASH;
}

export function signedPercent(fraction: number | null | undefined): string {
  return finite(fraction) ? `${signed(fraction * 100)}%` : EM_DASH;
}

/** Milliseconds for people: `8.4 ms`, `240 ms`, `1.25 s`. */
export function millis(ms: number | null | undefined): string {
  if (!finite(ms)) return EM_DASH;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

/** An age for people: `4 s`, `1 m 20 s`, `2 h 05 m`, `3 d`. */
export function age(ms: number | null | undefined): string {
  if (!finite(ms)) return EM_DASH;
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${String(s % 60).padStart(2, "0")} s`;
  if (s < 86_400)
    return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} m`;
  return `${Math.floor(s / 86_400)} d`;
}

function newYork(options: Intl.DateTimeFormatOptions): (ms: number) => string {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: "America/New_York",
    hourCycle: "h23",
    ...options,
  });
  return (ms) => format.format(ms);
}

/** Parts of a moment (milliseconds since the epoch) on the exchange's wall clock. */
export const timeNY = newYork({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const minuteNY = newYork({ hour: "2-digit", minute: "2-digit" });
export const dateNY = newYork({
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
});
export const dayNY = newYork({ day: "numeric", month: "short" });

/** The minute of an RFC 3339 time in New York; a dash when it is none. */
export function minuteOf(time: string | null | undefined): string {
  const ms = time ? Date.parse(time) : Number.NaN;
  return Number.isFinite(ms) ? minuteNY(ms) : EM_DASH;
}

/** A name of a program for people: `journal_full` → `Journal full`. */
export function sentence(name: string): string {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
