import { memo } from "react";

const W = 56;
const H = 20;

interface Props {
  values: readonly number[];
  base: number | null;
}

/** The last closes as a line; green above the session's open, red below. */
export const Sparkline = memo(function Sparkline({ values, base }: Props) {
  if (values.length < 2) return <svg aria-hidden="true" width={W} height={H} />;
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const points = values
    .map(
      (v, i) =>
        `${((i / (values.length - 1)) * (W - 2) + 1).toFixed(1)},${(H - 2 - ((v - low) / span) * (H - 4)).toFixed(1)}`,
    )
    .join(" ");
  const rises = (values.at(-1) ?? 0) >= (base ?? values[0] ?? 0);
  return (
    <svg aria-hidden="true" width={W} height={H} className={rises ? "stroke-up" : "stroke-down"}>
      <polyline points={points} fill="none" strokeWidth="1.25" strokeLinejoin="round" />
    </svg>
  );
});
