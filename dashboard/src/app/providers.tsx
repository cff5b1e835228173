"use client";

import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { Toaster } from "@/components/ui/toaster";
import { ApiError } from "@/lib/api/client";
import { MarketProvider } from "@/lib/market/context";
import { ToastStore } from "@/lib/toasts";

function queryClient(toasts: ToastStore): QueryClient {
  return new QueryClient({
    queryCache: new QueryCache({
      onError: (error, query) => {
        const title = query.meta?.failure ?? "A request failed";
        toasts.show(String(query.queryKey[0]), String(title), error.message);
      },
      onSuccess: (_, query) => toasts.dismiss(String(query.queryKey[0])),
    }),
    defaultOptions: {
      queries: {
        staleTime: 30_000,
        refetchOnWindowFocus: false,
        // What the gateway refuses (4xx) it refuses again.
        retry: (tries, error) =>
          tries < 2 && !(error instanceof ApiError && error.status in REFUSALS),
      },
    },
  });
}

const REFUSALS: Record<number, true> = { 400: true, 401: true, 403: true, 404: true, 422: true };

export function Providers({ children }: { children: ReactNode }) {
  const [toasts] = useState(() => new ToastStore());
  const [client] = useState(() => queryClient(toasts));
  return (
    <QueryClientProvider client={client}>
      <MarketProvider toasts={toasts}>
        {children}
        <Toaster store={toasts} />
      </MarketProvider>
    </QueryClientProvider>
  );
}
