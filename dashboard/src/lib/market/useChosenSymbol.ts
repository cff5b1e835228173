import { useCallback, useEffect, useState } from "react";

/** The chosen symbol: from `?symbol=`, else the first of the list; kept in the address. */
export function useChosenSymbol(
  symbols: readonly string[] | undefined,
): [string | null, (symbol: string) => void] {
  const [symbol, setSymbol] = useState<string | null>(null);

  useEffect(() => {
    if (!symbols) return;
    const asked = new URLSearchParams(location.search).get("symbol")?.toUpperCase();
    setSymbol((now) => now ?? (asked && symbols.includes(asked) ? asked : (symbols[0] ?? null)));
  }, [symbols]);

  useEffect(() => {
    if (symbol) document.title = `${symbol} · raytape`;
  }, [symbol]);

  const choose = useCallback((next: string) => {
    setSymbol(next);
    const url = new URL(location.href);
    url.searchParams.set("symbol", next);
    history.replaceState(history.state, "", url);
  }, []);

  return [symbol, choose];
}
