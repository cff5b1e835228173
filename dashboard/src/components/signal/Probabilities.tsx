import type { Action } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { percent } from "@/lib/format";

const ACTIONS: readonly Action[] = ["HOLD", "BUY", "SELL"];
const ORDER: readonly Action[] = ["BUY", "HOLD", "SELL"];
const FILL: Record<Action, string> = { HOLD: "bg-muted", BUY: "bg-up", SELL: "bg-down" };

/** The probability of each action, as bars; the chosen one stands out. */
export function Probabilities({ values, chosen }: { values: number[] | null; chosen: Action }) {
  if (!values) return null;
  return (
    <dl className="mt-2 flex flex-col gap-1.5">
      {ORDER.map((action) => {
        const p = values[ACTIONS.indexOf(action)] ?? 0;
        const dim = action !== chosen;
        return (
          <div key={action} className="grid grid-cols-[36px_1fr_44px] items-center gap-2 text-xs">
            <dt className={cn("font-medium", dim && "text-muted")}>{action}</dt>
            <dd aria-hidden className="h-1.5 overflow-hidden rounded-full bg-raised">
              <div
                className={cn(
                  "h-full rounded-full transition-[width] duration-300",
                  FILL[action],
                  dim && "opacity-45",
                )}
                style={{ width: `${Math.min(100, Math.max(0, p * 100))}%` }}
              />
            </dd>
            <dd className={cn("text-right", dim && "text-muted")}>{percent(p)}</dd>
          </div>
        );
      })}
    </dl>
  );
}
