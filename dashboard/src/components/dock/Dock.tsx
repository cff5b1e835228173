"use client";

import { Button } from "@/components/ui/button";
import { ChevronIcon } from "@/components/ui/icons";
import { type Tab, Tabs } from "@/components/ui/tabs";
import type { Alert, Anomaly, Fill } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { healthOf, standing } from "@/lib/market/health";
import { useAlerts, useFills, useSystem } from "@/lib/market/hooks";
import { AnomalyList } from "./AnomalyList";
import { FillList } from "./FillList";
import { HealthPanel } from "./HealthPanel";
import { LedgerStages } from "./LedgerStages";
import type { DockPrefs, DockTab } from "./prefs";

interface Props {
  symbol: string | null;
  anomalies: readonly Anomaly[] | null;
  picked: string | null;
  onPick: (anomaly: Anomaly) => void;
  onFill: (fill: Fill) => void;
  prefs: DockPrefs;
  onPrefs: (prefs: DockPrefs) => void;
}

/** What happens around the chart: anomalies, paper fills, the ledger by stage, health. */
export function Dock({ symbol, anomalies, picked, onPick, onFill, prefs, onPrefs }: Props) {
  const { open, tab, onlySymbol } = prefs;
  const [fills, alerts] = [useFills(), useAlerts()];
  const mine = <E extends { symbol: string }>(events: readonly E[] | null) =>
    onlySymbol ? (events?.filter((event) => event.symbol === symbol) ?? null) : events;
  return (
    <section
      aria-label="Events"
      className={cn(
        "flex min-h-0 flex-col bg-surface",
        open && "h-[clamp(150px,24vh,216px)] max-lg:h-auto",
      )}
    >
      <Tabs
        label="Events"
        tabs={useTabs(anomalies, alerts)}
        value={tab}
        onChange={(id) => onPrefs({ ...prefs, open: true, tab: id as DockTab })}
        className={cn(
          "@container min-h-0 flex-1 overflow-y-auto max-lg:max-h-80",
          !open && "hidden",
        )}
        aside={
          <div className="flex shrink-0 items-center gap-1">
            {open && (tab === "anomalies" || tab === "fills") && symbol && (
              <Button
                size="sm"
                aria-pressed={onlySymbol}
                className="aria-pressed:bg-raised aria-pressed:text-text max-lg:h-8"
                onClick={() => onPrefs({ ...prefs, onlySymbol: !onlySymbol })}
              >
                {symbol} only
              </Button>
            )}
            <Button
              size="icon"
              className={cn("-mr-2", open || "rotate-180")}
              aria-label={open ? "Close the panel of events" : "Open the panel of events"}
              aria-expanded={open}
              onClick={() => onPrefs({ ...prefs, open: !open })}
            >
              <ChevronIcon />
            </Button>
          </div>
        }
      >
        {open && tab === "anomalies" && (
          <AnomalyList anomalies={mine(anomalies)} picked={picked} onPick={onPick} />
        )}
        {open && tab === "fills" && <FillList fills={mine(fills)} onPick={onFill} />}
        {open && tab === "ledger" && <LedgerStages />}
        {open && tab === "health" && <HealthPanel alerts={alerts} />}
      </Tabs>
    </section>
  );
}

function useTabs(anomalies: readonly Anomaly[] | null, alerts: readonly Alert[] | null): Tab[] {
  const system = useSystem();
  const wrong = standing(alerts ?? []).now.length;
  const bad = system ? healthOf(system).filter(({ level }) => level === "bad").length : 0;
  return [
    { id: "anomalies", label: "Anomalies", note: <Count n={anomalies?.length ?? 0} /> },
    { id: "fills", label: "Fills" },
    { id: "ledger", label: "Ledger" },
    { id: "health", label: "Health", note: <Count n={wrong + bad} bad /> },
  ];
}

function Count({ n, bad = false }: { n: number; bad?: boolean }) {
  if (n === 0) return null;
  return (
    <span
      className={cn(
        "rounded bg-raised px-1 text-2xs text-muted leading-4",
        bad && "bg-down/12 text-down",
      )}
    >
      {n}
    </span>
  );
}
