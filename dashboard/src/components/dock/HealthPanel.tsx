"use client";

import { Skeleton } from "@/components/ui/skeleton";
import type { Alert } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { age, sentence } from "@/lib/format";
import { healthOf, type Level, standing } from "@/lib/market/health";
import { useNow, useSystem } from "@/lib/market/hooks";
import { Severity } from "./severity";

const DOT: Record<Level, string> = { good: "bg-up", coming: "bg-warn", bad: "bg-down" };
const TEXT: Record<Level, string> = { good: "text-text", coming: "text-warn", bad: "text-down" };
/** Alerts that are over, shown below those that stand. */
const OVER = 20;

/** How the parts fare, what is wrong now, and what was. */
export function HealthPanel({ alerts }: { alerts: readonly Alert[] | null }) {
  const system = useSystem();
  const wall = useNow(1000);
  if (!system) return <Skeleton className="mx-4 my-2 h-24" />;
  const { now, over } = standing(alerts ?? []);
  return (
    <div
      className="grid gap-x-8 gap-y-4 px-4 pt-2 pb-3 @2xl:grid-cols-[2fr_3fr]"
      data-testid="health"
    >
      <section aria-label="Parts">
        <h3 className="mb-1 font-medium text-xs">Parts</h3>
        <ul>
          {healthOf(system).map(({ name, state, level, detail }) => (
            <li key={name} className="flex items-baseline gap-2 py-0.5 text-xs">
              <span aria-hidden className={cn("size-1.5 shrink-0 rounded-full", DOT[level])} />
              <span className="text-muted">{name}</span>
              <span className={cn("ml-auto text-right", TEXT[level])}>
                {state}
                {detail && <span className="block max-w-72 text-muted">{detail}</span>}
              </span>
            </li>
          ))}
        </ul>
      </section>
      <section aria-label="Alerts">
        <h3 className="mb-1 font-medium text-xs">Alerts</h3>
        {!alerts && <Skeleton className="h-4 w-40" />}
        {alerts && now.length === 0 && (
          <p className="py-0.5 text-muted text-xs">
            {over.length ? "None stands now." : "None stands, and none has been."}
          </p>
        )}
        <ul>
          {[...now, ...over.slice(0, OVER)].map((alert) => (
            <AlertRow key={alert.id} alert={alert} wall={wall} />
          ))}
        </ul>
      </section>
    </div>
  );
}

function AlertRow({ alert, wall }: { alert: Alert; wall: number | null }) {
  const { name, severity, symbol, detail, began_at, ended_at } = alert;
  const [begun, ended] = [Date.parse(began_at), ended_at ? Date.parse(ended_at) : wall];
  const lasted = age(ended === null ? null : ended - begun);
  return (
    <li
      className={cn(
        "mb-1 rounded-md px-2.5 py-1.5 text-xs",
        ended_at === null
          ? severity === "critical"
            ? "bg-down/10"
            : "bg-warn/10"
          : "bg-raised/60",
      )}
    >
      <span className="flex flex-wrap items-center gap-x-3">
        <Severity severity={severity} />
        <span className="font-medium">{sentence(name)}</span>
        {symbol !== "*" && <span>{symbol}</span>}
        <span className="ml-auto whitespace-nowrap text-muted">
          {ended_at === null ? `for ${lasted}` : `over, after ${lasted}`}
        </span>
      </span>
      <span className="block text-muted">{detail}</span>
    </li>
  );
}
