"use client";

import { walkRows } from "@/components/ui/rows";
import { Skeleton } from "@/components/ui/skeleton";
import type { Fill } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { compact, dayNY, minuteNY, price } from "@/lib/format";
import { fillCost, fillId, fillTime } from "@/lib/market/events";

interface Props {
  /** Newest first; null while they are loaded. */
  fills: readonly Fill[] | null;
  onPick: (fill: Fill) => void;
}

const SHOWN = 100;
const HEAD = "whitespace-nowrap px-2 pb-0.5 text-right font-normal first:pl-4 last:pr-4";
const CELL = "whitespace-nowrap px-2 py-1 text-right max-lg:py-2 last:pr-4";

/** The paper account's trades, newest first; a press takes the chart there. */
export function FillList({ fills, onPick }: Props) {
  if (!fills) return <Skeleton className="mx-4 my-2 h-24" />;
  if (fills.length === 0)
    return (
      <p className="px-4 py-3 text-muted text-xs">
        No paper fill yet. A signal that changes the position fills at the next bar's open.
      </p>
    );
  return (
    <table className="w-full text-xs" data-testid="fills">
      <thead className="sticky top-0 bg-surface text-2xs text-muted">
        <tr>
          <th scope="col" className={cn(HEAD, "text-left")}>
            Minute
          </th>
          <th scope="col" className={cn(HEAD, "text-left")}>
            Symbol
          </th>
          <th scope="col" className={cn(HEAD, "text-left")}>
            Side
          </th>
          <th scope="col" className={cn(HEAD, "text-left @max-2xl:hidden")}>
            Model
          </th>
          <th scope="col" className={HEAD}>
            Shares
          </th>
          <th scope="col" className={HEAD}>
            Price
          </th>
          <th scope="col" className={cn(HEAD, "@max-lg:hidden")}>
            Notional
          </th>
          <th scope="col" className={HEAD} title="Commission, half the spread, slippage">
            Cost
          </th>
        </tr>
      </thead>
      <tbody onKeyDown={walkRows}>
        {fills.slice(0, SHOWN).map((fill, at) => (
          <FillRow key={fillId(fill)} fill={fill} first={at === 0} onPick={onPick} />
        ))}
      </tbody>
    </table>
  );
}

interface RowProps {
  fill: Fill;
  first: boolean;
  onPick: (fill: Fill) => void;
}

function FillRow({ fill, first, onPick }: RowProps) {
  const { symbol, side, shares, notional, model } = fill;
  const ms = fillTime(fill) * 1000;
  return (
    <tr className="relative hover:bg-raised/60">
      <td className={cn(CELL, "pl-4 text-left")}>
        <button
          type="button"
          data-row
          tabIndex={first ? 0 : -1}
          onClick={() => onPick(fill)}
          aria-label={`Show the fill of ${symbol} at ${minuteNY(ms)} on the chart`}
          className="text-muted after:absolute after:inset-0"
        >
          <span className="@max-lg:hidden">{dayNY(ms)}, </span>
          {minuteNY(ms)}
        </button>
      </td>
      <td className={cn(CELL, "text-left font-semibold")}>{symbol}</td>
      <td className={cn(CELL, "text-left font-medium", side === "BUY" ? "text-up" : "text-down")}>
        {side}
      </td>
      <td className={cn(CELL, "text-left text-muted @max-2xl:hidden")}>{model}</td>
      <td className={CELL}>{compact(shares)}</td>
      <td className={CELL}>{price(fill.price)}</td>
      <td className={cn(CELL, "@max-lg:hidden")}>{price(notional)}</td>
      <td className={CELL}>{price(fillCost(fill))}</td>
    </tr>
  );
}
