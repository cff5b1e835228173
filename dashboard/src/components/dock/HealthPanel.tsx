"use client";

import { Skeleton } from "@/components/ui/skeleton";
import type { Alarm } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { age, sentence } from "@/lib/format";
import { alarmsOf, healthOf, type Level } from "@/lib/market/health";
import { useNow, useSystem } from "@/lib/market/hooks";

const DOT: Record<Level, string> = { good: "bg-up", coming: "bg-warn", bad: "bg-down" };
const TEXT: Record<Level, string> = { good: "text-text", coming: "text-warn", bad: "text-down" };

/** How the parts fare, and what is wrong now though they go on. */
export function HealthPanel() {
  const system = useSystem();
  const now = useNow(1000);
  if (!system) return <Skeleton className="mx-4 my-2 h-24" />;
  const alarms = alarmsOf(system);
  return (
    <div className="grid gap-x-8 gap-y-4 px-4 pt-2 pb-3 @2xl:grid-cols-2" data-testid="health">
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
      <section aria-label="Alarms">
        <h3 className="mb-1 font-medium text-xs">Alarms</h3>
        {alarms.length === 0 && <p className="py-0.5 text-muted text-xs">No alarm is on.</p>}
        <ul>
          {alarms.map((alarm) => (
            <AlarmRow key={`${alarm.alarm} ${alarm.since_wall_ns}`} alarm={alarm} now={now} />
          ))}
        </ul>
      </section>
    </div>
  );
}

function AlarmRow({ alarm, now }: { alarm: Alarm; now: number | null }) {
  const since = now === null ? null : now - alarm.since_wall_ns / 1e6;
  return (
    <li className="mb-1 rounded-md bg-down/10 px-2.5 py-1.5 text-xs">
      <span className="flex justify-between gap-3">
        <span className="font-medium text-down">{sentence(alarm.alarm)}</span>
        <span className="whitespace-nowrap text-muted">for {age(since)}</span>
      </span>
      {alarm.detail}
    </li>
  );
}
