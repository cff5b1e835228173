import type { BarWindow, IndicatorRow } from "@/lib/api/types";
import type { Candle } from "./bars";
import {
  atr,
  bollinger,
  type Column,
  closes,
  ema,
  macd,
  rsi,
  sma,
  stochastic,
  vwap,
} from "./indicators";

/** One line of a study: the name that the platform knows it by, and its colour on the page. */
export interface StudyLine {
  name: string;
  label: string;
  /** A custom property of the page, without its dashes. */
  color: string;
  kind: "line" | "histogram";
}

/** Something that is drawn on the chart beside the candles, and can be switched. */
export interface Study {
  id: string;
  label: string;
  /** Where the label is too long. */
  short?: string;
  group: "overlay" | "pane";
  lines: readonly StudyLine[];
  /** Horizontal lines that help to read it. */
  guides?: readonly number[];
  digits: number;
  columns: (candles: readonly Candle[]) => Column[];
}

function line(name: string, color: string, label = "", kind: StudyLine["kind"] = "line") {
  return { name, color, label, kind };
}

function mean(kind: "sma" | "ema", n: number, color: string): Study {
  const of = kind === "sma" ? sma : ema;
  return {
    id: `${kind}_${n}`,
    label: `${kind.toUpperCase()} ${n}`,
    group: "overlay",
    lines: [line(`${kind}_${n}`, color)],
    digits: 2,
    columns: (candles) => [of(closes(candles), n)],
  };
}

/** All studies, in the order of the menu and of the panes. */
export const STUDIES: readonly Study[] = [
  {
    id: "vwap",
    label: "VWAP",
    group: "overlay",
    lines: [line("vwap", "series-1")],
    digits: 2,
    columns: (candles) => [vwap(candles)],
  },
  mean("sma", 5, "series-2"),
  mean("sma", 15, "series-3"),
  mean("sma", 20, "series-4"),
  mean("sma", 50, "series-5"),
  mean("sma", 60, "series-6"),
  mean("sma", 200, "series-7"),
  mean("ema", 12, "series-8"),
  mean("ema", 26, "series-9"),
  {
    id: "bollinger",
    label: "Bollinger 20, 2",
    short: "Bollinger",
    group: "overlay",
    lines: [
      line("bollinger_upper", "series-10"),
      line("bollinger_middle", "series-10"),
      line("bollinger_lower", "series-10"),
    ],
    digits: 2,
    columns: (candles) => bollinger(closes(candles), 20, 2),
  },
  {
    id: "rsi",
    label: "RSI 14",
    group: "pane",
    lines: [line("rsi_14", "series-3")],
    guides: [30, 70],
    digits: 1,
    columns: (candles) => [rsi(closes(candles), 14)],
  },
  {
    id: "macd",
    label: "MACD 12, 26, 9",
    short: "MACD",
    group: "pane",
    lines: [
      line("macd_hist", "muted", "Hist", "histogram"),
      line("macd", "series-1", "MACD"),
      line("macd_signal", "series-4", "Signal"),
    ],
    digits: 3,
    columns: (candles) => {
      const [value, signal, histogram] = macd(closes(candles), 12, 26, 9) as [
        Column,
        Column,
        Column,
      ];
      return [histogram, value, signal];
    },
  },
  {
    id: "stochastic",
    label: "Stochastic 14, 3, 3",
    short: "Stochastic",
    group: "pane",
    lines: [line("stochastic_k", "series-1", "%K"), line("stochastic_d", "series-4", "%D")],
    guides: [20, 80],
    digits: 1,
    columns: (candles) => stochastic(candles, 14, 3, 3),
  },
  {
    id: "atr",
    label: "ATR 14",
    group: "pane",
    lines: [line("atr_14", "series-5")],
    digits: 3,
    columns: (candles) => [atr(candles, 14)],
  },
];

export const VOLUME = "volume";

export const STUDY_IDS: readonly string[] = [VOLUME, ...STUDIES.map((study) => study.id)];

/** The studies that are switched on, in the order of the menu; VWAP of a day says nothing. */
export function activeStudies(ids: readonly string[], window: BarWindow): Study[] {
  return STUDIES.filter(({ id }) => ids.includes(id) && !(id === "vwap" && window === "1d"));
}

/** Rows of the platform by their bar's start in seconds. */
export type Known = ReadonlyMap<number, IndicatorRow>;

/**
 * The columns of a study. Where the platform has said a closed bar's value, that is shown: it knew
 * more bars than the chart holds.
 */
export function columnsOf(study: Study, candles: readonly Candle[], known: Known): Column[] {
  const columns = study.columns(candles);
  if (known.size === 0) return columns;
  study.lines.forEach(({ name }, at) => {
    const column = columns[at] as Column;
    candles.forEach((candle, i) => {
      const said = candle.forming ? undefined : known.get(candle.time)?.[name];
      if (typeof said === "number") column[i] = said;
    });
  });
  return columns;
}
