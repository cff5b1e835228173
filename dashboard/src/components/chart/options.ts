import {
  type CandlestickSeriesPartialOptions,
  type ChartOptions,
  ColorType,
  CrosshairMode,
  type DeepPartial,
  TickMarkType,
  type Time,
} from "lightweight-charts";
import { dayNY, minuteNY } from "@/lib/format";
import type { Palette } from "./palette";

const ms = (time: Time) => (time as number) * 1000;

/** The axis speaks New York's time; the library itself knows only UTC. */
function tickMark(time: Time, type: TickMarkType): string {
  return type <= TickMarkType.DayOfMonth ? dayNY(ms(time)) : minuteNY(ms(time));
}

export function layoutOf(palette: Palette): DeepPartial<ChartOptions> {
  const line = { color: palette["line-strong"], labelBackgroundColor: palette.raised };
  return {
    autoSize: true,
    layout: {
      background: { type: ColorType.Solid, color: "transparent" },
      textColor: palette.muted,
      fontFamily: '"Inter Variable", system-ui, sans-serif',
      fontSize: 11,
      // The page names the library itself, where no line runs through it.
      attributionLogo: false,
      panes: { enableResize: false, separatorColor: palette.line },
    },
    grid: { vertLines: { color: palette.grid }, horzLines: { color: palette.grid } },
    crosshair: { mode: CrosshairMode.Normal, vertLine: line, horzLine: line },
    rightPriceScale: { borderVisible: false, minimumWidth: 64 },
    timeScale: {
      borderVisible: false,
      timeVisible: true,
      secondsVisible: false,
      rightOffset: 5,
      minBarSpacing: 1.5,
      tickMarkFormatter: tickMark,
    },
    localization: { locale: "en-US" },
    handleScroll: { vertTouchDrag: false },
  };
}

/** The label of the time under the crosshair: a day has no hour. */
export function timeLabel(daily: boolean): DeepPartial<ChartOptions> {
  const timeFormatter = (time: Time) =>
    daily ? dayNY(ms(time)) : `${dayNY(ms(time))}, ${minuteNY(ms(time))}`;
  return { localization: { timeFormatter }, timeScale: { timeVisible: !daily } };
}

export function seriesColors({ up, down }: Palette): CandlestickSeriesPartialOptions {
  return {
    upColor: up,
    downColor: down,
    wickUpColor: up,
    wickDownColor: down,
    borderUpColor: up,
    borderDownColor: down,
    priceLineVisible: false,
    lastValueVisible: false,
  };
}
