"use client";

import type { Study } from "@/lib/market/studies";
import { texts } from "./reading";
import type { Reading } from "./usePriceChart";

interface Props {
  reading: Reading;
  studies: readonly Study[];
}

/** The overlays' values, each beside a stroke of its colour. */
export function OverlayLegend({ reading, studies }: Props) {
  const overlays = studies.filter(({ group }) => group === "overlay");
  if (overlays.length === 0) return null;
  return (
    <div className="flex flex-wrap gap-x-3">
      {overlays.map((study) => (
        <StudyValue key={study.id} study={study} reading={reading} />
      ))}
    </div>
  );
}

/** Name and values of each pane below the prices, at its own top. */
export function PaneLegends({ reading, studies, tops }: Props & { tops: readonly number[] }) {
  const panes = studies.filter(({ group }) => group === "pane");
  return panes.map((study, at) => {
    const top = tops[at + 1];
    return top === undefined ? null : (
      <div
        key={study.id}
        style={{ top: top + 4 }}
        className="pointer-events-none absolute left-2.5 z-10 rounded bg-surface/75 px-1.5 text-2xs"
      >
        <StudyValue study={study} reading={reading} />
      </div>
    );
  });
}

function StudyValue({ study, reading }: { study: Study; reading: Reading }) {
  const values = texts(study, reading.values[study.id]);
  // Bands share one colour: one stroke stands for all of them.
  const single = new Set(study.lines.map(({ color }) => color)).size === 1;
  return (
    <span className="flex items-center gap-1.5">
      {single && <Stroke color={study.lines[0]?.color} />}
      <span className="text-muted">{study.label}</span>
      {study.lines.map(({ name, color, kind }, at) => (
        <span key={name} className="flex items-center gap-1">
          {!single && kind === "line" && <Stroke color={color} />}
          {values[at]}
        </span>
      ))}
    </span>
  );
}

function Stroke({ color }: { color: string | undefined }) {
  return (
    <span
      aria-hidden
      className="h-0.5 w-2.5 shrink-0 rounded-full"
      style={{ background: `var(--${color})` }}
    />
  );
}
