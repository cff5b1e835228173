"use client";

import { Skeleton } from "@/components/ui/skeleton";
import type { StageRow } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { count } from "@/lib/format";
import { useSystem } from "@/lib/market/hooks";
import { type Stage, stagesOf } from "@/lib/market/stages";
import { Balance } from "./Balance";

const COLUMNS: readonly [keyof StageRow, string, string?][] = [
  ["received", "Received"],
  ["stored", "Stored"],
  ["duplicates", "Copies", "Copies that were sent again, and dropped"],
  ["quarantined", "Apart", "Messages that nobody may use, kept in quarantine"],
  ["in_flight", "In flight"],
  ["imbalance", "Imbalance", "0, or somebody counts wrong, or so many messages are nowhere"],
  ["holes", "Holes", "Holes in the numbering of records: losses"],
  ["gaps", "Gaps", "Interruptions that were declared"],
];
const BAD = new Set<keyof StageRow>(["imbalance", "holes"]);
const CELL = "whitespace-nowrap px-2 text-right @max-xl:px-1.5";

/** The ledger stage by stage, and the balance that it promises. */
export function LedgerStages() {
  const ledger = useSystem()?.ledger;
  if (!ledger) return <Skeleton className="mx-4 my-2 h-24" />;
  return (
    <div className="pb-2" data-testid="ledger-stages">
      <Balance ledger={ledger} />
      <div className="overflow-x-auto">
        <table className="w-full text-xs @max-xl:text-2xs">
          <caption className="sr-only">
            Of each stage: received is stored, copies, apart, in flight and imbalance together.
          </caption>
          <thead className="text-2xs text-muted">
            <tr>
              <th scope="col" className="py-0.5 pr-2 pl-4 text-left font-normal">
                Stage
              </th>
              {COLUMNS.map(([key, label, title]) => (
                <th key={key} scope="col" title={title} className={cn(CELL, "font-normal")}>
                  {label}
                </th>
              ))}
              <th scope="col" className="w-full px-4 text-left font-normal @max-3xl:hidden">
                Besides
              </th>
            </tr>
          </thead>
          <tbody>
            {stagesOf(ledger).map((stage) => (
              <StageLine key={stage.name} stage={stage} />
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}

function StageLine({ stage: { name, about, row, more } }: { stage: Stage }) {
  return (
    <tr title={about}>
      <th scope="row" className="py-[3px] pr-2 pl-4 text-left font-medium">
        {name}
      </th>
      {row ? (
        COLUMNS.map(([key]) => (
          <td key={key} className={cn(CELL, toneOf(key, row))}>
            {count(row[key] as number)}
          </td>
        ))
      ) : (
        <td colSpan={COLUMNS.length} className="px-2 text-down">
          Does not answer
        </td>
      )}
      <td className="truncate px-4 text-muted @max-3xl:hidden">{more.join(", ")}</td>
    </tr>
  );
}

function toneOf(key: keyof StageRow, row: StageRow): string | undefined {
  if (row[key] === 0) return "text-muted";
  return BAD.has(key) ? "font-medium text-down" : undefined;
}
