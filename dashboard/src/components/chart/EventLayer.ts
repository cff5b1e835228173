import type {
  IChartApi,
  IPrimitivePaneRenderer,
  ISeriesPrimitive,
  PrimitiveHoveredItem,
  SeriesAttachedParameter,
  Time,
} from "lightweight-charts";
import type { Anomaly } from "@/lib/api/types";
import { anomalyId, worst } from "@/lib/market/anomalies";
import type { CandleSeries } from "@/lib/market/candles";
import type { Gap } from "@/lib/market/gaps";
import type { Palette } from "./palette";

type Target = Parameters<IPrimitivePaneRenderer["draw"]>[0];

/** Half a diamond, its distance from the foot of the pane, and how near a pointer must come. */
const HALF_PX = 4.5;
const FOOT_PX = 8;
const REACH_PX = 9;
const LEAST_BAND_PX = 3;

/** Marks below the prices: a diamond where something was unusual, a band where the feed was cut. */
export class EventLayer implements ISeriesPrimitive<Time> {
  private chart: IChartApi | null = null;
  private redraw: () => void = () => {};
  private anomalies = new Map<number, Anomaly[]>();
  private gaps: readonly Gap[] = [];
  /** Where the marks stand, pixels below the pane's top. */
  private lane = 0;
  private placed: { x: number; id: string }[] = [];
  private readonly bands = { zOrder: () => "bottom" as const, renderer: () => this.bandRenderer };
  private readonly marks = { zOrder: () => "top" as const, renderer: () => this.markRenderer };
  private readonly views = [this.bands, this.marks];
  private readonly bandRenderer = { draw: (target: Target) => this.drawBands(target) };
  private readonly markRenderer = { draw: (target: Target) => this.drawMarks(target) };

  constructor(
    private readonly candles: CandleSeries,
    public palette: Palette,
  ) {}

  attached({ chart, requestUpdate }: SeriesAttachedParameter<Time>): void {
    this.chart = chart as IChartApi;
    this.redraw = requestUpdate;
  }

  detached(): void {
    this.chart = null;
    this.redraw = () => {};
  }

  paneViews() {
    return this.views;
  }

  hitTest(x: number, y: number): PrimitiveHoveredItem | null {
    if (Math.abs(y - this.lane) > REACH_PX) return null;
    const near = this.placed.find((mark) => Math.abs(mark.x - x) <= REACH_PX);
    return near ? { externalId: near.id, cursorStyle: "pointer", zOrder: "top" } : null;
  }

  /** Anomalies by the start of the bar that they lie in, and gaps. */
  set(anomalies: Map<number, Anomaly[]>, gaps: readonly Gap[]): void {
    this.anomalies = anomalies;
    this.gaps = gaps;
    this.redraw();
  }

  private xOf(index: number): number | null {
    return this.chart?.timeScale().logicalToCoordinate(index as never) ?? null;
  }

  private barPx(): number {
    return (this.xOf(1) ?? 0) - (this.xOf(0) ?? 0);
  }

  private drawBands(target: Target): void {
    target.useMediaCoordinateSpace(({ context, mediaSize }) => {
      context.fillStyle = this.palette.warn;
      for (const { from, to, backfilled } of this.gaps) {
        const [first, last] = [this.candles.indexAt(from), this.candles.indexAt(to)];
        const left = this.xOf(Math.max(0, first));
        const right = this.xOf(last);
        if (last < 0 || left === null || right === null) continue;
        const width = Math.max(LEAST_BAND_PX, right - left + this.barPx());
        const at = left - this.barPx() / 2;
        context.globalAlpha = backfilled ? 0.1 : 0.2;
        context.fillRect(at, 0, width, mediaSize.height);
        context.globalAlpha = backfilled ? 0.4 : 0.9;
        context.fillRect(at, 0, width, 2);
      }
      context.globalAlpha = 1;
    });
  }

  private drawMarks(target: Target): void {
    this.placed = [];
    target.useMediaCoordinateSpace(({ context, mediaSize }) => {
      this.lane = mediaSize.height - FOOT_PX;
      for (const [time, found] of this.anomalies) {
        const candle = this.candles.at(time);
        const x = candle ? this.xOf(this.candles.indexOf(time)) : null;
        const shown = worst(found);
        if (x === null || !shown || x < 0 || x > mediaSize.width) continue;
        this.placed.push({ x, id: anomalyId(shown) });
        context.fillStyle = this.colorOf(shown);
        context.beginPath();
        context.moveTo(x, this.lane - HALF_PX);
        context.lineTo(x + HALF_PX, this.lane);
        context.lineTo(x, this.lane + HALF_PX);
        context.lineTo(x - HALF_PX, this.lane);
        context.fill();
      }
    });
  }

  private colorOf({ severity }: Anomaly): string {
    const { accent, warn, down } = this.palette;
    return { info: accent, warning: warn, critical: down }[severity];
  }
}
