"use client";

import type { StreamState } from "@/lib/api/stream";
import { cn } from "@/lib/cn";
import { useStream } from "@/lib/market/hooks";

const LOOK: Record<StreamState, { label: string; dot: string }> = {
  connecting: { label: "Connecting", dot: "bg-warn animate-pulse" },
  live: { label: "Connected", dot: "bg-up" },
  reconnecting: { label: "Reconnecting", dot: "bg-down animate-pulse" },
  stopped: { label: "Stopped", dot: "bg-muted" },
};

export function Connection() {
  const { state, reconnects } = useStream();
  const { label, dot } = LOOK[state];
  return (
    <div className="flex items-center gap-2 whitespace-nowrap text-xs" aria-live="polite">
      <span aria-hidden className={cn("size-2 rounded-full", dot)} />
      <span data-testid="connection-state" data-state={state}>
        {label}
      </span>
      {reconnects > 0 && (
        <span
          className="text-muted max-sm:hidden"
          title={`The stream was lost and regained ${reconnects} times`}
        >
          {reconnects === 1 ? "1 reconnect" : `${reconnects} reconnects`}
        </span>
      )}
    </div>
  );
}
