"use client";

import { useState } from "react";
import { Tabs } from "@/components/ui/tabs";
import { FeaturePanel } from "./FeaturePanel";
import { StatsPanel } from "./StatsPanel";

const TABS = [
  { id: "features", label: "What the policy sees" },
  { id: "stats", label: "Statistics" },
];

/** What lies behind a symbol's price: the policy's inputs, or the session's statistics. */
export function Insight({ symbol }: { symbol: string }) {
  const [tab, setTab] = useState("features");
  return (
    <section aria-label="Behind the price" className="bg-surface">
      <Tabs
        label="Behind the price"
        tabs={TABS}
        value={tab}
        onChange={setTab}
        className="px-4 pt-1.5 pb-3"
      >
        {tab === "features" ? <FeaturePanel symbol={symbol} /> : <StatsPanel symbol={symbol} />}
      </Tabs>
    </section>
  );
}
