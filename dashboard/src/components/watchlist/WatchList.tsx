"use client";

import { type KeyboardEvent, useEffect, useMemo, useRef, useState } from "react";
import { SearchIcon } from "@/components/ui/icons";
import { Skeleton } from "@/components/ui/skeleton";
import { nameOf } from "@/lib/market/names";
import { WatchRow } from "./WatchRow";

interface Props {
  symbols: readonly string[] | undefined;
  selected: string | null;
  onSelect: (symbol: string) => void;
}

export function WatchList({ symbols, selected, onSelect }: Props) {
  const [search, setSearch] = useState("");
  const list = useRef<HTMLDivElement>(null);
  const shown = useMemo(() => filterSymbols(symbols ?? [], search), [symbols, search]);

  useEffect(() => {
    const row = selected && list.current?.querySelector(`#watch-${CSS.escape(selected)}`);
    if (row) row.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [selected]);

  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!step || (event.target instanceof HTMLInputElement && event.key.match(/Left|Right/)))
      return;
    event.preventDefault();
    const at = selected ? shown.indexOf(selected) : -1;
    const next = shown[Math.min(shown.length - 1, Math.max(0, at + step))];
    if (next) onSelect(next);
  };

  return (
    <section
      aria-label="Watch-list"
      className="flex min-h-0 w-full min-w-0 flex-col max-lg:py-2"
      onKeyDown={onKeyDown}
    >
      <label className="hidden h-11 shrink-0 items-center gap-2 border-line border-b px-4 text-muted focus-within:text-text lg:flex">
        <SearchIcon />
        <span className="sr-only">Search symbols</span>
        <input
          type="search"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
          placeholder="Search symbols"
          className="w-full bg-transparent text-text outline-none placeholder:text-muted"
        />
      </label>
      <div
        ref={list}
        role="listbox"
        aria-label="Symbols"
        aria-activedescendant={selected ? `watch-${selected}` : undefined}
        tabIndex={0}
        className="no-scrollbar flex min-h-0 flex-1 snap-x scroll-px-4 gap-2 overflow-x-auto px-4 lg:block lg:overflow-y-auto lg:overflow-x-hidden lg:px-0 lg:py-1 lg:[scrollbar-width:thin]"
      >
        {shown.map((symbol) => (
          <WatchRow
            key={symbol}
            symbol={symbol}
            selected={symbol === selected}
            onSelect={onSelect}
          />
        ))}
        {symbols === undefined && <Loading />}
        {symbols !== undefined && shown.length === 0 && (
          <p className="px-4 py-3 text-muted">
            {search ? "No symbol matches." : "No symbols yet."}
          </p>
        )}
      </div>
    </section>
  );
}

export function filterSymbols(symbols: readonly string[], search: string): string[] {
  const wanted = search.trim().toLowerCase();
  return symbols.filter((s) => `${s} ${nameOf(s)}`.toLowerCase().includes(wanted));
}

const PLACES = Array.from({ length: 12 }, (_, place) => place);

function Loading() {
  return PLACES.map((place) => (
    <div key={place} className="flex h-[37px] items-center gap-3 lg:px-4">
      <Skeleton className="h-4 w-24" />
      <Skeleton className="ml-auto hidden h-4 w-14 lg:block" />
    </div>
  ));
}
