import { type RefObject, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Anomaly, ApiBar, BarWindow } from "@/lib/api/types";
import { anomalyTime } from "@/lib/market/anomalies";
import { type Candle, candleOf } from "@/lib/market/bars";
import { useMarket } from "@/lib/market/context";
import { changedCandles, chartCandles } from "@/lib/market/feed";
import type { Gap } from "@/lib/market/gaps";
import { useRun } from "@/lib/market/hooks";
import { type Marker, markersOf } from "@/lib/market/markers";
import { activeStudies, type Known, VOLUME } from "@/lib/market/studies";
import { windowStart } from "@/lib/market/windows";
import { useTheme } from "@/lib/theme";
import { readPalette } from "./palette";
import { TapeChart } from "./TapeChart";

/** A moment that the chart is asked to show; every asking is a new object. */
export interface Focus {
  symbol: string;
  timeS: number;
}

interface Input {
  symbol: string;
  window: BarWindow;
  studies: readonly string[];
  history: readonly ApiBar[] | undefined;
  anomalies: readonly Anomaly[];
  gaps: readonly Gap[];
  focus: Focus | null;
  onPick: (anomalyId: string) => void;
  /** Older bars are wanted; says whether some will come. */
  onStart: () => boolean;
}

export interface Reading {
  candle: Candle;
  /** Values of each study, in the order of its lines. */
  values: Record<string, (number | null)[]>;
}

interface Shown {
  /** What is under the crosshair, else the newest. */
  reading: Reading | null;
  markers: readonly Marker[];
}

const NO_KNOWN: Known = new Map();

/** Binds a chart to a container: history at once, then each change straight from the store. */
export function usePriceChart(container: RefObject<HTMLElement | null>, input: Input) {
  const { symbol, window, history, focus } = input;
  const { store } = useMarket();
  const run = useRun();
  const [theme] = useTheme();
  const chart = useRef<TapeChart>(null);
  const hover = useRef<number | null>(null);
  const fitted = useRef("");
  const latest = useRef(input);
  latest.current = input;
  const [shown, setShown] = useState<Shown>({ reading: null, markers: [] });
  const [tops, setTops] = useState<readonly number[]>([]);

  const read = useCallback(() => {
    const reading = chart.current?.read(hover.current) ?? chart.current?.read(null) ?? null;
    setShown((was) => ({ ...was, reading }));
  }, []);

  useEffect(() => {
    const element = container.current;
    if (!element) return;
    const made = new TapeChart(element, readPalette(), {
      onHover: (time) => {
        hover.current = time;
        read();
      },
      onPick: (id) => latest.current.onPick(id),
      onStart: () => void latest.current.onStart(),
    });
    chart.current = made;
    const measure = () => setTops(made.paneTops());
    const observer = new ResizeObserver(() => {
      made.layOut();
      // The chart lays itself out in the frame after its container has changed.
      requestAnimationFrame(() => requestAnimationFrame(measure));
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      fitted.current = "";
      chart.current = null;
      made.destroy();
    };
  }, [container, read]);

  useEffect(() => {
    if (theme) chart.current?.setPalette(readPalette());
  }, [theme]);

  const studies = useMemo(() => activeStudies(input.studies, window), [input.studies, window]);
  const volume = input.studies.includes(VOLUME);
  useEffect(() => {
    chart.current?.setDaily(window === "1d");
    chart.current?.setStudies(studies, volume);
    read();
    const frame = requestAnimationFrame(() =>
      requestAnimationFrame(() => setTops(chart.current?.paneTops() ?? [])),
    );
    return () => cancelAnimationFrame(frame);
  }, [studies, volume, window, read]);

  useEffect(() => {
    const tape = chart.current;
    if (!tape) return;
    const key = `${symbol} ${window} ${run}`;
    const past = (history ?? []).map(candleOf).filter((candle) => candle !== null);
    const draw = (fit: boolean) => tape.setCandles(chartCandles(store, symbol, window, past), fit);
    const mark = () => {
      const markers = markersOf(store.signals(symbol).all, window);
      tape.setMarkers(markers);
      setShown((was) => ({ ...was, markers }));
    };
    const know = () => tape.setKnown(window === "1m" ? store.indicators(symbol) : NO_KNOWN);
    know();
    draw(fitted.current !== key);
    if (history) fitted.current = key;
    mark();
    read();
    const there = (start: number) => tape.candles.at(start);
    const offs = [
      store.onCandles(symbol, (minutes) => {
        for (const candle of changedCandles(store, symbol, window, minutes, there))
          tape.update(candle);
        read();
      }),
      store.on(`signals:${symbol}`, mark),
      store.on(`indicators:${symbol}`, know),
      store.on(`rolled:${symbol}`, () => {
        if (window !== "1m") draw(false);
      }),
    ];
    return () => {
      for (const off of offs) off();
    };
  }, [store, symbol, window, history, run, read]);

  const found = useMemo(() => {
    const byBar = new Map<number, Anomaly[]>();
    for (const anomaly of input.anomalies) {
      if (anomaly.symbol !== symbol) continue;
      const bar = windowStart(anomalyTime(anomaly), window);
      byBar.set(bar, [...(byBar.get(bar) ?? []), anomaly]);
    }
    return byBar;
  }, [input.anomalies, symbol, window]);
  useEffect(() => chart.current?.setEvents(found, input.gaps), [found, input.gaps]);

  const point = useCallback(
    (time: number | null) => {
      chart.current?.point(time);
      hover.current = time;
      read();
    },
    [read],
  );

  const asked = useRef<Focus>(null);
  useEffect(() => {
    const tape = chart.current;
    if (!tape || !focus || focus === asked.current || focus.symbol !== symbol || !history) return;
    const bar = windowStart(focus.timeS, window);
    const first = tape.candles.all[0]?.time ?? bar;
    // Where older bars will come the moment is looked for again among them.
    if (first <= bar || !latest.current.onStart()) asked.current = focus;
    // On a phone what was pressed lies below the chart.
    container.current?.closest("section")?.scrollIntoView({ block: "nearest" });
    point(Math.max(first, bar));
  }, [container, focus, symbol, window, history, point]);

  /** Moves the crosshair by bars; from the newest where it is nowhere. */
  const step = useCallback(
    (by: number) => {
      const { all } = chart.current?.candles ?? { all: [] };
      const at = hover.current === null ? -1 : all.findIndex((c) => c.time === hover.current);
      const from = at < 0 ? all.length : at;
      const next = all[Math.min(all.length - 1, Math.max(0, from + by))];
      if (next) point(next.time);
    },
    [point],
  );
  const zoom = useCallback((factor: number) => chart.current?.zoom(factor), []);
  const toEnd = useCallback(() => {
    point(null);
    chart.current?.toEnd();
  }, [point]);

  return { ...shown, studies, found, tops, step, zoom, toEnd, point };
}
