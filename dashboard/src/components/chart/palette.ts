/** The chart's colours, read from the page's own variables, so that both follow the theme. */
export type Palette = Record<(typeof NAMES)[number], string>;

const NAMES = [
  "text",
  "muted",
  "grid",
  "line",
  "line-strong",
  "raised",
  "surface",
  "up",
  "down",
  "warn",
  "accent",
  "volume-up",
  "volume-down",
  "series-1",
  "series-2",
  "series-3",
  "series-4",
  "series-5",
  "series-6",
  "series-7",
  "series-8",
  "series-9",
  "series-10",
] as const;

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const entries = NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]);
  return Object.fromEntries(entries) as Palette;
}

/** A colour of the palette by a name that may not be one of its own. */
export function colorOf(palette: Palette, name: string): string {
  return palette[name as keyof Palette] ?? palette.text;
}
