"use client";

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useState, useSyncExternalStore } from "react";
import {
  askSignal,
  getAlerts,
  getAnomalies,
  getBars,
  getFills,
  getGaps,
  getIndicators,
  getLedger,
  getSignals,
  getStats,
  getSymbols,
  getSystem,
} from "@/lib/api/client";
import type { StreamStatus, Subscription } from "@/lib/api/stream";
import type { BarWindow, GapRow, SystemData } from "@/lib/api/types";
import { useMarket } from "./context";
import type { EventKind } from "./events";
import type { MarketStore, SymbolView } from "./store";

/** Bars that are loaded of a symbol at first. */
export const HISTORY = 500;
/** Bars that are loaded when somebody looks further back. */
export const DEEP_HISTORY = 3000;
const EVENTS = 200;
const GAPS = 1000;
/** A day that runs is counted by the platform: the minutes held here may not reach its morning. */
const DAY_POLL_MS = 30_000;
const NO_GAPS: readonly GapRow[] = [];
const SIGNAL_POLL_MS = 1000;

export function useSymbolView(symbol: string): SymbolView {
  const { store } = useMarket();
  const on = useCallback((listener: () => void) => store.on(symbol, listener), [store, symbol]);
  const get = useCallback(() => store.view(symbol), [store, symbol]);
  return useSyncExternalStore(on, get, get);
}

export function useSystem(): SystemData | null {
  const { store } = useMarket();
  const on = useCallback((listener: () => void) => store.on("$system", listener), [store]);
  return useSyncExternalStore(on, store.system, () => null);
}

export function useStream(): StreamStatus {
  const { store } = useMarket();
  const on = useCallback((listener: () => void) => store.on("$stream", listener), [store]);
  return useSyncExternalStore(on, store.stream, store.stream);
}

/** Renders again every `ms`, with the wall time; for ages and clocks. Null before the first. */
export function useNow(ms: number): number | null {
  const [now, setNow] = useState<number | null>(null);
  useEffect(() => {
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), ms);
    return () => clearInterval(timer);
  }, [ms]);
  return now;
}

export function useSymbols() {
  return useQuery({
    queryKey: ["symbols"],
    queryFn: ({ signal }) => getSymbols(signal),
    staleTime: Number.POSITIVE_INFINITY,
    meta: { failure: "The list of symbols could not be loaded" },
  });
}

/** Subscribes the stream: the whole list for prices, the chosen symbol for its details. */
export function useSubscriptions(symbol: string | null): void {
  const { stream } = useMarket();
  useEffect(() => {
    const wanted: Subscription[] = [
      { channels: ["system", "alerts"], symbols: ["*"] },
      { channels: ["trades", "bars", "signals", "anomalies", "fills"], symbols: ["*"] },
    ];
    if (symbol) {
      const channels = ["quotes", "features", "provisional", "stats", "rollups"] as const;
      wanted.push({ channels, symbols: [symbol] });
    }
    stream.subscribe(wanted);
  }, [stream, symbol]);
}

/** History of a symbol's bars, oldest first; 1-minute bars go into the store as well. */
export function useBarHistory(symbol: string, window: BarWindow, deep: boolean) {
  const { store } = useMarket();
  return useQuery({
    queryKey: ["bars", symbol, window, deep],
    queryFn: async ({ signal }) => {
      const bars = await getBars(symbol, window, deep ? DEEP_HISTORY : HISTORY, signal);
      if (window === "1m") store.addBars(symbol, bars);
      return bars;
    },
    // While older bars are loaded, those that are there stay.
    placeholderData: (before, query) =>
      query?.queryKey[1] === symbol && query.queryKey[2] === window ? before : undefined,
    // The store is kept up by the stream; a symbol that is chosen again is read again.
    staleTime: 0,
    gcTime: 60_000,
    refetchInterval: window === "1d" ? DAY_POLL_MS : false,
    meta: { failure: `The bars of ${symbol} could not be loaded` },
  });
}

/** Loads the indicators of a symbol's minute bars into the store. */
export function useIndicatorHistory(symbol: string): void {
  const { store } = useMarket();
  useQuery({
    queryKey: ["indicators", symbol],
    queryFn: async ({ signal }) => {
      const rows = await getIndicators(symbol, HISTORY, signal);
      store.addIndicators(symbol, rows);
      return rows.length;
    },
    gcTime: 60_000,
    meta: { failure: `The indicators of ${symbol} could not be loaded` },
  });
}

