"use client";

import { useState } from "react";
import { ChartHeader } from "@/components/chart/ChartHeader";
import { PriceChart } from "@/components/chart/PriceChart";
import { Header } from "@/components/header/Header";
import { LedgerBar } from "@/components/ledger/LedgerBar";
import { Pipeline } from "@/components/ledger/Pipeline";
import { FeaturePanel } from "@/components/signal/FeaturePanel";
import { QuotePanel } from "@/components/signal/QuotePanel";
import { SignalCard } from "@/components/signal/SignalCard";
import { WatchList } from "@/components/watchlist/WatchList";
import type { BarWindow } from "@/lib/api/types";
import { useSubscriptions, useSymbols, useWarmUp } from "@/lib/market/hooks";
import { useChosenSymbol } from "@/lib/market/useChosenSymbol";

const NONE: readonly string[] = [];

/** The whole screen. Wide: three columns that fill the window; narrow: one that scrolls. */
export function Terminal() {
  const symbols = useSymbols().data;
  const [symbol, choose] = useChosenSymbol(symbols);
  const [window, setWindow] = useState<BarWindow>("1m");
  useSubscriptions(symbol);
  useWarmUp(symbols ?? NONE);
  return (
    <div className="flex min-h-dvh flex-col gap-px bg-line lg:h-dvh">
      <Header />
      <main className="grid min-h-0 flex-1 grid-cols-[minmax(0,1fr)] content-start gap-px lg:grid-cols-[252px_minmax(0,1fr)_296px] lg:grid-rows-[minmax(0,1fr)]">
        <WatchList symbols={symbols} selected={symbol} onSelect={choose} />
        <section
          aria-label="Chart"
          className="flex min-h-0 min-w-0 flex-col bg-surface max-lg:h-[440px]"
        >
          {symbol && (
            <>
              <ChartHeader symbol={symbol} window={window} onWindow={setWindow} />
              <PriceChart symbol={symbol} window={window} />
            </>
          )}
        </section>
        <aside
          aria-label="Decision"
          className="flex min-h-0 flex-col gap-px overflow-y-auto lg:[&>:last-child]:flex-1"
        >
          {symbol && (
            <>
              <SignalCard key={symbol} symbol={symbol} />
              <QuotePanel symbol={symbol} />
              <FeaturePanel symbol={symbol} />
            </>
          )}
        </aside>
      </main>
      <footer className="grid gap-px xl:grid-cols-[minmax(0,1fr)_auto]">
        <LedgerBar />
        <Pipeline />
      </footer>
    </div>
  );
}
