/** The chart's colours, read from the page's own variables, so that both follow the theme. */
export interface Palette {
  text: string;
  muted: string;
  grid: string;
  line: string;
  raised: string;
  up: string;
  down: string;
  volumeUp: string;
  volumeDown: string;
}

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const get = (name: string) => style.getPropertyValue(name).trim();
  return {
    text: get("--text"),
    muted: get("--muted"),
    grid: get("--grid"),
    line: get("--line-strong"),
    raised: get("--raised"),
    up: get("--up"),
    down: get("--down"),
    volumeUp: get("--volume-up"),
    volumeDown: get("--volume-down"),
  };
}
