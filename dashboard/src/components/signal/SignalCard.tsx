"use client";

import { Badge } from "@/components/ui/badge";
import { Panel, Row } from "@/components/ui/panel";
import { Skeleton } from "@/components/ui/skeleton";
import type { Action, SignalAnswer } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { minuteOf, percent, signed } from "@/lib/format";
import { useSignal } from "@/lib/market/hooks";
import { Age } from "./Age";
import { Probabilities } from "./Probabilities";
import { reasonOf } from "./reasons";

const COLOR: Record<Action, string> = { HOLD: "text-text", BUY: "text-up", SELL: "text-down" };

/** The latest decision of the policy about a symbol. */
export function SignalCard({ symbol }: { symbol: string }) {
  const { data, isPending, dataUpdatedAt } = useSignal(symbol);
  const model = data?.model;
  return (
    <Panel
      title="Signal"
      aside={
        model && (
          <Badge title={model.fingerprint ? `Feature set ${model.fingerprint}` : undefined}>
            {model.id} v{String(model.version).replace(/^v/, "")}
          </Badge>
        )
      }
    >
      {isPending && <Loading />}
      {!isPending && !data && <p className="py-2 text-muted">No signal of {symbol} yet.</p>}
      {data && <Decision signal={data} answeredAt={dataUpdatedAt} />}
    </Panel>
  );
}

function Decision({ signal, answeredAt }: { signal: SignalAnswer; answeredAt: number }) {
  const reason = signal.reason ? reasonOf(signal.reason) : null;
  return (
    <>
      <div className="flex items-baseline justify-between">
        <span
          data-testid="signal-action"
          className={cn(
            "font-semibold text-[32px] leading-10 tracking-tight",
            COLOR[signal.action],
          )}
        >
          {signal.action}
        </span>
        <span className="text-right">
          <span className="font-semibold text-lg">{percent(signal.confidence, 0)}</span>
          <span className="ml-1.5 text-muted text-xs">confidence</span>
        </span>
      </div>
      {reason && (
        <div className="mt-1 rounded-md bg-warn/10 px-2.5 py-1.5 text-xs">
          <span className="font-medium text-warn">{reason.title}.</span> {reason.detail}
        </div>
      )}
      <Probabilities values={signal.probabilities} chosen={signal.action} />
      <dl className="mt-2">
        <Row label="Age" title="Market time since the bar that it was decided on closed">
          <Age ageMs={signal.data_age_ms} answeredAt={answeredAt} />
        </Row>
        <Row label="Decided on bar">{minuteOf(signal.event_time)}</Row>
        <Row label="Value" title="The policy's estimate of the return from here">
          {signed(signal.value, 3)}
        </Row>
        <Row label="Position / cash" title="Of the paper account that the policy assumed">
          {percent(signal.position_fraction, 0)} / {percent(signal.cash_fraction, 0)}
        </Row>
      </dl>
    </>
  );
}

function Loading() {
  return (
    <div className="flex flex-col gap-3">
      <Skeleton className="h-9 w-28" />
      <Skeleton className="h-16 w-full" />
      <Skeleton className="h-20 w-full" />
    </div>
  );
}
