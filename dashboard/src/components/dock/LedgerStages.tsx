"use client";

import { Skeleton } from "@/components/ui/skeleton";
import { cn } from "@/lib/cn";
import { count } from "@/lib/format";
import { useSystem } from "@/lib/market/hooks";
import { balanceOf, type Part, type Stage, stagesOf } from "@/lib/market/stages";

const FILL: Record<Part["tone"], string> = {
  up: "bg-up",
  accent: "bg-accent",
  warn: "bg-warn",
  down: "bg-down",
};

/** The ledger stage by stage, and the balance that it promises. */
export function LedgerStages() {
  const ledger = useSystem()?.ledger;
  if (!ledger) return <Skeleton className="mx-4 my-2 h-24" />;
  return (
    <div
      className="grid gap-x-6 gap-y-4 px-4 pt-2 pb-3 @2xl:grid-cols-[7fr_6.5fr_6fr]"
      data-testid="ledger-stages"
    >
      <Balance balance={balanceOf(ledger)} />
      {stagesOf(ledger).map((stage) => (
        <StageNumbers key={stage.name} stage={stage} />
      ))}
    </div>
  );
}

function Balance({ balance }: { balance: ReturnType<typeof balanceOf> }) {
  if (!balance)
    return (
      <p className="text-muted text-xs @2xl:col-span-3">
        No balance: a stage does not answer, so that nobody knows where every message is.
      </p>
    );
  const { received, parts, balanced } = balance;
  return (
    <div className="@2xl:col-span-3" data-testid="ledger-balance" data-balanced={balanced}>
      <div aria-hidden className="flex h-1.5 gap-px overflow-hidden rounded-full bg-raised">
        {parts.map(({ label, value, tone }) => (
          <span
            key={label}
            className={FILL[tone]}
            style={{ width: `${received ? (Math.abs(value) / received) * 100 : 0}%` }}
          />
        ))}
      </div>
      <p className="mt-1.5 flex flex-wrap gap-x-2 text-xs">
        <span>{count(received)} received</span>
        <span className="text-muted">{balanced ? "=" : "≠"}</span>
        {parts.map(({ label, value, tone }, at) => (
          <span key={label} className="flex items-center gap-1.5">
            {at > 0 && <span className="text-muted">+</span>}
            <span aria-hidden className={cn("size-1.5 rounded-full", FILL[tone])} />
            {count(value)} <span className="text-muted">{label.toLowerCase()}</span>
          </span>
        ))}
      </p>
    </div>
  );
}

function StageNumbers({ stage }: { stage: Stage }) {
  return (
    <section aria-label={stage.name}>
      <h3 className="mb-1 text-xs">
        <span className="font-medium">{stage.name}</span>
        <span className="text-muted">, {stage.about}</span>
      </h3>
      {stage.rows ? (
        <dl className="grid grid-cols-2 gap-x-4">
          {stage.rows.map(({ label, value, bad, title }) => (
            <div key={label} title={title} className="flex justify-between gap-2 py-0.5 text-xs">
              <dt className="truncate text-muted">{label}</dt>
              <dd className={cn(bad && value ? "font-medium text-down" : undefined)}>
                {count(value)}
              </dd>
            </div>
          ))}
        </dl>
      ) : (
        <p className="text-down text-xs">Does not answer</p>
      )}
    </section>
  );
}
