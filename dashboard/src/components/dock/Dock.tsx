"use client";

import { Button } from "@/components/ui/button";
import { ChevronIcon } from "@/components/ui/icons";
import { type Tab, Tabs } from "@/components/ui/tabs";
import type { Anomaly } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { alarmsOf, healthOf } from "@/lib/market/health";
import { useSystem } from "@/lib/market/hooks";
import { AnomalyList } from "./AnomalyList";
import { HealthPanel } from "./HealthPanel";
import { LedgerStages } from "./LedgerStages";
import type { DockPrefs, DockTab } from "./prefs";

interface Props {
  symbol: string | null;
  anomalies: readonly Anomaly[] | null;
  picked: string | null;
  onPick: (anomaly: Anomaly) => void;
  prefs: DockPrefs;
  onPrefs: (prefs: DockPrefs) => void;
}

/** What happens around the chart: anomalies, the ledger by stage, health. */
export function Dock({ symbol, anomalies, picked, onPick, prefs, onPrefs }: Props) {
  const { open, tab, onlySymbol } = prefs;
  const shown = onlySymbol ? (anomalies?.filter((a) => a.symbol === symbol) ?? null) : anomalies;
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
        tabs={useTabs(anomalies)}
        value={tab}
        onChange={(id) => onPrefs({ ...prefs, open: true, tab: id as DockTab })}
        className={cn(
          "@container min-h-0 flex-1 overflow-y-auto max-lg:max-h-80",
          !open && "hidden",
        )}
        aside={
          <div className="flex shrink-0 items-center gap-1">
            {open && tab === "anomalies" && symbol && (
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
          <AnomalyList anomalies={shown} picked={picked} onPick={onPick} />
        )}
        {open && tab === "ledger" && <LedgerStages />}
        {open && tab === "health" && <HealthPanel />}
      </Tabs>
    </section>
  );
}

function useTabs(anomalies: readonly Anomaly[] | null): Tab[] {
  const system = useSystem();
  const alarms = system ? alarmsOf(system).length : 0;
  const bad = system ? healthOf(system).filter(({ level }) => level === "bad").length : 0;
  return [
    { id: "anomalies", label: "Anomalies", note: <Count n={anomalies?.length ?? 0} /> },
    { id: "ledger", label: "Ledger" },
    { id: "health", label: "Health", note: <Count n={alarms + bad} bad /> },
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
