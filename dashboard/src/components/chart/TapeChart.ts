import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  type IChartApi,
  type IPriceLine,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import type { Anomaly } from "@/lib/api/types";
import type { Candle } from "@/lib/market/bars";
import { CandleSeries } from "@/lib/market/candles";
import type { Gap } from "@/lib/market/gaps";
import type { Marker } from "@/lib/market/markers";
import type { Known, Study } from "@/lib/market/studies";
import { EventLayer } from "./EventLayer";
import { markOf, priceOf, volumeOf } from "./look";
import { layoutOf, seriesColors, timeLabel } from "./options";
import type { Palette } from "./palette";
import { StudyLayer } from "./StudyLayer";

/** Width of a bar when a history is shown first, and the fewest that the view has room for. */
const BAR_PX = 8;
const MIN_SHOWN = 60;
/** Bars left of the view at which older ones are wanted. */
const NEAR_START = 12;

/** Height of a pane below the prices, and the share of the chart that all of them may take. */
const PANE_PX = 92;
const PANES_SHARE = 0.5;
/** Below the volume, for the marks of what was unusual. */
const LANE_SHARE = 0.05;

export interface ChartEvents {
  /** The time under the crosshair (seconds), or null when it leaves. */
  onHover: (timeS: number | null) => void;
  /** An anomaly's mark was clicked. */
  onPick: (anomalyId: string) => void;
  /** The view has come to the oldest bars. */
  onStart: () => void;
}

/** The price chart, outside React: candles, volume, studies and marks of one symbol and window. */
export class TapeChart {
  readonly candles = new CandleSeries();
  private readonly chart: IChartApi;
  private readonly price: ISeriesApi<"Candlestick">;
  private readonly volume: ISeriesApi<"Histogram">;
  private readonly last: IPriceLine;
  private readonly markers: ISeriesMarkersPluginApi<Time>;
  private readonly studies: StudyLayer;
  private readonly events: EventLayer;
  private marks: readonly Marker[] = [];
  private shown: readonly Study[] = [];
  private daily = false;
  /** The time that the crosshair was put on, until a pointer takes it. */
  private pinned: number | null = null;

