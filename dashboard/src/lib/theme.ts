import { useSyncExternalStore } from "react";

export type Theme = "dark" | "light";

function subscribe(listener: () => void): () => void {
  const observer = new MutationObserver(listener);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return () => observer.disconnect();
}

function current(): Theme {
  return document.documentElement.dataset.theme === "light" ? "light" : "dark";
}

/** The theme, which lives on `<html data-theme>` and is remembered in the browser. */
export function useTheme(): [Theme, (theme: Theme) => void] {
  const theme = useSyncExternalStore(subscribe, current, () => "dark" as const);
  return [theme, setTheme];
}

function setTheme(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("raytape-theme", theme);
  } catch {
    // Storage is refused: the choice lasts as long as the page.
  }
}
