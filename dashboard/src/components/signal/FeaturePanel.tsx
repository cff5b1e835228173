"use client";

import { Badge } from "@/components/ui/badge";
import { signed } from "@/lib/format";
import { useSymbolView } from "@/lib/market/hooks";

const LABELS: Record<string, string> = {
  log_return_1: "Log return, 1",
  momentum_10: "Momentum, 10",
  volatility_20: "Volatility, 20",
  volume_ratio_20: "Volume ratio, 20",
  rsi_14: "RSI, 14",
  macd_hist_12_26_9: "MACD histogram",
  bollinger_position_20_2: "Bollinger position",
  sma_ratio_5: "SMA ratio, 5",
  sma_ratio_15: "SMA ratio, 15",
  sma_ratio_60: "SMA ratio, 60",
  spread_bps: "Spread, bps",
};

/** What the policy sees of the market: the 11 features of the last closed bar, and how they form. */
export function FeaturePanel({ symbol }: { symbol: string }) {
  const { features, forming } = useSymbolView(symbol);
  const names = Object.keys(features?.values ?? forming?.values ?? {});
  if (names.length === 0)
    return <p className="text-muted text-xs">Come with the next closed bar.</p>;
  return (
    <>
      <Flags symbol={symbol} />
      <table className="w-full text-xs" data-testid="features">
        <thead>
          <tr className="text-2xs text-muted">
            <th scope="col" className="pb-0.5 text-left font-normal">
              <span className="sr-only">Feature</span>
            </th>
            <th scope="col" className="pb-0.5 text-right font-normal">
              Decided on
            </th>
            <th
              scope="col"
              className="w-18 pb-0.5 text-right font-normal"
              title="Of the bar that still forms: provisional, nothing is decided on it"
            >
              Forming
            </th>
          </tr>
        </thead>
        <tbody>
          {names.map((name) => (
            <tr key={name} title={name}>
              <th scope="row" className="py-[3px] text-left font-normal text-muted">
                {LABELS[name] ?? name}
              </th>
              <td className="text-right">{featureText(name, features?.values[name])}</td>
              <td className="text-right text-muted italic">
                {featureText(name, forming?.values[name])}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Flags({ symbol }: { symbol: string }) {
  const { features } = useSymbolView(symbol);
  const { gap, spread_assumed, warm } = features ?? {};
  if (!gap && !spread_assumed && warm !== false) return null;
  return (
    <div className="mb-1.5 flex gap-1">
      {gap && <Badge tone="warn">Gap</Badge>}
      {spread_assumed && <Badge title="This source has no quotes">Spread assumed</Badge>}
      {warm === false && <Badge tone="warn">Warming up</Badge>}
    </div>
  );
}

/** What cannot be negative has no sign; two places for what is large, four for what is small. */
const UNSIGNED = new Set(["volatility_20", "volume_ratio_20", "rsi_14", "spread_bps"]);
const COARSE = new Set(["volume_ratio_20", "rsi_14", "spread_bps"]);

function featureText(name: string, value: number | null | undefined): string {
  const text = signed(value, COARSE.has(name) ? 2 : 4);
  return UNSIGNED.has(name) ? text.replace("+", "") : text;
}
