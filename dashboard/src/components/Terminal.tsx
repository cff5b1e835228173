"use client";

import { useCallback, useState } from "react";
import { ChartHeader } from "@/components/chart/ChartHeader";
import { PriceChart } from "@/components/chart/PriceChart";
import type { Focus } from "@/components/chart/usePriceChart";
import { Dock } from "@/components/dock/Dock";
import { readDockPrefs } from "@/components/dock/prefs";
import { Header } from "@/components/header/Header";
import { LedgerBar } from "@/components/ledger/LedgerBar";
import { Pipeline } from "@/components/ledger/Pipeline";
import { Insight } from "@/components/signal/Insight";
import { QuotePanel } from "@/components/signal/QuotePanel";
import { SignalCard } from "@/components/signal/SignalCard";
import { WatchList } from "@/components/watchlist/WatchList";
import type { Anomaly } from "@/lib/api/types";
import { anomalyId, anomalyTime } from "@/lib/market/anomalies";
import { readPrefs } from "@/lib/market/chartPrefs";
import { useMarket } from "@/lib/market/context";
import { fillTime } from "@/lib/market/events";
import {
  DEEP_HISTORY,
  useAnomalies,
  useSubscriptions,
  useSymbols,
  useWarmUp,
} from "@/lib/market/hooks";
import { useChosenSymbol } from "@/lib/market/useChosenSymbol";
import { narrowestWindow } from "@/lib/market/windows";
import { usePreference } from "@/lib/usePreference";

const NONE: readonly string[] = [];
const NO_ANOMALIES: readonly Anomaly[] = [];

/** The whole screen. Wide: three columns that fill the window; narrow: one that scrolls. */
export function Terminal() {
  const { store } = useMarket();
  const symbols = useSymbols().data;
  const [symbol, choose] = useChosenSymbol(symbols);
  const [prefs, setPrefs] = usePreference("raytape-chart", readPrefs);
  const [dock, setDock] = usePreference("raytape-events", readDockPrefs);
  const [focus, setFocus] = useState<Focus | null>(null);
  const [picked, setPicked] = useState<string | null>(null);
  const anomalies = useAnomalies();
  useSubscriptions(symbol);
  useWarmUp(symbols ?? NONE);

  const show = useCallback(
    (of: string, timeS: number) => {
      const ageS = (store.clock.now(Date.now()) ?? timeS * 1000) / 1000 - timeS;
      const window = narrowestWindow(ageS, DEEP_HISTORY, prefs.window);
      choose(of);
      if (window !== prefs.window) setPrefs({ ...prefs, window });
      setFocus({ symbol: of, timeS });
    },
    [store, choose, prefs, setPrefs],
  );
  const showAnomaly = useCallback(
    (anomaly: Anomaly) => {
      setPicked(anomalyId(anomaly));
      show(anomaly.symbol, anomalyTime(anomaly));
    },
    [show],
  );
  const pick = useCallback(
    (id: string) => {
      setPicked(id);
      setDock({ ...dock, open: true, tab: "anomalies" });
    },
    [dock, setDock],
  );

  return (
    <div className="flex min-h-dvh flex-col gap-px bg-line lg:h-dvh">
      <Header />
      <main className="grid min-h-0 flex-1 grid-cols-[minmax(0,1fr)] content-start gap-px lg:grid-cols-[252px_minmax(0,1fr)_296px] lg:grid-rows-[minmax(0,1fr)_auto]">
        <div className="min-h-0 min-w-0 bg-surface lg:row-span-2 lg:flex">
          <WatchList symbols={symbols} selected={symbol} onSelect={choose} />
        </div>
        <section
          aria-label="Chart"
          className="flex min-h-0 min-w-0 flex-col bg-surface max-lg:h-[560px]"
        >
          {symbol && (
            <>
              <ChartHeader symbol={symbol} prefs={prefs} onPrefs={setPrefs} />
              <PriceChart
                symbol={symbol}
                window={prefs.window}
                studies={prefs.studies}
                anomalies={anomalies ?? NO_ANOMALIES}
                focus={focus}
                onPick={pick}
              />
            </>
          )}
        </section>
        <aside
          aria-label="Decision"
          className="flex min-h-0 flex-col gap-px overflow-y-auto lg:row-span-2 lg:[&>:last-child]:flex-1"
        >
          {symbol && (
            <>
              <SignalCard key={symbol} symbol={symbol} />
              <QuotePanel symbol={symbol} />
              <Insight symbol={symbol} />
            </>
          )}
        </aside>
        <Dock
          symbol={symbol}
          anomalies={anomalies}
          picked={picked}
          onPick={showAnomaly}
          onFill={(fill) => show(fill.symbol, fillTime(fill))}
          prefs={dock}
          onPrefs={setDock}
        />
      </main>
      <footer className="grid gap-px xl:grid-cols-[minmax(0,1fr)_auto]">
        <LedgerBar />
        <Pipeline />
      </footer>
    </div>
  );
}
