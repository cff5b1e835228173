"use client";

import { useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useState } from "react";
import { type Socket, StreamClient } from "@/lib/api/stream";
import type { ToastStore } from "@/lib/toasts";
import { MarketStore } from "./store";

interface Market {
  store: MarketStore;
  stream: StreamClient;
}

const MarketContext = createContext<Market | null>(null);

/** The screen hears of ticks ten times a second, in step with its frames. */
const FLUSH_MS = 100;

function schedule(flush: () => void): void {
  setTimeout(() => (document.hidden ? flush() : requestAnimationFrame(flush)), FLUSH_MS);
}

function connect(): Socket {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return new WebSocket(`${scheme}://${location.host}/v1/stream`) as unknown as Socket;
}

export function MarketProvider({ children, toasts }: { children: ReactNode; toasts: ToastStore }) {
  const client = useQueryClient();
  const [market] = useState<Market>(() => {
    const store = new MarketStore(schedule);
    const stream = new StreamClient({
      connect,
      onUpdate: (update, snapshot) => store.apply(update, snapshot),
      onStatus: (status) => store.setStream(status),
      onError: (code, message) =>
        toasts.show(`stream:${code}`, "The stream reports an error", message),
      onResumed: () => void client.invalidateQueries(),
    });
    return { store, stream };
  });

  useEffect(() => {
    const { store, stream } = market;
    // Another run of the market: whatever was loaded is of a time that has not come yet.
    const offRun = store.on("$run", () => void client.resetQueries());
    const hurry = () => stream.hurry();
    stream.start();
    addEventListener("online", hurry);
    document.addEventListener("visibilitychange", hurry);
    return () => {
      removeEventListener("online", hurry);
      document.removeEventListener("visibilitychange", hurry);
      stream.stop();
      offRun();
    };
  }, [client, market]);

  return <MarketContext value={market}>{children}</MarketContext>;
}

export function useMarket(): Market {
  const market = useContext(MarketContext);
  if (!market) throw new Error("useMarket needs a MarketProvider above it");
  return market;
}
