import { type RefObject, useEffect, useRef, useState } from "react";
import type { ApiBar, BarWindow } from "@/lib/api/types";
import { type Candle, candleOf, WINDOW_S } from "@/lib/market/bars";
import { useMarket } from "@/lib/market/context";
import { changedCandles, chartCandles } from "@/lib/market/feed";
import { type Marker, markersOf } from "@/lib/market/markers";
import { useTheme } from "@/lib/theme";
import { readPalette } from "./palette";
import { TapeChart } from "./TapeChart";

interface Shown {
  /** The candle under the crosshair, else the newest. */
  candle: Candle | null;
  markers: readonly Marker[];
}

/** Binds a chart to a container: history at once, then each change straight from the store. */
export function usePriceChart(
  container: RefObject<HTMLElement | null>,
  symbol: string,
  window: BarWindow,
  history: readonly ApiBar[] | undefined,
): Shown {
  const { store } = useMarket();
  const [theme] = useTheme();
  const chart = useRef<TapeChart>(null);
  const hover = useRef<number | null>(null);
  const fitted = useRef("");
  const [shown, setShown] = useState<Shown>({ candle: null, markers: [] });

  useEffect(() => {
    if (!container.current) return;
    const made = new TapeChart(container.current, readPalette(), (time) => {
      hover.current = time;
      setShown((was) => ({ ...was, candle: made.candleAt(time) ?? null }));
    });
    chart.current = made;
    return () => {
      fitted.current = "";
      chart.current = null;
      made.destroy();
    };
  }, [container]);

  useEffect(() => {
    if (theme) chart.current?.setPalette(readPalette());
  }, [theme]);

  useEffect(() => {
    const tape = chart.current;
    if (!tape) return;
    const mark = () => {
      const markers = markersOf(store.signals(symbol).all, WINDOW_S[window]);
      tape.setMarkers(markers);
      setShown((was) => ({ ...was, markers }));
    };
    const key = `${symbol} ${window}`;
    const past = (history ?? []).map(candleOf).filter((candle) => candle !== null);
    tape.setCandles(chartCandles(store, symbol, window, past), fitted.current !== key);
    if (history) fitted.current = key;
    mark();
    setShown((was) => ({ ...was, candle: tape.candleAt(hover.current) ?? null }));
    const offCandles = store.onCandles(symbol, (minutes) => {
      for (const candle of changedCandles(store, symbol, window, minutes)) tape.update(candle);
      setShown((was) => ({ ...was, candle: tape.candleAt(hover.current) ?? null }));
    });
    const offSignals = store.on(`signals:${symbol}`, mark);
    return () => {
      offCandles();
      offSignals();
    };
  }, [store, symbol, window, history]);

  return shown;
}
