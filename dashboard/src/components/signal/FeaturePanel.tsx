"use client";

import { Badge } from "@/components/ui/badge";
import { Panel, Row } from "@/components/ui/panel";
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

/** What the policy sees of the market: the 11 features of the last closed bar. */
export function FeaturePanel({ symbol }: { symbol: string }) {
  const { features } = useSymbolView(symbol);
  const rows = Object.entries(features?.values ?? {});
  return (
    <Panel
      title="What the policy sees"
      aside={
        features && (
          <span className="flex gap-1">
            {features.gap && <Badge tone="warn">Gap</Badge>}
            {features.spread_assumed && (
              <Badge title="This source has no quotes">Spread assumed</Badge>
            )}
            {features.warm === false && <Badge tone="warn">Warming up</Badge>}
          </span>
        )
      }
    >
      {rows.length === 0 ? (
        <p className="text-muted text-xs">Comes with the next closed bar.</p>
      ) : (
        <dl>
          {rows.map(([name, value]) => (
            <Row key={name} label={LABELS[name] ?? name} title={name}>
              <span className={value === null ? "text-muted" : undefined}>
                {featureText(name, value)}
              </span>
            </Row>
          ))}
        </dl>
      )}
    </Panel>
  );
}

/** What cannot be negative has no sign; two places for what is large, four for what is small. */
const UNSIGNED = new Set(["volatility_20", "volume_ratio_20", "rsi_14", "spread_bps"]);
const COARSE = new Set(["volume_ratio_20", "rsi_14", "spread_bps"]);

function featureText(name: string, value: number | null): string {
  const text = signed(value, COARSE.has(name) ? 2 : 4);
  return UNSIGNED.has(name) ? text.replace("+", "") : text;
}
