"use client";

import { Skeleton } from "@/components/ui/skeleton";
import type { Ledger } from "@/lib/api/types";
import { count } from "@/lib/format";
import { useStream, useSystem } from "@/lib/market/hooks";
import { Stat } from "./Stat";
import { VerdictBadge } from "./VerdictBadge";

/** Where every received message is: the promise of the platform, in numbers. */
export function LedgerBar() {
  const ledger = useSystem()?.ledger;
  const live = useStream().state === "live";
  return (
    <section
      aria-label="Ledger"
      className="flex flex-col gap-2.5 bg-surface px-4 py-3 lg:flex-row lg:items-center lg:gap-7"
    >
      {ledger ? <VerdictBadge ledger={ledger} live={live} /> : <Skeleton className="h-9 w-52" />}
      <dl className="grid grid-cols-4 gap-x-4 gap-y-2.5 lg:flex lg:gap-7">
        <Stat label="Received" testId="ledger-received" value={show(ledger, "received")} />
        <Stat label="Stored" testId="ledger-stored" value={show(ledger, "stored")} />
        <Stat label="In flight" testId="ledger-in-flight" value={show(ledger, "in_flight")} />
        <Stat
          label="Lost"
          testId="ledger-lost"
          value={show(ledger, "lost")}
          tone={ledger?.lost ? "text-down" : undefined}
        />
        <Stat label="Duplicates" testId="ledger-duplicates" value={show(ledger, "duplicates")} />
        <Stat label="Quarantined" testId="ledger-quarantined" value={show(ledger, "quarantined")} />
        <Stat
          label="Gaps"
          testId="ledger-gaps"
          value={show(ledger, "gaps")}
          title="Intervals that were missed while disconnected, each declared"
        />
      </dl>
    </section>
  );
}

function show(
  ledger: Ledger | null | undefined,
  key: keyof Omit<Ledger, "as_of" | "balance" | "stages">,
): string | null {
  return ledger ? count(ledger[key]) : null;
}
