import {
  type AutoscaleInfo,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  type LineData,
  LineSeries,
  type UTCTimestamp,
  type WhitespaceData,
} from "lightweight-charts";
import type { Candle } from "@/lib/market/bars";
import type { Column } from "@/lib/market/indicators";
import { columnsOf, type Known, type Study, type StudyLine } from "@/lib/market/studies";
import { colorOf, type Palette } from "./palette";

/** Room for the pane's legend above its lines, as a share of it. */
const PANE_MARGINS = { top: 0.28, bottom: 0.12 };
/** Candles that the newest values of every study need at most: a day of minutes. */
const TAIL = 1000;

type LineApi = ISeriesApi<"Line"> | ISeriesApi<"Histogram">;
type Point = LineData | WhitespaceData;

interface Drawn {
  study: Study;
  lines: { line: StudyLine; api: LineApi }[];
  columns: Column[];
}

/** The studies on the chart: their series and panes, and their value at each candle. */
export class StudyLayer {
  private drawn: Drawn[] = [];
  private known: Known = new Map();

  constructor(
    private readonly chart: IChartApi,
    private palette: Palette,
  ) {}

  /** Number of panes below the prices. */
  get panes(): number {
    return this.drawn.filter(({ study }) => study.group === "pane").length;
  }

  /** Draws these studies and no others. */
  show(studies: readonly Study[], palette: Palette): void {
    this.palette = palette;
    for (const { lines } of this.drawn) for (const { api } of lines) this.chart.removeSeries(api);
    let pane = 0;
    this.drawn = studies.map((study) => {
      const at = study.group === "overlay" ? 0 : ++pane;
      const lines = study.lines.map((line) => ({ line, api: this.make(study, line, at) }));
      for (const price of study.guides ?? []) lines[0]?.api.createPriceLine(this.guide(price));
      if (at) lines[0]?.api.priceScale().applyOptions({ scaleMargins: PANE_MARGINS });
      return { study, lines, columns: [] };
    });
  }

  setKnown(known: Known): void {
    this.known = known;
  }

  /** Computes and draws all of it. */
  setCandles(candles: readonly Candle[]): void {
    for (const drawn of this.drawn) {
      drawn.columns = columnsOf(drawn.study, candles, this.known);
      drawn.lines.forEach(({ line, api }, at) => {
        const column = drawn.columns[at] as Column;
        api.setData(candles.map((candle, i) => this.point(line, candle, column, i)));
      });
    }
  }

  /** Computes and draws the newest candle's values. */
  updateLast(candles: readonly Candle[]): void {
    const tail = candles.slice(-TAIL);
    const last = tail.at(-1);
    if (!last) return;
    for (const drawn of this.drawn) {
      const columns = columnsOf(drawn.study, tail, this.known);
      drawn.lines.forEach(({ line, api }, at) => {
        const column = columns[at] as Column;
        (drawn.columns[at] as Column)[candles.length - 1] = column.at(-1) ?? null;
        api.update(this.point(line, last, column, tail.length - 1));
      });
    }
  }

  /** The values at a candle, in the order of each study's lines. */
  valuesAt(index: number): Record<string, (number | null)[]> {
    const entries = this.drawn.map(({ study, columns }) => [
      study.id,
      columns.map((column) => column[index] ?? null),
    ]);
    return Object.fromEntries(entries);
  }

  private make(study: Study, line: StudyLine, pane: number): LineApi {
    const quiet = { priceLineVisible: false, lastValueVisible: false } as const;
    const priceFormat = {
      type: "price",
      precision: study.digits,
      minMove: 10 ** -study.digits,
    } as const;
    const color = colorOf(this.palette, line.color);
    if (line.kind === "histogram")
      return this.chart.addSeries(HistogramSeries, { ...quiet, priceFormat, color }, pane);
    const fixed = {
      autoscaleInfoProvider: (own: () => AutoscaleInfo | null) => scaleOf(study, own()),
    };
    const middle = line.name === "bollinger_middle";
    const options = {
      ...quiet,
      ...fixed,
      priceFormat,
      color,
      lineWidth: 1,
      lineStyle: middle ? 2 : 0,
      crosshairMarkerVisible: false,
    } as const;
    return this.chart.addSeries(LineSeries, options, pane);
  }

  private point(line: StudyLine, candle: Candle, column: Column, i: number): Point {
    const time = candle.time as UTCTimestamp;
    const value = column[i];
    if (value === null || value === undefined) return { time };
    if (line.kind === "line") {
      // What may still change is drawn fainter, like the candle that it belongs to.
      return candle.forming
        ? { time, value, color: `${colorOf(this.palette, line.color)}99` }
        : { time, value };
    }
    const { "volume-up": up, "volume-down": down } = this.palette;
    return { time, value, color: value >= 0 ? up : down };
  }

  private guide(price: number) {
    const color = this.palette["line-strong"];
    return {
      price,
      color,
      lineWidth: 1,
      lineStyle: 2,
      axisLabelVisible: false,
      title: "",
    } as const;
  }
}

/** An overlay far off must not flatten the candles; a pane with guides always shows them. */
function scaleOf(study: Study, own: AutoscaleInfo | null): AutoscaleInfo | null {
  if (study.group === "overlay") return null;
  const { guides } = study;
  if (!guides || !own?.priceRange) return own;
  const { minValue, maxValue } = own.priceRange;
  return {
    ...own,
    priceRange: {
      minValue: Math.min(minValue, ...guides),
      maxValue: Math.max(maxValue, ...guides),
    },
  };
}
