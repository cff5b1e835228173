import { Badge, type Tone } from "@/components/ui/badge";
import type { Action } from "@/lib/api/types";
import { cn } from "@/lib/cn";

export const ACTION_TONE: Record<Action, Tone> = { HOLD: "neutral", BUY: "up", SELL: "down" };

/** The latest action of a symbol; a HOLD is said quietly. */
export function ActionChip({ action }: { action: Action | null }) {
  if (!action) return null;
  return (
    <Badge
      tone={ACTION_TONE[action]}
      className={cn(
        "h-3.5 rounded-[3px] px-1 font-semibold text-[9px] tracking-wide",
        action === "HOLD" && "bg-transparent px-0 font-medium",
      )}
    >
      {action}
    </Badge>
  );
}
