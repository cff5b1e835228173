import { AlertIcon, CheckIcon } from "@/components/ui/icons";
import type { Ledger } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { count, percent } from "@/lib/format";
import { storedShare, type Verdict, verdictOf } from "@/lib/market/ledger";

const TONE: Record<Verdict, { text: string; disc: string }> = {
  accounted: { text: "text-up", disc: "bg-up/12 text-up" },
  lost: { text: "text-down", disc: "bg-down/12 text-down" },
  surplus: { text: "text-down", disc: "bg-down/12 text-down" },
  unknown: { text: "text-muted", disc: "bg-raised text-muted" },
};

function titleOf(verdict: Verdict, ledger: Ledger): string {
  if (verdict === "accounted") return "Every message accounted for";
  if (verdict === "unknown") return "A stage does not answer";
  if (verdict === "surplus")
    return `${count(Math.abs(ledger.imbalance ?? 0))} more stored than received`;
  const lost = Math.max(ledger.lost ?? 0, ledger.holes ?? 0);
  if (lost === 0) return `${count(ledger.imbalance)} sent, and in no table`;
  return `${count(lost)} ${lost === 1 ? "hole" : "holes"} in the stream`;
}

/** The one line a person looks for: is everything there? */
export function VerdictBadge({ ledger, live }: { ledger: Ledger; live: boolean }) {
  const known = verdictOf(ledger);
  // What was true before the stream was lost is no promise about now.
  const wrong = known === "lost" || known === "surplus";
  const verdict = live || wrong ? known : "unknown";
  const { text, disc } = TONE[verdict];
  return (
    <div
      className="flex items-center gap-2.5 lg:w-56 lg:shrink-0"
      data-testid="ledger-verdict"
      data-verdict={verdict}
    >
      <span className={cn("grid size-7 shrink-0 place-items-center rounded-full", disc)}>
        {verdict === "accounted" ? <CheckIcon /> : <AlertIcon />}
      </span>
      <div className="min-w-0 leading-[17px]">
        <p className={cn("font-medium", text)}>
          {live || wrong ? titleOf(verdict, ledger) : "Waiting for the stream"}
        </p>
        <p className="text-2xs text-muted">
          {percent(storedShare(ledger))} {live ? "stored in the lake" : "stored, as last heard"}
        </p>
      </div>
    </div>
  );
}
