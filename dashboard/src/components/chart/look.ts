import type { SeriesMarker, Time, UTCTimestamp } from "lightweight-charts";
import type { Candle } from "@/lib/market/bars";
import type { Marker } from "@/lib/market/markers";
import type { Palette } from "./palette";

/** A candle as drawn: hollow while it forms. */
export function priceOf(candle: Candle, palette: Palette) {
  const { open, high, low, close, forming } = candle;
  const time = candle.time as UTCTimestamp;
  return forming
    ? { time, open, high, low, close, color: palette.surface }
    : { time, open, high, low, close };
}

export function volumeOf({ time, open, close, volume }: Candle, palette: Palette) {
  const color = palette[close >= open ? "volume-up" : "volume-down"];
  return { time: time as UTCTimestamp, value: volume, color };
}

export function markOf(
  { time, side, confidence, moves }: Marker,
  palette: Palette,
): SeriesMarker<Time> {
  const buys = side === "BUY";
  const color = buys ? palette.up : palette.down;
  const sure = confidence === null ? "" : ` ${Math.round(confidence * 100)}%`;
  return {
    time: time as UTCTimestamp,
    position: buys ? "belowBar" : "aboveBar",
    shape: !moves ? "circle" : buys ? "arrowUp" : "arrowDown",
    color: moves ? color : `${color}80`,
    size: moves ? 1 : 0.3,
    text: moves ? `${side}${sure}` : undefined,
  };
}