/** Loads the newest statistics of a symbol into the store. */
export function useStatsHistory(symbol: string) {
  const { store } = useMarket();
  return useQuery({
    queryKey: ["stats", symbol],
    queryFn: async ({ signal }) => {
      const stats = await getStats(symbol, signal);
      if (stats) store.setStats(symbol, stats);
      return stats !== null;
    },
    gcTime: 60_000,
    meta: { failure: `The statistics of ${symbol} could not be loaded` },
  });
}

const LOAD = { anomalies: getAnomalies, fills: getFills, alerts: getAlerts };

/** Events of a kind, of all symbols, newest first; null until they are known. */
function useEvents<K extends EventKind>(kind: K): ReturnType<MarketStore[K]> | null {
  const { store } = useMarket();
  const { isPending } = useQuery({
    queryKey: [kind],
    queryFn: async ({ signal }) => {
      const found = await LOAD[kind](EVENTS, signal);
      store.addEvents(kind, found as never);
      return found.length;
    },
    meta: { failure: `The ${kind} could not be loaded` },
  });
  const on = useCallback((listener: () => void) => store.on(`$${kind}`, listener), [store, kind]);
  const get = store[kind] as () => ReturnType<MarketStore[K]>;
  const found = useSyncExternalStore(on, get, get);
  return isPending && found.length === 0 ? null : found;
}

export const useAnomalies = () => useEvents("anomalies");
export const useFills = () => useEvents("fills");
export const useAlerts = () => useEvents("alerts");

/** Declared interruptions of all symbols; read again when the ledger counts another. */
export function useGaps(): readonly GapRow[] {
  const declared = useSystem()?.ledger?.gaps ?? 0;
  const { data } = useQuery({
    queryKey: ["gaps", declared],
    queryFn: ({ signal }) => getGaps(GAPS, signal),
    placeholderData: (before) => before,
    gcTime: 0,
    meta: { failure: "The gaps could not be loaded" },
  });
  return data ?? NO_GAPS;
}

/** Grows when the market's time went back, and what was known is of another run. */
export function useRun(): number {
  const { store } = useMarket();
  const on = useCallback((listener: () => void) => store.on("$run", listener), [store]);
  return useSyncExternalStore(on, store.run, () => 0);
}

/** Loads the minute bars of every symbol, two at a time, for sparklines and session changes. */
export function useWarmUp(symbols: readonly string[]): void {
  const { store } = useMarket();
  const client = useQueryClient();
  useEffect(() => {
    const queue = [...symbols];
    let stopped = false;
    const worker = async () => {
      for (let next = queue.shift(); next && !stopped; next = queue.shift()) {
        const symbol = next;
        await client.prefetchQuery({
          queryKey: ["warm", symbol],
          queryFn: async ({ signal }) => {
            const bars = await getBars(symbol, "1m", HISTORY, signal);
            store.addBars(symbol, bars);
            return bars.length;
          },
        });
      }
    };
    void worker();
    void worker();
    return () => {
      stopped = true;
    };
  }, [client, store, symbols]);
}

export function useSignalHistory(symbol: string): void {
  const { store } = useMarket();
  useQuery({
    queryKey: ["signals", symbol],
    queryFn: async ({ signal }) => {
      const signals = await getSignals(symbol, 200, signal);
      store.addSignals(symbol, signals);
      return signals.length;
    },
    meta: { failure: `The signals of ${symbol} could not be loaded` },
  });
}

/** What the policy says of a symbol now: asked each second, and at once on a new signal. */
export function useSignal(symbol: string) {
  const { store } = useMarket();
  const query = useQuery({
    queryKey: ["signal", symbol],
    queryFn: ({ signal }) => askSignal(symbol, signal),
    refetchInterval: ({ state }) => (state.status === "error" ? 5 : 1) * SIGNAL_POLL_MS,
    staleTime: 0,
    meta: { failure: "The policy does not answer" },
  });
  const { refetch } = query;
  useEffect(() => store.on(`signals:${symbol}`, () => void refetch()), [store, symbol, refetch]);
  return query;
}

/** Reads ledger and links over REST once, and the ledger again while the stream is away. */
export function useSystemFallback() {
  const { store } = useMarket();
  const live = useStream().state === "live";
  useQuery({
    queryKey: ["ledger"],
    queryFn: async ({ signal }) => {
      const ledger = await getLedger(signal);
      store.setLedger(ledger);
      return ledger;
    },
    refetchInterval: live ? false : 5000,
    meta: { failure: "The ledger could not be loaded" },
  });
  return useQuery({
    queryKey: ["system"],
    queryFn: ({ signal }) => getSystem(signal),
    meta: { failure: "The platform's state could not be loaded" },
  });
}
