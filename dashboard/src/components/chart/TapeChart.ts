import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  type SeriesMarker,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import type { Candle } from "@/lib/market/bars";
import type { Marker } from "@/lib/market/markers";
import { layoutOf, seriesColors } from "./options";
import type { Palette } from "./palette";

/** Width of a bar when a history is shown first, and the fewest that the view has room for. */
const BAR_PX = 8;
const MIN_SHOWN = 60;

/**
 * The price chart, outside React: candles, volume and markers of one symbol and window.
 * `onHover` gets the time under the crosshair (seconds), or null when it leaves.
 */
export class TapeChart {
  private readonly chart: IChartApi;
  private readonly price: ISeriesApi<"Candlestick">;
  private readonly volume: ISeriesApi<"Histogram">;
  private readonly markers: ISeriesMarkersPluginApi<Time>;
  private candles = new Map<number, Candle>();
  private lastTime = 0;
  private marks: readonly Marker[] = [];

  constructor(
    private readonly container: HTMLElement,
    private palette: Palette,
    onHover: (timeS: number | null) => void,
  ) {
    this.chart = createChart(container, layoutOf(palette));
    this.volume = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.price = this.chart.addSeries(CandlestickSeries, seriesColors(palette));
    this.price.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0.2 } });
    this.markers = createSeriesMarkers(this.price, []);
    this.chart.subscribeCrosshairMove(({ time }) =>
      onHover(typeof time === "number" ? time : null),
    );
  }

  candleAt(timeS: number | null): Candle | undefined {
    return this.candles.get(timeS ?? this.lastTime);
  }

  /** Shows another history; `fit` moves the view to its end. */
  setCandles(candles: readonly Candle[], fit: boolean): void {
    this.candles = new Map(candles.map((candle) => [candle.time, candle]));
    this.lastTime = candles.at(-1)?.time ?? 0;
    this.price.setData(candles.map(priceOf));
    this.volume.setData(candles.map((candle) => this.volumeOf(candle)));
    if (!fit) return;
    this.chart.priceScale("right").applyOptions({ autoScale: true });
    const room = Math.max(30, Math.floor(this.container.clientWidth / BAR_PX));
    const shown = Math.min(room, Math.max(MIN_SHOWN, candles.length));
    this.chart.timeScale().setVisibleLogicalRange({
      from: candles.length - shown,
      to: candles.length + 5,
    });
  }

  /** Moves the newest candle, adds the next, or corrects one of the past. */
  update(candle: Candle): void {
    const past = candle.time < this.lastTime;
    // A minute that was missing in between needs the whole series: `update` cannot insert it.
    if (past && !this.candles.has(candle.time)) {
      const all = [...this.candles.values(), candle].sort((a, b) => a.time - b.time);
      this.setCandles(all, false);
      return;
    }
    this.candles.set(candle.time, candle);
    this.lastTime = Math.max(this.lastTime, candle.time);
    this.price.update(priceOf(candle), past);
    this.volume.update(this.volumeOf(candle), past);
  }

  setMarkers(marks: readonly Marker[]): void {
    this.marks = marks;
    this.markers.setMarkers(
      marks.filter((m) => this.candles.has(m.time)).map((m) => this.markOf(m)),
    );
  }

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.chart.applyOptions(layoutOf(palette));
    this.price.applyOptions(seriesColors(palette));
    this.volume.setData(
      [...this.candles.values()].sort((a, b) => a.time - b.time).map((c) => this.volumeOf(c)),
    );
    this.setMarkers(this.marks);
  }

  destroy(): void {
    this.chart.remove();
  }

  private volumeOf(candle: Candle) {
    const { volumeUp, volumeDown } = this.palette;
    const color = candle.close >= candle.open ? volumeUp : volumeDown;
    return { time: candle.time as UTCTimestamp, value: candle.volume, color };
  }

  private markOf({ time, side, confidence, moves }: Marker): SeriesMarker<Time> {
    const buys = side === "BUY";
    const sure = confidence === null ? "" : ` ${Math.round(confidence * 100)}%`;
    return {
      time: time as UTCTimestamp,
      position: buys ? "belowBar" : "aboveBar",
      shape: !moves ? "circle" : buys ? "arrowUp" : "arrowDown",
      color: buys ? this.palette.up : this.palette.down,
      size: moves ? 1 : 0.3,
      text: moves ? `${side}${sure}` : undefined,
    };
  }
}

function priceOf({ time, open, high, low, close }: Candle) {
  return { time: time as UTCTimestamp, open, high, low, close };
}