  constructor(
    private readonly container: HTMLElement,
    private palette: Palette,
    { onHover, onPick, onStart }: ChartEvents,
  ) {
    this.chart = createChart(container, layoutOf(palette));
    this.volume = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: LANE_SHARE } });
    this.price = this.chart.addSeries(CandlestickSeries, seriesColors(palette));
    this.price.priceScale().applyOptions({ scaleMargins: { top: 0.15, bottom: 0.22 } });
    this.last = this.price.createPriceLine({
      price: 0,
      axisLabelVisible: false,
      lineVisible: false,
    });
    this.markers = createSeriesMarkers(this.price, []);
    this.studies = new StudyLayer(this.chart, palette);
    this.events = new EventLayer(this.candles, palette);
    this.price.attachPrimitive(this.events);
    this.chart.subscribeCrosshairMove(({ time, sourceEvent }) => {
      if (!sourceEvent && this.pinned !== null) return;
      this.pinned = null;
      onHover(typeof time === "number" ? time : null);
    });
    this.chart.subscribeClick(({ hoveredInfo }) => {
      if (typeof hoveredInfo?.objectId === "string") onPick(hoveredInfo.objectId);
    });
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && range.from < NEAR_START && this.candles.all.length > MIN_SHOWN) onStart();
    });
  }

  /** Shows another history; `fit` moves the view to its end. */
  setCandles(candles: readonly Candle[], fit: boolean): void {
    const [first, view] = [this.candles.all[0], this.chart.timeScale().getVisibleLogicalRange()];
    this.candles.reset(candles);
    this.drawAll();
    // Older bars came in front: the view stays on those that it was on.
    const moved = first ? this.candles.indexOf(first.time) : 0;
    if (fit) this.toEnd();
    else if (view && moved > 0) this.show(view.from + moved, view.to + moved);
  }

  /** Moves the newest candle, adds the next, or corrects one of the past. */
  update(candle: Candle): void {
    const before = this.candles.last;
    const change = this.candles.upsert(candle);
    if (change === "all") this.drawAll();
    if (change === "all" || change === "none") return;
    this.price.update(priceOf(candle, this.palette), change === "past");
    this.volume.update(volumeOf(candle, this.palette), change === "past");
    this.drawLast();
    if (before?.time !== this.candles.last?.time) this.pin();
    // A correction changes every study from there on; so does a bar that has closed.
    const closed = before?.forming && before.time !== this.candles.last?.time;
    if (change === "past" || closed) this.studies.setCandles(this.candles.all);
    else this.studies.updateLast(this.candles.all);
  }

  setStudies(studies: readonly Study[], volume: boolean): void {
    this.shown = studies;
    this.volume.applyOptions({ visible: volume });
    this.studies.show(studies, this.palette);
    this.studies.setCandles(this.candles.all);
    this.layOut();
  }

  /** Gives every pane its height; again when the container's has changed. */
  layOut(): void {
    const height = Math.max(1, this.container.clientHeight);
    const { panes } = this.studies;
    const below = Math.min(PANE_PX, (height * PANES_SHARE) / Math.max(1, panes));
    this.chart.panes().forEach((pane, at) => {
      pane.setStretchFactor(at ? below : height - panes * below);
    });
  }

  /** Indicators that the platform computed, of minute bars. */
  setKnown(known: Known): void {
    this.studies.setKnown(known);
    this.studies.setCandles(this.candles.all);
  }

  setMarkers(marks: readonly Marker[]): void {
    this.marks = marks;
    const known = marks.filter((mark) => this.candles.at(mark.time));
    this.markers.setMarkers(known.map((mark) => markOf(mark, this.palette)));
  }

  setEvents(anomalies: Map<number, Anomaly[]>, gaps: readonly Gap[]): void {
    this.events.set(anomalies, gaps);
  }

  setDaily(daily: boolean): void {
    this.daily = daily;
    this.chart.applyOptions(timeLabel(daily));
  }

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.events.palette = palette;
    this.chart.applyOptions(layoutOf(palette));
    this.setDaily(this.daily);
    this.price.applyOptions(seriesColors(palette));
    this.studies.show(this.shown, palette);
    this.drawAll();
    this.setMarkers(this.marks);
  }

  /** The candle at a time, else the newest, and the studies' values there. */
  read(timeS: number | null) {
    const { all } = this.candles;
    const index = timeS === null ? all.length - 1 : this.candles.indexOf(timeS);
    const candle = timeS === null ? all.at(-1) : this.candles.at(timeS);
    return candle ? { candle, values: this.studies.valuesAt(index) } : null;
  }

  /** Tops of the panes, pixels below the container's. */
  paneTops(): number[] {
    const top = this.container.getBoundingClientRect().top;
    return this.chart.panes().map((pane) => {
      const element = pane.getHTMLElement();
      return element ? element.getBoundingClientRect().top - top : 0;
    });
  }

  /** Puts the crosshair on a candle, and the view around it if it is not in it; null: takes it off. */
  point(timeS: number | null): void {
    const candle = timeS === null ? undefined : this.candles.at(timeS);
    this.pinned = candle?.time ?? null;
    if (!candle) {
      this.chart.clearCrosshairPosition();
      return;
    }
    const index = this.candles.indexOf(candle.time);
    const view = this.chart.timeScale().getVisibleLogicalRange();
    if (view && (index < view.from + 1 || index > view.to - 1)) {
      const half = (view.to - view.from) / 2;
      this.show(index - half, index + half);
    }
    this.pin();
    // A view that was moved takes its place in the next frame, and the crosshair with it.
    requestAnimationFrame(() => this.pin());
  }

  /** Shows more bars (above 1) or fewer (below 1), the newest where they are. */
  zoom(factor: number): void {
    const view = this.chart.timeScale().getVisibleLogicalRange();
    if (view) this.show(view.to - Math.max(15, (view.to - view.from) * factor), view.to);
  }

  /** Moves the view to the newest bars. */
  toEnd(): void {
    this.chart.priceScale("right").applyOptions({ autoScale: true });
    const count = this.candles.all.length;
    const room = Math.max(30, Math.floor(this.container.clientWidth / BAR_PX));
    const shown = Math.min(room, Math.max(MIN_SHOWN, count));
    this.show(count - shown, count + 5);
  }

  destroy(): void {
    this.pinned = null;
    this.chart.remove();
  }

  /** The bars move on under a crosshair that stands still: it goes with its own. */
  private pin(): void {
    const candle = this.pinned === null ? undefined : this.candles.at(this.pinned);
    if (candle)
      this.chart.setCrosshairPosition(candle.close, candle.time as UTCTimestamp, this.price);
  }

  private show(from: number, to: number): void {
    this.chart.timeScale().setVisibleLogicalRange({ from, to });
  }

  private drawAll(): void {
    const { all } = this.candles;
    this.price.setData(all.map((candle) => priceOf(candle, this.palette)));
    this.volume.setData(all.map((candle) => volumeOf(candle, this.palette)));
    this.studies.setCandles(all);
    this.drawLast();
  }

  /** The line and label of the newest price. The series' own would have a hollow candle's colour. */
  private drawLast(): void {
    const candle = this.candles.last;
    if (!candle) {
      this.last.applyOptions({ axisLabelVisible: false, lineVisible: false });
      return;
    }
    const color = this.palette[candle.close >= candle.open ? "up" : "down"];
    const look = { color, axisLabelColor: color, axisLabelTextColor: this.palette.surface };
    const shown = { axisLabelVisible: true, lineVisible: true };
    this.last.applyOptions({ price: candle.close, ...look, ...shown, lineWidth: 1, lineStyle: 3 });
  }
}
