"use client";

import { Popover } from "@/components/ui/popover";
import { cn } from "@/lib/cn";
import { toggled } from "@/lib/market/chartPrefs";
import { STUDIES, VOLUME } from "@/lib/market/studies";

interface Props {
  studies: readonly string[];
  onStudies: (studies: readonly string[]) => void;
}

const GROUPS = [
  {
    title: "On the prices",
    items: [
      { id: VOLUME, label: "Volume", color: "muted" },
      ...STUDIES.filter(({ group }) => group === "overlay").map(itemOf),
    ],
  },
  {
    title: "In a pane below",
    items: STUDIES.filter(({ group }) => group === "pane").map(itemOf),
  },
];

function itemOf({ id, label, short, lines }: (typeof STUDIES)[number]) {
  return { id, label: short ?? label, color: lines.at(-1)?.color ?? "text" };
}

/** Switches what is drawn beside the candles. */
export function StudyMenu({ studies, onStudies }: Props) {
  return (
    <Popover label="Indicators" count={studies.length}>
      {GROUPS.map(({ title, items }) => (
        <fieldset key={title} className="not-first:mt-3">
          <legend className="eyebrow mb-1.5">{title}</legend>
          <div className="grid grid-cols-2 gap-x-4">
            {items.map(({ id, label, color }) => (
              <label
                key={id}
                className="-mx-1.5 flex h-8 cursor-pointer items-center gap-2 rounded px-1.5 text-xs hover:bg-raised"
              >
                <input
                  type="checkbox"
                  checked={studies.includes(id)}
                  onChange={() => onStudies(toggled(studies, id))}
                  className="size-3.5 accent-(--accent)"
                />
                <span className={cn("truncate", !studies.includes(id) && "text-muted")}>
                  {label}
                </span>
                <span
                  aria-hidden
                  className={cn(
                    "ml-auto h-0.5 w-3 shrink-0 rounded-full",
                    !studies.includes(id) && "opacity-40",
                  )}
                  style={{ background: `var(--${color})` }}
                />
              </label>
            ))}
          </div>
        </fieldset>
      ))}
    </Popover>
  );
}
