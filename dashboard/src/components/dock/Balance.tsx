import type { Ledger } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { count } from "@/lib/format";
import { balanceOf, type Part } from "@/lib/market/stages";

const FILL: Record<Part["tone"], string> = {
  up: "bg-up",
  accent: "bg-accent",
  warn: "bg-warn",
  down: "bg-down",
};

/** Where all that was received is, as a bar and as a sum. */
export function Balance({ ledger }: { ledger: Ledger }) {
  const balance = balanceOf(ledger);
  if (!balance)
    return (
      <p className="px-4 pt-2 pb-1.5 text-muted text-xs">
        No balance: a stage does not answer, so that nobody knows where every message is.
      </p>
    );
  const { received, parts, balanced } = balance;
  return (
    <div className="px-4 pt-2 pb-2" data-testid="ledger-balance" data-balanced={balanced}>
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
        <span className="text-muted">=</span>
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
