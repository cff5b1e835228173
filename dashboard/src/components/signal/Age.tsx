"use client";

import { age } from "@/lib/format";
import { useMarket } from "@/lib/market/context";
import { useNow } from "@/lib/market/hooks";

interface Props {
  /** Age when the answer came, market milliseconds. */
  ageMs: number | null;
  /** When it came, milliseconds of the wall clock. */
  answeredAt: number;
}

/** Time on the market's clock since the bar of a decision closed, ticking between two answers. */
export function Age({ ageMs, answeredAt }: Props) {
  const { store } = useMarket();
  const now = useNow(200) ?? answeredAt;
  const ms = ageMs === null ? null : ageMs + Math.max(0, now - answeredAt) * store.clock.pace;
  return <span data-testid="signal-age">{age(ms)}</span>;
}
