import type { StatsData } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { count, price } from "@/lib/format";
import { rangesOf } from "@/lib/market/ranges";

interface Props {
  buckets: NonNullable<StatsData["buckets"]>;
  last: number | null;
}

/** How many trades each range of prices saw in this session; the range of the last price stands out. */
export function PriceRanges({ buckets, last }: Props) {
  const ranges = rangesOf(buckets);
  const most = Math.max(1, ...ranges.map(({ trades }) => trades));
  const [first, end] = [ranges[0], ranges.at(-1)];
  if (!first || !end) return null;
  return (
    <figure className="mb-1.5" aria-label="Trades by range of prices">
      <div aria-hidden className="flex h-12 items-end gap-px">
        {ranges.map(({ low, high, trades }) => (
          <span
            key={low}
            title={`${price(low)} to ${price(high)}: ${count(trades)} trades`}
            className={cn(
              "min-w-px flex-1 rounded-t-[1px] bg-muted/45",
              last !== null && last >= low && last < high && "bg-accent",
            )}
            style={{ height: `${Math.max(trades ? 4 : 0, (trades / most) * 100)}%` }}
          />
        ))}
      </div>
      <figcaption className="mt-1 flex justify-between border-line border-t pt-1 text-2xs text-muted">
        <span>{price(first.low)}</span>
        <span>trades by price</span>
        <span>{price(end.high)}</span>
      </figcaption>
    </figure>
  );
}
