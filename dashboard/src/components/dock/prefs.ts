export type DockTab = "anomalies" | "fills" | "ledger" | "health";

/** How the viewer left the panel of events. */
export interface DockPrefs {
  open: boolean;
  tab: DockTab;
  /** Whether only the chosen symbol's events are listed. */
  onlySymbol: boolean;
}

const TABS: readonly DockTab[] = ["anomalies", "fills", "ledger", "health"];

export function readDockPrefs(value: unknown): DockPrefs {
  const { open, tab, onlySymbol } = (value ?? {}) as Partial<Record<keyof DockPrefs, unknown>>;
  return {
    open: open !== false,
    tab: TABS.find((known) => known === tab) ?? "anomalies",
    onlySymbol: onlySymbol === true,
  };
}
