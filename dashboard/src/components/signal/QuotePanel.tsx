"use client";

import { Panel, Row } from "@/components/ui/panel";
import { count, price } from "@/lib/format";
import { useSymbolView } from "@/lib/market/hooks";

/** The newest quote and trade of a symbol. */
export function QuotePanel({ symbol }: { symbol: string }) {
  const { quote, trade } = useSymbolView(symbol);
  const spread = quote && quote.bid > 0 && quote.ask > 0 ? quote.ask - quote.bid : null;
  const mid = quote ? (quote.ask + quote.bid) / 2 : null;
  const bps = spread !== null && mid ? (spread / mid) * 10_000 : null;
  return (
    <Panel title="Quote">
      <div className="mb-1.5 grid grid-cols-2 gap-px overflow-hidden rounded-md bg-line">
        <Side name="Bid" value={quote?.bid} size={quote?.bid_size} color="text-up" />
        <Side name="Ask" value={quote?.ask} size={quote?.ask_size} color="text-down" />
      </div>
      <dl>
        <Row label="Spread">
          {price(spread)}{" "}
          {bps !== null && <span className="text-muted">({bps.toFixed(1)} bps)</span>}
        </Row>
        <Row label="Last trade">
          {trade ? `${price(trade.price)} × ${count(trade.size)}` : "–"}
          {trade?.exchange && <span className="text-muted"> on {trade.exchange}</span>}
        </Row>
      </dl>
    </Panel>
  );
}

interface SideProps {
  name: string;
  value: number | undefined;
  size: number | undefined;
  color: string;
}

function Side({ name, value, size, color }: SideProps) {
  return (
    <div className="bg-raised/60 px-2.5 py-1.5">
      <div className="flex justify-between text-2xs text-muted">
        <span>{name}</span>
        <span title="Size">{count(size)}</span>
      </div>
      {value === undefined ? (
        <div className="text-[15px] text-muted">–</div>
      ) : (
        <div className={`font-semibold text-[15px] ${color}`}>
          {value > 0 ? price(value) : "none"}
        </div>
      )}
    </div>
  );
}
